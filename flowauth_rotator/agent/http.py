"""HTTP requests to an issuer, and the exception for each kind of response.

| response | exception |
|---|---|
| no connection | `IssuerUnavailable`: nothing was sent |
| timeout after sending, truncated, endless or encoded body, 5xx, 200 without JSON | for a renewal `AmbiguousResponse`, else `IssuerUnavailable` |
| 429 | `Throttled`, with the seconds of `Retry-After` |
| 401 as HTML, or with the text `CSRF error` | `SignedOut`: sign in again, once |
| 410 with `Idempotent-Replayed` | `KeyExpired`, a `Refused` |
| 400 with `need_two_factor` | `CodeMissing`, a `Refused` |
| 404 or 405 as HTML | `NoSuchPage`, a `Refused` |
| any other 4xx | `Refused`, with the issuer's message |
| a redirect, an untrusted certificate | `Misconfigured` |
"""  # noqa: E501 - a table

from __future__ import annotations

import email.utils
import json
import logging
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from flowauth_rotator.core.errors import (
    AmbiguousResponse,
    IssuerUnavailable,
    Misconfigured,
    Refused,
    RotatorError,
    Throttled,
)
from flowauth_rotator.core.text import remove_control_characters

LARGEST_BODY = 64 * 1024
LONGEST_TIMEOUT = 3600
LONGEST_WORD = 40  # the segments of a token are longer
CSRF_ERROR = "CSRF error"
ADDRESS_ADVICE = "Set host to the issuer's address, such as https://flowauth.example.org."


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


class KeyExpired(Refused):
    """The token that the issuer minted for the same key has expired since."""


class CodeMissing(Refused):
    """The account needs a two-factor code, and none was sent."""


class NoSuchPage(Refused):
    """The issuer has no such path."""


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
        url: the issuer's address, `http[s]://host[:port][/prefix]`.
        timeout: seconds for one request, and for all of its body.
        verify: whether certificates are verified, or the path of the certificates to trust.

    Attributes:
        secrets: texts that are redacted in errors that quote a response.
        responded_at: the issuer's clock in its last response since `reset`, the `Date` header of a
            response with JSON, in aware UTC; None without one.
        responded_after: seconds from `reset` to that response.

    Raises:
        Misconfigured: the address is invalid, or a setting is out of its range.
    """

    _monotonic = staticmethod(time.monotonic)

    def __init__(self, url: str, *, timeout: float = 30.0, verify: bool | str = True) -> None:
        self.url = _check_url(url)
        self.secrets: tuple[str, ...] = ()
        self.reset()
        self.timeout = _check_timeout(timeout)
        self._verify = _check_verify(verify)
        self._session = _Session()
        self._session.headers["Accept"] = "application/json"
        self._session.headers["Accept-Encoding"] = "identity"  # see `_exchange`

    def reset(self) -> None:
        """Forget the last response."""
        self.responded_at: datetime | None = None
        self.responded_after = 0.0
        self._began = self._monotonic()

    def cookie(self, name: str) -> str:
        """Return a cookie of the issuer; empty if it has not set it."""
        return self._session.cookies.get(name) or ""

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = LARGEST_BODY,
        renewing: bool = False,
    ) -> Response:
        """Send one request and return its response, a 200 with JSON.

        Args:
            method: GET or POST.
            path: the path below the issuer's address.
            body: the JSON to send, if any.
            headers: additional headers.
            max_bytes: the size limit of the response body.
            renewing: whether a lost response is ambiguous.

        Raises:
            RotatorError: any other response, as in the table above.
        """
        lost: type[IssuerUnavailable] = AmbiguousResponse if renewing else IssuerUnavailable
        cookies = self._session.cookies.copy()
        try:
            return self._receive(method, path, body, headers, max_bytes, lost)
        except IssuerUnavailable:
            self._session.cookies = cookies  # a truncated response may have left half a cookie
            raise

    def _receive(
        self,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None,
        max_bytes: int,
        lost: type[IssuerUnavailable],
    ) -> Response:
        problem: Exception | None = None
        try:
            status, received, content = self._exchange(method, path, body, headers, max_bytes, lost)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            problem = error
        if problem:  # outside the block, so that the request with its secrets is not the context
            raise self._transport_error(problem, lost)
        response = Response(status, *_parse_body(content), received)
        date = _http_date(received.get("Date", ""))
        if date and response.document is not None:  # not the error page of a proxy
            self.responded_at = date
            self.responded_after = self._monotonic() - self._began
        if response.status == 200 and response.document is not None:
            return response
        raise self._status_error(response, lost)

    def _exchange(
        self,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None,
        max_bytes: int,
        lost: type[IssuerUnavailable],
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body; the body of a redirect is not read.

        No body is decompressed, and one with a `Content-Encoding` is refused unread: urllib3 before
        2.6 decodes 8 kB of `gzip, gzip` into 5 GB (CVE-2025-66418, CVE-2025-66471), and the
        constraints of Airflow 2.10 keep it below 2.6.
        """
        content = bytearray()
        deadline = time.monotonic() + self.timeout
        with self._session.request(
            method,
            self.url + path,
            json=body,
            headers=headers,
            auth=_keep_credentials,
            timeout=self.timeout,
            verify=self._verify,
            allow_redirects=False,
            stream=True,
        ) as response:
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
                if len(content) > max_bytes:
                    raise lost(f"The response of {self.url} is larger than {max_bytes:,} bytes.")
                if time.monotonic() > deadline:
                    raise lost(f"The response of {self.url} took longer than {self.timeout:g} s.")
        return response.status_code, response.headers, bytes(content)

    def _transport_error(self, error: Exception, lost: type[IssuerUnavailable]) -> RotatorError:
        if _is_untrusted(error):
            return Misconfigured(
                f"The certificate of {self.url} could not be verified.",
                hint="Set `verify` to the path of the certificates to trust.",
            )
        if isinstance(error, requests.exceptions.InvalidURL):
            return Misconfigured(f"{self.url} is not a valid address.", hint=ADDRESS_ADVICE)
        if _is_connect_error(error):
            return IssuerUnavailable(f"{self.url} cannot be reached.")
        if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
            return lost(f"{self.url} did not respond within {self.timeout:g} s.")
        return lost(f"The connection to {self.url} was lost before the response was complete.")

    def _status_error(self, response: Response, lost: type[IssuerUnavailable]) -> RotatorError:
        status = response.status
        message = _error_message(response, (*self.secrets, *self._session.cookies.values()))
        if _is_redirect(status):
            host = _host(response.headers.get("Location", "")) or "another path"
            return Misconfigured(
                f"{self.url} redirects to {host}; redirects are not followed.",
                hint="Set host to the address to which it redirects.",
            )
        if status == 429:
            return Throttled(
                f"{self.url} responded with 429: {message.rstrip('.')}.",
                retry_after=_retry_after(response.headers),
            )
        if status == 401 and (message == CSRF_ERROR or response.document is None):
            return SignedOut(f"{self.url} does not know this session.")
        if 400 <= status < 500:
            reason = f"{self.url} responded with {status}: {message.rstrip('.')}."
            kind: type[Refused] = Refused
            if status in (404, 405) and response.document is None:
                kind = NoSuchPage
            elif status == 410 and response.headers.get("Idempotent-Replayed") == "true":
                kind = KeyExpired
            elif isinstance(response.document, dict) and response.document.get("need_two_factor"):
                kind = CodeMissing
            return kind(reason, issuer_message=message, status=status)
        if status == 200:
            return lost(f"{self.url} returned HTML instead of JSON: is a proxy in between?")
        return lost(f"{self.url} responded with {status}.")


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for an invalid port
    except ValueError:
        raise Misconfigured(
            "The issuer's address has an invalid host or port.", hint=ADDRESS_ADVICE
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(
            "The issuer's address does not begin with http:// or https:// and a host.",
            hint=ADDRESS_ADVICE,
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise Misconfigured(
            "The issuer's address contains credentials, a query or a fragment.",
            hint=ADDRESS_ADVICE,
        )
    return url.rstrip("/")


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
    folder, file = (verify, None) if verify and Path(verify).is_dir() else (None, verify)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file, capath=folder)
    except (OSError, TypeError):  # ssl.SSLError is an OSError
        raise Misconfigured(
            f"`verify` is {verify!r}, which is not a file or a folder of certificates.",
            hint="Use the path of the certificates to trust, in PEM; a connection may also have "
            "true or false.",
        ) from None
    return verify


class _Session(requests.Session):
    """Does not prepare to follow redirects, for which it would read the whole body."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        """Return no target."""
        return


def _is_redirect(status: int) -> bool:
    return 300 <= status < 400


def _is_encoded(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_untrusted(error: Exception) -> bool:
    """Whether the certificate was not verified; other TLS errors may be temporary."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    cause = reason.args[0] if isinstance(reason, urllib3.exceptions.SSLError) else None
    return isinstance(cause, ssl.SSLCertVerificationError)


def _keep_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep `requests` from replacing our credentials by those of a .netrc file."""
    return request


def _is_connect_error(error: Exception) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.SSLError))


def _parse_body(content: bytes) -> tuple[Any, str]:
    """Return a body as JSON, None if it is not JSON, and as text."""
    text = content.decode("utf-8", "replace")
    try:
        return json.loads(text), text
    except (ValueError, RecursionError):
        return None, text


def _error_message(response: Response, secrets: tuple[str, ...]) -> str:
    """Return the issuer's message on one line, with tokens and passwords redacted."""
    document = response.document
    if isinstance(document, dict):
        message = str(document.get("message") or document.get("statusText") or "no reason given")
    elif response.text.strip() == CSRF_ERROR:
        message = CSRF_ERROR
    else:
        message = "HTML, not JSON"
    message = " ".join(remove_control_characters(message).split())  # first: it may join a secret

    def redact(match: re.Match[str]) -> str:
        text = match[0]
        pieces = {text[start : start + 12] for start in range(len(text) - 11)} or {text}
        is_secret = any(piece in secret for piece in pieces for secret in secrets)
        return "[...]" if is_secret or len(text) >= LONGEST_WORD else text

    return re.sub(r"[^\s.]{8,}", redact, message)[:300]


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
