"""The tables of the database, as the latest migration leaves them.

Times are integers, seconds since the epoch in UTC.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from flowauth_rotator.core.tokens import LONGEST_NAME

metadata = MetaData(
    naming_convention={  # a later migration can only alter named constraints
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", String(100), nullable=False, unique=True),
    Column("password_hash", String(255), nullable=False),
    # Incremented by each new password, which ends all sessions of the old one.
    Column("password_number", Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)

audiences = Table(
    "audiences",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("max_lifetime_minutes", Integer, nullable=False),
    Column("latest_expiry", BigInteger),
    sqlite_autoincrement=True,
)

# Autoincrement: a new role must never get the id, and with it the tokens, of a deleted one.
roles = Table(
    "roles",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("audience_id", ForeignKey(audiences.c.id), nullable=False),
    Column("name", String(100), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("max_lifetime_minutes", Integer, nullable=False),
    Column("latest_expiry", BigInteger),
    UniqueConstraint("audience_id", "name"),
    sqlite_autoincrement=True,
)

grants = Table(
    "grants",
    metadata,
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("role_id", ForeignKey(roles.c.id, ondelete="CASCADE"), primary_key=True),
)

# One row: incremented by every change of the tables above.
revision = Table(
    "revision", metadata, Column("number", Integer, primary_key=True, autoincrement=False)
)

# Append-only: a renewal adds a row that references its parent. Only the ciphertext of a row
# changes, which is re-encrypted with a new key, and dropped when the token has expired; and
# `revoked_at`, once.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("parent_id", ForeignKey("tokens.id")),
    Column("idempotency_key", String(200)),
    Column("requested_minutes", BigInteger),
    Column("owner_id", ForeignKey(users.c.id), nullable=False),
    Column("audience_id", ForeignKey(audiences.c.id), nullable=False),
    Column("name", String(LONGEST_NAME), nullable=False),
    Column("roles", JSON, nullable=False),  # [[id, name], ...] at the time of issue
    Column("jti", String(36), nullable=False, unique=True),
    Column("kid", String(43), ForeignKey("signing_keys.kid")),
    Column("family_began_at", BigInteger, nullable=False),  # when the first ancestor was issued
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("ciphertext", LargeBinary),
    Column("revoked_at", BigInteger),
    UniqueConstraint("parent_id", "idempotency_key"),
    Index(None, "owner_id", "audience_id", "expires_at"),
    Index(None, "kid", "expires_at"),
    sqlite_autoincrement=True,
)
# The rows whose ciphertext can be dropped or re-encrypted: a partial index, which its migration
# restricts. Its condition here would import the dialect of PostgreSQL, also for SQLite.
Index("ix_tokens_with_ciphertext", tokens.c.expires_at)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(43), primary_key=True),
    Column("public_pem", Text, nullable=False),
    Column("added_at", BigInteger, nullable=False),
)

# Sessions that were signed out; their cookies are otherwise valid until `expires_at`.
ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
)

rate_counters = Table(
    "rate_counters",
    metadata,
    Column("key", Text, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
