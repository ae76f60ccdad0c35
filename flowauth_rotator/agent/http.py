"""One request to an issuer, and the class of whatever comes back.

| answer | class |
|---|---|
| no connection | `IssuerUnavailable`: nothing was sent |
| time out after sending, cut, endless or encoded body, 5xx, 200 that is no JSON | to a renewal `AmbiguousAnswer`, else `IssuerUnavailable` |
| 429 | `Throttled`, with the seconds of `Retry-After` |
| 401 as a page, or with the words `CSRF error` | `SignedOut`: sign in again, once |
| 410 with `Idempotent-Replayed` | `KeyExpired`, a `Refused` |
| 400 with `need_two_factor` | `CodeMissing`, a `Refused` |
| 404 or 405 as a page | `NoSuchPage`, a `Refused` |
| any other 4xx | `Refused`, with the issuer's words |
| a redirect, a certificate that nobody vouches for | `Misconfigured` |
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
    AmbiguousAnswer,
    IssuerUnavailable,
    Misconfigured,
    Refused,
    RotatorError,
    Throttled,
)

LARGEST_ANSWER = 64 * 1024
LONGEST_TIMEOUT = 3600
LONGEST_WORD = 40  # a segment of a token is longer
CSRF_ERROR = "CSRF error"


def _withhold(record: logging.LogRecord) -> bool:
    """Keep from the log what urllib3 quotes of an answer that is broken: it may be a token."""
    if str(record.msg).startswith("Failed to parse headers"):
        record.msg, record.args, record.exc_info = (
            "Failed to parse the headers of an answer",
            (),
            None,
        )
    return True


logging.getLogger("urllib3.connection").addFilter(_withhold)


class SignedOut(IssuerUnavailable):
    """The issuer does not, or no longer, know this session."""


class KeyExpired(Refused):
    """What this issuer once answered to the same key has expired since."""


class CodeMissing(Refused):
    """The account asks for a two-factor code, and none was sent."""


class NoSuchPage(Refused):
    """The issuer knows nothing by that path."""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: the HTTP status.
        document: the JSON of the body; None if it is none.
        text: the body as text.
        headers: its headers.
    """

    status: int
    document: Any
    text: str
    headers: Mapping[str, str]


class Wire:
    """The way to one issuer: no redirect is followed, no answer is endless.

    Args:
        url: where the issuer answers, `http[s]://host[:port][/prefix]`.
        timeout: seconds for one request, and for all of its body.
        verify: whether certificates are verified, or the path of the certificates to trust.

    Attributes:
        secrets: what no error may recite of an answer.
        answered_at: the issuer's clock in its last answer since `begin` (the `Date` header of what
            is JSON), in aware UTC.
        answered_after: seconds from `begin` to that answer.

    Raises:
        Misconfigured: the address is none, or a setting is out of its range.
    """

    _monotonic = staticmethod(time.monotonic)

    def __init__(self, url: str, *, timeout: float = 30.0, verify: bool | str = True) -> None:
        self.url = _checked_url(url)
        self.secrets: tuple[str, ...] = ()
        self.begin()
        self.timeout = _checked_timeout(timeout)
        self._verify = _checked_verify(verify)
        self._http = _Session()
        self._http.headers["Accept"] = "application/json"
        self._http.headers["Accept-Encoding"] = "identity"  # why: see `_exchange`

    def begin(self) -> None:
        """Forget what was answered."""
        self.answered_at: datetime | None = None
        self.answered_after = 0.0
        self._began = self._monotonic()

    def cookie(self, name: str) -> str:
        """A cookie that the issuer has set; empty if it has not."""
        return self._http.cookies.get(name) or ""

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        largest: int = LARGEST_ANSWER,
        renewing: bool = False,
    ) -> Answer:
        """Send one request; return a 200 with JSON, raise the class of any other answer.

        Args:
            method: GET or POST.
            path: what follows the issuer's address.
            body: the JSON to send, if any.
            headers: those beside the usual ones.
            largest: how many bytes an answer may have.
            renewing: whether a lost answer is ambiguous.
        """
        lost: type[IssuerUnavailable] = AmbiguousAnswer if renewing else IssuerUnavailable
        cookies = self._http.cookies.copy()
        try:
            return self._answered(method, path, body, headers, largest, lost)
        except IssuerUnavailable:
            self._http.cookies = cookies  # a cut answer may have left half a cookie
            raise

    def _answered(
        self,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None,
        largest: int,
        lost: type[IssuerUnavailable],
    ) -> Answer:
        problem: Exception | None = None
        try:
            status, received, content = self._exchange(method, path, body, headers, largest, lost)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            problem = error
        if problem:  # raised here, where the request with its secrets is no context of it
            raise self._unanswered(problem, lost)
        answer = Answer(status, *_parsed(content), received)
        date = _http_date(received.get("Date", ""))
        if date and answer.document is not None:  # not by a proxy's page
            self.answered_at = date
            self.answered_after = self._monotonic() - self._began
        if answer.status == 200 and answer.document is not None:
            return answer
        raise self._classified(answer, lost)

    def _exchange(
        self,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None,
        largest: int,
        lost: type[IssuerUnavailable],
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of whatever is answered; the body of a redirect is not read.

        No body is ever decompressed, and one with a `Content-Encoding` is refused unread. urllib3
        before 2.6 decodes 8 kB of `gzip, gzip` into 5 GB (CVE-2025-66418, CVE-2025-66471), and the
        constraints of Airflow 2.10 hold it below 2.6.
        """
        content = bytearray()
        deadline = time.monotonic() + self.timeout
        with self._http.request(
            method,
            self.url + path,
            json=body,
            headers=headers,
            auth=_as_it_is,
            timeout=self.timeout,
            verify=self._verify,
            allow_redirects=False,
            stream=True,
        ) as response:
            has_body = not _is_redirect(response.status_code)
            if has_body and _is_encoded(response.headers):
                raise lost(
                    f"{self.url} sent an encoded body (Content-Encoding), which is not decoded.",
                    advice="Switch off compression for this address, in the issuer or in a proxy "
                    "before it; the request is tried again.",
                )
            while has_body and (chunk := response.raw.read1(LARGEST_ANSWER, decode_content=False)):
                content += chunk
                if len(content) > largest:
                    raise lost(f"{self.url} answered more than {largest:,} bytes.")
                if time.monotonic() > deadline:
                    raise lost(f"{self.url} took over {self.timeout:g} s to answer.")
        return response.status_code, response.headers, bytes(content)

    def _unanswered(self, error: Exception, lost: type[IssuerUnavailable]) -> RotatorError:
        if _is_untrusted(error):
            return Misconfigured(
                f"The certificate of {self.url} could not be verified.",
                advice="Let `verify` name the file of the certificates to trust.",
            )
        if isinstance(error, requests.exceptions.InvalidURL):
            return Misconfigured(f"{self.url} is no address.", advice="Set host to http[s]://...")
        if _never_connected(error):
            return IssuerUnavailable(f"{self.url} cannot be reached.")
        if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
            return lost(f"{self.url} did not answer within {self.timeout:g} s.")
        return lost(f"The connection to {self.url} broke before its answer was complete.")

    def _classified(self, answer: Answer, lost: type[IssuerUnavailable]) -> RotatorError:
        status = answer.status
        words = _words(answer, (*self.secrets, *self._http.cookies.values()))
        if _is_redirect(status):
            host = _host(answer.headers.get("Location", "")) or "another path"
            return Misconfigured(
                f"{self.url} redirects to {host}, and redirects are not followed.",
                advice="Set host to the address that the redirect leads to.",
            )
        if status == 429:
            return Throttled(
                f"{self.url} answered 429: {words.rstrip('.')}.",
                retry_after=_retry_after(answer.headers),
            )
        if status == 401 and (words == CSRF_ERROR or answer.document is None):
            return SignedOut(f"{self.url} does not know this session.")
        if 400 <= status < 500:
            reason = f"{self.url} answered {status}: {words.rstrip('.')}."
            kind: type[Refused] = Refused
            if status in (404, 405) and answer.document is None:
                kind = NoSuchPage
            elif status == 410 and answer.headers.get("Idempotent-Replayed") == "true":
                kind = KeyExpired
            elif isinstance(answer.document, dict) and answer.document.get("need_two_factor"):
                kind = CodeMissing
            return kind(reason, words=words, status=status)
        if status == 200:
            return lost(f"{self.url} answered a page instead of JSON: is a proxy in between?")
        return lost(f"{self.url} answered {status}.")


def _checked_url(url: str) -> str:
    advice = "Set host to the issuer's address, as in https://flowauth.example.org"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        raise Misconfigured("The issuer's address is malformed.", advice=f"{advice}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(
            "The issuer's address does not begin with http:// or https:// and a host.",
            advice=f"{advice}.",
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise Misconfigured(
            "The issuer's address holds credentials, a query or a fragment.", advice=f"{advice}."
        )
    return url.rstrip("/")


def _checked_timeout(timeout: float) -> float:
    if type(timeout) not in (int, float) or not 0 < timeout <= LONGEST_TIMEOUT:
        raise Misconfigured(
            f"`timeout` is {timeout!r}.", advice=f"Use seconds, up to {LONGEST_TIMEOUT}."
        )
    return timeout


def _checked_verify(verify: bool | str) -> bool | str:
    if isinstance(verify, bool):
        return verify
    folder, file = (verify, None) if verify and Path(verify).is_dir() else (None, verify)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file, capath=folder)
    except (OSError, TypeError):  # ssl.SSLError is an OSError
        raise Misconfigured(
            f"`verify` is {verify!r}, which holds no certificates.",
            advice="Use true, false, or the path of the certificates to trust.",
        ) from None
    return verify


class _Session(requests.Session):
    """Does not prepare to follow a redirect, for which it would read the whole of its body."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        """Nowhere."""
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
    """Whether a certificate was not verified; other trouble with TLS may pass."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    cause = reason.args[0] if isinstance(reason, urllib3.exceptions.SSLError) else None
    return isinstance(cause, ssl.SSLCertVerificationError)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep `requests` from replacing our credentials by those of a .netrc file."""
    return request


def _never_connected(error: Exception) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.SSLError))


def _parsed(content: bytes) -> tuple[Any, str]:
    """A body as JSON, None if it is none, and as text."""
    text = content.decode("utf-8", "replace")
    try:
        return json.loads(text), text
    except (ValueError, RecursionError):
        return None, text


def _words(answer: Answer, secrets: tuple[str, ...]) -> str:
    """The issuer's own message on one line, without what it may recite of a token or password."""
    document = answer.document
    if isinstance(document, dict):
        words = str(document.get("message") or document.get("statusText") or "no reason given")
    elif answer.text.strip() == CSRF_ERROR:
        words = CSRF_ERROR
    else:
        words = "a page, not JSON"

    def redacted(run: re.Match[str]) -> str:
        text = run[0]
        pieces = {text[start : start + 12] for start in range(len(text) - 11)} or {text}
        known = any(piece in secret for piece in pieces for secret in secrets)
        return "[...]" if known or len(text) >= LONGEST_WORD else text

    return re.sub(r"[^\s.]{8,}", redacted, " ".join(words.split()))[:300]


def _http_date(text: str) -> datetime | None:
    """A date in the form of RFC 9110, section 5.6.7; None if it is none, or only a part of one."""
    if not text.endswith(" GMT"):
        return None
    try:
        return email.utils.parsedate_to_datetime(text).replace(tzinfo=timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None


def _retry_after(headers: Mapping[str, str]) -> float:
    """`Retry-After` in seconds, between 0 and 3600 (RFC 9110, section 10.2.3).

    A date is compared with the answer's own `Date`, so that our clock does not matter.
    """
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        until, answered_at = _http_date(value), _http_date(headers.get("Date", ""))
        seconds = (until - answered_at).total_seconds() if until and answered_at else 0.0
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else 0.0
