"""The files that a run writes for monitoring: a Checkmk spool file and a Prometheus textfile."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from flowauth_rotator.atomic_file import replace_file
from flowauth_rotator.core.report import Report
from flowauth_rotator.monitoring.status import (
    DEFAULT_GRACE_PERIOD,
    RotationDagStatus,
    Snapshot,
    build_token_status,
)
from flowauth_rotator.provider.compat import conf
from flowauth_rotator.provider.managed_tokens import DAG_ID, LIST_VARIABLE, LONGEST_RUN
from flowauth_rotator.provider.schedule import Schedule, compute_deadline, compute_interval
from flowauth_rotator.provider.variable_store import parse_place

logger = logging.getLogger(__name__)


def write_monitoring_files(
    reports: Sequence[Report],
    dag_id: str,
    schedule: Schedule,
    now: datetime,
    *,
    is_rotating: bool = False,
) -> None:
    """Write the files that Airflow's configuration enables, after a check of all tokens of a DAG.

    An unwritable folder is logged, and does not fail the run.

    Args:
        reports: the reports of the check.
        dag_id: the DAG.
        schedule: its schedule.
        now: an aware time.
        is_rotating: whether the run continues with rotations, which delay the next check.
    """
    invalid = [report for report in reports if parse_place(report.place) == LIST_VARIABLE]
    dag_status = RotationDagStatus(
        dag_id=dag_id,
        condition="misconfigured" if invalid else "ok",
        hint=" ".join(f"{report.message} {report.hint}" for report in invalid),
        checked_at=now,
        deadline_at=compute_deadline(schedule, now + LONGEST_RUN if is_rotating else now),
        interval=compute_interval(schedule, now),
    )
    tokens = [build_token_status(report, dag_id) for report in reports if report not in invalid]
    snapshot = Snapshot(now, tokens, rotation_dags=[dag_status])
    if spool := _read_folder("checkmk_spool_dir"):
        _write_spool_file(spool, snapshot, dag_status)
    if folder := _read_folder("textfile_dir"):
        from flowauth_rotator.monitoring import prometheus  # here, to parse the DAG file fast

        text = prometheus.render(snapshot, build_info=False)
        _replace(folder / f"flowauth_rotator_{dag_id}.prom", text)


def _write_spool_file(spool: Path, snapshot: Snapshot, dag_status: RotationDagStatus) -> None:
    """Write `<seconds>_flowauth_rotator_<dag_id>`.

    Checkmk treats the file as outdated after these seconds, when two checks have been missed.
    """
    from flowauth_rotator.monitoring import checkmk  # here, to parse the DAG file fast
    from flowauth_rotator.monitoring.assessment import assess

    now, dag_id = snapshot.taken_at, dag_status.dag_id
    deadline_at = dag_status.deadline_at or now + DEFAULT_GRACE_PERIOD
    age = 60 * math.ceil((deadline_at - now).total_seconds() / 60)  # the same for each check
    name = f"flowauth_rotator_{dag_id}"
    service = checkmk.DAGS_SERVICE if dag_id == DAG_ID else f"{checkmk.DAGS_SERVICE}_{dag_id}"
    lines = checkmk.render(assess(snapshot), dags_service=service)
    if _replace(spool / f"{age}_{name}", f"<<<local:sep(0)>>>\n{lines}".encode()):
        _remove_other_ages(spool, age, name)


def _read_folder(option: str) -> Path | None:
    path = conf.get("flowauth_rotator", option, fallback="")
    return Path(path) if path else None


def _replace(path: Path, content: bytes) -> bool:
    """Replace the file, and return whether that succeeded."""
    try:
        replace_file(path, content, 0o644)  # the monitoring agent is another user
    except OSError as error:
        logger.error("Writing %s failed: %s.", path, error.strerror)  # noqa: TRY400 - says it all
        return False
    return True


def _remove_other_ages(spool: Path, age: int, name: str) -> None:
    """Remove the files of earlier runs with another age: Checkmk would see each service twice."""
    for path in spool.glob(f"*_{name}"):
        number = re.fullmatch(rf"(\d+)_{re.escape(name)}", path.name)
        if number and int(number[1]) != age:
            with suppress(OSError):  # in a sticky folder, another user's file
                path.unlink()
