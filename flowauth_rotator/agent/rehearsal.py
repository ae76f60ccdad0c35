"""The rehearsal of a renewal: all of it, except the request that mints a token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from flowauth_rotator.agent.clocks import Clocks
from flowauth_rotator.agent.copies import check_copy
from flowauth_rotator.agent.issuer_calls import IssuerCalls, Timer
from flowauth_rotator.agent.probe import KEY_HINT, Probe
from flowauth_rotator.agent.rotation import Inspection, inspect_token
from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.errors import (
    Rejected,
    RotatorError,
    UnexpectedError,
    wrap_unexpected_errors,
)
from flowauth_rotator.core.limits import Outlook, check_limits
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Report
from flowauth_rotator.core.tokens import PublicKey, Token

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import Issuer
    from flowauth_rotator.agent.stores import TokenStore


@wrap_unexpected_errors
def rehearse(
    store: TokenStore,
    issuer: Issuer,
    policy: RotationPolicy,
    *,
    now: datetime,
    name: str | None = None,
    public_key: Callable[[], PublicKey | None] = lambda: None,
    probe: Probe | None = None,
    on_token: Callable[[Token], None] = lambda _: None,
    on_step: Callable[[str], None] = lambda _: None,
    copies: Sequence[TokenStore] = (),
    timer: Timer = time,
) -> Report:
    """Check that the next renewal of a token will work, and report `healthy`.

    Nothing is minted and nothing is written. A failure is the one that the renewal would have: it
    is a warning while there is time.

    Args:
        store: where the token in use is kept.
        issuer: the issuer that renews it; not closed.
        policy: when it is due, and what a successor must be worth.
        now: an aware time.
        name: the issuer's name of the token; by default the one in the JWT, or else the store's.
        public_key: loads the issuer's public key, which verifies the signature.
        probe: tries the token in use at FlowAPI.
        on_token: called with the token in use, before anything else is done with it.
        on_step: called with a sentence after each step that succeeded.
        copies: further stores of the token.
        timer: measures time and pauses between attempts.

    Raises:
        RotatorError: the renewal would fail; its severity says whether there is time left.
    """
    inspection = inspect_token(store, policy, now=now, name=name)
    on_token(inspection.token)
    rehearsal = _Rehearsal(store, copies, IssuerCalls(issuer, timer), policy, inspection, on_step)
    try:
        return rehearsal.run(public_key, probe)
    except Exception as error:  # noqa: BLE001 - a library may raise any error
        known = error if isinstance(error, RotatorError) else UnexpectedError.wrap(error)
        failure = known.with_details(rehearsal.report, rehearsal.clocks.find_severity(policy))
    raise failure  # outside the block, so that it chains nothing that holds a secret


@dataclass
class _Rehearsal:
    """One rehearsal."""

    _store: TokenStore
    _copies: Sequence[TokenStore]
    _calls: IssuerCalls
    _policy: RotationPolicy
    _inspection: Inspection
    _on_step: Callable[[str], None]
    _steps: list[str] = field(default_factory=list)
    _outlook: Outlook = field(default_factory=Outlook)

    def __post_init__(self) -> None:
        self.clocks = Clocks(self._inspection, self._calls)

    @property
    def report(self) -> Report:
        """The report of the inspection, with the steps and what the issuer has shown so far."""
        report = self.clocks.annotate(self._inspection.report).add_name(self._outlook.name)
        return replace(
            report,
            steps=tuple(self._steps),
            newest_issued_expires_at=self._outlook.newest_expiry,
        )

    def run(self, public_key: Callable[[], PublicKey | None], probe: Probe | None) -> Report:
        inspection, policy = self._inspection, self._policy
        self._pass_step(inspection.report.message)
        self._store.preflight()
        self._pass_step(f"{_capitalize(self._store.place)} can be written.")
        for copy in self._copies:
            check_copy(copy, inspection.token, inspection.claims)
            self._pass_step(f"{_capitalize(copy.place)} gets the successor, too.")
        if key := public_key():
            self._verify(key)
            self._pass_step("The public key verifies the token in use.")
        self._outlook = self._calls.rehearse(inspection.token, inspection.claims)
        self._pass_step(f"The issuer accepts a renewal of {self.report.name}.")
        at = max(inspection.decision.renew_at, self.clocks.latest)
        check_limits(inspection.claims, policy, self._outlook.limits, at)
        if self._outlook.limits:
            self._pass_step("The limits of its roles allow the renewal.")
        if probe:
            self._calls.retry(lambda: self._try(probe))
            self._pass_step("FlowAPI accepts the token in use.")
        return replace(self.report, message=f"The renewal due at {format_time(at)} will work.")

    def _try(self, probe: Probe) -> None:
        """Check that FlowAPI accepts the token in use: if not, it would refuse any successor."""
        probe.check_address()
        if not probe.accepts(self._inspection.token):
            violation = "FlowAPI refuses the token in use"
            raise Rejected(f"{violation}.", violations=(violation,), hint=f"{KEY_HINT}.")

    def _pass_step(self, sentence: str) -> None:
        self._steps.append(sentence)
        self._on_step(sentence)

    def _verify(self, key: PublicKey) -> None:
        """Check that the key verifies the token in use: if not, it would reject any successor."""
        if not key.verifies(self._inspection.token):
            violation = "the signature of the token in use does not match the configured key"
            raise Rejected(
                f"A successor would not be stored: {violation}.", violations=(violation,)
            )


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
