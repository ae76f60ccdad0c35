"""Run the migrations in the transaction that the caller passes to Alembic."""

from alembic import context

from flowauth_rotator.server.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by recreating it
)
context.run_migrations()
