"""The rotation DAG: survey the managed tokens, rotate those that are due, report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from flowauth_rotator.core.errors import Misconfigured, RotatorError
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.text import remove_control_characters
from flowauth_rotator.provider.assets import ROTATIONS, count_outcome
from flowauth_rotator.provider.compat import (
    AirflowException,
    AirflowFailException,
    Param,
    TriggerRule,
    conf,
    dag,
    get_current_context,
    get_requested_at,
    task,
)
from flowauth_rotator.provider.managed_tokens import (
    DAG_ID,
    LONGEST_LABEL,
    LONGEST_RUN,
    NO_REPORT,
    TAG,
    ManagedToken,
    validate_tokens,
)
from flowauth_rotator.provider.monitoring_files import write_monitoring_files
from flowauth_rotator.provider.operator import RotateTokenOperator
from flowauth_rotator.provider.survey import (
    Survey,
    plan_survey,
    read_connection_errors,
    read_managed_tokens,
    survey_token,
)

logger = logging.getLogger(__name__)

MAX_CONCURRENT_ROTATIONS = 8  # each of them signs in at an issuer


def rotation_dag(
    tokens: Sequence[ManagedToken] | None = None,
    *,
    dag_id: str = DAG_ID,
    schedule: str | timedelta = "*/5 * * * *",
    on_failure_callback: Any = None,  # noqa: ANN401 - a callable, a notifier, or a list of them
) -> Any:  # noqa: ANN401 - a DAG, of a class that differs between generations of Airflow
    """Return a DAG that checks `tokens` on `schedule` and rotates those that are due.

    Args:
        tokens: the tokens to renew; by default those that the Variable `flowauth_rotator_tokens`
            lists at each run, and without that Variable the token in FLOWAPI_TOKEN.
        dag_id: the DAG's id.
        schedule: when to check: several times between due and expiry of any token.
        on_failure_callback: called by Airflow, at most once a run, when a token needs action;
            `exception` in its context names the tokens and the reasons.

    Raises:
        Misconfigured: `tokens` is not a list of managed tokens, or two of them have the same
            Variable or name, or `schedule` is not a schedule.
    """
    if not isinstance(schedule, (str, timedelta)) or schedule == timedelta(0):
        raise Misconfigured(
            f"`schedule` is {schedule!r}, which is not a schedule.",
            hint="Use a cron expression or a `timedelta`.",
        )
    if tokens is not None:
        validate_tokens(tokens)

    @dag(
        dag_id=dag_id,
        description="Renews FlowAPI tokens before they expire: survey, rotate, report.",
        schedule=schedule,
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=LONGEST_RUN,
        default_args={
            "retries": 3,
            "retry_delay": timedelta(seconds=30),
            # Four attempts end within `dagrun_timeout`.
            "execution_timeout": timedelta(minutes=10),
        },
        params=_build_params(),
        tags=[TAG],
        doc_md=__doc__,
    )
    def rotation() -> None:
        due = task(survey)(tokens, schedule)
        rotate = RotateTokenOperator.partial(
            task_id="rotate",
            map_index_template=f"{{{{ (task.name or task.variable)[:{LONGEST_LABEL}] }}}}",
            max_active_tis_per_dagrun=MAX_CONCURRENT_ROTATIONS,
            outlets=[ROTATIONS],
        ).expand_kwargs(due)
        report_task = task(
            trigger_rule=TriggerRule.NONE_SKIPPED,
            retries=0,
            on_failure_callback=on_failure_callback,
        )(report)(schedule)
        rotate >> report_task

    return rotation()


def _build_params() -> dict[str, Any]:
    """Return the parameters of a run that is started by hand, which Airflow shows as a form."""
    return {
        "names": Param(
            [],
            type=["array", "null"],
            items={"type": "string"},
            title="Tokens",
            description="Names or Variables of the tokens to check, one per line. "
            "Leave it empty for all tokens.",
        ),
        "force": Param(
            default=False,
            type="boolean",
            title="Renew now",
            description="Also renew tokens that are not due. "
            "The old tokens stay valid until they expire.",
        ),
        "lifetime_minutes": Param(
            None,
            type=["integer", "null"],
            minimum=1,
            title="Lifetime in minutes",
            description="The lifetime to request in this run. "
            "Leave it empty for the setting of each token.",
        ),
    }


def survey(
    tokens: Sequence[ManagedToken] | None, schedule: str | timedelta | None = None
) -> list[dict[str, Any]]:
    """Inspect all tokens, and return the operator's arguments for those that this run rotates.

    Pushes these XComs:

    - `managed`: the schedule and the settings of all tokens, for the page.
    - `report`: the reports of the tokens that this run does not rotate, and of invalid entries.
    - `due`: the reports of the inspection of the tokens that this run rotates.
    - `failure`: why the survey failed, instead of `report` and `due`.

    If this run rotates nothing, it ends here: failures in the reports fail this task.
    """
    ti = get_current_context()["ti"]
    now = datetime.now(timezone.utc)
    try:
        plan = _survey_tokens(tokens, schedule, now)
        reports = plan.report_tokens(read_connection_errors(plan.connection_ids), now)
    except RotatorError as error:
        ti.xcom_push(key="failure", value=str(error))
        failure = AirflowException if error.retryable else AirflowFailException
        raise failure(str(error)) from None
    for token_report in reports:
        count_outcome(token_report)
    reports += plan.report_invalid_entries(now)
    due = [token.report for token in plan.due]
    ti.xcom_push(key="report", value=[token_report.to_json() for token_report in reports])
    ti.xcom_push(key="due", value=[token_report.to_json() for token_report in due])
    _write_files([*reports, *due], schedule, now, is_rotating=bool(due))
    for token in plan.due:
        for warning in token.warnings:
            name = remove_control_characters(token.report.name)
            logger.warning("%s: %s", name, warning)
    if plan.deferred:
        logger.warning(
            "%d due tokens exceed the limit of a run ([core] max_map_length); "
            "the next checks rotate them.",
            len(plan.deferred),
        )
    if not due:
        _log_reports(reports)
    return [token.arguments for token in plan.due]


def _survey_tokens(
    tokens: Sequence[ManagedToken] | None, schedule: str | timedelta | None, now: datetime
) -> Survey:
    """Read the tokens, push their settings, and plan the run as its parameters say."""
    context = get_current_context()
    params = context["params"]
    managed, invalid_entries = read_managed_tokens(tokens)
    if managed or not invalid_entries:  # an unreadable list does not end the management of tokens
        context["ti"].xcom_push(key="managed", value=_build_settings(managed, schedule))
    force = get_requested_at(context) if params.get("force") else None
    is_scheduled = context["dag_run"].run_type == "scheduled"
    return plan_survey(
        [survey_token(token, schedule, now, force, is_scheduled=is_scheduled) for token in managed],
        invalid_entries,
        names=params.get("names"),
        lifetime_minutes=int(params.get("lifetime_minutes") or 0),  # a form may send 60.0
        max_rotations=conf.getint("core", "max_map_length", fallback=1024),
    )


def _build_settings(
    tokens: Sequence[ManagedToken], schedule: str | timedelta | None
) -> dict[str, Any]:
    """Return the schedule (a cron expression or seconds) and the settings of all tokens."""
    interval = schedule.total_seconds() if isinstance(schedule, timedelta) else schedule
    return {"schedule": interval, "tokens": [token.to_json() for token in tokens]}


def report(schedule: str | timedelta | None = None) -> list[dict[str, Any]]:
    """Report on every token; fail if a token needs action.

    Airflow skips this task in a run that rotates nothing, in which the survey reports.
    """
    ti = get_current_context()["ti"]
    documents = ti.xcom_pull(task_ids="survey", key="report")
    if documents is None:
        failure = ti.xcom_pull(task_ids="survey", key="failure") or "See the log of its task."
        raise AirflowFailException(f"The survey failed; no token was rotated. {failure}")
    now = datetime.now(timezone.utc)
    reports = [Report.from_json(document) for document in documents]
    for index, due in enumerate(ti.xcom_pull(task_ids="survey", key="due") or []):
        surveyed = Report.from_json(due)
        document = ti.xcom_pull(task_ids="rotate", key="report", map_indexes=index)
        if document is None:
            reports.append(_report_lost_rotation(surveyed, now))
            continue
        documents.append(document)
        reports.append(_add_validity(Report.from_json(document), surveyed))
    _write_files(reports, schedule, now)
    _log_reports(reports)
    return list(documents)


def _report_lost_rotation(surveyed: Report, now: datetime) -> Report:
    return replace(
        surveyed,
        outcome=Outcome.UNAVAILABLE,
        severity=Severity.WARNING,
        message=NO_REPORT,
        hint="",
        checked_at=now,
    )


def _add_validity(report: Report, surveyed: Report) -> Report:
    """Add the dates that the survey read, if the rotation could not read the token."""
    if report.expires_at:
        return report
    return replace(
        report,
        issued_at=surveyed.issued_at,
        expires_at=surveyed.expires_at,
        renew_at=surveyed.renew_at,
    )


def _write_files(
    reports: Sequence[Report],
    schedule: str | timedelta | None,
    now: datetime,
    *,
    is_rotating: bool = False,
) -> None:
    """Write the monitoring files, unless the run is limited to some tokens."""
    context = get_current_context()
    if any(name.strip() for name in context["params"].get("names") or ()):
        return
    try:
        dag_id = context["ti"].dag_id
        write_monitoring_files(reports, dag_id, schedule, now, is_rotating=is_rotating)
    except Exception as error:  # noqa: BLE001 - a renewal must not depend on monitoring
        logger.error("Writing the monitoring files failed: %s.", type(error).__name__)  # noqa: TRY400


def _log_reports(reports: Sequence[Report]) -> None:
    """Log all reports, and fail the task if one of them is a failure."""
    for token_report in reports:
        needs_action = token_report.failed or token_report.hint
        logger.log(logging.WARNING if needs_action else logging.INFO, "%s", token_report)
    if failures := [str(token_report) for token_report in reports if token_report.failed]:
        raise AirflowFailException("\n".join(failures))
