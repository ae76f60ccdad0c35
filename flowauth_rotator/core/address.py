"""The address of an issuer, put together from the settings that contain its parts."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.text import describe_character

PORTS = {"http": 80, "https": 443}
EXAMPLE = "https://flowauth.example.org"
_UNFIT = re.compile(r"[^\x21-\x7e]|[\"<>\\^`{|}]")  # in the path, anything else is quoted
_SIGNS_IN_HOST = frozenset("_.~:[]%-")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_MISPLACED_SCHEME = re.compile(r"https?(?::?/|:?$)", re.IGNORECASE)  # as of `https:/host`
LONGEST_HOST = 253  # characters of a name, which DNS limits


@dataclass(frozen=True)
class Address:
    """The address of an issuer.

    Attributes:
        url: `http[s]://host[:port][/prefix]`, without a default port and a slash at its end.
        setting: the setting that contains it, for messages.
        is_scheme_assumed: whether the setting has no scheme, and https is assumed.
    """

    url: str
    setting: str = "`address`"
    is_scheme_assumed: bool = False

    @classmethod
    def parse(cls, text: str, setting: str = "`address`") -> Address:
        """Parse a whole address.

        Raises:
            Misconfigured: it has no scheme, or is invalid.
        """
        if not re.match("[^/?#]*://", text):
            raise _invalid(setting, "does not begin with http:// or https://")
        return cls.build(text, setting=setting)

    @classmethod
    def build(
        cls,
        host: str | None,
        port: int | None = None,
        schema: str | None = None,
        *,
        setting: str = "`address`",
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
        host, schema = host or "", (schema or "").strip().strip("/")
        start = len(host) - len(host.lstrip())
        host = host.strip()
        if not host:
            raise _invalid(setting, "is empty")
        if any("@" in part.partition("?")[0] for part in (host, schema)):
            raise _invalid(setting, "contains credentials, which belong in `login` and `password`")
        scheme, has_scheme, rest = host.partition("://")
        if any(mark in scheme for mark in "/?#"):
            scheme, has_scheme, rest = "", "", host
        is_assumed = not has_scheme and not schema
        if has_scheme:
            _check_scheme(scheme, setting, start)
            start += len(scheme) + len(has_scheme)
            schema = "" if schema.lower() == scheme.lower() else schema
        else:
            scheme, schema, rest = schema or "https", "", host
            if scheme.lower() not in PORTS:
                raise _invalid_schema(setting, scheme)
        if schema.lower() in PORTS:
            raise _invalid(setting, f"has the scheme {scheme!r}, and the schema is {schema!r}")
        if misplaced := _MISPLACED_SCHEME.match(rest):
            raise _invalid(setting, f"has {misplaced[0]!r} where the name of the host belongs")
        location, _, path = rest.partition("/")
        path = "/".join(filter(None, (path.strip("/"), schema)))
        if any(mark in location + path for mark in "?#"):
            raise _invalid(setting, "contains a query or a fragment")
        name, own_port = _split_port(location, setting, start)
        if port is not None and own_port is not None and port != own_port:
            raise _invalid(setting, f"has the port {own_port}, and the port is {port}")
        scheme, port = scheme.lower(), own_port if port is None else port
        if port is not None and not 0 < port < 65536:
            raise _invalid(setting, f"has the port {port}, which is not between 1 and 65535")
        suffix = "" if port in (None, PORTS[scheme]) else f":{port}"
        path = f"/{_UNFIT.sub(lambda match: quote(match[0]), path)}" if path else ""
        return cls(f"{scheme}://{name}{suffix}{path}", setting, is_assumed)

    def __str__(self) -> str:
        return self.url


def _check_scheme(scheme: str, setting: str, start: int) -> None:
    """Check the scheme of an address, which begins at this place in the setting."""
    if scheme.lower() in PORTS:
        return
    if _SCHEME.fullmatch(scheme):
        raise _invalid(setting, f"has the scheme {scheme[:20]!r}, not http or https")
    unfit = re.search(r"[^\w+.-]", scheme)
    if unfit and not (unfit[0].isascii() and unfit[0].isprintable()):
        raise _invalid_character(setting, unfit[0], start + unfit.start())
    raise _invalid(setting, "has an invalid scheme")


def _split_port(location: str, setting: str, start: int) -> tuple[str, int | None]:
    """Return the host in ASCII, an IPv6 address in brackets, and the port."""
    try:
        return f"[{IPv6Address(location)}]", None
    except ValueError:
        pass
    for index, character in enumerate(location, start):
        if not (character.isalnum() or character in _SIGNS_IN_HOST or _is_accent(character)):
            raise _invalid_character(setting, character, index)
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
    elif name and not set(name) & set(":%[]"):
        name = _encode_host(name, setting)
    if not name or (set(name) & set(":%[]") and not name.startswith("[")):
        raise _invalid(setting, "has an invalid host or port")
    return name.lower(), int(port) if port else None


def _is_accent(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _encode_host(name: str, setting: str) -> str:
    """Return the name of a host in ASCII, as it is sent in Host and Referer (RFC 3490)."""
    lowered = unicodedata.normalize("NFC", name.lower())
    if len(lowered) > LONGEST_HOST:
        raise _invalid(setting, f"has a host of more than {LONGEST_HOST} characters")
    try:
        encoded = lowered.encode("idna")
        is_ambiguous = not lowered.isascii() and encoded.decode("idna") != lowered
    except UnicodeError:
        raise _invalid(
            setting, "has an invalid host: between its dots are 1 to 63 letters, digits or hyphens"
        ) from None
    if is_ambiguous:  # such as ß, which is ss or a letter of its own
        raise _invalid(setting, "has a host that is ambiguous in ASCII: write its form in xn--")
    return encoded.decode()


def _invalid_schema(setting: str, schema: str) -> Misconfigured:
    shown = f" {schema[:20]!r}" if _SCHEME.fullmatch(schema) else ""
    return Misconfigured(
        f"The schema{shown} is neither http nor https, and {setting} has no scheme.",
        hint="Use http or https as the schema, or write the whole address in the host, like "
        f"{EXAMPLE}.",
    )


def _invalid_character(setting: str, character: str, index: int) -> Misconfigured:
    return _invalid(setting, f"contains {describe_character(character)} at position {index + 1}")


def _invalid(setting: str, problem: str) -> Misconfigured:
    name = setting[0].upper() + setting[1:]
    return Misconfigured(f"{name} {problem}.", hint=f"Write it like {EXAMPLE} or {EXAMPLE}:8443.")
