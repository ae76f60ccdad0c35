"""The rotation DAG: survey the managed tokens, rotate those that are due, report."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from flowauth_rotator.core.errors import Misconfigured, RotatorError
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.text import remove_control_characters
from flowauth_rotator.monitoring.status import StatusDocument, TokenStatus
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
    get_requester,
    task,
)
from flowauth_rotator.provider.managed_tokens import (
    DAG_ID,
    LIST_VARIABLE,
    LONGEST_LABEL,
    LONGEST_RUN,
    NO_REPORT,
    TAG,
    ManagedToken,
    validate_tokens,
)
from flowauth_rotator.provider.monitoring_files import write_monitoring_files
from flowauth_rotator.provider.operator import RotateTokenOperator
from flowauth_rotator.provider.rehearsals import plan_rehearsals
from flowauth_rotator.provider.schedule import Schedule, estimate_next_check
from flowauth_rotator.provider.selection import get_name, select_for_check, select_named
from flowauth_rotator.provider.signatures import read_hooks, read_public_keys
from flowauth_rotator.provider.status_updates import (
    ROTATE,
    SURVEY,
    Run,
    describe_renamings,
    describe_survey_failures,
    index_tokens,
    is_complete_check,
    record_failure,
    record_rehearsals,
    record_rotations,
    record_survey,
)
from flowauth_rotator.provider.status_variable import StatusVariable
from flowauth_rotator.provider.survey import (
    RunParameters,
    Survey,
    SurveyedToken,
    plan_survey,
    read_managed_tokens,
    survey_token,
    survey_tokens,
)
from flowauth_rotator.provider.variable_store import format_place

logger = logging.getLogger(__name__)

MAX_CONCURRENT_ROTATIONS = 8  # each of them signs in at an issuer


def rotation_dag(
    tokens: Sequence[ManagedToken] | None = None,
    *,
    dag_id: str = DAG_ID,
    schedule: str | timedelta = "*/15 * * * *",
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
        due = task(task_id=SURVEY)(survey)(tokens, schedule)
        rotate = RotateTokenOperator.partial(
            task_id=ROTATE,
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
        "dry_run": Param(
            default=False,
            type="boolean",
            title="Rehearse only",
            description="Check that the next renewals will work, without issuing tokens.",
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

    Writes what it found to the status document. If this run rotates nothing, it ends here: failures
    in the reports fail this task. If it fails as a whole, the XCom `failure` has the reason.
    """
    run = _get_run(schedule)
    status = StatusVariable(run.dag_id)
    previous = status.read()
    try:
        plan = _survey_tokens(tokens, previous, run)
    except RotatorError as error:
        if error.retryable:  # otherwise a parameter of this run is invalid
            status.write(record_failure(previous, error, run))
        get_current_context()["ti"].xcom_push(key="failure", value=str(error))
        failure = AirflowException if error.retryable else AirflowFailException
        raise failure(str(error)) from None
    document = record_survey(previous, plan, run)
    status.write(document)
    if plan.is_complete:
        write_monitoring_files(document, run.now)
    reports = [token.report for token in (*plan.healthy, *plan.deferred)]
    for token_report in reports:
        count_outcome(token_report)
    reports += _report_invalid_entries(plan, run)
    failures = _log_reports(reports)
    _log_warnings(plan)
    _log_renamings(previous, document)
    if failures and not plan.arguments:
        raise AirflowFailException("\n".join(failures))
    return plan.arguments


def _survey_tokens(
    tokens: Sequence[ManagedToken] | None, previous: StatusDocument | None, run: Run
) -> Survey:
    """Inspect the managed tokens, and plan the run as its parameters say."""
    context = get_current_context()
    dag_run = context["dag_run"]
    parameters = RunParameters.parse(context["params"], dag_run.conf)
    managed, invalid_entries = read_managed_tokens(tokens)
    known = index_tokens(previous)
    surveyed = _read_tokens(managed, known, parameters, run)
    read = {token.token for token in surveyed}
    max_tasks = conf.getint("core", "max_map_length", fallback=1024)
    plan = plan_survey(
        surveyed,
        invalid_entries,
        parameters,
        max_rotations=max_tasks,
        unread={token: get_name(token, known) for token in managed if token not in read},
    )
    dags = (previous.dags if previous else None) or ()
    known_keys = dags[0].public_keys if dags else {}
    in_use = plan.tokens_in_use
    hooks, errors = read_hooks(connection_id for connection_id, _ in in_use)
    keys, key_errors = read_public_keys(in_use, hooks, known_keys)
    plan = replace(plan.complete_reports(errors | key_errors, run.now), public_keys=keys)
    return plan_rehearsals(
        plan, known, hooks, run.now, is_dry_run=parameters.dry_run, max_tasks=max_tasks
    )


def _read_tokens(
    managed: Sequence[ManagedToken],
    known: Mapping[str, TokenStatus],
    parameters: RunParameters,
    run: Run,
) -> list[SurveyedToken]:
    """Inspect the tokens that the run reads: all of them, unless it is scheduled or has names."""
    context = get_current_context()
    is_scheduled = context["dag_run"].run_type == "scheduled"
    force = get_requested_at(context) if parameters.force else None

    def survey_one(token: ManagedToken, silent: Collection[str]) -> SurveyedToken:
        return survey_token(
            token,
            run.schedule,
            run.now,
            force,
            known=known.get(token.variable),
            is_scheduled=is_scheduled,
            silent=silent,
        )

    survey_all = partial(survey_tokens, survey=survey_one)

    if parameters.names:
        surveyed = survey_all(select_named(managed, known, parameters.names))
        has_names = parameters.names <= {name for token in surveyed for name in token.names}
        if has_names or len(surveyed) == len(managed):
            return surveyed  # otherwise a token has been replaced by one of another name
    elif is_scheduled:
        next_check_at = estimate_next_check(run.schedule, run.now, run.now) or run.now
        return survey_all(select_for_check(managed, known, run.now, next_check_at))
    return survey_all(managed)


def report(schedule: str | timedelta | None = None) -> None:
    """Record the rotations of this run in the status document; fail if a token needs action.

    Airflow skips this task in a run that rotates nothing, in which the survey reports.
    """
    run, ti = _get_run(schedule), get_current_context()["ti"]
    status = StatusVariable(run.dag_id)
    surveyed = status.read() or StatusDocument()
    due = ti.xcom_pull(task_ids=SURVEY)
    if due is None:
        reason = ti.xcom_pull(task_ids=SURVEY, key="failure") or "See the log of its task."
        raise AirflowFailException(f"The survey failed; no token was rotated. {reason}")
    pulled = [
        ti.xcom_pull(task_ids=ROTATE, key="report", map_indexes=index) for index in range(len(due))
    ]
    reports = [
        Report.from_json(document) if document else _report_lost_rotation(arguments, run)
        for arguments, document in zip(due, pulled, strict=True)
    ]
    rotations, rehearsals = (
        {
            arguments["variable"]: (index, report)
            for index, (arguments, report) in enumerate(zip(due, reports, strict=True))
            if arguments["rehearse"] is rehearse
        }
        for rehearse in (False, True)
    )
    forced = {arguments["variable"] for arguments in due if arguments["force"]}
    document = record_rotations(surveyed, rotations, run, forced=forced)
    document = record_rehearsals(document, rehearsals, run)
    status.write(document)
    if is_complete_check(document, run):
        write_monitoring_files(document, run.now)
    failures = [*describe_survey_failures(surveyed, run), *_log_reports(reports)]
    _log_renamings(surveyed, document)
    if failures:
        raise AirflowFailException("\n".join(failures))


def _get_run(schedule: Schedule) -> Run:
    context = get_current_context()
    ti = context["ti"]
    now = datetime.now(timezone.utc)
    return Run(ti.dag_id, ti.run_id, schedule, now, get_requester(context))


def _report_invalid_entries(plan: Survey, run: Run) -> list[Report]:
    place = format_place(LIST_VARIABLE)
    return [
        entry.error.report(name=entry.label, place=place, checked_at=run.now)
        for entry in plan.invalid_entries
    ]


def _report_lost_rotation(arguments: Mapping[str, Any], run: Run) -> Report:
    """Return the report of a rotation that left none."""
    variable, name = arguments["variable"], arguments["name"]
    return Report(
        name or variable,
        format_place(variable),
        Outcome.UNAVAILABLE,
        NO_REPORT,
        run.now,
        Severity.WARNING,
        name_is_known=bool(name),
    )


def _log_warnings(plan: Survey) -> None:
    if plan.unread and plan.is_complete:
        logger.info(
            "%d tokens that are not due were not read: the next checks read them in turn.",
            len(plan.unread),
        )
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


def _log_renamings(before: StatusDocument | None, after: StatusDocument) -> None:
    for sentence in describe_renamings(before, after):
        logger.warning("%s", sentence)


def _log_reports(reports: Sequence[Report]) -> list[str]:
    """Log all reports, and return those that are failures, as text."""
    for token_report in reports:
        needs_action = token_report.failed or token_report.hint
        logger.log(logging.WARNING if needs_action else logging.INFO, "%s", token_report)
    return [str(token_report) for token_report in reports if token_report.failed]
