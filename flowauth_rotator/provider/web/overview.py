"""The JSON document that the page shows: the assessment, and what a user can do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol

from flowauth_rotator.core.errors import ExpiredToken
from flowauth_rotator.monitoring import json_output
from flowauth_rotator.monitoring.assessment import Assessment
from flowauth_rotator.monitoring.dag_assessment import AssessedDag, Condition
from flowauth_rotator.monitoring.json_values import to_json
from flowauth_rotator.monitoring.runbooks import find_alert, find_runbook
from flowauth_rotator.monitoring.status import Event, TokenStatus
from flowauth_rotator.monitoring.token_assessment import AssessedToken, describe_failure, rank_token
from flowauth_rotator.monitoring.verdict import Verdict
from flowauth_rotator.provider.assets import build_asset_uri
from flowauth_rotator.provider.web.live_status import LiveStatus, parse_settings

RUNBOOKS_URL = "flowauth-rotator/runbooks"  # relative to Airflow's root

Link = dict[str, str]  # `text` and `url`


class Pages(Protocol):
    """The URLs of Airflow's pages, relative to Airflow's root."""

    def dag(self, dag_id: str) -> str:
        """Return the URL of a DAG."""

    def run(self, dag_id: str, run_id: str) -> str:
        """Return the URL of a run."""

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """Return the URL of a task and its log; the index is -1 if it is not mapped."""

    def variable(self, key: str) -> str:
        """Return the URL of a Variable."""

    def import_errors(self) -> str:
        """Return the URL of the import errors of DAG files."""


@dataclass(frozen=True)
class Overview:
    """The content of the page for one user.

    Attributes:
        status: the facts about the DAGs and the tokens that the user may see.
        assessment: the verdicts on them.
        renewable_dags: the ids of the DAGs whose runs the user may start.
        pages: the URLs of Airflow's pages.
    """

    status: LiveStatus
    assessment: Assessment
    renewable_dags: set[str]
    pages: Pages

    def to_json(self) -> dict[str, Any]:
        """Return the overview as JSON values; times are epoch seconds."""
        tokens = sorted(self.assessment.tokens, key=rank_token)
        document = json_output.render(replace(self.assessment, tokens=tokens))
        rows = [
            self._build_row(token, rendered)
            for rendered, token in zip(document["tokens"], tokens, strict=True)
        ]
        return {
            **document,
            "dags": [{**dag, "url": self.pages.dag(dag["dag_id"])} for dag in document["dags"]],
            "tokens": rows,
        }

    def build_row(self, token: AssessedToken) -> dict[str, Any]:
        """Return one token as JSON values."""
        return self._build_row(token, json_output.render_token(token))

    @cached_property
    def _dags(self) -> Mapping[str, AssessedDag]:
        return {each.dag.dag_id: each for each in self.assessment.dags or ()}

    def _build_row(self, assessed: AssessedToken, rendered: dict[str, Any]) -> dict[str, Any]:
        token, now = assessed.token, self.assessment.now
        dag = self._dags.get(token.dag_id or "")
        runbook = find_runbook(assessed, dag, now)
        scopes = self.status.scopes.get(token.variable or "", {})
        error = self._build_error(token)
        return {
            **rendered,
            "reasons": _list_reasons(assessed.verdict, error),
            "dag_ids": list(assessed.dag_ids),
            "alert": find_alert(assessed, dag, now),
            "runbook": runbook and {"text": runbook, "url": f"{RUNBOOKS_URL}/{runbook}"},
            "scheduled_dags": [
                {"dag_id": dag_id, "url": self.pages.dag(dag_id)}
                for dag_id in self.status.scheduled_dags.get(build_asset_uri(token.name), ())
            ],
            "rotations": [
                {**values, "url": self._build_event_url(token, event)}
                for values, event in zip(rendered["rotations"], token.rotations, strict=True)
            ],
            "last_rehearsal": rendered["last_rehearsal"]
            and {
                **rendered["last_rehearsal"],
                "url": self._build_event_url(token, token.last_rehearsal),
            },
            "scopes": [{"name": role, "scopes": sorted(scopes[role])} for role in sorted(scopes)],
            "renewal": self._build_renewal(assessed),
            "run": self._build_run(token),
            "error": error,
        }

    def _build_renewal(self, assessed: AssessedToken) -> dict[str, Any]:
        why_not, way_out = self._find_obstacle(assessed)
        remaining = assessed.remaining
        return {
            "possible": not why_not,
            "why_not": why_not.strip(),
            "way_out": way_out,
            "usual_minutes": parse_settings(assessed.token).lifetime_minutes,
            # the lifetimes with which the successor expires later, as far as the issuer grants them
            "shortest_minutes": None if remaining is None else _count_minutes(remaining),
            "longest_minutes": assessed.token.longest_minutes,
        }

    def _find_obstacle(self, assessed: AssessedToken) -> tuple[str, Link | None]:
        """Return why a renewal cannot be started, if so, and a link to the place to correct it."""
        token, dag_ids = assessed.token, assessed.dag_ids
        dag_id = token.dag_id or ""
        dag = self._dags[dag_id]
        open_variable = {
            "text": "Open the Variable",
            "url": self.pages.variable(token.variable or ""),
        }
        if len(dag_ids) > 1:
            names = " and ".join(dag_ids)
            return f"Several DAGs manage the token, {names}: remove it from all but one.", None
        if dag_id not in self.renewable_dags:
            return f"You do not have the permission to create DAG runs of {dag_id}.", None
        if dag.condition is Condition.MISSING:
            return dag.verdict.hint, None
        if dag.condition is Condition.BROKEN:
            link = {"text": "See the import errors", "url": self.pages.import_errors()}
            return dag.verdict.hint, link
        if dag.condition is Condition.PAUSED:
            link = {"text": "Unpause the DAG", "url": self.pages.dag(dag_id)}
            return "The DAG is paused.", link
        if token.read_error:
            hint = token.read_error.hint
            return f"The Variable does not contain a token to renew. {hint}", open_variable
        if token.failed_rotation and token.failed_rotation.needs_new_token:
            message = "The issuer no longer renews this token."
            return f"{message} {ExpiredToken.hint}", open_variable
        if not token.roles:
            return f"The token has no roles. {ExpiredToken.hint}", open_variable
        return "", None

    def _build_run(self, token: TokenStatus) -> dict[str, Any] | None:
        run = self.status.find_run(token)
        if run is None:
            return None
        dag_id = token.dag_id or ""
        return {
            "run_id": run.run_id,
            "state": run.state,
            "active": run.is_active,
            "step": run.step,
            "requested_at": to_json(run.requested_at),
            "requested_by": run.requested_by,
            "is_rehearsal": run.is_rehearsal,
            "message": run.describe(run.find_result(token, self._dags[dag_id].dag)),
            "url": self.pages.run(dag_id, run.run_id),
        }

    def _build_error(self, token: TokenStatus) -> dict[str, Any] | None:
        """Return the last failure, until another rotation or another token."""
        run, last, failed = (
            self.status.find_run(token),
            next(iter(token.rotations), None),
            token.failed_rotation,
        )
        is_last = last is None or (run is not None and last.at < run.requested_at)
        is_renewal = run is not None and not run.is_rehearsal
        is_replaced = run and token.issued_at and token.issued_at > run.requested_at
        if run and is_renewal and run.has_failed and is_last and not is_replaced:
            dag_id = token.dag_id or ""
            result = run.find_result(token, self._dags[dag_id].dag)
            return {
                "outcome": result.outcome if result else "failed",
                "message": run.describe(result),
                "hint": result.hint if result else "",
                "at": to_json(run.requested_at),
                "url": self.pages.run(dag_id, run.run_id),
            }
        if failed is None:
            return None
        return {
            "outcome": failed.outcome,
            "message": failed.message,
            "hint": failed.hint,
            "at": to_json(failed.at),
            "url": self._build_event_url(token, failed),
        }

    def _build_event_url(self, token: TokenStatus, event: Event | None) -> str | None:
        if event is None or event.run_id is None or event.task_id is None:
            return None
        return self.pages.task(token.dag_id or "", event.run_id, event.task_id, event.map_index)


def _count_minutes(remaining: timedelta) -> int:
    """Return the shortest lifetime, in minutes, that is longer than the remaining one."""
    return max(int(remaining // timedelta(minutes=1)), 0) + 1


def _list_reasons(verdict: Verdict, error: Mapping[str, Any] | None) -> list[str]:
    """Return why a token is not OK, without its expiry and its `error`, which the row shows."""
    shown: tuple[str, ...] = ()
    if error:
        outcome, message = error["outcome"], error["message"]
        shown = (describe_failure(outcome, message), message.rstrip("."))
    return [reason for reason in verdict.reasons if reason not in shown]
