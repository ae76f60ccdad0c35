"""Asset updates and metrics by which Airflow learns of a rotation."""

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

LONGEST_QUOTED_NAME = 1400
OUTCOME = "outcome_"  # begins the key of the XCom by which a rotation is counted
ROTATIONS = AssetAlias("flowauth_rotations")  # stands for the assets of all names


def token_asset(name: str) -> Asset:
    """The asset `flowauth://<name>`, updated by each rotation of that token that ends green.

    What a URI cannot hold is percent-encoded (RFC 3986, section 2.1).
    """
    return Asset(f"flowauth://{quote(name, safe='')}")


def announce(context: Context, report: Report) -> None:
    """Have Airflow update the token's asset when the task has succeeded, if it was swapped.

    Not that of a name too long for a URI of Airflow's, 1,500 characters.
    """
    if report.successor_expires_at is None or len(quote(report.name)) > LONGEST_QUOTED_NAME:
        return
    kept = ("outcome", "predecessor_expires_at", "successor_expires_at")
    extra = {key: value for key, value in report.to_json().items() if key in kept}
    update_asset(context, ROTATIONS, token_asset(report.name), extra)


def count(report: Report) -> None:
    """Count an outcome in Airflow's own metrics: best effort, as StatsD may drop what is sent."""
    Stats.incr(f"flowauth_rotator.checks.{report.outcome}", tags={"name": report.name})
