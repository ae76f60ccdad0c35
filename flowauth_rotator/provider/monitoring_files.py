"""The files that a run writes for monitoring: a Checkmk spool file and a Prometheus textfile."""

from __future__ import annotations

import logging
import math
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flowauth_rotator.atomic_file import replace_file
from flowauth_rotator.monitoring.status import DEFAULT_GRACE_PERIOD, StatusDocument
from flowauth_rotator.provider.compat import conf
from flowauth_rotator.provider.managed_tokens import DAG_ID

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.assessment import Assessment

logger = logging.getLogger(__name__)


def write_monitoring_files(document: StatusDocument, now: datetime) -> None:
    """Write the files that Airflow's configuration enables, after a check of all tokens of a DAG.

    A failure is logged, and does not fail the run.

    Args:
        document: the document of the DAG.
        now: an aware time.
    """
    spool, folder = _read_folder("checkmk_spool_dir"), _read_folder("textfile_dir")
    if not (spool or folder):
        return
    try:
        from flowauth_rotator.monitoring.assessment import assess

        assessment = assess(document, now)
        if spool:
            _write_spool_file(spool, assessment)
        if folder:
            _write_textfile(folder, assessment)
    except Exception as error:  # noqa: BLE001 - a renewal must not depend on monitoring
        logger.error("Writing the monitoring files failed: %s.", type(error).__name__)  # noqa: TRY400


def _write_textfile(folder: Path, assessment: Assessment) -> None:
    from flowauth_rotator.monitoring import prometheus  # here, to parse the DAG file fast

    [dag] = assessment.document.dags or ()
    text = prometheus.render(assessment, build_info=False)
    _replace(folder / f"flowauth_rotator_{dag.dag_id}.prom", text)


def _write_spool_file(spool: Path, assessment: Assessment) -> None:
    """Write `<seconds>_flowauth_rotator_<dag_id>`.

    Checkmk treats the file as outdated after these seconds, when two checks have been missed.
    """
    from flowauth_rotator.monitoring import checkmk  # here, to parse the DAG file fast

    [dag] = assessment.document.dags or ()
    deadline_at = dag.deadline_at or assessment.now + DEFAULT_GRACE_PERIOD
    remaining = deadline_at - assessment.now
    age = 60 * math.ceil(remaining.total_seconds() / 60)  # the same for each check
    name = f"flowauth_rotator_{dag.dag_id}"
    is_default = dag.dag_id == DAG_ID
    service = checkmk.DAGS_SERVICE if is_default else f"{checkmk.DAGS_SERVICE}_{dag.dag_id}"
    lines = checkmk.render(assessment, dags_service=service)
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
