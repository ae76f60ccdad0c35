"""The rules of minting and renewal: which roles a token may have, and for how long.

They read no database; every refusal is a `Refused` with FlowAuth's status and message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.tokens import LONGEST_NAME
from flowauth_rotator.server.accounts import MINUTE, Audience, HeldRoles, Role
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.history import HistoryRow, RecordedRole


def refuse_expired(parent: HistoryRow, expired_at: int) -> None:
    """Refuse to renew a row that had expired by then."""
    if parent.expires_at <= expired_at:
        raise Refused(
            400,
            f"This token expired at {_format_epoch(parent.expires_at)} and cannot be renewed; "
            "mint a new token instead.",
            "token_id",
        )


def refuse_revoked(parent: HistoryRow) -> None:
    """Refuse to renew a row that was revoked."""
    if parent.revoked_at is not None:
        raise Refused(
            401,
            f"This token was revoked at {_format_epoch(parent.revoked_at)} and cannot be "
            "renewed; mint a new token instead.",
            "token_id",
        )


def compute_family_end(parent: HistoryRow, max_family_age: int, now: int) -> int:
    """Return the latest expiry of a row's descendants; refuse if that has passed."""
    family_ends_at = parent.family_began_at + max_family_age
    if family_ends_at <= now:
        raise Refused(
            401,
            f"Token for {parent.owner} cannot be renewed: its first ancestor was issued at "
            f"{_format_epoch(parent.family_began_at)}; mint a new token instead.",
            "token_id",
        )
    return family_ends_at


def record_roles(roles: Sequence[Role]) -> tuple[RecordedRole, ...]:
    """Return the roles as the history records them."""
    return tuple(RecordedRole(role.id, role.name) for role in roles)


def _format_epoch(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, timezone.utc))


def select_renewed_roles(parent: HistoryRow, held: Sequence[Role]) -> tuple[Role, ...]:
    """Return the current roles of a row; refuse if its owner has lost any of them.

    Roles are compared by id: a new role with the name of a deleted one is another role.
    """
    if not parent.roles:
        raise Refused(
            400,
            "This token has no roles recorded against it and cannot be renewed; "
            "mint a new token instead.",
            "token_id",
        )
    by_id = {role.id: role for role in held}
    missing = sorted(role.name for role in parent.roles if role.id not in by_id)
    if missing:
        raise Refused(
            401,
            "Cannot renew: the following roles are no longer assigned to you: "
            + ", ".join(missing),
        )
    return tuple(by_id[role.id] for role in parent.roles)


def select_roles(names: Sequence[str], held: HeldRoles, owner: str) -> tuple[Role, ...]:
    """Return the named roles, sorted by name; refuse a role that is not held or named twice."""
    if not names:
        raise Refused(400, "No roles.", "roles")
    by_name = {role.name: role for role in held.roles}
    for name in names:
        if name not in by_name:
            audience = held.audience.name
            raise Refused(
                401,
                f"Role '{name}' is not permitted for the current user",
                "roles",
                reason="A requested role is not permitted for the user",
                operator_message=f"User {owner!r} does not have role {name!r} on audience "
                f"{audience!r}, only: {', '.join(by_name) or 'none'}. Grant it with: "
                f"flowauth-rotator server grant {owner} {name} --audience {audience}",
            )
    if len(set(names)) != len(names):
        raise Refused(400, "Each role can be named only once.", "roles")
    return tuple(by_name[name] for name in sorted(names))


def validate_name(name: str) -> str:
    """Return the name of a token if it is valid."""
    if not (name.strip() and name.isprintable() and len(name) <= LONGEST_NAME):
        raise Refused(400, f"name must have 1 to {LONGEST_NAME} printable characters.", "name")
    return name


def validate_minutes(lifetime_minutes: object) -> int | None:
    """Return the requested lifetime, or None for the longest permitted one."""
    if lifetime_minutes is None:
        return None
    if type(lifetime_minutes) is int and lifetime_minutes > 0:  # bool is a subclass of int
        return lifetime_minutes
    raise Refused(400, "lifetime_minutes must be a positive integer", "lifetime_minutes")


@dataclass(frozen=True)
class TightestLimit:
    """The limit that decides the latest expiry of a token.

    Attributes:
        latest_expiry: In seconds since the epoch.
        description: The limit, and the command that changes it, for the operator.
    """

    latest_expiry: int
    description: str

    def cap(self, latest_expiry: int) -> TightestLimit:
        """Return this limit, but not later than a time."""
        return replace(self, latest_expiry=min(self.latest_expiry, latest_expiry))


def compute_latest_expiry(
    audience: Audience, roles: Sequence[Role], owner: str, now: int, verb: str
) -> TightestLimit:
    """Return the latest expiry that the audience and every role permit."""
    holders: list[Audience | Role] = [audience, *roles]
    holder = min(holders, key=lambda holder: holder.limit.compute_latest_expiry(now))
    limit = TightestLimit(
        holder.limit.compute_latest_expiry(now), _describe_limit(holder, audience.name)
    )
    if limit.latest_expiry <= now:
        raise Refused(
            401,
            f"Token for {owner} cannot be {verb}: maximum permitted expiry has already passed.",
            operator_message=f"No token can be {verb}. {limit.description}",
        )
    return limit


def _describe_limit(holder: Audience | Role, audience: str) -> str:
    maximum = f"{holder.limit.max_lifetime_minutes} minutes"
    if holder.limit.latest_expiry is not None:
        maximum += f", and no expiry after {_format_epoch(holder.limit.latest_expiry)}"
    if isinstance(holder, Role):
        who, command = f"Role {holder.name!r}", f"set-role {holder.name} --audience {audience}"
    else:
        who, command = f"Audience {holder.name!r}", f"set-audience {holder.name}"
    return f"{who} permits {maximum}. Change its limits with: flowauth-rotator server {command}"


def compute_expiry(minutes: int | None, limit: TightestLimit, now: int) -> int:
    """Return the requested expiry, or the latest permitted one; refuse a later request."""
    if minutes is None:
        return limit.latest_expiry
    if now + minutes * MINUTE > limit.latest_expiry:
        raise Refused(
            400,
            "Requested lifetime exceeds the maximum permitted by the server and original roles",
            "lifetime_minutes",
            operator_message=f"A lifetime of {minutes} minutes is too long. {limit.description}",
        )
    return now + minutes * MINUTE
