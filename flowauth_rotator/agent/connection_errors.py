"""The error for an exchange without a response: which part is at fault, and what to do."""

from __future__ import annotations

import os
import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL, RemoteDisconnected
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import select_proxy

from flowauth_rotator.core.errors import IssuerUnavailable, Misconfigured, RotatorError
from flowauth_rotator.core.text import remove_control_characters

if TYPE_CHECKING:
    from flowauth_rotator.core.address import Address

PROBE_TIMEOUT = 2.0  # seconds
TIMEOUTS = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # as requests looks for them
EXPIRED, OTHER_HOST = 10, (62, 64)  # `verify_code` of OpenSSL, for a name and an IP address
SOCKS_SCHEMES = ("socks4", "socks4a", "socks5", "socks5h")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")  # of http.client


@dataclass(frozen=True)
class Route:
    """How an address is reached.

    Attributes:
        address: the address.
        proxy: the proxy in between, as the environment has it; None without one.
        variable: the environment variable that has it.
        certificates: the path of the certificates to trust, if the environment has one.
    """

    address: Address
    proxy: str | None = None
    variable: str = ""
    certificates: str | None = None

    @classmethod
    def find(cls, session: requests.Session, address: Address, verify: bool | str) -> Route:
        """Read the route from the environment, as requests does."""
        settings = session.merge_environment_settings(address.url, {}, None, verify, None)
        proxies = settings["proxies"] or {}
        proxy = select_proxy(address.url, proxies)
        scheme = urlsplit(address.url).scheme
        key = scheme if proxies.get(scheme) == proxy else "all"
        names = (f"{key}_proxy", f"{key.upper()}_PROXY")
        variable = next((name for name in names if os.environ.get(name)), names[1])
        environment = settings["verify"] if verify is True else None
        certificates = environment if isinstance(environment, str) else None
        return cls(address, proxy, variable, certificates)

    @property
    def certificates_variable(self) -> str:
        """The environment variable that has the certificates."""
        return next(
            (name for name in CERTIFICATE_VARIABLES if os.environ.get(name)),
            CERTIFICATE_VARIABLES[0],
        )

    @property
    def proxy_name(self) -> str:
        """The proxy without its credentials, and the variable that has it."""
        scheme, separator, rest = (self.proxy or "").partition("://")
        rest = (rest if separator else scheme).rpartition("@")[2]
        shown = remove_control_characters(f"{scheme}{separator}{rest}" if separator else rest)
        return f"The proxy {shown[:100]!r} of the environment variable {self.variable}"


def explain(
    error: Exception,
    route: Route,
    *,
    lost_error: type[IssuerUnavailable],
    timeout: float | None,
    is_connecting: bool,
    is_first: bool,
) -> RotatorError:
    """Return the error for what a library has raised.

    Args:
        error: what was raised; its text is not shown, as it may quote a secret.
        route: how the address is reached.
        lost_error: the error of a response that was lost after the request was sent.
        timeout: the seconds that were too few, if that is why the exchange ended.
        is_connecting: whether the connection was not complete: nothing was sent.
        is_first: whether this client has not had a response yet.
    """
    url = route.address.url
    if cause := _find_certificate_error(error):
        return _explain_certificate(cause, route, is_of_proxy=_is_of_proxy(error))
    if route.proxy and (fault := _find_proxy_fault(error, route)):
        return fault
    if (
        url.startswith("https:")
        and route.certificates
        and not can_load_certificates(route.certificates)
    ):
        return Misconfigured(
            f"The environment variable {route.certificates_variable} contains "
            f"{route.certificates[:100]!r}, which is not a file or a folder of certificates.",
            hint="Correct or remove it, or set `verify`.",
        )
    if is_connecting or _is_connect_error(error):
        return _explain_connect_error(error, route, timeout, is_first=is_first)
    if timeout is not None:
        failure = lost_error(f"{url} did not respond completely within {timeout:g} s.")
        failure.is_late = True
        return failure
    if not isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError)):
        return lost_error(f"The request to {url} failed with an unexpected {type(error).__name__}.")
    may_probe = is_first and not route.proxy and url.startswith("http:")
    if may_probe and (fault := find_other_scheme(route)):
        return fault
    if _has_cause(error, HTTPException) and not _has_cause(error, RemoteDisconnected):
        return lost_error(
            f"{url} did not respond in HTTP.",
            hint=f"Check the port in {route.address.setting}; the request is retried.",
        )
    return lost_error(f"The connection to {url} was lost before the response was complete.")


def find_other_scheme(route: Route) -> Misconfigured | None:
    """Return an error if the port answers in the scheme that the address does not have.

    A 400 to plain http proves nothing: many servers send it from a port of https.
    """
    address = route.address
    parts = urlsplit(address.url)
    is_https = parts.scheme == "https"
    place = (parts.hostname or "", parts.port or (443 if is_https else 80))
    with suppress(Exception), socket.create_connection(place, PROBE_TIMEOUT) as probe:
        if is_https:
            probe.sendall(f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
            is_other = re.match(rb"HTTP/1\.\d (?!400)\d", probe.recv(16)) is not None
        else:
            probe.sendall(_build_client_hello(place[0]))
            is_other = probe.recv(1) in (b"\x15", b"\x16")  # an alert or a handshake of TLS
        if is_other:
            kind, other = ("plain http", "http") if is_https else ("https", "https")
            return Misconfigured(
                f"The port {place[1]} of {address.url} answers in {kind}.{_assumption(address)}",
                hint=f"Write {other}:// in {address.setting}.",
            )
    return None


def _build_client_hello(host: str) -> bytes:
    """Return the first bytes that a client of TLS sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(received, sent, server_hostname=host).do_handshake()
    return sent.read()


def _explain_connect_error(
    error: Exception, route: Route, timeout: float | None, *, is_first: bool
) -> RotatorError:
    address = route.address
    is_tls = isinstance(_get_reason(error), urllib3.exceptions.SSLError) or timeout is not None
    may_probe = is_first and is_tls and not route.proxy and address.url.startswith("https:")
    if may_probe and (fault := find_other_scheme(route)):
        return fault
    through = f" through {route.proxy_name[0].lower()}{route.proxy_name[1:]}" if route.proxy else ""
    problem = f"cannot be reached{through}"
    if timeout is not None:
        problem += f": the connection was not complete within {timeout:g} s"
    elif is_tls:
        problem += ": the TLS handshake failed"
    remedy = f"check {route.variable} and the proxy" if route.proxy else "check the issuer"
    return IssuerUnavailable(
        f"{address.url} {problem}.{_assumption(address)}",
        hint=f"The request is retried; if the error persists, {remedy}, and the address in "
        f"{address.setting}.",
    )


def _explain_certificate(
    cause: ssl.SSLCertVerificationError, route: Route, *, is_of_proxy: bool
) -> Misconfigured:
    url = route.address.url
    owner = f"the proxy of {route.variable}" if is_of_proxy else url
    if cause.verify_code == EXPIRED:
        return Misconfigured(
            f"The certificate of {owner} has expired.",
            hint="Have it renewed, or correct the clock of this machine.",
        )
    if cause.verify_code in OTHER_HOST:
        setting = route.variable if is_of_proxy else route.address.setting
        return Misconfigured(
            f"The certificate of {owner} is for another host.", hint=f"Correct {setting}."
        )
    source = f", or correct {route.certificates_variable}" if route.certificates else ""
    return Misconfigured(
        f"The certificate of {owner} could not be verified.",
        hint=f"Set `verify` to the path of the certificates to trust{source}.",
    )


def _assumption(address: Address) -> str:
    if not address.is_scheme_assumed:
        return ""
    setting = address.setting[0].upper() + address.setting[1:]
    return f" {setting} has no scheme, and https is assumed."


def _find_proxy_fault(error: Exception, route: Route) -> RotatorError | None:
    """Return the error if the proxy is at fault."""
    name = route.proxy_name
    remedy = f"Correct {route.variable}, or add the issuer's host to NO_PROXY."
    if _is_invalid_address(error):  # the issuer's is valid
        if (route.proxy or "").lower().partition("://")[0] in SOCKS_SCHEMES:
            return Misconfigured(
                f"{name} needs support for SOCKS, which is not installed.",
                hint=f"Install it (pip install 'requests[socks]'), or remove {route.variable}.",
            )
        return Misconfigured(f"{name} is not a valid address.", hint=remedy)
    if not _is_of_proxy(error):
        return None
    if tunnel := _TUNNEL.search(str(error)):
        return refuse_by_proxy(route, int(tunnel[1]))
    return IssuerUnavailable(f"{name} cannot be reached.", hint=f"{remedy} The request is retried.")


def refuse_by_proxy(route: Route, status: int) -> IssuerUnavailable:
    """Return the error for a proxy that does not pass requests on."""
    return IssuerUnavailable(
        f"{route.proxy_name} refused the connection to {route.address.url} with {status}.",
        hint=f"Correct {route.variable}, or add the issuer's host to NO_PROXY. The request is "
        "retried.",
    )


def _is_of_proxy(error: Exception) -> bool:
    return isinstance(error, requests.exceptions.ProxyError)


def _is_invalid_address(error: Exception) -> bool:
    """Whether requests, urllib3 or http.client could not parse the address of a proxy."""
    kinds = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        urllib3.exceptions.LocationValueError,
    )
    return isinstance(error, kinds) or _has_cause(error, InvalidURL)  # so urllib3 2.2 sees a blank


def _has_cause(error: Exception, kind: type[Exception]) -> bool:
    """Whether http.client has raised an error of this kind."""
    aborted = error.args[0] if error.args else None
    causes = aborted.args if isinstance(aborted, urllib3.exceptions.ProtocolError) else ()
    return any(isinstance(cause, kind) for cause in causes)


def _get_reason(error: Exception) -> object:
    return getattr(error.args[0], "reason", None) if error.args else None


def _find_certificate_error(error: Exception) -> ssl.SSLCertVerificationError | None:
    """Return the error of a certificate; other errors of TLS may be temporary."""
    reason = _get_reason(error)
    while isinstance(reason, (urllib3.exceptions.SSLError, urllib3.exceptions.ProxyError)):
        reason = reason.args[-1] if reason.args else None
    return reason if isinstance(reason, ssl.SSLCertVerificationError) else None


def _is_connect_error(error: Exception) -> bool:
    """Whether the connection failed: nothing was sent."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.SSLError)
    return isinstance(_get_reason(error), kinds)


def can_load_certificates(path: str) -> bool:
    """Whether a path is a file or a folder of certificates."""
    try:
        folder, file = (path, None) if path and Path(path).is_dir() else (None, path)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file, capath=folder)
    except (OSError, TypeError, ValueError):  # ssl.SSLError is an OSError
        return False
    return True
