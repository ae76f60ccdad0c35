"""The connection of type `flowauth`: where the issuer is, and how to sign in there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.compat import AirflowNotFoundException, BaseHook

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import BearerIssuer, SessionIssuer

EXTRAS: dict[str, type | tuple[type, ...]] = {
    "public_key": str,
    "timeout": (int, float),
    "verify": (bool, str),
}


class FlowAuthHook(BaseHook):
    """The issuer that a connection describes.

    Host is the issuer's address. Login and password are those of the tokens' owner; without a
    login the token itself is the credential, which the bundled server honours. The extra may hold
    `public_key` (PEM, verifies successors), `timeout` (seconds) and `verify` (true, false, or the
    path of the certificates to trust).

    :param flowauth_conn_id: the connection's id.
    """

    conn_name_attr = "flowauth_conn_id"
    default_conn_name = "flowauth_default"
    conn_type = "flowauth"
    hook_name = "FlowAuth"

    def __init__(self, flowauth_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.flowauth_conn_id = flowauth_conn_id
        try:
            self._connection = self.get_connection(flowauth_conn_id)
        except AirflowNotFoundException:
            raise Misconfigured(
                f"There is no connection {flowauth_conn_id}.",
                advice="Create it with the issuer's address as its host.",
            ) from None
        self._extra = _checked_extra(flowauth_conn_id, self._connection.extra_dejson)

    @property
    def public_key(self) -> str | None:
        """The issuer's public key (PEM), if the connection has it."""
        return self._extra.get("public_key")

    def get_conn(
        self, on_token: Callable[[Token], None] = lambda _: None
    ) -> SessionIssuer | BearerIssuer:
        """The issuer, not yet asked anything; the caller closes it.

        :param on_token: called with each successor before anything else is done with it.
        """
        from flowauth_rotator.agent.issuer import BearerIssuer, SessionIssuer

        connection = self._connection
        options = {name: self._extra[name] for name in ("timeout", "verify") if name in self._extra}
        url = (connection.host or "").rstrip("/")
        if url and "://" not in url:
            url = f"{connection.schema or 'https'}://{url}"
        if connection.port:
            url = f"{url}:{connection.port}"
        if connection.login:
            return SessionIssuer(
                url, connection.login, connection.password or "", on_token=on_token, **options
            )
        return BearerIssuer(url, on_token=on_token, **options)


def _checked_extra(connection_id: str, extra: dict[str, Any]) -> dict[str, Any]:
    for name, value in extra.items():
        if name not in EXTRAS:
            raise Misconfigured(
                f"The extra of connection {connection_id} has an unknown key {name!r}.",
                advice=f"It takes {', '.join(sorted(EXTRAS))}.",
            )
        if not isinstance(value, EXTRAS[name]):
            raise Misconfigured(
                f"{name!r} in the extra of connection {connection_id} is of the wrong type.",
                advice="public_key is a text, timeout a number, verify true, false or a path.",
            )
    return extra
