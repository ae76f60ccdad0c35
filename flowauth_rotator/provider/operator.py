"""One token's rotation as an Airflow task."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Report
from flowauth_rotator.provider.assets import OUTCOME, ROTATIONS, announce, count
from flowauth_rotator.provider.compat import (
    AirflowException,
    AirflowFailException,
    BaseOperator,
    BaseOperatorLink,
    Context,
    XCom,
    asked_at,
    tokens_page,
)
from flowauth_rotator.provider.variable_store import VariableStore, key_of, mask


class TokenLink(BaseOperatorLink):
    """Leads from a rotation to its token on the page "FlowAPI tokens"."""

    name = "FlowAPI token"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ANN401, ARG002
        """The page, at the token that the task's report is about."""
        report = XCom.get_value(ti_key=ti_key, key="report")
        return tokens_page(key_of(report["place"])) if report else ""


class RotateTokenOperator(BaseOperator):
    """Rotate the token in one Variable, if it is due.

    Pushes the report as XCom `report`, also when it fails. A failure that may pass is retried by
    Airflow; any other fails the task at once, and so does a swap that a person should look at. Any
    other swap updates the asset `flowauth://<name>`.

    :param variable: key of the Variable that holds the token.
    :param name: the issuer's name of the token; without one, the JWT's own, or else the key.
    :param flowauth_conn_id: the connection to the issuer.
    :param description: what to write beside the Variable; without one, name and expiry.
    :param renew_before: remaining lifetime at which to renew, as a fraction or a duration.
    :param critical_before: remaining lifetime under which a failure is critical, likewise.
    :param lifetime_minutes: the lifetime to ask for; without one, the issuer's maximum.
    :param force: renew a token that was made before the run was asked for, also if it is not due.
    """

    # Not `name`: the survey takes it from a token, and a token is not to be run as a template.
    template_fields: Sequence[str] = ("variable", "flowauth_conn_id", "description")
    operator_extra_links = (TokenLink(),)

    def __init__(
        self,
        *,
        variable: str,
        name: str | None = None,
        flowauth_conn_id: str = "flowauth_default",
        description: str | None = None,
        renew_before: float | timedelta = RotationPolicy.renew_before,
        critical_before: float | timedelta = RotationPolicy.critical_before,
        lifetime_minutes: int | None = None,
        force: bool = False,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's
    ) -> None:
        super().__init__(**kwargs)
        if ROTATIONS not in self.outlets:  # as it is in a copy that a mapped operator makes
            self.outlets = [*self.outlets, ROTATIONS]
        self.variable = variable
        self.name = name
        self.flowauth_conn_id = flowauth_conn_id
        self.description = description
        self.renew_before = renew_before
        self.critical_before = critical_before
        self.lifetime_minutes = lifetime_minutes
        self.force = force

    def execute(self, context: Context) -> None:
        """Rotate, and push the report."""
        now = datetime.now(timezone.utc)
        store = VariableStore(self.variable)
        failure: type[Exception] = AirflowFailException
        try:
            force = asked_at(context) if self.force else None
            report = self._rotate(store, now, force)
        except RotatorError as error:
            report = error.report(name=self.name or store.name, place=store.place, checked_at=now)
            if error.retryable:
                failure = AirflowException
        context["ti"].xcom_push(key="report", value=report.to_json())
        context["ti"].xcom_push(key=f"{OUTCOME}{report.outcome}", value=True)
        count(report)
        if report.failed:
            raise failure(str(report))
        announce(context, report)
        self.log.info("%s", report)

    def _rotate(self, store: VariableStore, now: datetime, force: datetime | None) -> Report:
        from flowauth_rotator.agent.rotation import rotate
        from flowauth_rotator.provider.hook import FlowAuthHook

        policy = RotationPolicy(
            renew_before=self.renew_before,
            critical_before=self.critical_before,
            lifetime_minutes=self.lifetime_minutes,
        )
        hook = FlowAuthHook(self.flowauth_conn_id)
        with closing(hook.get_conn()) as issuer:
            return rotate(
                store,
                issuer,
                policy,
                now=now,
                name=self.name,
                description=self.description,
                public_key=hook.public_key,
                on_token=mask,
                force=force,
            )
