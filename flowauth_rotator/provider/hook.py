"""The hook of the connection type `flowauth`: the issuer's address and credentials."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from flowauth_rotator.core.address import Address
from flowauth_rotator.core.clock import MAX_CLOCK_SKEW
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.errors import Misconfigured, RotatorError, wrap_unexpected_errors
from flowauth_rotator.core.text import remove_control_characters
from flowauth_rotator.provider import compat
from flowauth_rotator.provider.provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowauth_rotator.agent.bearer import BearerIssuer
    from flowauth_rotator.agent.flowauth import SessionIssuer
    from flowauth_rotator.agent.probe import Probe
    from flowauth_rotator.core.tokens import PublicKey, Token


SMALLEST_SKEW = timedelta(seconds=2)  # a smaller one may be the time of the response


class FlowAuthHook(compat.BaseHook):
    """The issuer that a connection describes.

    Host is the issuer's address. Login and password are those of the tokens' owner; without a
    login the token itself is the credential, which only the bundled server accepts. The extra may
    contain `public_key` (PEM, or the URL of a JWK Set; verifies tokens), `probe_url` (an address of
    FlowAPI to try tokens at), `totp_secret` (of an account with two-factor authentication),
    `timeout` (seconds) and `verify` (true, false, or the path of the certificates to trust).

    :param flowauth_conn_id: the connection's id.
    """

    conn_name_attr = "flowauth_conn_id"
    default_conn_name = "flowauth_default"
    conn_type = "flowauth"
    hook_name = "FlowAuth"

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the extra for the form of Airflow 2."""
        return compat.build_form_widgets(CONNECTION_FIELDS)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels of the other fields for the form of Airflow 2."""
        return {key.replace("-", "_"): value for key, value in FIELD_BEHAVIOUR.items()}

    @wrap_unexpected_errors
    def __init__(self, flowauth_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.flowauth_conn_id = flowauth_conn_id
        self._connection = compat.read_connection(flowauth_conn_id)
        self._extra = _parse_extra(flowauth_conn_id, self._connection.extra)

    @property
    def has_key_set_url(self) -> bool:
        """Whether the public key is at a URL, which takes a request."""
        from flowauth_rotator.agent.public_key import is_url

        return is_url(self._extra.get("public_key") or "")

    @property
    def needs_codes(self) -> bool:
        """Whether each sign-in needs a two-factor code, of which there is one in 30 s."""
        return bool(self._connection.login and self._extra.get("totp_secret"))

    @wrap_unexpected_errors
    def public_key(self) -> PublicKey | None:
        """Load the issuer's public key, if the connection contains it or its URL."""
        from flowauth_rotator.agent.public_key import load_public_key

        text = self._extra.get("public_key")
        return load_public_key(text, **self._options()) if text else None

    @wrap_unexpected_errors
    def get_probe(self) -> Probe | None:
        """Return FlowAPI's address to try tokens at, if there is one; the caller closes it."""
        from flowauth_rotator.agent.probe import Probe

        url = self._extra.get("probe_url")
        return Probe(url, **self._options()) if url else None

    @wrap_unexpected_errors
    def get_conn(self) -> SessionIssuer | BearerIssuer:
        """Return the issuer, without a network request; the caller closes it."""
        from flowauth_rotator.agent.bearer import BearerIssuer
        from flowauth_rotator.agent.flowauth import SessionIssuer

        connection = self._connection
        address = Address.build(
            connection.host,
            connection.port,
            connection.schema,
            setting=f"the host of connection {self.flowauth_conn_id}",
        )
        if not connection.login:
            return BearerIssuer(address, **self._options())
        return SessionIssuer(
            address,
            connection.login,
            connection.password or "",
            totp_secret=self._extra.get("totp_secret"),
            **self._options(),
        )

    def fingerprint(self, token: Token, settings: Mapping[str, Any]) -> str:
        """Return 16 hex digits that change with the token, its settings and the connection.

        The token, which no document contains, is the key: without it they tell nothing about the
        password.
        """
        connection = self._connection
        parts = [settings, connection.host, connection.port, connection.schema, connection.login]
        text = json.dumps([*parts, connection.password, self._extra], sort_keys=True, default=str)
        return hmac.new(token.reveal().encode(), text.encode(), hashlib.sha256).hexdigest()[:16]

    def test_connection(self) -> tuple[bool, str]:
        """Request the issuer's version, sign in, and compare the clocks.

        Returns:
            Whether rotations will work, and a message for the operator.
        """
        from flowauth_rotator.agent.flowauth import SessionIssuer

        now, began = datetime.now(timezone.utc), time.monotonic()
        try:
            with closing(self.get_conn()) as issuer:
                if isinstance(issuer, SessionIssuer):
                    issuer.max_codes = 2  # the first may have been used, and the operator waits
                version = issuer.version()
                sign_in = issuer.test_connection()
                self.public_key()
                if probe := self.get_probe():
                    with closing(probe):
                        probe.check_address()
        except RotatorError as error:
            # The hint of a retryable error announces a retry, which does not happen here.
            return False, error.message if error.retryable else str(error)
        skew = issuer.clock.measure_skew(now, began) if issuer.clock else timedelta(0)
        skew = timedelta(seconds=round(skew.total_seconds()))
        message = f"{issuer.url} (version {version}): {sign_in}. {_describe_skew(skew)}"
        return abs(skew) <= MAX_CLOCK_SKEW, remove_control_characters(message)

    def _options(self) -> dict[str, Any]:
        return {name: self._extra[name] for name in ("timeout", "verify") if name in self._extra}


def _describe_skew(skew: timedelta) -> str:
    size = abs(skew)
    if size <= SMALLEST_SKEW:
        return "Its clock agrees with the clock of this machine."
    direction = "ahead of" if skew > timedelta(0) else "behind"
    sentence = f"Its clock is {format_duration(size)} {direction} the clock of this machine."
    return f"{sentence} Correct the wrong clock." if size > MAX_CLOCK_SKEW else sentence


def _parse_extra(connection_id: str, text: str | None) -> dict[str, Any]:
    """Parse the extra of a connection; Airflow itself would ignore an extra that is not JSON.

    Empty fields of the form are absent, a connection URI contains only strings, and the button
    Test of Airflow 2 adds a prefix to each key.

    Raises:
        Misconfigured: the extra is not a JSON object, or one of its fields is invalid.
    """
    extra = None
    with contextlib.suppress(ValueError, RecursionError):
        extra = json.loads(text or "{}")
    if not isinstance(extra, dict):
        raise Misconfigured(
            f"The extra of connection {connection_id} is not a JSON object.",
            hint='Write it like {"timeout": 30}.',
        )
    settings = {}
    for key, value in extra.items():
        name = key.removeprefix("extra__flowauth__")
        if name not in CONNECTION_FIELDS:
            raise Misconfigured(
                f"The extra of connection {connection_id} has an unknown key {name!r}.",
                hint=f"Its keys may be {', '.join(sorted(CONNECTION_FIELDS))}.",
            )
        if value in (None, ""):
            continue
        parse, noun = _PARSERS.get(name, (_parse_string, "a string"))
        try:
            settings[name] = parse(value)
        except (ValueError, OverflowError):
            raise Misconfigured(
                f"{name!r} in the extra of connection {connection_id} is not {noun}.",
                hint="Correct or remove it.",
            ) from None
    return settings


def _parse_string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - handled by the caller
    return value


def _parse_number(value: object) -> float:
    if isinstance(value, str):
        return float(value)
    if type(value) not in (int, float):
        raise ValueError
    return value  # type: ignore[return-value]


def _parse_verify(value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    text = _parse_string(value)
    return {"true": True, "false": False}.get(text.strip().lower(), text)


_PARSERS: dict[str, tuple[Callable[[object], Any], str]] = {
    "timeout": (_parse_number, "a number"),
    "verify": (_parse_verify, "true, false or a path"),
}
