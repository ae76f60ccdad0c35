"""The operator that rotates a managed token."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from flowauth_rotator.core.errors import RotatorError, UnexpectedError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Report
from flowauth_rotator.provider.assets import ROTATIONS, count_outcome, update_token_asset
from flowauth_rotator.provider.compat import (
    AirflowException,
    AirflowFailException,
    BaseOperator,
    BaseOperatorLink,
    Context,
    XCom,
    build_page_url,
    get_requested_at,
)
from flowauth_rotator.provider.managed_tokens import ManagedToken
from flowauth_rotator.provider.stores import open_stores
from flowauth_rotator.provider.variable_store import format_place, mask_token

REHEARSAL = "The next renewal would fail. "


class TokenLink(BaseOperatorLink):
    """The link from a rotation to its token on the page "FlowAPI tokens"."""

    name = "FlowAPI token"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ANN401, ARG002
        """Return the address of the page at the token of the task's report."""
        report = XCom.get_value(ti_key=ti_key, key="report")
        return build_page_url(report["variable"]) if report else ""


class RotateTokenOperator(BaseOperator):
    """Rotate one token, if it is due.

    Pushes the report as XCom `report`, also when it fails. Airflow retries a temporary failure;
    any other fails the task at once, and so does a swap with a warning. A swap without a warning
    updates the asset `flowauth://<name>`.

    :param variable: key of the Variable that contains the token, or of the token in `store`.
    :param name: the issuer's name of the token; by default the one in the JWT, or else the key.
    :param flowauth_conn_id: the connection to the issuer.
    :param description: the description of the Variable; by default the name and the expiry.
    :param renew_before: remaining lifetime at which to renew, as a fraction or a duration.
    :param critical_before: remaining lifetime under which a failure is critical, in the same form.
    :param lifetime_minutes: the lifetime to request; by default the issuer's maximum.
    :param store: where the token is kept, as in `ManagedToken`; by default Airflow's database.
    :param also_variables: keys of copies in the same store, which get the same successor.
    :param rehearse: only rehearse the renewal: all of it, except the request that issues a token.
    :param force: renew also a token that is not due, if it was issued before the run was requested.
    """

    # Not `name`: the survey reads it from a token, whose content must not run as a template.
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
        rehearse: bool = False,
        store: str | None = None,
        also_variables: Sequence[str] = (),
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's
    ) -> None:
        super().__init__(**kwargs)
        if ROTATIONS not in self.outlets:  # it is in copies of a mapped operator
            self.outlets = [*self.outlets, ROTATIONS]
        self.variable = variable
        self.name = name
        self.flowauth_conn_id = flowauth_conn_id
        self.description = description
        self.renew_before = renew_before
        self.critical_before = critical_before
        self.lifetime_minutes = lifetime_minutes
        self.force = force
        self.rehearse = rehearse
        self.store = store
        self.also_variables = also_variables

    def execute(self, context: Context) -> None:
        """Rotate the token and push the report."""
        now = datetime.now(timezone.utc)
        failure: type[Exception] = AirflowFailException
        try:
            force = get_requested_at(context) if self.force else None
            report = self._renew(now, force)
        except RotatorError as error:
            report = self._report_error(error, now)
            if error.retryable:
                failure = AirflowException
        except BaseException as error:  # Airflow's timeouts are not subclasses of Exception
            with suppress(Exception):  # what ended the task matters more than its report
                self._push(context, self._report_error(_describe_end(error), now))
            raise
        self._push(context, report)
        if report.failed:
            raise failure(f"{REHEARSAL if self.rehearse else ''}{report}")
        if not self.rehearse:
            update_token_asset(context, report)
        self.log.info("%s", report)

    def _report_error(self, error: RotatorError, now: datetime) -> Report:
        place = format_place(self.variable)
        report = error.report(name=self.name or self.variable, place=place, checked_at=now)
        if report.fingerprint is None:  # the token could not be read
            report = replace(report, name_is_known=self.name is not None)
        return report

    def _push(self, context: Context, report: Report) -> None:
        document = {**report.to_json(), "variable": self.variable}
        context["ti"].xcom_push(key="report", value=document)
        if not self.rehearse:
            count_outcome(report)

    def _renew(self, now: datetime, force: datetime | None) -> Report:
        from flowauth_rotator.agent.rehearsal import rehearse
        from flowauth_rotator.agent.rotation import rotate
        from flowauth_rotator.provider.hook import FlowAuthHook

        token = ManagedToken(  # validates the settings
            variable=self.variable,
            flowauth_conn_id=self.flowauth_conn_id,
            renew_before=self.renew_before,
            critical_before=self.critical_before,
            lifetime_minutes=self.lifetime_minutes,
            store=self.store,
            also_variables=self.also_variables,
        )
        policy = token.policy
        store, copies = open_stores(token.variable, token.also_variables, token.store)
        hook = FlowAuthHook(self.flowauth_conn_id)
        probe = hook.get_probe()
        with closing(hook.get_conn()) as issuer, closing(probe) if probe else nullcontext():
            if self.rehearse:
                return rehearse(
                    store,
                    issuer,
                    policy,
                    now=now,
                    name=self.name,
                    public_key=hook.public_key,
                    probe=probe,
                    on_token=mask_token,
                    on_step=lambda step: self.log.info("%s", step),
                    copies=copies,
                )
            return rotate(
                store,
                issuer,
                policy,
                now=now,
                name=self.name,
                description=self.description,
                public_key=hook.public_key,
                probe=probe,
                on_token=mask_token,
                force=force,
                copies=copies,
            )


def _describe_end(error: BaseException) -> RotatorError:
    """Return what ended a task as an error, with the details that `rotate` has added to it."""
    if isinstance(error, Exception):
        return UnexpectedError.wrap(error)
    end = UnexpectedError(
        f"The task was ended by {type(error).__name__} before the rotation was complete.",
        hint="A successor that was issued is found by the next check. If the task has an "
        "`execution_timeout`, raise it above four times the connection's `timeout`.",
    )
    details = getattr(error, "details", None)
    return end.with_details(details, getattr(error, "severity", None)) if details else end
