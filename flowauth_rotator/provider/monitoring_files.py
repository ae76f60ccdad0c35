"""The files that a run writes for monitoring: a Checkmk spool file and a Prometheus textfile."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flowauth_rotator.atomic_file import remove_stale_drafts, replace_file
from flowauth_rotator.monitoring.status import DEFAULT_GRACE_PERIOD, StatusDocument
from flowauth_rotator.provider.compat import conf
from flowauth_rotator.provider.managed_tokens import DAG_ID

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.assessment import Assessment

LONGEST_WRITE = 15.0  # seconds for each of the two files

logger = logging.getLogger(__name__)


def write_monitoring_files(document: StatusDocument, now: datetime) -> None:
    """Write the files that Airflow's configuration enables, after a check of all tokens of a DAG.

    A folder that is not writable or does not respond is logged, and does not fail the run.

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
            _render_spool_file(spool, assessment)
        if folder:
            _render_textfile(folder, assessment)
    except Exception as error:  # noqa: BLE001 - a renewal must not depend on monitoring
        logger.error("Writing the monitoring files failed: %s.", type(error).__name__)  # noqa: TRY400


def _render_textfile(folder: Path, assessment: Assessment) -> None:
    from flowauth_rotator.monitoring import prometheus  # here, to parse the DAG file fast

    [dag] = assessment.document.dags or ()
    write_textfile(folder, dag.dag_id, prometheus.render(assessment, build_info=False))


def _render_spool_file(spool: Path, assessment: Assessment) -> None:
    """Render and write `<seconds>_flowauth_rotator_<dag_id>`.

    Checkmk treats the file as outdated after these seconds, when two checks have been missed. A
    token that no check has read yet has no line: it would be an UNKNOWN service.
    """
    from flowauth_rotator.monitoring import checkmk  # here, to parse the DAG file fast

    tokens = [each for each in assessment.tokens if not each.token.is_unread]
    assessment = replace(assessment, tokens=tokens)
    [dag] = assessment.document.dags or ()
    deadline_at = dag.deadline_at or assessment.now + DEFAULT_GRACE_PERIOD
    remaining = deadline_at - assessment.now
    age = 60 * math.ceil(remaining.total_seconds() / 60)  # the same for each check
    is_default = dag.dag_id == DAG_ID
    service = checkmk.DAGS_SERVICE if is_default else f"{checkmk.DAGS_SERVICE}_{dag.dag_id}"
    write_spool_file(spool, dag.dag_id, age, checkmk.render(assessment, dags_service=service))


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
