"""The files that a run writes for monitoring: a Checkmk spool file and a Prometheus textfile."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from flowauth_rotator.atomic_file import remove_stale_drafts, replace_file
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

LONGEST_WRITE = 15.0  # seconds for each of the two files

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

    A folder that is not writable or does not respond is logged, and does not fail the run.

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
        write_textfile(folder, dag_id, text)


def _write_spool_file(spool: Path, snapshot: Snapshot, dag_status: RotationDagStatus) -> None:
    """Write `<seconds>_flowauth_rotator_<dag_id>`.

    Checkmk treats the file as outdated after these seconds, when two checks have been missed.
    """
    from flowauth_rotator.monitoring import checkmk  # here, to parse the DAG file fast
    from flowauth_rotator.monitoring.assessment import assess

    now, dag_id = snapshot.taken_at, dag_status.dag_id
    deadline_at = dag_status.deadline_at or now + DEFAULT_GRACE_PERIOD
    age = 60 * math.ceil((deadline_at - now).total_seconds() / 60)  # the same for each check
    service = checkmk.DAGS_SERVICE if dag_id == DAG_ID else f"{checkmk.DAGS_SERVICE}_{dag_id}"
    write_spool_file(spool, dag_id, age, checkmk.render(assess(snapshot), dags_service=service))


def write_spool_file(folder: Path, dag_id: str, age: int, lines: str) -> None:
    """Write the Checkmk spool file of a DAG, and remove those with another age.

    Checkmk would see each service twice.

    Args:
        folder: the spool folder of Checkmk's agent.
        dag_id: the DAG.
        age: seconds after which Checkmk treats the file as outdated.
        lines: the lines of local checks.
    """
    name = f"flowauth_rotator_{dag_id}"
    path = folder / f"{age}_{name}"
    content = f"<<<local:sep(0)>>>\n{lines}".encode()

    def write() -> None:
        _replace(path, content)
        _remove_other_ages(folder, age, name)

    run_with_time_limit(f"Writing {path}", write, LONGEST_WRITE)


def write_textfile(folder: Path, dag_id: str, content: bytes) -> None:
    """Write the textfile of a DAG for node_exporter."""
    path = folder / f"flowauth_rotator_{dag_id}.prom"
    run_with_time_limit(f"Writing {path}", lambda: _replace(path, content), LONGEST_WRITE)


def run_with_time_limit(action: str, function: Callable[[], None], seconds: float) -> None:
    """Run a function that uses a file system, and wait for its end for a limited time.

    A file system that hangs, such as NFS without its server, must not delay a renewal. The function
    then continues in a daemon thread, which ends with the process. Errors are logged.
    """

    def run() -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - a renewal must not depend on monitoring
            reason = getattr(error, "strerror", None) or type(error).__name__
            logger.error("%s failed: %s.", action, reason)  # noqa: TRY400 - says it all

    thread = threading.Thread(target=run, name=action, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        logger.error(
            "%s did not end within %g s. The run continues; check the file system.", action, seconds
        )


def _read_folder(option: str) -> Path | None:
    path = conf.get("flowauth_rotator", option, fallback="")
    return Path(path) if path else None


def _replace(path: Path, content: bytes) -> None:
    replace_file(path, content, 0o644)  # the monitoring agent is another user
    remove_stale_drafts(path)


def _remove_other_ages(folder: Path, age: int, name: str) -> None:
    for path in folder.glob(f"*_{name}"):
        number = re.fullmatch(rf"(\d+)_{re.escape(name)}", path.name)
        if number and int(number[1]) != age:
            with suppress(OSError):  # in a sticky folder, another user's file
                path.unlink()
