"""The bundled server, with the token itself as the credential."""

from __future__ import annotations

from collections.abc import Sequence

from flowauth_rotator.agent.http import NoSuchPage, SignedOut
from flowauth_rotator.agent.issuer import HttpIssuer
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.succession import Renewal, Row
from flowauth_rotator.core.tokens import Claims, Token


class BearerIssuer(HttpIssuer):
    """The bundled server, with the token itself as the credential: no password anywhere."""

    def introduce(self) -> str:
        """Say that tokens renew themselves there.

        Raises:
            Misconfigured: they do not; the issuer may be FlowAuth.
        """
        try:
            self._wire.send("GET", "/.well-known/jwks.json")
        except (SignedOut, NoSuchPage):
            raise self._unwilling() from None
        return "each token is its own credential"

    def rows(self, claims: Claims) -> Sequence[Row]:  # noqa: ARG002 - no token shows any
        """Empty: a token opens no history, and needs none, as the server honours the key."""
        return ()

    def renew(
        self,
        token: Token,
        row: Row | None,  # noqa: ARG002 - the token says which
        *,
        key: str,
        lifetime_minutes: int | None,
    ) -> Renewal:
        """Renew the token that is presented."""
        self._wire.secrets = (token.reveal(),)
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        try:
            return self._renewal("/tokens/renew", key, lifetime_minutes, headers)
        except (SignedOut, NoSuchPage):
            raise self._unwilling() from None

    def _unwilling(self) -> Misconfigured:
        return Misconfigured(
            f"{self.url} renews no token by itself: is it FlowAuth?",
            advice="Give the connection the login and password of the token's owner.",
        )
