"""Find a successor at the issuer, or request one: look, request, verify, repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.errors import Capped, ExpiredToken, IssuerError, Refused
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.succession import (
    Candidate,
    Row,
    check_budget,
    choose_successor,
    evaluate_candidate,
    find_current_row,
    find_successors,
    idempotency_key,
    may_request_renewal,
    retry_generation,
)
from flowauth_rotator.core.tokens import PublicKey, Token

if TYPE_CHECKING:
    from flowauth_rotator.agent.clocks import Clocks
    from flowauth_rotator.agent.issuer_calls import IssuerCalls
    from flowauth_rotator.agent.rotation import Inspection


@dataclass
class Renewal:
    """The search for a successor of one token.

    Attributes:
        inspection: the token in use.
        calls: the calls of the rotation to the issuer.
        clocks: our clock and the issuer's.
        policy: what a successor must be worth.
        public_key: verifies the signatures of candidates; None leaves them unverified.
        on_token: called with each candidate before anything else is done with it.
        candidates: the tokens that the issuer showed or minted in the last attempt.
        row_name: the name in the issuer's row of the token in use, once that has been seen.
    """

    inspection: Inspection
    calls: IssuerCalls
    clocks: Clocks
    policy: RotationPolicy
    public_key: PublicKey | None
    on_token: Callable[[Token], None]
    candidates: list[Candidate] = field(default_factory=list)
    row_name: str | None = None

    def find_or_request(self) -> Candidate | None:
        """Adopt a successor that the issuer already holds, or else request one.

        Returns:
            The candidate to store, which may still be rejected; None if the clocks are far apart
            and by the issuer's clock the token is not due.

        Raises:
            RotatorError: no candidate was found.
        """
        try:
            return self.calls.retry(self._attempt)
        except IssuerError as error:
            if candidate := self._choose():
                return candidate
            claims = self.inspection.claims
            if not (isinstance(error, Refused) and claims.expires_at <= self.clocks.theirs):
                raise
            message = f"It expired at {format_time(claims.expires_at)}. {error.message}"
            hint = error.hint if error.hint != Refused.hint else None
            raise ExpiredToken(message, hint=hint) from None

    @property
    def newest_expiry(self) -> datetime | None:
        """The latest expiry among the candidates; None if none of them can be read."""
        return max((it.claims.expires_at for it in self.candidates if it.claims), default=None)

    def _attempt(self) -> Candidate | None:
        """Look for a successor before any request, since an earlier response may have been lost."""
        claims = self.inspection.claims
        rows = self.calls.rows(claims)
        self.candidates.clear()  # only now: if the list fails, the earlier candidates count
        current = find_current_row(claims, rows)
        if current:
            self.row_name = current.name
        if self.clocks.contradict(self.policy):
            return None
        now = self.clocks.earliest
        for row in find_successors(claims, rows):
            self._evaluate(row.token, adopted=True)
        chosen = self._choose()
        may_request = may_request_renewal(claims, self.candidates, self.policy, now)
        if chosen and not (chosen.violations and may_request):
            return chosen
        if not may_request:
            return self._least_bad()
        if current:
            check_budget(current.name, rows, now)
        return self._request(current)

    def _request(self, row: Row | None) -> Candidate | None:
        """Request a renewal, and again with the next key while the issuer replays a useless one."""
        claims, policy = self.inspection.claims, self.policy
        has_expired = row is not None and claims.expires_at <= self.clocks.earliest
        generation = self._generation() if has_expired else 0
        while generation <= self._generation():
            response = self.calls.renew(
                self.inspection.token,
                row,
                key=idempotency_key(claims, policy.lifetime_minutes, generation),
                lifetime_minutes=policy.lifetime_minutes,
            )
            is_useful = response.token and not self._evaluate(response.token).violations
            if self.clocks.contradict(policy):
                return None
            if is_useful or not response.replayed:
                break
            generation += 1
        if not self.candidates:
            raise Capped("The token that the issuer minted for this request has expired already.")
        return self._choose() or self._least_bad()

    def _evaluate(self, token: Token, *, adopted: bool = False) -> Candidate:
        self.on_token(token)
        inspection = self.inspection
        candidate = evaluate_candidate(
            inspection.claims,
            token,
            self.policy,
            self.clocks.earliest,
            latest=self.clocks.latest,
            key=self.public_key,
            adopted=adopted,
            forced=None if inspection.decision.due else inspection.forced,
        )
        self.candidates.append(candidate)
        return candidate

    def _generation(self) -> int:
        return retry_generation(self.inspection.claims, self.policy, self.clocks.earliest)

    def _choose(self) -> Candidate | None:
        return choose_successor(self.inspection.claims, self.candidates, self.clocks.earliest)

    def _least_bad(self) -> Candidate:
        """Return a candidate that is only capped, if there is one, to explain the failure."""
        return min(self.candidates, key=lambda candidate: bool(candidate.faults))
