"""The tables of version 0.1."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("username", sa.String(100), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audiences",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("max_lifetime_minutes", sa.Integer(), nullable=False),
        sa.Column("latest_expiry", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_audiences"),
        sa.UniqueConstraint("name", name="uq_audiences_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "roles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("audience_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("max_lifetime_minutes", sa.Integer(), nullable=False),
        sa.Column("latest_expiry", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_roles"),
        sa.ForeignKeyConstraint(
            ["audience_id"], ["audiences.id"], name="fk_roles_audience_id_audiences"
        ),
        sa.UniqueConstraint("audience_id", "name", name="uq_roles_audience_id_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "grants",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "role_id", name="pk_grants"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_grants_user_id_users", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["role_id"], ["roles.id"], name="fk_grants_role_id_roles", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.Integer()),
        sa.Column("idempotency_key", sa.String(200)),
        sa.Column("requested_minutes", sa.Integer()),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("audience_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("jti", sa.String(36), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.ForeignKeyConstraint(["parent_id"], ["tokens.id"], name="fk_tokens_parent_id_tokens"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_tokens_owner_id_users"),
        sa.ForeignKeyConstraint(
            ["audience_id"], ["audiences.id"], name="fk_tokens_audience_id_audiences"
        ),
        sa.UniqueConstraint("jti", name="uq_tokens_jti"),
        sa.UniqueConstraint(
            "parent_id", "idempotency_key", name="uq_tokens_parent_id_idempotency_key"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tokens_name", "tokens", ["name"])
    op.create_index("ix_tokens_owner_id_audience_id", "tokens", ["owner_id", "audience_id"])
    op.create_table(
        "token_roles",
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.Column("role_name", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("token_id", "role_id", name="pk_token_roles"),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="fk_token_roles_token_id_tokens"),
    )
