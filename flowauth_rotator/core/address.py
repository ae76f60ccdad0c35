"""The address of an issuer, put together from the settings that contain its parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.text import describe_character

PORTS = {"http": 80, "https": 443}
EXAMPLE = "https://flowauth.example.org"
_UNFIT = re.compile(r"[^\x21-\x7e]|[\"<>\\^`{|}]")  # in the path, anything else is quoted
_UNFIT_IN_HOST = re.compile(r"[^\w.~:\[\]%-]")


@dataclass(frozen=True)
class Address:
    """The address of an issuer.

    Attributes:
        url: `http[s]://host[:port][/prefix]`, without a default port and a slash at its end.
        setting: the setting that contains it, for messages.
        is_scheme_assumed: whether the setting has no scheme, and https is assumed.
    """

    url: str
    setting: str = "the issuer's address"
    is_scheme_assumed: bool = False

    @classmethod
    def parse(cls, text: str, setting: str = "the issuer's address") -> Address:
        """Parse a whole address.

        Raises:
            Misconfigured: it has no scheme, or is invalid.
        """
        if not re.match(r"\s*https?://", text, re.IGNORECASE):
            raise _invalid(setting, "does not begin with http:// or https://")
        return cls.build(text, setting=setting)

    @classmethod
    def build(
        cls,
        host: str | None,
        port: int | None = None,
        schema: str | None = None,
        *,
        setting: str = "the issuer's address",
    ) -> Address:
        """Put an address together from the fields of an Airflow connection.

        Airflow splits a connection URI so that the schema is what stands after the host: the scheme
        in `flowauth://host:9091/http`, and the path in `flowauth://https://host/flowauth`, where
        the host has the scheme itself.

        Args:
            host: a host, or a part of the address, or all of it.
            port: the port; it may stand in the host, too.
            schema: the scheme of a host without one, otherwise the beginning of the path.
            setting: the setting that contains the host.

        Raises:
            Misconfigured: the parts contradict each other, or one is invalid.
        """
        host, schema = (host or "").strip(), (schema or "").strip().strip("/")
        if not host:
            raise _invalid(setting, "is empty")
        scheme, has_scheme, rest = host.rpartition("://")
        is_assumed = not has_scheme and not schema
        if not has_scheme:
            scheme, schema = schema or "https", ""
        elif schema.lower() == scheme.lower():
            schema = ""
        if scheme.lower() not in PORTS:
            raise _invalid(setting, f"has the scheme {scheme[:20]!r}, not http or https")
        if schema.lower() in PORTS:
            raise _invalid(setting, f"has the scheme {scheme!r}, and the schema is {schema!r}")
        location, _, path = rest.partition("/")
        if "@" in location:
            raise _invalid(setting, "contains credentials, which belong into login and password")
        path = "/".join(filter(None, (path.strip("/"), schema)))
        if any(mark in location + path for mark in "?#"):
            raise _invalid(setting, "contains a query or a fragment")
        name, own_port = _split_port(location, setting)
        if port and own_port and port != own_port:
            raise _invalid(setting, f"has the port {own_port}, and the port is {port}")
        scheme, port = scheme.lower(), port or own_port or None
        if port and not 0 < port < 65536:
            raise _invalid(setting, f"has the port {port}, which is not between 1 and 65535")
        suffix = "" if port in (None, PORTS[scheme]) else f":{port}"
        path = f"/{_UNFIT.sub(lambda match: quote(match[0]), path)}" if path else ""
        return cls(f"{scheme}://{name}{suffix}{path}", setting, is_assumed)

    def __str__(self) -> str:
        return self.url


def _split_port(location: str, setting: str) -> tuple[str, int | None]:
    """Return the host, an IPv6 address in brackets, and the port."""
    try:
        return f"[{IPv6Address(location)}]", None
    except ValueError:
        pass
    if unfit := _UNFIT_IN_HOST.search(location):
        found = describe_character(unfit[0])
        raise _invalid(setting, f"contains {found} at position {unfit.start() + 1} of the host")
    name, separator, port = location.rpartition(":")
    if not separator or location.endswith("]"):
        name, port = location, ""
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 5):
        raise _invalid(setting, "has an invalid host or port")
    if name.startswith("["):
        try:
            name = f"[{IPv6Address(name[1:-1])}]"
        except ValueError:
            name = ""
    if not name or (":" in name) != name.startswith("["):
        raise _invalid(setting, "has an invalid host or port")
    return name.lower(), int(port) if port else None


def _invalid(setting: str, problem: str) -> Misconfigured:
    name = setting[0].upper() + setting[1:]
    return Misconfigured(f"{name} {problem}.", hint=f"Write it like {EXAMPLE} or {EXAMPLE}:8443.")
