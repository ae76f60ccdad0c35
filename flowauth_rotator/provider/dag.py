"""The DAG that keeps tokens alive: survey, rotate what is due, report."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from flowauth_rotator.core.errors import Misconfigured, RotatorError
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.provider import monitoring_files
from flowauth_rotator.provider import survey as surveying
from flowauth_rotator.provider.assets import ROTATIONS, count
from flowauth_rotator.provider.compat import (
    AirflowException,
    AirflowFailException,
    Param,
    TriggerRule,
    asked_at,
    conf,
    dag,
    get_current_context,
    task,
)
from flowauth_rotator.provider.managed_tokens import (
    DAG_ID,
    LIST_VARIABLE,
    LONGEST_LABEL,
    LONGEST_RUN,
    LOST,
    TAG,
    ManagedToken,
    check_tokens,
)
from flowauth_rotator.provider.operator import RotateTokenOperator
from flowauth_rotator.provider.variable_store import place_of

logger = logging.getLogger(__name__)

AT_ONCE = 8  # rotations of a run: an issuer signs in each of them


def rotation_dag(
    tokens: Sequence[ManagedToken] | None = None,
    *,
    dag_id: str = DAG_ID,
    schedule: str | timedelta = "*/5 * * * *",
    on_failure_callback: Any = None,  # noqa: ANN401 - a callable, a notifier, or a list of them
) -> Any:  # noqa: ANN401 - a DAG, of a class that differs between generations of Airflow
    """The DAG that checks `tokens` on `schedule` and rotates those that are due.

    Args:
        tokens: the tokens to keep alive; by default those that the Variable
            `flowauth_rotator_tokens` lists at each run, and without it the one in FLOWAPI_TOKEN.
        dag_id: the DAG's id.
        schedule: how often to check: several times between due and expiry of any token.
        on_failure_callback: what Airflow calls, once a run, when a person should look at a token;
            `exception` of its context says in sentences at which, and why.

    Raises:
        Misconfigured: `tokens` is no list of managed tokens, or has a Variable or a name twice, or
            `schedule` is none.
    """
    if not isinstance(schedule, (str, timedelta)) or schedule == timedelta(0):
        raise Misconfigured(
            f"`schedule` is {schedule!r}.", advice="Give it a cron expression or a `timedelta`."
        )
    if tokens is not None:
        check_tokens(tokens)

    @dag(
        dag_id=dag_id,
        description="Keeps FlowAPI tokens alive: survey, rotate what is due, report.",
        schedule=schedule,
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=LONGEST_RUN,
        default_args={
            "retries": 3,
            "retry_delay": timedelta(seconds=30),
            "execution_timeout": timedelta(
                minutes=10
            ),  # four tries of it end within the run's hour
        },
        params=_params(),
        tags=[TAG],
        doc_md=__doc__,
    )
    def rotation() -> None:
        due = task(survey)(tokens, schedule)
        rotate = RotateTokenOperator.partial(
            task_id="rotate",
            map_index_template=f"{{{{ (task.name or task.variable)[:{LONGEST_LABEL}] }}}}",
            max_active_tis_per_dagrun=AT_ONCE,
            outlets=[ROTATIONS],
        ).expand_kwargs(due)
        told = task(
            trigger_rule=TriggerRule.NONE_SKIPPED,
            retries=0,
            on_failure_callback=on_failure_callback,
        )(report)(schedule)
        rotate >> told

    return rotation()


def _params() -> dict[str, Any]:
    """What somebody who starts a run by hand may set; a form shows it."""
    return {
        "names": Param(
            [],
            type=["array", "null"],
            items={"type": "string"},
            title="Tokens",
            description="Names or Variables of the tokens to look at, one a line; none for all.",
        ),
        "force": Param(
            default=False,
            type="boolean",
            title="Renew now",
            description="Renew also what is not due. The old tokens stay valid until they expire.",
        ),
        "lifetime_minutes": Param(
            None,
            type=["integer", "null"],
            minimum=1,
            title="Lifetime in minutes",
            description="The lifetime to ask for in this run; none for that of each token.",
        ),
    }


def survey(
    tokens: Sequence[ManagedToken] | None, schedule: str | timedelta | None = None
) -> list[dict[str, Any]]:
    """Read and decide for all tokens; hand on those that are due, or that nobody can read.

    Pushes the reports of the others as XCom `report`, with one for each entry of the list that is
    wrong and each connection that is not there. With nothing to hand on it tells them itself, and
    the run ends here. XCom `due` has what it found of those that it hands on, and `managed` the
    schedule and the settings of all, for the page.
    """
    context = get_current_context()
    asked = context["params"]
    now = datetime.now(timezone.utc)
    try:
        listed, wrong = surveying.listed(tokens)
        if listed or not wrong:  # what a list named that cannot be read any more is managed still
            context["ti"].xcom_push(key="managed", value=_managed(listed, schedule))
        force = asked_at(context) if asked.get("force") else None
        scheduled = context["dag_run"].run_type == "scheduled"
        found = [
            surveying.look(token, schedule, now, force, scheduled=scheduled) for token in listed
        ]
        found = surveying.chosen(surveying.named_apart(found), wrong, asked.get("names"))
        if asked.get("lifetime_minutes"):
            minutes = int(asked["lifetime_minutes"])  # 60.0 is an integer to a form
            found = [
                replace(one, token=replace(one.token, lifetime_minutes=minutes)) for one in found
            ]
        due = sorted((one for one in found if one.due), key=lambda one: one.urgency)
        most = conf.getint("core", "max_map_length", fallback=1024)
        due, following = due[:most], due[most:]
        kept = surveying.told([*(one for one in found if not one.due), *following], now)
    except RotatorError as error:
        context["ti"].xcom_push(key="failure", value=str(error))
        failure = AirflowException if error.retryable else AirflowFailException
        raise failure(str(error)) from None
    for one in kept:
        count(one)
    place = place_of(LIST_VARIABLE)
    kept += [one.error.report(name=one.label, place=place, checked_at=now) for one in wrong]
    context["ti"].xcom_push(key="report", value=[report.to_json() for report in kept])
    found_due = [one.report for one in due]
    context["ti"].xcom_push(key="due", value=[report.to_json() for report in found_due])
    _write([*kept, *found_due], schedule, now, rotating=bool(due))
    if not due:
        _tell(kept)
    return [one.arguments for one in due]


def _managed(tokens: Sequence[ManagedToken], schedule: str | timedelta | None) -> dict[str, Any]:
    """What is kept alive, and how often it is looked at: a cron expression or seconds."""
    every = schedule.total_seconds() if isinstance(schedule, timedelta) else schedule
    return {"schedule": every, "tokens": [token.to_json() for token in tokens]}


def report(schedule: str | timedelta | None = None) -> list[dict[str, Any]]:
    """Tell of every token what became of it; fail if a person should look at one.

    Skipped in a run with nothing to rotate, of which the survey tells.
    """
    ti = get_current_context()["ti"]
    documents = ti.xcom_pull(task_ids="survey", key="report")
    if documents is None:
        failure = ti.xcom_pull(task_ids="survey", key="failure") or "Its log says why."
        raise AirflowFailException(f"The survey failed, no token was rotated. {failure}")
    now = datetime.now(timezone.utc)
    reports = [Report.from_json(document) for document in documents]
    for index, before in enumerate(ti.xcom_pull(task_ids="survey", key="due") or []):
        found = Report.from_json(before)
        document = ti.xcom_pull(task_ids="rotate", key="report", map_indexes=index)
        if document is None:
            reports.append(
                replace(
                    found,
                    outcome=Outcome.UNAVAILABLE,
                    severity=Severity.WARNING,
                    reason=LOST,
                    advice="",
                    checked_at=now,
                )
            )
            continue
        documents.append(document)
        reports.append(_completed(Report.from_json(document), found))
    _write(reports, schedule, now)
    _tell(reports)
    return list(documents)


def _completed(report: Report, found: Report) -> Report:
    """The report of a rotation that could not read the token, with what the survey read of it."""
    if report.expires_at:
        return report
    return replace(
        report,
        issued_at=found.issued_at,
        expires_at=found.expires_at,
        renew_at=found.renew_at,
    )


def _write(
    reports: Sequence[Report],
    schedule: str | timedelta | None,
    now: datetime,
    *,
    rotating: bool = False,
) -> None:
    """Write the files of monitoring, unless the run was started for some tokens only."""
    context = get_current_context()
    if not any(name.strip() for name in context["params"].get("names") or ()):
        try:
            monitoring_files.write(reports, context["ti"].dag_id, schedule, now, rotating=rotating)
        except Exception as error:  # noqa: BLE001 - whatever it is, tokens are to be renewed
            logger.error("Writing the files of monitoring failed: %s.", type(error).__name__)  # noqa: TRY400


def _tell(reports: Iterable[Report]) -> None:
    """Log all reports, and raise what a person should look at."""
    reports = list(reports)
    for one in reports:
        level = logging.WARNING if one.failed or one.advice else logging.INFO
        logger.log(level, "%s", one)
    if following := sum(surveying.FOLLOWS in one.advice for one in reports):
        logger.warning("%d more are due than a run takes; they follow.", following)
    if failed := [str(one) for one in reports if one.failed]:
        raise AirflowFailException("\n".join(failed))
