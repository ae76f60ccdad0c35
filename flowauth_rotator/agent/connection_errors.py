"""The error for an exchange without a response: which part is at fault, and what to do."""

from __future__ import annotations

import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from http.client import InvalidURL
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

PROBE_TIMEOUT = 5.0  # seconds
TIMEOUTS = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
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
        key = next((key for key, value in proxies.items() if value == proxy), "")
        environment = settings["verify"] if verify is True else None
        certificates = environment if isinstance(environment, str) else None
        return cls(address, proxy, f"{key.upper()}_PROXY", certificates)

    @property
    def proxy_name(self) -> str:
        """The proxy without its credentials, and the variable that has it."""
        scheme, separator, rest = (self.proxy or "").rpartition("://")
        shown = remove_control_characters(f"{scheme}{separator}{rest.rpartition('@')[2]}")
        return f"The proxy {shown[:100]!r} of the environment variable {self.variable}"


def explain(
    error: Exception,
    route: Route,
    *,
    lost: type[IssuerUnavailable],
    late: str | None,
    is_first: bool,
) -> RotatorError:
    """Return the error for what a library has raised.

    Args:
        error: what was raised; its text is not shown, as it may quote a secret.
        route: how the address is reached.
        lost: the error of a response that was lost after the request was sent.
        late: what has not happened in time, if that is why the exchange ended.
        is_first: whether this client has not had a response yet.
    """
    url = route.address.url
    if _is_untrusted(error):
        return Misconfigured(
            f"The certificate of {url} could not be verified.",
            hint="Set `verify` to the path of the certificates to trust.",
        )
    if route.proxy and (fault := _find_proxy_fault(error, route)):
        return fault
    if (
        url.startswith("https:")
        and route.certificates
        and not can_load_certificates(route.certificates)
    ):
        return Misconfigured(
            f"The environment variable REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE contains "
            f"{route.certificates!r}, which is not a file or a folder of certificates.",
            hint="Correct or remove it, or set `verify`.",
        )
    if _is_connect_error(error):
        return _explain_connect_error(error, route, is_first=is_first)
    if late:
        failure = lost(late)
        failure.is_late = True
        return failure
    if not isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError)):
        return lost(f"The request to {url} failed with an unexpected {type(error).__name__}.")
    if is_first and not route.proxy and (fault := find_other_scheme(route)):
        return fault
    return lost(f"The connection to {url} was lost before the response was complete.")


def find_other_scheme(route: Route) -> Misconfigured | None:
    """Return an error if the port answers in the scheme that the address does not have."""
    address = route.address
    parts = urlsplit(address.url)
    is_https = parts.scheme == "https"
    place = (parts.hostname or "", parts.port or (443 if is_https else 80))
    other = "http" if is_https else "https"
    with suppress(OSError), socket.create_connection(place, PROBE_TIMEOUT) as probe:
        if is_https:
            probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
            is_other = probe.recv(5) == b"HTTP/"
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(probe, server_hostname=parts.hostname):
                is_other = True
        if is_other:
            kind = "plain http" if is_https else "https"
            return Misconfigured(
                f"The port {place[1]} of {address.url} answers in {kind}.{_assumption(address)}",
                hint=f"Write {other}:// in {address.setting}.",
            )
    return None


def _explain_connect_error(error: Exception, route: Route, *, is_first: bool) -> RotatorError:
    address, problem = route.address, "cannot be reached"
    if isinstance(_get_reason(error), urllib3.exceptions.SSLError):
        if is_first and not route.proxy and (fault := find_other_scheme(route)):
            return fault
        problem += ": the TLS handshake failed"
    return IssuerUnavailable(
        f"{address.url} {problem}.{_assumption(address)}",
        hint=f"The request is retried; if the error persists, check the issuer, and the address "
        f"in {address.setting}.",
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
        if (route.proxy or "").lower().startswith("socks"):
            return Misconfigured(
                f"{name} needs support for SOCKS, which is not installed.",
                hint=f"Install it (pip install 'requests[socks]'), or remove {route.variable}.",
            )
        return Misconfigured(f"{name} is not a valid address.", hint=remedy)
    if not isinstance(error, requests.exceptions.ProxyError):
        return None
    if tunnel := _TUNNEL.search(str(error)):
        return IssuerUnavailable(
            f"{name} refused the connection to {route.address.url} with {tunnel[1]}.",
            hint=f"{remedy} The request is retried.",
        )
    return IssuerUnavailable(f"{name} cannot be reached.", hint=f"{remedy} The request is retried.")


def _is_invalid_address(error: Exception) -> bool:
    """Whether requests, urllib3 or http.client could not parse the address of a proxy."""
    kinds = (ValueError, urllib3.exceptions.LocationValueError)
    aborted = error.args[0] if error.args else None  # so urllib3 2.2 calls a blank in a host
    causes = aborted.args if isinstance(aborted, urllib3.exceptions.ProtocolError) else ()
    return isinstance(error, kinds) or any(isinstance(cause, InvalidURL) for cause in causes)


def _get_reason(error: Exception) -> object:
    return getattr(error.args[0], "reason", None) if error.args else None


def _is_untrusted(error: Exception) -> bool:
    """Whether the certificate was not verified; other TLS errors may be temporary."""
    reason = _get_reason(error)
    cause = reason.args[0] if isinstance(reason, urllib3.exceptions.SSLError) else None
    return isinstance(cause, ssl.SSLCertVerificationError)


def _is_connect_error(error: Exception) -> bool:
    """Whether the connection failed: nothing was sent."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.SSLError)
    return isinstance(_get_reason(error), kinds)


def can_load_certificates(path: str) -> bool:
    """Whether a path is a file or a folder of certificates."""
    folder, file = (path, None) if path and Path(path).is_dir() else (None, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file, capath=folder)
    except (OSError, TypeError, ValueError):  # ssl.SSLError is an OSError
        return False
    return True
