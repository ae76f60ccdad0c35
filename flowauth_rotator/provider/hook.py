"""The connection of type `flowauth`: where the issuer is, and how to sign in there."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.provider import compat

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import BearerIssuer, SessionIssuer

EXTRAS: dict[str, type | tuple[type, ...]] = {
    "public_key": str,
    "timeout": (int, float),
    "verify": (bool, str),
}


class FlowAuthHook(compat.BaseHook):
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
        connection = compat.read_connection(flowauth_conn_id)
        if connection is None:
            raise Misconfigured(
                f"There is no connection {flowauth_conn_id}.",
                advice="Create it with the issuer's address as its host.",
            )
        self._connection = connection
        self._extra = _checked_extra(flowauth_conn_id, connection.extra)

    @property
    def public_key(self) -> str | None:
        """The issuer's public key (PEM), if the connection has it."""
        return self._extra.get("public_key")

    def get_conn(self) -> SessionIssuer | BearerIssuer:
        """The issuer, not yet asked anything; the caller closes it."""
        from flowauth_rotator.agent.issuer import BearerIssuer, SessionIssuer

        connection = self._connection
        options = {name: self._extra[name] for name in ("timeout", "verify") if name in self._extra}
        url = _address(connection.host or "", connection.port, connection.schema)
        if connection.login:
            return SessionIssuer(url, connection.login, connection.password or "", **options)
        return BearerIssuer(url, **options)


def _address(host: str, port: int | None, schema: str | None) -> str:
    """The issuer's address, from a host that may be the whole of it."""
    if host and "://" not in host:
        host = f"{schema or 'https'}://{host}"
    scheme, separator, rest = host.partition("://")
    where, slash, path = rest.partition("/")
    return f"{scheme}{separator}{where}:{port}{slash}{path}" if port else host


def _checked_extra(connection_id: str, text: str | None) -> dict[str, Any]:
    """The extra's settings. Airflow takes what is no JSON for nothing, and would drop them."""
    extra = None
    with contextlib.suppress(ValueError):
        extra = json.loads(text or "{}")
    if not isinstance(extra, dict):
        raise Misconfigured(
            f"The extra of connection {connection_id} is no JSON object.",
            advice='Write it like {"timeout": 30}.',
        )
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
