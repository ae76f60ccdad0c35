"""Asset updates and metrics by which Airflow observes rotations."""

from __future__ import annotations

from urllib.parse import quote

from flowauth_rotator.core.report import Report
from flowauth_rotator.provider.compat import (
    Asset,
    AssetAlias,
    Context,
    Stats,
    update_asset,
)

ASSET_SCHEME = "flowauth://"
LONGEST_QUOTED_NAME = 1400  # characters; Airflow limits URIs of assets to 1,500
ROTATIONS = AssetAlias("flowauth_rotations")  # resolves to the assets of all tokens


def token_asset(name: str) -> Asset:
    """Return the asset `flowauth://<name>`, which each successful swap of that token updates.

    Characters that a URI cannot contain are percent-encoded (RFC 3986, section 2.1).
    """
    return Asset(build_asset_uri(name))


def build_asset_uri(name: str) -> str:
    """Return the URI of a token's asset."""
    return f"{ASSET_SCHEME}{quote(name, safe='', errors='replace')}"


def update_token_asset(context: Context, report: Report) -> None:
    """Have Airflow update the token's asset when the task succeeds, if the token was swapped.

    A token whose name is too long for a URI has no asset.
    """
    if report.successor_expires_at is None or len(quote(report.name)) > LONGEST_QUOTED_NAME:
        return
    keys = ("outcome", "predecessor_expires_at", "successor_expires_at")
    extra = {key: value for key, value in report.to_json().items() if key in keys}
    update_asset(context, ROTATIONS, token_asset(report.name), extra)


def count_outcome(report: Report) -> None:
    """Count an outcome in Airflow's own metrics, which StatsD may lose."""
    Stats.incr(f"flowauth_rotator.checks.{report.outcome}", tags={"name": report.name})
