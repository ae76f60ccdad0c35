"""What a run changes in the status document of its DAG: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.text import quote, remove_control_characters
from flowauth_rotator.monitoring.status import (
    SWAP_OUTCOMES,
    Event,
    RotationDagStatus,
    Signature,
    StatusDocument,
    TokenStatus,
    build_event,
)
from flowauth_rotator.monitoring.stored_status import LONGEST_HISTORY
from flowauth_rotator.provider.managed_tokens import LONGEST_RUN, ManagedToken
from flowauth_rotator.provider.rehearsals import find_last_rehearsal
from flowauth_rotator.provider.schedule import (
    Schedule,
    compute_deadline,
    compute_grace_period,
    compute_interval,
)
from flowauth_rotator.provider.selection import get_entry
from flowauth_rotator.provider.signatures import PublicKeys, verify_signature
from flowauth_rotator.provider.survey import Survey, SurveyedToken

SURVEY, ROTATE = "survey", "rotate"  # the ids of the tasks


@dataclass(frozen=True)
class Run:
    """The DAG run that updates a document.

    Attributes:
        dag_id: its DAG.
        run_id: its id.
        schedule: the schedule of the DAG.
        now: an aware time.
        requested_by: the user who started it; None for the schedule, and where Airflow does not
            record it.
    """

    dag_id: str
    run_id: str
    schedule: Schedule
    now: datetime
    requested_by: str | None = None

    def build_event(self, report: Report, task_id: str, map_index: int = -1) -> Event:
        """Build the event of a report of this run."""
        return build_event(
            report,
            run_id=self.run_id,
            task_id=task_id,
            map_index=map_index,
            requested_by=self.requested_by,
        )


def record_survey(previous: StatusDocument | None, survey: Survey, run: Run) -> StatusDocument:
    """Return the document after a survey.

    The entries of tokens that the run did not read stay as they are. A run for some tokens keeps
    those of all others, too, and so does a list that cannot be read.
    """
    known = index_tokens(previous)
    dag = _get_dag(previous, run)
    unread = {token.flowauth_conn_id for token in survey.unread}
    others = {
        connection: key
        for connection, key in dag.public_keys.items()
        if connection in unread or not survey.is_complete
    }
    keys = {**others, **survey.public_keys}
    updated = {
        token.token.variable: _update_token(
            known.get(token.token.variable), token, run, keys, is_rotating=is_rotating
        )
        for tokens, is_rotating in (
            (survey.due, True),
            (survey.deferred, False),
            (survey.healthy, False),
        )
        for token in tokens
    }
    if survey.is_complete:
        updated |= {
            token.variable: known.get(token.variable) or _build_unread_token(token, run)
            for token in survey.unread
        }
    keeps_others = survey.has_lost_list or not survey.is_complete
    tokens = {**known, **updated} if keeps_others else updated
    dag = replace(
        dag,
        schedule=_schedule_to_json(run.schedule),
        failure=None,
        public_keys={connection: key for connection, key in keys.items() if key is not None},
    )
    if survey.is_complete:
        dag = replace(
            _record_check(dag, run, is_rotating=bool(survey.arguments)),
            token_count=len(tokens),
            configuration_errors=tuple(str(entry.error) for entry in survey.invalid_entries),
        )
    return StatusDocument((dag,), tuple(tokens.values()))


def record_failure(
    previous: StatusDocument | None, error: RotatorError, run: Run
) -> StatusDocument:
    """Return the document after a survey that failed as a whole."""
    failure = Event(
        run.now,
        error.outcome,
        Severity.WARNING,
        error.message,
        error.hint,
        run_id=run.run_id,
        task_id=SURVEY,
        requested_by=run.requested_by,
    )
    dag = replace(_get_dag(previous, run), failure=failure)
    return StatusDocument((dag,), previous.tokens if previous else ())


def record_rotations(
    document: StatusDocument,
    reports: Mapping[str, tuple[int, Report]],
    run: Run,
    *,
    forced: Collection[str] = (),
) -> StatusDocument:
    """Return the document after the rotations of a run.

    Args:
        document: the document after the survey of the run.
        reports: by Variable, the index of the mapped task, and its report.
        run: the run.
        forced: the Variables of those whose renewal an operator requested.
    """
    dag = _get_dag(document, run)
    tokens = tuple(
        _record_rotation(token, *rotation, run, dag.public_keys, is_forced=token.variable in forced)
        if (rotation := reports.get(token.variable or ""))
        else token
        for token in document.tokens
    )
    if is_complete_check(document, run):
        dag = _record_check(dag, run)
    dag = replace(dag, clock_skews=_collect_clock_skews(dag, tokens, reports))
    return StatusDocument((dag,), tokens)


def record_rehearsals(
    document: StatusDocument, reports: Mapping[str, tuple[int, Report]], run: Run
) -> StatusDocument:
    """Return the document after the rehearsals of a run; arguments as in `record_rotations`."""
    tokens = tuple(
        _record_rehearsal(token, *rehearsal, run)
        if (rehearsal := reports.get(token.variable or ""))
        else token
        for token in document.tokens
    )
    dag = _get_dag(document, run)
    dag = replace(dag, clock_skews=_collect_clock_skews(dag, tokens, reports))
    return StatusDocument((dag,), tokens)


def index_tokens(document: StatusDocument | None) -> dict[str, TokenStatus]:
    """Return the tokens of a document by Variable."""
    return {token.variable or "": token for token in document.tokens} if document else {}


def is_complete_check(document: StatusDocument, run: Run) -> bool:
    """Whether the survey of this run checked all tokens."""
    return _get_dag(document, run).checked_by == run.run_id


def describe_survey_failures(document: StatusDocument, run: Run) -> list[str]:
    """Return what the survey of this run found wrong, apart from the tokens that it rotates."""
    errors = (
        _get_dag(document, run).configuration_errors if is_complete_check(document, run) else ()
    )
    events = [(token.name, token.last_check) for token in document.tokens]
    return [
        remove_control_characters(f"{name}: {event.outcome}. {event}")
        for name, event in events
        if event and event.has_failed and (event.run_id, event.task_id) == (run.run_id, SURVEY)
    ] + [*errors]


def describe_renamings(before: StatusDocument | None, after: StatusDocument) -> list[str]:
    """Return a sentence for each token whose name has changed."""
    known = before.tokens if before else ()
    names = {token.variable: token.name for token in known if not token.is_unread}
    return [
        f"The token in Variable {token.variable} is reported as {quote(token.name)}, and no longer "
        f"as {quote(token.former_name or '')}: monitoring sees a new service and new series."
        for token in after.tokens
        if names.get(token.variable, token.name) != token.name
    ]


def _get_dag(document: StatusDocument | None, run: Run) -> RotationDagStatus:
    dags = (document.dags if document else None) or ()
    return next((dag for dag in dags if dag.dag_id == run.dag_id), RotationDagStatus(run.dag_id))


def _record_check(
    dag: RotationDagStatus, run: Run, *, is_rotating: bool = False
) -> RotationDagStatus:
    """Return the DAG after a check of all tokens; rotations delay the check after it."""
    start = run.now + LONGEST_RUN if is_rotating else run.now
    return replace(
        dag,
        checked_at=run.now,
        checked_by=run.run_id,
        deadline_at=compute_deadline(run.schedule, start),
        interval=compute_interval(run.schedule, run.now),
        grace_period=compute_grace_period(run.schedule, run.now),
    )


def _build_unread_token(token: ManagedToken, run: Run) -> TokenStatus:
    """Return the status of a token that no check has read yet."""
    return TokenStatus(
        token.name or token.variable,
        variable=token.variable,
        dag_id=run.dag_id,
        name_is_known=token.name is not None,
        settings=get_entry(token),
    )


def _update_token(
    known: TokenStatus | None,
    surveyed: SurveyedToken,
    run: Run,
    keys: PublicKeys,
    *,
    is_rotating: bool,
) -> TokenStatus:
    """Return the status of a token after a survey.

    The last result of a token that is being rotated stays until the rotation has one.
    """
    settings, inspection = surveyed.token, surveyed.inspection
    report = _add_known_dates(surveyed.report, known, run)
    if known is None or known.is_unread:
        known = TokenStatus(report.name, name_is_known=report.name_is_known)
    token = replace(
        known, variable=settings.variable, dag_id=run.dag_id, settings=get_entry(settings)
    )
    token = _take_dates(token, report)
    if not is_rotating or inspection is None:
        token = replace(token, last_check=run.build_event(report, SURVEY))
    if inspection is None:
        return replace(token, signature=None)
    claims = inspection.claims
    if surveyed.setup and surveyed.setup != token.setup:
        last = find_last_rehearsal(surveyed, token)
        token = replace(token, setup=surveyed.setup, last_rehearsal=last, rehearsal_steps=())
    token = _rename(token, report, run)
    return replace(
        token,
        owner=claims.subject,
        audience=claims.audience,
        roles=tuple(sorted(claims.roles)),
        signature=verify_signature(inspection.token, keys.get(settings.flowauth_conn_id)),
    )


def _record_rotation(
    token: TokenStatus,
    map_index: int,
    report: Report,
    run: Run,
    keys: PublicKeys,
    *,
    is_forced: bool,
) -> TokenStatus:
    """Return the status of a token after a rotation, which verifies the signature of a successor.

    A failure of a renewal that an operator requested before the token was due is an event of that
    request: it is not the state of the token. One of a copy is.
    """
    report = _add_known_dates(report, token, run)
    event = run.build_event(report, ROTATE, map_index)
    is_early = is_forced and token.renew_at is not None and token.renew_at > event.at
    counts = dict(token.rotation_counts)
    counts[event.outcome] = counts.get(event.outcome, 0) + 1
    token = replace(
        _rename(token, report, run),
        last_check=token.last_check if is_early and event.has_failed else event,
        rotations=(event, *token.rotations)[:LONGEST_HISTORY],
        rotation_counts=counts,
        longest_minutes=report.longest_minutes or token.longest_minutes,
    )
    if event.outcome in SWAP_OUTCOMES:
        has_key = _get_connection(token) in keys
        signature = Signature.VALID if has_key else None
        token = replace(token, last_success_at=event.at, signature=signature)
        if not event.has_failed:
            token = replace(token, setup=None, last_rehearsal=event, rehearsal_steps=())
    token = _record_newest(token, report, event.at)
    return _take_dates(token, report) if report.expires_at else token


def _record_rehearsal(token: TokenStatus, map_index: int, report: Report, run: Run) -> TokenStatus:
    report = _add_known_dates(report, token, run)
    token = replace(
        _rename(token, report, run),
        last_rehearsal=run.build_event(report, ROTATE, map_index),
        rehearsal_steps=tuple(remove_control_characters(step) for step in report.steps),
    )
    return _record_newest(token, report, run.now)


def _record_newest(token: TokenStatus, report: Report, now: datetime) -> TokenStatus:
    """Return the token with the newest expiry that the issuer has shown."""
    newest, known = report.newest_issued_expires_at, token.newest_issued_expires_at
    if newest is None or (known and newest <= known):
        return token
    return replace(token, newest_issued_at=now, newest_issued_expires_at=newest)


def _add_known_dates(report: Report, known: TokenStatus | None, run: Run) -> Report:
    """Return a report without dates, as its store did not respond, with those of the last check.

    The token is most likely the same one: there is time until that is critical.
    """
    is_lost = report.outcome is Outcome.UNAVAILABLE and report.expires_at is None
    if not is_lost or known is None or known.critical_at is None:
        return report
    return replace(
        report,
        issued_at=known.issued_at,
        renew_at=known.renew_at,
        critical_at=known.critical_at,
        expires_at=known.expires_at,
        severity=Severity.CRITICAL if known.critical_at <= run.now else Severity.WARNING,
    )


def _take_dates(token: TokenStatus, report: Report) -> TokenStatus:
    """Return the token with the dates of a report, and its fingerprint, which outlives a bad value.

    A token that is stored again after a value that cannot be read keeps its name.
    """
    return replace(
        token,
        fingerprint=report.fingerprint or token.fingerprint,
        issued_at=report.issued_at,
        renew_at=report.renew_at,
        critical_at=report.critical_at,
        expires_at=report.expires_at,
    )


def _rename(token: TokenStatus, report: Report, run: Run) -> TokenStatus:
    """Return the token with the name of a report, unless that is a substitute for a known name."""
    if report.name == token.name:
        return replace(token, name_is_known=report.name_is_known or token.name_is_known)
    if not report.name_is_known and report.fingerprint is None:
        return token
    return replace(
        token,
        name=report.name,
        name_is_known=report.name_is_known,
        former_name=token.name,
        renamed_at=run.now,
    )


def _collect_clock_skews(
    dag: RotationDagStatus,
    tokens: Iterable[TokenStatus],
    reports: Mapping[str, tuple[int, Report]],
) -> dict[str, int]:
    """Return the clock skews by connection, with those that these reports measured."""
    skews = dict(dag.clock_skews)
    for token in tokens:
        _, report = reports.get(token.variable or "", (0, None))
        if report and report.clock_skew is not None:
            skews[_get_connection(token)] = report.clock_skew
    return skews


def _get_connection(token: TokenStatus) -> str:
    connection: str = token.settings.get("flowauth_conn_id", ManagedToken.flowauth_conn_id)
    return connection


def _schedule_to_json(schedule: Schedule) -> str | float | None:
    return schedule.total_seconds() if isinstance(schedule, timedelta) else schedule
