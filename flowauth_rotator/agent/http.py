"""HTTP requests to an issuer, and the exception for each kind of response.

| response | exception |
|---|---|
| no connection | `IssuerUnavailable`: nothing was sent; `Misconfigured` if a setting is at fault |
| no end in time, truncated, endless or encoded body, 5xx, 200 without JSON | for a renewal `AmbiguousResponse`, else `IssuerUnavailable` |
| 429 | `Throttled`, with the seconds of `Retry-After` |
| 401 as HTML | `SignedOut`: sign in again, once |
| 401 with the text `CSRF error` | `CsrfRefused`, a `SignedOut` |
| 410 with `Idempotent-Replayed` | `KeyExpired`, a `Refused` |
| 400 with `need_two_factor` | `CodeMissing`, a `Refused` |
| 404 or 405 as HTML | `NoSuchPage`, a `Refused` |
| any other 4xx | `Refused`, with the issuer's message |
| a redirect, an untrusted certificate, https on a port of http | `Misconfigured` |
| anything that a library raises | one of these: no other exception leaves this module |
"""  # noqa: E501 - a table

from __future__ import annotations

import email.utils
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import requests

from flowauth_rotator.agent.connection import Session
from flowauth_rotator.agent.connection_errors import (
    TIMEOUTS,
    Route,
    can_load_certificates,
    explain,
    find_other_scheme,
    refuse_by_proxy,
)
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.clock import ClockReading
from flowauth_rotator.core.errors import (
    AmbiguousResponse,
    IssuerUnavailable,
    Misconfigured,
    RefusalReason,
    Refused,
    RotatorError,
    Throttled,
    wrap_unexpected_errors,
)
from flowauth_rotator.core.text import redact, remove_control_characters

LARGEST_BODY = 64 * 1024
LONGEST_TIMEOUT = 3600
LONGEST_MESSAGE = 300  # characters of an issuer's message
CSRF_ERROR = "CSRF error"
SECRET_COOKIES = ("session", "X-CSRF")


def _redact_record(record: logging.LogRecord) -> bool:
    """Remove what urllib3 quotes of a broken response from its log line: it may be a token."""
    if str(record.msg).startswith("Failed to parse headers"):
        record.msg, record.args, record.exc_info = (
            "Failed to parse the headers of a response",
            (),
            None,
        )
    return True


logging.getLogger("urllib3.connection").addFilter(_redact_record)


class SignedOut(IssuerUnavailable):
    """The issuer does not know this session, or no longer does."""


class CsrfRefused(SignedOut):
    """The issuer does not accept the CSRF token, or the address that the request names."""


class KeyExpired(Refused):
    """The token that the issuer minted for the same key has expired since."""


class CodeMissing(Refused):
    """The account needs a two-factor code, and none was sent."""


class ForeignRefusal(Refused):
    """A refusal that is not in the form of an issuer's: of a proxy, or of another service."""


class NoSuchPage(ForeignRefusal):
    """The server has no such path."""


@dataclass(frozen=True)
class Response:
    """A response.

    Attributes:
        status: the HTTP status.
        document: the body as JSON; None if it is not JSON.
        text: the body as text.
        headers: the headers.
    """

    status: int
    document: Any
    text: str
    headers: Mapping[str, str]


class HttpClient:
    """Sends requests to one issuer; follows no redirects and limits each response.

    Args:
        address: the issuer's address, `http[s]://host[:port][/prefix]`.
        timeout: seconds for one exchange, from the connection to the end of the response.
        verify: whether certificates are verified, or the path of the certificates to trust.

    Attributes:
        address: the issuer's address.
        url: the same as text.
        secrets: texts that are redacted in all that is shown of a response.
        token: the token in use, which is redacted as well.
        clock: the issuer's clock in its last response, the `Date` header of a response with JSON;
            None without one.

    Raises:
        Misconfigured: the address is invalid, or a setting is out of its range.
    """

    _monotonic = staticmethod(time.monotonic)
    _has_responded = False
    clock: ClockReading | None = None

    @wrap_unexpected_errors
    def __init__(
        self, address: str | Address, *, timeout: float = 30.0, verify: bool | str = True
    ) -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self.url = self.address.url
        self.secrets: tuple[str, ...] = ()
        self.token = ""
        self.timeout = _check_timeout(timeout)
        self._verify = _check_verify(verify)
        self._session = Session()
        self._session.headers["Accept"] = "application/json"
        self._session.headers["Accept-Encoding"] = "identity"  # see `_exchange`

    def cookie(self, name: str) -> str:
        """Return a cookie of the issuer; empty if it has not set it."""
        return next(reversed(self._find_cookies(name)), "")

    def _find_cookies(self, *names: str) -> list[str]:
        """Return the values of cookies, of which a proxy may set one for another path, too."""
        return [value or "" for name, value in self._session.cookies.items() if name in names]

    def show(self, text: str) -> str:
        """Return a text of the issuer on one line, with the secrets redacted that it recites."""
        text = " ".join(remove_control_characters(text[: 100 * LONGEST_MESSAGE]).split())
        return redact(text, (*self.secrets, self.token, *self._find_cookies(*SECRET_COOKIES)))

    @wrap_unexpected_errors
    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @wrap_unexpected_errors
    def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = LARGEST_BODY,
        timeout: float | None = None,
        renewing: bool = False,
    ) -> Response:
        """Send one request and return its response, a 200 with JSON.

        Args:
            method: GET or POST.
            path: the path below the issuer's address.
            body: the JSON to send, if any.
            headers: additional headers.
            max_bytes: the size limit of the response body.
            timeout: seconds for this exchange, if they are others.
            renewing: whether a lost response is ambiguous.

        Raises:
            RotatorError: any other response, as in the table above.
        """
        lost: type[IssuerUnavailable] = AmbiguousResponse if renewing else IssuerUnavailable
        cookies = self._session.cookies.copy()
        try:
            response = self._receive(
                method, path, body, headers, max_bytes, lost, timeout or self.timeout
            )
            if response.status == 200 and response.document is not None:
                return response
            raise self.build_error(response, lost)
        except IssuerUnavailable:
            self._session.cookies = cookies  # a truncated response may have left half a cookie
            raise

    @wrap_unexpected_errors
    def fetch(self, path: str, *, headers: Mapping[str, str], max_bytes: int) -> Response:
        """Send a GET and return its response, whatever its status and its body.

        Raises:
            RotatorError: there was no complete response.
        """
        lost = IssuerUnavailable
        return self._receive("GET", path, None, headers, max_bytes, lost, self.timeout)

    def _receive(
        self,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None,
        max_bytes: int,
        lost: type[IssuerUnavailable],
        timeout: float,
    ) -> Response:
        problem: Exception | None = None
        try:
            status, received, content = self._exchange(
                method, path, body, headers, max_bytes, lost, timeout
            )
        except RotatorError:
            raise
        except Exception as error:  # noqa: BLE001 - requests lets errors of other libraries through
            problem = error
        if problem:  # outside the block, so that the request with its secrets is not the context
            raise self._transport_error(problem, lost, timeout)
        response = Response(status, *_parse_body(content), received)
        date = _http_date(received.get("Date", ""))
        if response.document is not None:  # not the error page of a proxy
            self._has_responded = True
            if date:
                self.clock = ClockReading(date, self._monotonic())
        return response

    def _exchange(
        self,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None,
        max_bytes: int,
        lost: type[IssuerUnavailable],
        timeout: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body; the body of a redirect is not read.

        No body is decompressed, and one with a `Content-Encoding` is refused unread: urllib3 before
        2.6 decodes 8 kB of `gzip, gzip` into 5 GB (CVE-2025-66418, CVE-2025-66471), and the
        constraints of Airflow 2.10 keep it below 2.6.
        """
        content = bytearray()
        deadline = self._session.deadline
        with (
            deadline.limit(timeout),
            self._session.request(
                method,
                self.url + path,
                json=body,
                headers=headers,
                auth=_keep_credentials,
                timeout=timeout,
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            if response.status_code < 200:  # the final response would be that of the next request
                raise lost(f"{self.url} sent the interim response {response.status_code}.")
            has_body = not _is_redirect(response.status_code)
            if has_body and _is_encoded(response.headers):
                raise lost(
                    f"{self.url} sent a compressed response (Content-Encoding), which is not "
                    "decoded.",
                    hint="Switch off compression for this address, in the issuer or in a proxy "
                    "in front of it; the request is retried.",
                )
            while has_body and (chunk := response.raw.read1(LARGEST_BODY, decode_content=False)):
                content += chunk
                if deadline.is_over:
                    raise TimeoutError
                if len(content) > max_bytes:
                    raise lost(f"The response of {self.url} is larger than {max_bytes:,} bytes.")
            if has_body and deadline.is_over:  # the end of a body without a length may be the cut
                raise TimeoutError
        return response.status_code, response.headers, bytes(content)

    def _transport_error(
        self, error: Exception, lost: type[IssuerUnavailable], timeout: float
    ) -> RotatorError:
        deadline = self._session.deadline
        is_late = deadline.is_over or isinstance(error, TIMEOUTS)
        return explain(
            error,
            self._find_route(),
            lost_error=lost,
            timeout=timeout if is_late else None,
            is_connecting=deadline.is_connecting,
            is_first=not self._has_responded,
        )

    def _find_route(self) -> Route:
        return Route.find(self._session, self.address, self._verify)

    def build_error(
        self, response: Response, lost: type[IssuerUnavailable] = IssuerUnavailable
    ) -> RotatorError:
        """Build the error for a response that is not a 200 with JSON, as in the table above."""
        status, document = response.status, response.document
        text = _get_message(response)
        message = self.show(text)[:LONGEST_MESSAGE]
        if _is_redirect(status):
            host = self.show(_host(response.headers.get("Location", "")) or "another path")
            return Misconfigured(
                f"{self.url} redirects to {host}; redirects are not followed.",
                hint=f"Set {self.address.setting} to the address to which it redirects.",
            )
        if status == 429:
            return Throttled(
                f"{self.url} responded with 429: {message.rstrip('.')}.",
                retry_after=_retry_after(response.headers),
            )
        if status == 407 and (route := self._find_route()).proxy:
            return refuse_by_proxy(route, status)
        if status == 401 and text == CSRF_ERROR:
            return CsrfRefused(f"{self.url} refused the request with {CSRF_ERROR!r}.")
        if status == 401 and document is None:
            return SignedOut(f"{self.url} does not know this session.")
        if 400 <= status < 500:
            return self._refusal(response, message, RefusalReason.recognize(text))
        if status == 200:
            return lost(f"{self.url} returned a body that is not JSON: is a proxy in between?")
        failure = lost(f"{self.url} responded with {status}.")
        failure.is_late = status == 504
        return failure

    def _refusal(
        self, response: Response, message: str, reason: RefusalReason | None
    ) -> Refused | Misconfigured:
        status, document = response.status, response.document
        fields = document if isinstance(document, dict) else {}
        kind: type[Refused] = Refused
        if not fields.get("message") and not fields.get("statusText"):
            kind = NoSuchPage if status in (404, 405) else ForeignRefusal
        elif status == 410 and response.headers.get("Idempotent-Replayed") == "true":
            kind = KeyExpired
        elif fields.get("need_two_factor"):
            kind = CodeMissing
        if status == 400 and document is None and not self._has_responded:
            route = self._find_route()
            if not route.proxy and (fault := find_other_scheme(route)):
                return fault
        return kind(
            f"{self.url} responded with {status}: {message.rstrip('.')}.",
            issuer_message=message,
            status=status,
            bad_field=str(fields.get("bad_field") or ""),
            reason=reason,
        )


def _check_timeout(timeout: float) -> float:
    if type(timeout) not in (int, float) or not 0 < timeout <= LONGEST_TIMEOUT:
        raise Misconfigured(
            f"`timeout` is {timeout!r}.",
            hint=f"Use a number of seconds above 0 and up to {LONGEST_TIMEOUT}.",
        )
    return timeout


def _check_verify(verify: bool | str) -> bool | str:
    if isinstance(verify, bool):
        return verify
    if not can_load_certificates(verify):
        raise Misconfigured(
            f"`verify` is {str(verify)[:100]!r}, which is not a file or a folder of certificates.",
            hint="Use the path of the certificates to trust, in PEM; a connection may also have "
            "true or false.",
        )
    return verify


def _is_redirect(status: int) -> bool:
    return 300 <= status < 400


def _is_encoded(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _keep_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep `requests` from replacing our credentials by those of a .netrc file."""
    return request


def _parse_body(content: bytes) -> tuple[Any, str]:
    """Return a body as JSON, None if it is not JSON, and as text."""
    text = content.decode("utf-8-sig", "replace")
    try:
        return json.loads(text), text
    except (ValueError, RecursionError):
        return None, text


def _get_message(response: Response) -> str:
    """Return the issuer's message."""
    document = response.document
    if document is not None:
        fields = document if isinstance(document, dict) else {}
        return str(fields.get("message") or fields.get("statusText") or "no reason given")
    return CSRF_ERROR if response.text.strip() == CSRF_ERROR else "a body that is not JSON"


def _http_date(text: str) -> datetime | None:
    """Parse a date of RFC 9110, section 5.6.7; None if it is not complete."""
    if not text.endswith(" GMT"):
        return None
    try:
        return email.utils.parsedate_to_datetime(text).replace(tzinfo=timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return `Retry-After` in seconds, between 0 and 3600 (RFC 9110, section 10.2.3).

    A date is compared with the `Date` of the same response, so that our clock does not matter.
    """
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        until, responded_at = _http_date(value), _http_date(headers.get("Date", ""))
        seconds = (until - responded_at).total_seconds() if until and responded_at else 0.0
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else 0.0
