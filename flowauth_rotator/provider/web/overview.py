"""What the page shows: a document of what there is to say of each managed token and DAG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

from flowauth_rotator.agent.rotation import Check
from flowauth_rotator.core import policy
from flowauth_rotator.core.errors import ExpiredToken, RotatorError
from flowauth_rotator.monitoring.assessment import State, Thresholds, judge
from flowauth_rotator.provider.web.managed import WELL, Agent, Attempt, Managed
from flowauth_rotator.provider.web.snapshot import heartbeat, told_of, watched

GROUPS = ("active", "attention", "expired")


class Pages(Protocol):
    """Where Airflow shows what, relative to its own address."""

    def dag(self, dag_id: str) -> str:
        """A DAG."""

    def run(self, dag_id: str, run_id: str) -> str:
        """A run."""

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """What a task did, and its log."""

    def variable(self, key: str) -> str:
        """A Variable."""

    def import_errors(self) -> str:
        """Why files of DAGs are broken."""


@dataclass(frozen=True)
class Overview:
    """What the page shows to one person.

    Attributes:
        agents: the DAGs.
        tokens: the tokens that the person may see.
        may_renew: the DAGs of which the person may start runs.
        pages: where Airflow shows the rest.
        now: an aware time.
    """

    agents: Sequence[Agent]
    tokens: Sequence[Managed]
    may_renew: set[str]
    pages: Pages
    now: datetime

    def document(self) -> dict[str, Any]:
        """All of it as JSON values; times are epoch seconds."""
        rows = [self.row(one) for one in self.tokens]
        return {
            "agents": [self._agent(agent) for agent in self.agents],
            "notices": [notice for agent in self.agents for notice in agent.notices],
            "tokens": sorted(rows, key=lambda row: (GROUPS.index(row["group"]), row["name"])),
        }

    def row(self, one: Managed) -> dict[str, Any]:
        """One token as JSON values."""
        told, state = told_of(one, self.now), self._state(one)
        found = one.found if isinstance(one.found, Check) else None
        claims = found.claims if found else None
        expired = found is not None and found.decision.state is policy.State.EXPIRED
        calm = state is State.OK
        scopes = claims.scopes if claims else {}
        return {
            "name": one.name,
            "variable": one.variable,
            "dag_id": one.agent.dag_id,
            "audience": claims.audience if claims else None,
            "user": claims.subject if claims else None,
            "roles": [{"name": role, "scopes": sorted(scopes[role])} for role in sorted(scopes)],
            "state": told.word,
            "severity": state.name.lower(),
            "group": "expired" if expired else "active" if calm else "attention",
            "reason": told.reason,
            "advice": f"{self._prospect(one)} {told.advice}".strip(),
            "issued_at": _seconds(claims.issued_at if claims else None),
            "renew_at": _seconds(found.decision.renew_at if found else None),
            "critical_at": _seconds(found.decision.critical_at if found else None),
            "expires_at": _seconds(one.expires_at),
            "next_check_at": _seconds(one.agent.follows_at),
            "last_rotation": self._last_rotation(one),
            "newest_issued_at_issuer": _seconds(one.newest_issued_at),
            "renewal": {
                **self._obstacle(one),
                "usual_minutes": one.token.lifetime_minutes,
                "longest_minutes": one.longest_minutes,
            },
            "run": self._run(one),
            "error": self._error(one),
        }

    def _state(self, one: Managed) -> State:
        """How a token is to those who watch it."""
        facts, patience = watched(one, self.now), heartbeat(one.agent, self.now).patience
        judged = judge(facts, facts.in_use, Thresholds(), self.now, patience=patience)
        return judged.verdict.state

    def _prospect(self, one: Managed) -> str:
        """What becomes of a token that is due, unless its last rotation failed."""
        due = isinstance(one.found, Check) and one.found.decision.due
        if not due or (one.told and one.told.failed):
            return ""
        condition, sentence = one.agent.condition(self.now)
        if condition in WELL:
            return "The next check renews it."
        return f"Nothing renews it. {sentence}"

    @cached_property
    def _keepers(self) -> dict[str, list[str]]:
        """The DAGs that manage each Variable."""
        keepers: dict[str, list[str]] = {}
        for one in self.tokens:
            keepers.setdefault(one.variable, []).append(one.agent.dag_id)
        return keepers

    def _agent(self, agent: Agent) -> dict[str, Any]:
        state, sentence = agent.condition(self.now)
        every = agent.schedule
        return {
            "dag_id": agent.dag_id,
            "url": self.pages.dag(agent.dag_id),
            "schedule": f"every {every}" if isinstance(every, timedelta) else every,
            "state": state,
            "sentence": sentence,
            "last_check_at": _seconds(agent.checked_at),
            "next_check_at": _seconds(agent.follows_at),
        }

    def _last_rotation(self, one: Managed) -> dict[str, Any] | None:
        attempt = one.attempt
        if attempt is None:
            return None
        return {
            "outcome": attempt.report.outcome,
            "failed": attempt.report.failed,
            "at": _seconds(attempt.report.checked_at),
            "url": self._task(one, attempt),
        }

    def _obstacle(self, one: Managed) -> dict[str, Any]:
        """Whether a renewal can be started; if not, why, and the way out."""
        dag_id = one.agent.dag_id
        condition, sentence = one.agent.condition(self.now)
        to_dag = self.pages.dag(dag_id)
        store_another = {"text": "Open the Variable", "url": self.pages.variable(one.variable)}
        why_not, way_out = "", None
        keepers = self._keepers[one.variable]
        if len(keepers) > 1:
            dags = " and ".join(sorted(keepers))
            why_not = f"It is managed by several DAGs, {dags}: leave it in one of them."
        elif dag_id not in self.may_renew:
            why_not = (
                f"You may not start runs of the DAG {dag_id}: "
                "the permission to create DAG runs of it is missing."
            )
        elif condition == "missing":
            why_not = sentence
        elif condition == "broken":
            why_not = sentence
            way_out = {"text": "See the import errors", "url": self.pages.import_errors()}
        elif condition == "paused":
            why_not, way_out = "The DAG is paused.", {"text": "Unpause the DAG", "url": to_dag}
        elif isinstance(one.found, RotatorError):
            why_not, way_out = f"There is nothing to renew. {one.found.advice}", store_another
        elif one.is_gone:
            why_not = f"It has expired, and the issuer renews it no more. {ExpiredToken.advice}"
            way_out = store_another
        elif one.has_no_roles:
            why_not = f"The issuer has no roles recorded for it. {ExpiredToken.advice}"
            way_out = store_another
        return {"possible": not why_not, "why_not": why_not.strip(), "way_out": way_out}

    def _run(self, one: Managed) -> dict[str, Any] | None:
        run = one.run
        if run is None:
            return None
        return {
            "run_id": run.run_id,
            "state": run.state,
            "active": run.active,
            "asked_at": _seconds(run.asked_at),
            "asked_by": run.asked_by,
            "sentence": one.progress,
            "url": self.pages.run(one.agent.dag_id, run.run_id),
        }

    def _error(self, one: Managed) -> dict[str, Any] | None:
        """Why the last attempt failed, until there is another one or another token."""
        run, newest, failed = one.run, one.attempt, one.failed_attempt
        since = newest is None or (run is not None and newest.is_before(run))
        if run and run.state == "failed" and since and not one.is_newer_than(run):
            return {
                "outcome": "failed",
                "reason": one.progress,
                "advice": "",
                "at": _seconds(run.asked_at),
                "url": self.pages.run(one.agent.dag_id, run.run_id),
            }
        if failed is None:
            return None
        return {
            "outcome": failed.report.outcome,
            "reason": failed.report.reason,
            "advice": failed.report.advice,
            "at": _seconds(failed.report.checked_at),
            "url": self._task(one, failed),
        }

    def _task(self, one: Managed, attempt: Attempt) -> str:
        return self.pages.task(one.agent.dag_id, attempt.run_id, "rotate", attempt.map_index)


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp())
