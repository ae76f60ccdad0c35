"""Add the time at which a token was revoked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; no token is revoked yet."""
    op.add_column("tokens", sa.Column("revoked_at", sa.BigInteger()))
