from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.core.tokens import Claims

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.fixture
def noon() -> datetime:
    """A moment."""
    return NOON


@pytest.fixture
def make_claims():
    """Claims of a token, by default issued at noon for a day."""

    def make(
        issued_at: datetime = NOON, lifetime: timedelta = timedelta(days=1), **others
    ) -> Claims:
        said = {
            "digest": "0" * 64,
            "algorithm": "RS256",
            "issued_at": issued_at,
            "not_before": issued_at,
            "expires_at": issued_at + lifetime,
            "subject": "flowbot",
            "audience": "TEST_SERVER",
            "roles": frozenset({"runner", "viewer"}),
        }
        return Claims(**{**said, **others})

    return make
