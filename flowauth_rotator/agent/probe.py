"""FlowAPI, which is asked whether it accepts a token, before and after a swap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flowauth_rotator.agent.http import HttpClient
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import (
    IssuerUnavailable,
    Misconfigured,
    Refused,
    Rejected,
    RotatorError,
    wrap_unexpected_errors,
)
from flowauth_rotator.core.report import Report, Severity, most_severe
from flowauth_rotator.core.tokens import Token

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer_calls import IssuerCalls

SETTING = "`probe_url`"
REFUSALS = (401, 422)  # FlowAPI's, to a token that has expired, and to one of another key
SUITABLE_PATH = "/api/0/available_dates"
UNAVAILABLE_HINT = f"The request is retried; if the error persists, check FlowAPI and {SETTING}."
LARGEST_ANSWER = 16 * 1024 * 1024  # of which only the status counts
KEY_HINT = (
    "Compare FlowAPI's public key (`PUBLIC_JWT_SIGNING_KEY`) with the key of the issuer, and "
    "`FLOWAPI_IDENTIFIER` with the audience of the token"
)


class Probe:
    """An address of FlowAPI that needs a token.

    It follows no redirects: no token reaches another host than the one in the address.

    Args:
        address: the address, with its path.
        timeout: seconds for one exchange.
        verify: whether certificates are verified, or the path of the certificates to trust.

    Raises:
        Misconfigured: the address is invalid.
    """

    @wrap_unexpected_errors
    def __init__(self, address: str, *, timeout: float = 30.0, verify: bool | str = True) -> None:
        self._http = HttpClient(Address.parse(address, SETTING), timeout=timeout, verify=verify)

    def accepts(self, token: Token) -> bool:
        """Whether FlowAPI accepts a token, whatever its scopes.

        Raises:
            RotatorError: FlowAPI gave no answer.
        """
        self._http.token = token.reveal()
        return not self._is_refused({"Authorization": f"Bearer {token.reveal()}"})

    def check_address(self) -> None:
        """Check that a request without a token is refused, so that a token makes the difference.

        Raises:
            Misconfigured: it is not.
            RotatorError: FlowAPI gave no answer.
        """
        if not self._is_refused({}):
            raise Misconfigured(
                f"{self._http.url} does not refuse a request without a token.",
                hint=f"Set {SETTING} to an address of FlowAPI that needs one: its path may be "
                f"{SUITABLE_PATH}.",
            )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _is_refused(self, headers: dict[str, str]) -> bool:
        try:
            response = self._http.fetch("", headers=headers, max_bytes=LARGEST_ANSWER)
            if response.status in REFUSALS:
                return True
            is_error = response.status in (407, 408, 429) or response.status >= 500
            if not is_error and not 300 <= response.status < 400:
                return False
            error = self._http.build_error(response)
            if isinstance(error, Refused):  # 407 and 408: FlowAPI has not seen the token
                error = IssuerUnavailable(error.message)
            raise error
        except IssuerUnavailable as error:
            if error.hint == IssuerUnavailable.hint:
                error.hint = UNAVAILABLE_HINT
            raise


@dataclass
class Trial:
    """The trial of a successor, and of the token in use, at FlowAPI.

    The rule prefers access. Only if FlowAPI refuses the successor, and it is not known that it
    refuses the token in use as well, the successor is not stored. If FlowAPI does not answer, or
    refuses both, it is stored with a warning.

    Attributes:
        probe: the address to try tokens at.
        calls: whose `retry` repeats a request without an answer.
        is_accepted: whether FlowAPI accepts the successor; None without an answer.
        would_lose_access: whether FlowAPI accepts the token in use, and refuses the successor.
        problem: why there is no answer, as a sentence.
    """

    probe: Probe
    calls: IssuerCalls
    is_accepted: bool | None = None
    would_lose_access: bool = False
    problem: str = ""

    def admit(self, successor: Token, in_use: Token, *, has_expired: bool) -> None:
        """Try the successor before it is stored, and the token in use if it is refused.

        Args:
            successor: the successor.
            in_use: the token in use.
            has_expired: whether that has expired, so that FlowAPI refuses it.

        Raises:
            Rejected: the swap would lose access.
            IssuerUnavailable: it may.
        """
        self.is_accepted = self._try(successor)
        if self.is_accepted is not False or has_expired:
            return
        is_in_use_accepted = self._try(in_use)
        if is_in_use_accepted:
            self.would_lose_access = True
            clause = "FlowAPI refuses it, and accepts the token in use"
            raise Rejected(
                f"The issuer's token was not stored: {clause}.",
                violations=(clause,),
                hint="The signing key of the issuer was probably replaced, and FlowAPI has the old "
                f"one. {KEY_HINT}. The next check tries again.",
            )
        if is_in_use_accepted is None:
            raise IssuerUnavailable(
                "The issuer's token was not stored: FlowAPI refuses it. Whether FlowAPI accepts "
                f"the token in use is not known: {self.problem}",
                hint=f"The rotation is retried; if the error persists, check {SETTING}.",
            )

    def add_to(self, report: Report, predecessor: Token, *, has_expired: bool) -> Report:
        """Return the report of a swap with what FlowAPI answers for both tokens.

        The predecessor is tried again: tasks use it until its expiry.
        """
        severity, hint = Severity.OK, ""
        if self.is_accepted is None:
            sentence = f"Whether FlowAPI accepts it is not known: {self.problem}"
            severity = Severity.WARNING
            hint = f"Check {SETTING}: the successor was stored untried."
        elif not self.is_accepted:
            fate = "has expired" if has_expired else "is refused, too"
            sentence = f"FlowAPI refuses it, and the predecessor {fate}."
            severity, hint = Severity.CRITICAL, f"{KEY_HINT}, and check {SETTING}."
        elif has_expired:
            sentence = "FlowAPI accepts it."
        else:
            is_overlap = self._try(predecessor)
            sentence = "FlowAPI accepts it and the predecessor."
            if is_overlap is None:
                sentence = (
                    "FlowAPI accepts it. Whether FlowAPI accepts the predecessor is not known: "
                    f"{self.problem}"
                )
            elif not is_overlap:
                sentence = "FlowAPI accepts it, and refuses the predecessor before its expiry."
                severity = Severity.WARNING
                hint = (
                    "Start tasks again that fail with the predecessor. The signing key of the "
                    "issuer was probably replaced."
                )
        return replace(
            report,
            message=f"{report.message} {sentence}",
            severity=most_severe(report.severity, severity),
            hint=f"{report.hint} {hint}".strip(),
        )

    def _try(self, token: Token) -> bool | None:
        """Whether FlowAPI accepts a token; None without an answer, with `problem`."""
        try:
            return self.calls.retry(lambda: self.probe.accepts(token))
        except RotatorError as error:
            self.problem = error.message
            return None
