"""The connection of type `flowauth`: where the issuer is, and how to sign in there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW
from flowauth_rotator.core.errors import Misconfigured, RotatorError
from flowauth_rotator.provider import compat
from flowauth_rotator.provider.provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR

if TYPE_CHECKING:
    from flowauth_rotator.agent.bearer import BearerIssuer
    from flowauth_rotator.agent.flowauth import SessionIssuer
    from flowauth_rotator.core.tokens import PublicKey


LEAST = timedelta(seconds=2)  # that clocks are apart, to be worth a word: answers take time


class FlowAuthHook(compat.BaseHook):
    """The issuer that a connection describes.

    Host is the issuer's address. Login and password are those of the tokens' owner; without a
    login the token itself is the credential, which the bundled server honours. The extra may hold
    `public_key` (PEM, or the address of a JWK Set; verifies successors), `totp_secret` (of an
    account with two-factor authentication), `timeout` (seconds) and `verify` (true, false, or the
    path of the certificates to trust).

    :param flowauth_conn_id: the connection's id.
    """

    conn_name_attr = "flowauth_conn_id"
    default_conn_name = "flowauth_default"
    conn_type = "flowauth"
    hook_name = "FlowAuth"

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The fields of the extra in the form of Airflow 2."""
        return compat.form_widgets(CONNECTION_FIELDS)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The other fields in the form of Airflow 2."""
        return {key.replace("-", "_"): value for key, value in FIELD_BEHAVIOUR.items()}

    def __init__(self, flowauth_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.flowauth_conn_id = flowauth_conn_id
        self._connection = compat.read_connection(flowauth_conn_id)
        self._extra = _checked_extra(flowauth_conn_id, self._connection.extra)

    def public_key(self) -> PublicKey | None:
        """The issuer's public key, if the connection has it or says where it is."""
        from flowauth_rotator.agent.public_key import load_public_key

        text = self._extra.get("public_key")
        return load_public_key(text, **self._options()) if text else None

    def get_conn(self) -> SessionIssuer | BearerIssuer:
        """The issuer, not yet asked anything; the caller closes it."""
        from flowauth_rotator.agent.bearer import BearerIssuer
        from flowauth_rotator.agent.flowauth import SessionIssuer

        connection = self._connection
        url = _address(connection.host or "", connection.port, connection.schema)
        if not connection.login:
            return BearerIssuer(url, **self._options())
        return SessionIssuer(
            url,
            connection.login,
            connection.password or "",
            totp_secret=self._extra.get("totp_secret"),
            **self._options(),
        )

    def test_connection(self) -> tuple[bool, str]:
        """Ask the issuer who it is, and sign in: whether all is well, and a sentence."""
        from flowauth_rotator.agent.flowauth import SessionIssuer
        from flowauth_rotator.agent.rotation import clock_skew

        now = datetime.now(timezone.utc)
        try:
            with closing(self.get_conn()) as issuer:
                if isinstance(issuer, SessionIssuer):
                    issuer.most_codes = 2  # a person waits, and one code may have been used
                issuer.begin()
                version = issuer.version()
                whom = issuer.introduce()
                self.public_key()
        except RotatorError as error:
            return False, error.reason if error.retryable else str(error)  # nobody tries again
        skew = clock_skew(issuer, now) or timedelta(0)
        apart = timedelta(seconds=abs(round(skew.total_seconds())))
        word = "ahead of" if skew > timedelta(0) else "behind"
        clock = f"its clock is {apart} {word} the one here" if apart > LEAST else "the clocks agree"
        return apart <= MAX_CLOCK_SKEW, f"{issuer.url}, version {version}: {whom}; {clock}."

    def _options(self) -> dict[str, Any]:
        return {name: self._extra[name] for name in ("timeout", "verify") if name in self._extra}


def _address(host: str, port: int | None, schema: str | None) -> str:
    """The issuer's address, from a host that may be the whole of it."""
    if host and "://" not in host:
        host = f"{schema or 'https'}://{host}"
    scheme, separator, rest = host.partition("://")
    where, slash, path = rest.partition("/")
    if not port or where.endswith(f":{port}"):
        return host
    return f"{scheme}{separator}{where}:{port}{slash}{path}"


def _checked_extra(connection_id: str, text: str | None) -> dict[str, Any]:
    """The extra's settings. Airflow takes what is no JSON for nothing, and would drop them.

    A field of the form that is left empty is none, what a URI gives is a text, and the button Test
    of Airflow 2 puts a prefix before each key.
    """
    extra = None
    with contextlib.suppress(ValueError):
        extra = json.loads(text or "{}")
    if not isinstance(extra, dict):
        raise Misconfigured(
            f"The extra of connection {connection_id} is no JSON object.",
            advice='Write it like {"timeout": 30}.',
        )
    checked = {}
    for key, value in extra.items():
        name = key.removeprefix("extra__flowauth__")
        if name not in CONNECTION_FIELDS:
            raise Misconfigured(
                f"The extra of connection {connection_id} has an unknown key {name!r}.",
                advice=f"It takes {', '.join(sorted(CONNECTION_FIELDS))}.",
            )
        if value in (None, ""):
            continue
        try:
            checked[name] = _READERS.get(name, _text)(value)
        except ValueError:
            raise Misconfigured(
                f"{name!r} in the extra of connection {connection_id} is of the wrong type.",
                advice="timeout is a number, verify true, false or a path, any other a text.",
            ) from None
    return checked


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - told by its caller
    return value


def _number(value: object) -> float:
    if isinstance(value, str):
        return float(value)
    if type(value) not in (int, float):
        raise ValueError
    return value  # type: ignore[return-value]


def _truth_or_path(value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    text = _text(value)
    return {"true": True, "false": False}.get(text.strip().lower(), text)


_READERS: dict[str, Callable[[object], Any]] = {"timeout": _number, "verify": _truth_or_path}
