"""The bundled renewal server, with the token itself as the credential."""

from __future__ import annotations

from flowauth_rotator.agent.http import ForeignRefusal, NoSuchPage, SignedOut
from flowauth_rotator.agent.issuer import HttpIssuer, add_clock_reading, parse_limit
from flowauth_rotator.core.errors import Misconfigured, wrap_unexpected_errors
from flowauth_rotator.core.limits import Outlook
from flowauth_rotator.core.succession import History, RenewalResponse, Row
from flowauth_rotator.core.tokens import Claims, Token, shorten_name


class BearerIssuer(HttpIssuer):
    """The bundled renewal server, with the token itself as the credential; no password."""

    @wrap_unexpected_errors
    def test_connection(self) -> str:
        """Check that the issuer accepts tokens as credentials, and return a clause that says so.

        Raises:
            Misconfigured: it does not; the issuer may be FlowAuth.
        """
        try:
            self._http.send("GET", "/.well-known/jwks.json")
        except (SignedOut, ForeignRefusal):
            raise self._not_supported() from None
        return "each token is its own credential"

    def rows(self, claims: Claims) -> History:  # noqa: ARG002 - no history
        """Return no rows: a token cannot list the history, and the idempotency key replaces it."""
        return History()

    @add_clock_reading
    def renew(
        self,
        token: Token,
        row: Row | None,  # noqa: ARG002 - the token identifies itself
        *,
        key: str,
        lifetime_minutes: int | None,
    ) -> RenewalResponse:
        """Renew the token."""
        self._http.token = token.reveal()
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        try:
            return self._request_renewal("/tokens/renew", key, lifetime_minutes, headers)
        except (SignedOut, NoSuchPage):
            raise self._not_supported() from None

    @add_clock_reading
    def rehearse(self, token: Token, claims: Claims) -> Outlook:  # noqa: ARG002
        """Have the issuer judge a renewal of the token, and mint none."""
        self._http.token = token.reveal()
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        try:
            response = self._http.send(
                "POST", "/tokens/renew", body={"dry_run": True}, headers=headers
            )
        except (SignedOut, NoSuchPage):
            raise self._not_supported() from None
        document = response.document
        if not isinstance(document, dict) or not isinstance(roles := document.get("roles"), list):
            raise Misconfigured(
                f"{self.url} does not rehearse renewals, and may have renewed the token instead.",
                hint="Update the renewal server, or set `rehearse_every` to None.",
            )
        holders = [("server", document.get("server")), *(("role", role) for role in roles)]
        limits = (parse_limit(noun, each, self._http.show) for noun, each in holders)
        name = document.get("name")
        name = shorten_name(name) if isinstance(name, str) else None
        return Outlook(name, [limit for limit in limits if limit])

    def _not_supported(self) -> Misconfigured:
        return Misconfigured(
            f"{self.url} does not accept a token as its own credential: is it FlowAuth?",
            hint="Add `login` and `password` of the token's owner.",
        )
