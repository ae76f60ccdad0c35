"""The only HTTP of the agent: FlowAuth's session sign-in, bearer self-renewal, classes of answers.

| answer | class |
|---|---|
| no connection | `IssuerUnavailable`: nothing was sent |
| time out after sending, cut or endless body, 5xx, 200 that is no JSON | to a renewal `AmbiguousAnswer`, else `IssuerUnavailable` |
| 429 | `Throttled`, with the seconds of `Retry-After` |
| 401 as a page, or with the words `CSRF error` | signed out: sign in again, once |
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3

from flowauth_rotator.core.errors import (
    AmbiguousAnswer,
    IssuerUnavailable,
    Misconfigured,
    Refused,
    RotatorError,
    Throttled,
)
from flowauth_rotator.core.succession import Row
from flowauth_rotator.core.tokens import Claims, Token

logger = logging.getLogger(__name__)

ATTEMPTS = 3
LARGEST_ANSWER = 64 * 1024
LARGEST_LIST = 64 * 1024 * 1024  # 5,000 rows of FlowAuth are 14 MB

LONGEST_WORD = 40  # a segment of a token is longer
LONGEST_TIMEOUT = 3600
CSRF_ERROR = "CSRF error"

T = TypeVar("T")


class Issuer(Protocol):
    """What a rotation asks of an issuer.

    Attributes:
        renews_expired: whether a token that has expired can still be renewed.
        renewal_requests: how many renewals were asked for so far.
    """

    renews_expired: bool
    renewal_requests: int

    def rows(self, claims: Claims) -> Sequence[Row]:
        """The issuer's history for the user and audience of `claims`; empty if it shows none."""

    def renew(
        self, token: Token, row: Row | None, *, key: str, lifetime_minutes: int | None
    ) -> Token:
        """Ask once for a successor of `token`, whose row in the history is `row`."""

    def retry(self, ask: Callable[[], T]) -> T:
        """Call `ask` until it gets an answer, a few times, with pauses."""

    def close(self) -> None:
        """Leave nothing open at the issuer."""


class _SignedOut(IssuerUnavailable):
    """The issuer does not, or no longer, know this session."""


@dataclass(frozen=True)
class _Answer:
    status: int
    document: Any  # the JSON of the body; None if it is none
    text: str
    headers: Mapping[str, str]


class _HttpIssuer:
    """One issuer at one address.

    Args:
        url: where the issuer answers, `http[s]://host[:port][/prefix]`.
        timeout: seconds for one request, all of it.
        verify: whether certificates are verified, or the path of the certificates to trust.
        sleep: pauses, in seconds.

    Raises:
        Misconfigured: the address is none, or a setting is out of its range.
    """

    renews_expired = False
    _secrets: tuple[str, ...] = ()  # what an answer must not recite

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        verify: bool | str = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = _checked_url(url)
        self.timeout = _checked_timeout(timeout)
        self.renewal_requests = 0
        self._sleep = sleep
        self._verify = _checked_verify(verify)
        self._http = _Session()
        self._http.headers["Accept"] = "application/json"

    def retry(self, ask: Callable[[], T]) -> T:
        """Call `ask` up to 3 times: an answer may be lost, a server may be restarting."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_worth_waiting_for),
            wait=_pause,
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            sleep=self._sleep,
            before_sleep=_log_pause,
            reraise=True,
        )(ask)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _renewal(
        self, path: str, key: str, lifetime_minutes: int | None, headers: dict[str, str]
    ) -> Token:
        self.renewal_requests += 1
        body = {} if lifetime_minutes is None else {"lifetime_minutes": lifetime_minutes}
        headers = {**headers, "Idempotency-Key": key}
        answer = self._send("POST", path, body=body, headers=headers, renewing=True)
        token = answer.document.get("token") if isinstance(answer.document, dict) else None
        if not isinstance(token, str) or not token:
            raise AmbiguousAnswer(f"{self.url} answered a renewal without a token.")
        return Token(token)

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        largest: int = LARGEST_ANSWER,
        renewing: bool = False,
    ) -> _Answer:
        """Send one request; return a 200 with JSON, raise the class of any other answer."""
        lost: type[IssuerUnavailable] = AmbiguousAnswer if renewing else IssuerUnavailable
        problem: Exception | None = None
        content = bytearray()
        deadline = time.monotonic() + self.timeout
        try:
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
                while not _is_redirect(response.status_code) and (
                    chunk := response.raw.read1(LARGEST_ANSWER, decode_content=True)
                ):
                    content += chunk
                    if len(content) > largest:
                        raise lost(f"{self.url} answered more than {largest:,} bytes.")
                    if time.monotonic() > deadline:
                        raise lost(f"{self.url} took over {self.timeout:g} s to answer.")
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            problem = error
        if problem:  # raised here, where the request with its secrets is no context of it
            raise self._unanswered(problem, lost)
        answer = _Answer(response.status_code, *_parsed(content), response.headers)
        if answer.status == 200 and answer.document is not None:
            return answer
        raise self._classified(answer, lost)

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

    def _classified(self, answer: _Answer, lost: type[IssuerUnavailable]) -> RotatorError:
        status, words = answer.status, _words(answer, self._secrets)
        if _is_redirect(status):
            host = _host(answer.headers.get("Location", "")) or "another path"
            return Misconfigured(
                f"{self.url} redirects to {host}, and redirects are not followed.",
                advice="Set host to the address that the redirect leads to.",
            )
        if status == 429:
            return Throttled(
                f"{self.url} answered 429: {words}", retry_after=_retry_after(answer.headers)
            )
        if status == 401 and (words == CSRF_ERROR or answer.document is None):
            return _SignedOut(f"{self.url} does not know this session.")
        if 400 <= status < 500:
            return Refused(f"{self.url} answered {status}: {words}", words=words, status=status)
        if status == 200:
            return lost(f"{self.url} answered a page instead of JSON: is a proxy in between?")
        return lost(f"{self.url} answered {status}.")


class SessionIssuer(_HttpIssuer):
    """FlowAuth, or the bundled server, with the sign-in of the token's owner.

    Args:
        url: see above; so are `timeout`, `verify` and `sleep`.
        username: the owner of the tokens.
        password: their password.
    """

    renews_expired = True

    def __init__(self, url: str, username: str, password: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(url, **options)
        self.username = username
        self._password = password
        self._signed_in = False
        self._secrets = (password,)

    def rows(self, claims: Claims) -> Sequence[Row]:
        """The user's history at the token's audience.

        Raises:
            Misconfigured: the token is another user's.
            Refused: the user holds no role at that audience.
        """
        if claims.subject not in (None, self.username):
            raise Misconfigured(
                f"The token belongs to user {claims.subject!r}, the sign-in to {self.username!r}.",
                advice="Sign in as the owner of the token.",
            )
        servers = self._get("/tokens/servers")
        ids = [row.get("id") for row in servers if row.get("server_name") == claims.audience]
        if not ids:
            raise Refused(
                f"{self.url} shows user {self.username!r} no server {claims.audience!r}.",
                words="",
                status=200,
                advice="Have a role of that server granted to the user.",
            )
        rows = self._get(f"/tokens/tokens/{ids[0]}", largest=LARGEST_LIST)
        try:
            return [_row(row) for row in rows if row["token"]]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            pass
        raise IssuerUnavailable(f"{self.url} answered a history of another form.")

    def renew(
        self,
        token: Token,
        row: Row | None,
        *,
        key: str,
        lifetime_minutes: int | None,
    ) -> Token:
        """Renew the token's row.

        Raises:
            Refused: the history does not hold the token, or any refusal of the issuer.
        """
        if row is None:
            raise Refused(
                f"The history of user {self.username!r} at {self.url} does not hold this token.",
                words="",
                status=200,
                advice="Store a token that was minted there for this user.",
            )
        self._secrets = (self._password, token.reveal())
        path = f"/tokens/tokens/{row.id}/renew"
        return self._signed(lambda: self._renewal(path, key, lifetime_minutes, self._csrf()))

    def close(self) -> None:
        """Sign out, if signed in, and close the connections."""
        if self._signed_in:
            try:
                self._send("GET", "/signout")
            except RotatorError as error:
                logger.info("sign-out failed: %s", error)
            self._signed_in = False
        super().close()

    def _get(self, path: str, largest: int = LARGEST_ANSWER) -> list[dict[str, Any]]:
        document = self._signed(lambda: self._send("GET", path, largest=largest)).document
        if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
            raise IssuerUnavailable(
                f"{self.url}{path} answered something other than a list of rows."
            )
        return document

    def _signed(self, ask: Callable[[], T]) -> T:
        """Call `ask` signed in; if the session turns out to be lost, sign in again, once."""
        if self._signed_in:
            try:
                return ask()
            except _SignedOut:
                self._signed_in = False
        self._sign_in()
        try:
            return ask()
        except _SignedOut as error:
            raise IssuerUnavailable(f"{error.reason} It was signed in a moment ago.") from None

    def _sign_in(self) -> None:
        body = {"username": self.username, "password": self._password}
        try:
            self._send("POST", "/signin", body=body)
        except _SignedOut:
            raise IssuerUnavailable(f"{self.url}/signin answered with a page.") from None
        except Refused as refusal:
            raise Refused(
                f"Sign-in of {self.username!r} failed: {refusal.reason}",
                words=refusal.words,
                status=refusal.status,
                advice="Correct the login and password for the issuer.",
            ) from None
        self._signed_in = True

    def _csrf(self) -> dict[str, str]:
        """What FlowAuth asks of a state-changing request; the Referer over https only."""
        token = self._http.cookies.get("X-CSRF") or ""
        return {"X-CSRF-Token": token, "Referer": f"{self.url}/"}


class BearerIssuer(_HttpIssuer):
    """The bundled server, with the token itself as the credential: no password anywhere."""

    def rows(self, claims: Claims) -> Sequence[Row]:  # noqa: ARG002 - no token shows any
        """Empty: a token opens no history, and needs none, as the server honours the key."""
        return ()

    def renew(
        self,
        token: Token,
        row: Row | None,  # noqa: ARG002 - the token says which
        *,
        key: str,
        lifetime_minutes: int | None,
    ) -> Token:
        """Renew the token that is presented."""
        self._secrets = (token.reveal(),)
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        try:
            return self._renewal("/tokens/renew", key, lifetime_minutes, headers)
        except _SignedOut:
            raise Misconfigured(
                f"{self.url} renews no token by itself: is it FlowAuth?",
                advice="Give the connection the login and password of the token's owner.",
            ) from None


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
    if isinstance(verify, str) and not (verify and Path(verify).exists()):
        raise Misconfigured(
            f"`verify` is {verify!r}, and there is no such file.",
            advice="Use true, false, or the path of the certificates to trust.",
        )
    return verify


class _Session(requests.Session):
    """Does not prepare to follow a redirect, for which it would read the whole of its body."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        """Nowhere."""
        return


def _is_redirect(status: int) -> bool:
    return 300 <= status < 400


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


def _parsed(content: bytearray) -> tuple[Any, str]:
    """A body as JSON, None if it is none, and as text."""
    text = content.decode("utf-8", "replace")
    try:
        return json.loads(text), text
    except (ValueError, RecursionError):
        return None, text


def _words(answer: _Answer, secrets: tuple[str, ...]) -> str:
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


def _retry_after(headers: Mapping[str, str]) -> float:
    """`Retry-After` in seconds, between 0 and 3600 (RFC 9110, section 10.2.3).

    A date is compared with the answer's own `Date`, so that our clock does not matter.
    """
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = email.utils.parsedate_to_datetime(value)
            seconds = (until - email.utils.parsedate_to_datetime(headers["Date"])).total_seconds()
        except (KeyError, TypeError, ValueError):
            seconds = 0.0
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else 0.0


def _row(row: dict[str, Any]) -> Row:
    return Row(
        id=int(row["id"]),
        name=str(row["name"]),
        owner=str(row["username"]),
        audience=str(row["server_name"]),
        roles=frozenset(str(role["name"]) for role in row["roles"]),
        token=Token(str(row["token"])),
    )


def _worth_waiting_for(error: BaseException) -> bool:
    return isinstance(error, IssuerUnavailable) and error.retryable


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds to wait: what the issuer asked for, and never less than 1 to 2, then 2 to 3."""
    error = state.outcome.exception() if state.outcome else None
    backoff = tenacity.wait_exponential(max=Throttled.longest_pause) + tenacity.wait_random(0, 1)
    return max(backoff(state), getattr(error, "retry_after", 0.0))


def _log_pause(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    logger.warning("%s Next attempt in %.0f s.", error, pause)
