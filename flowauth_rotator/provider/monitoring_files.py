"""What a run writes for monitoring systems that read files: a Checkmk spool file, a textfile."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from flowauth_rotator.core.report import Report
from flowauth_rotator.monitoring.snapshot import PATIENCE, Heartbeat, Snapshot, reported
from flowauth_rotator.provider.compat import conf
from flowauth_rotator.provider.managed_tokens import DAG_ID, LIST_VARIABLE, LONGEST_RUN
from flowauth_rotator.provider.schedule import Schedule, deadline, interval
from flowauth_rotator.provider.variable_store import key_of

logger = logging.getLogger(__name__)


def write(
    reports: Sequence[Report],
    dag_id: str,
    schedule: Schedule,
    now: datetime,
    *,
    rotating: bool = False,
) -> None:
    """Write what Airflow's configuration asks for, after a check of all tokens of a DAG.

    `checkmk_spool_dir` gets `<seconds>_flowauth_rotator_<dag_id>`: after so many seconds, when two
    checks have been missed, Checkmk takes it for outdated. `textfile_dir`, of node_exporter, gets
    `flowauth_rotator_<dag_id>.prom`, which tells itself when the next check is missed. A file is
    replaced as a whole; a folder that takes none is logged, and fails nothing.

    Args:
        reports: what the check found.
        dag_id: the DAG.
        schedule: how often it checks.
        now: an aware time.
        rotating: whether the run goes on with rotations, which hold up the next check.
    """
    wrong = [one for one in reports if key_of(one.place) == LIST_VARIABLE]
    heartbeat = Heartbeat(
        dag_id=dag_id,
        condition="misconfigured" if wrong else "ok",
        sentence=" ".join(f"{one.reason} {one.advice}" for one in wrong),
        checked_at=now,
        deadline_at=deadline(schedule, now + LONGEST_RUN if rotating else now),
        interval=interval(schedule, now),
    )
    tokens = [reported(one, dag_id) for one in reports if one not in wrong]
    snapshot = Snapshot(now, tokens, agents=[heartbeat])
    # What reads and writes is imported where it is wanted: the DAG's file is parsed all the time.
    if spool := _folder("checkmk_spool_dir"):
        from flowauth_rotator.monitoring import checkmk
        from flowauth_rotator.monitoring.assessment import assess

        until = heartbeat.deadline_at or now + PATIENCE
        age = 60 * math.ceil((until - now).total_seconds() / 60)  # the same from check to check
        name = f"flowauth_rotator_{dag_id}"
        service = checkmk.AGENT if dag_id == DAG_ID else f"{checkmk.AGENT}_{dag_id}"
        lines = checkmk.reading(assess(snapshot), agent_service=service)
        if _replace(spool / f"{age}_{name}", f"<<<local:sep(0)>>>\n{lines}".encode()):
            _remove_others(spool, age, name)
    if folder := _folder("textfile_dir"):
        from flowauth_rotator.monitoring import prometheus

        text = prometheus.exposition(snapshot, build_info=False)
        _replace(folder / f"flowauth_rotator_{dag_id}.prom", text)


def _folder(option: str) -> Path | None:
    path = conf.get("flowauth_rotator", option, fallback="")
    return Path(path) if path else None


def _replace(path: Path, content: bytes) -> bool:
    """Put the content in the place of the file, whole; the answer is whether that succeeded."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o644)  # who reads it is another user
        draft.replace(path)
    except OSError as error:
        logger.error("Writing %s failed: %s.", path, error.strerror)  # noqa: TRY400 - says it all
        return False
    return True


def _remove_others(spool: Path, age: int, name: str) -> None:
    """Remove what an earlier run left under another age: its services would stand twice."""
    for path in spool.glob(f"*_{name}"):
        number = re.fullmatch(rf"(\d+)_{re.escape(name)}", path.name)
        if number and int(number[1]) != age:
            with suppress(OSError):  # in a folder where each may only remove what is theirs
                path.unlink()
