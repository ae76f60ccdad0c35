"""Add families, signing keys, ended sessions and rate limits; make ciphertexts optional."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

tokens = sa.table(
    "tokens",
    *(sa.column(name) for name in ("id", "parent_id", "issued_at", "family_began_at")),
    sa.column("roles", sa.JSON),
)
token_roles = sa.table(
    "token_roles", *(sa.column(name) for name in ("token_id", "role_id", "role_name"))
)


def upgrade() -> None:
    """Create the new tables, fill the new columns, and move roles into the token rows."""
    op.add_column(
        "users",
        sa.Column("password_number", sa.Integer(), nullable=False, server_default="0"),
    )
    revision_table = op.create_table(
        "revision",
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("number", name="pk_revision"),
    )
    op.bulk_insert(revision_table, [{"number": 1}])
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.String(43), nullable=False),
        sa.Column("public_pem", sa.Text(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kid", name="pk_signing_keys"),
    )
    op.create_table(
        "ended_sessions",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ended_sessions"),
    )
    op.create_table(
        "rate_counters",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_rate_counters"),
    )
    op.add_column("tokens", sa.Column("roles", sa.JSON()))
    op.add_column("tokens", sa.Column("family_began_at", sa.BigInteger()))
    _fill(op.get_bind())
    _finish_tokens()
    op.drop_table("token_roles")


def _fill(connection: sa.Connection) -> None:
    """Fill roles and family start in one pass; parents have lower ids than their children."""
    roles: dict[int, list[tuple[int, str]]] = {}
    for row in connection.execute(sa.select(token_roles).order_by(token_roles.c.role_name)):
        roles.setdefault(row.token_id, []).append((row.role_id, row.role_name))
    began: dict[int, int] = {}
    change = (
        tokens.update()
        .where(tokens.c.id == sa.bindparam("row_id"))
        .values(roles=sa.bindparam("held"), family_began_at=sa.bindparam("began"))
    )
    rows = connection.execute(
        sa.select(tokens.c.id, tokens.c.parent_id, tokens.c.issued_at).order_by(tokens.c.id)
    ).all()
    for row in rows:
        began[row.id] = began.get(row.parent_id, row.issued_at)
        values = {"row_id": row.id, "held": roles.get(row.id, []), "began": began[row.id]}
        connection.execute(change, values)


def _finish_tokens() -> None:
    with op.batch_alter_table("tokens", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_index("ix_tokens_name")
        table.drop_index("ix_tokens_owner_id_audience_id")
        table.add_column(sa.Column("kid", sa.String(43)))
        table.create_foreign_key("fk_tokens_kid_signing_keys", "signing_keys", ["kid"], ["kid"])
        table.alter_column("roles", nullable=False, existing_type=sa.JSON())
        table.alter_column("family_began_at", nullable=False, existing_type=sa.BigInteger())
        table.alter_column("ciphertext", nullable=True, existing_type=sa.LargeBinary())
        table.alter_column("requested_minutes", type_=sa.BigInteger())
    op.create_index(
        "ix_tokens_owner_id_audience_id_expires_at",
        "tokens",
        ["owner_id", "audience_id", "expires_at"],
    )
    op.create_index("ix_tokens_kid_expires_at", "tokens", ["kid", "expires_at"])
    has_ciphertext = sa.column("ciphertext").is_not(None)
    op.create_index(
        "ix_tokens_with_ciphertext",
        "tokens",
        ["expires_at"],
        sqlite_where=has_ciphertext,
        postgresql_where=has_ciphertext,
    )
