"""The exceptions of a rotation.

```
RotatorError
├── Misconfigured             a setting is invalid
├── UnexpectedError           a library or this program failed (retryable)
├── TokenError                the token in use is at fault
│   ├── MissingToken          the store holds no token
│   ├── MalformedToken        the text is not a JWT that can be renewed
│   └── ExpiredToken          it has expired, and the issuer no longer renews it
├── StoreError                the place that holds the token is at fault
│   ├── ShadowedStore         readers would not see a write
│   ├── ConflictingWrite      another writer replaced the token during the rotation
│   └── StoreUnavailable      the store could not be read or written (retryable)
└── IssuerError               the issuer is at fault
    ├── Refused               it refused the request, with a message of its own
    ├── Capped                the lifetime that it grants is not worth a swap
    ├── Rejected              its token failed verification
    ├── BudgetExhausted       it has already minted too many tokens of this name
    └── IssuerUnavailable     no usable response (retryable)
        ├── Throttled         it asked to wait, and for how long
        ├── HistoryTimeout    its history is too long for the timeout
        └── AmbiguousResponse it may have minted a token: look before the next request
```

No message, attribute, cause or context of these carries a token or a part of one.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from functools import wraps
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.text import remove_control_characters

if TYPE_CHECKING:
    from datetime import datetime

    from flowauth_rotator.core.clock import ClockReading

F = TypeVar("F", bound=Callable[..., Any])


class RefusalReason(str, Enum):
    """Refusals of FlowAuth whose only sign is their text (FlowKit pull request 7279)."""

    CODE = "Code not valid."  # a wrong two-factor code, or one that was used before
    NO_ROLES = "no roles recorded"
    CAP_PASSED = "maximum permitted expiry has already passed"

    @classmethod
    def recognize(cls, text: str) -> RefusalReason | None:
        """Return the reason in an issuer's message; None if it is none of these."""
        return next((reason for reason in cls if reason.value in text), None)


class RotatorError(Exception):
    """A rotation ended without a swap.

    Message and hint are safe to show: they may contain an issuer's text, or a name.

    Attributes:
        outcome: the outcome in reports and metrics.
        retryable: whether the same attempt may succeed a little later.
        hint: what a person can do, in one sentence.
        severity: critical, unless the rotation found that there is time left.
        needs_new_token: whether a renewal cannot help any more: a person must mint a token.
        details: the report as far as the rotation had filled it in; None before the token was read.
        clock: the issuer's clock in its last response before the error; None without one.
        renewal_requests: how many of them the issuer's `renew` had sent; None counts as one.
    """

    outcome: ClassVar[Outcome]
    retryable: bool = False
    hint: str = ""
    severity: Severity = Severity.CRITICAL
    needs_new_token: bool = False
    details: Report | None = None
    clock: ClockReading | None = None
    renewal_requests: int | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = _make_showable(message)
        super().__init__(self.message)
        if hint is not None:
            self.hint = _make_showable(hint)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()

    def with_details(self, details: Report, severity: Severity | None = None) -> RotatorError:
        """Return a copy that carries the details and, if one is given, the severity."""
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__)
        copy.details = details
        if severity is not None:
            copy.severity = severity
        return copy

    def report(self, *, name: str, place: str, checked_at: datetime) -> Report:
        """Return the error as a report, with the details if there are any."""
        details = self.details or Report(name, place, self.outcome, self.message, checked_at)
        return replace(
            details,
            outcome=self.outcome,
            message=self.message,
            severity=self.severity,
            hint=self.hint,
            needs_new_token=self.needs_new_token,
        )


class Misconfigured(RotatorError):
    """A setting is invalid; the message names it."""

    outcome = Outcome.MISCONFIGURED


class UnexpectedError(RotatorError):
    """A library or this program raised an error that the program does not handle."""

    outcome = Outcome.UNAVAILABLE
    retryable = True
    hint = "The rotation is retried; if the error persists, report it with this message."

    @classmethod
    def wrap(cls, error: Exception) -> UnexpectedError:
        """Return the error for another one; of its text nothing is shown, as it may be a secret."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "flowauth_rotator" in PurePath(frame.filename).parts]
        place = (own or frames)[-1]  # there is one at least, where it was caught
        file = PurePath(place.filename).name
        return cls(f"Unexpected {type(error).__name__} in {file}, line {place.lineno}.")


def wrap_unexpected_errors(function: F) -> F:
    """Let no exception but a `RotatorError` leave a function."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - those of the function
        try:
            return function(*args, **kwargs)
        except RotatorError:
            raise
        except Exception as error:  # noqa: BLE001 - a library may raise any error
            failure = UnexpectedError.wrap(error)
        raise failure  # outside the block, so that it chains nothing that holds a secret

    return cast("F", call)


class TokenError(RotatorError):
    """The token in use is at fault."""


class MissingToken(TokenError):
    """The store holds no token."""

    outcome = Outcome.MISSING
    hint = "Store a FlowAPI token there; from then on it is renewed."


class MalformedToken(TokenError):
    """The text is not a JWT that can be renewed; the message says why and quotes none of it."""

    outcome = Outcome.MALFORMED
    hint = "Store the JWT alone, without a prefix, quotation marks or line breaks in it."


class ExpiredToken(TokenError):
    """The token has expired, and the issuer no longer renews it."""

    outcome = Outcome.EXPIRED
    hint = "Mint a new token at the issuer and store it."
    needs_new_token = True


class StoreError(RotatorError):
    """The place that holds the token is at fault."""


class ShadowedStore(StoreError):
    """Readers would not see a write; the message names what hides it."""

    outcome = Outcome.SHADOWED


class ConflictingWrite(StoreError):
    """Another writer replaced the token during the rotation; its value was not overwritten."""

    outcome = Outcome.CONFLICT
    hint = "Check the stored value, and store a valid token."


class StoreUnavailable(StoreError):
    """The store could not be read or written."""

    outcome = Outcome.UNAVAILABLE
    retryable = True
    hint = "The rotation is retried; if the error persists, check the store of the token."


class IssuerError(RotatorError):
    """The issuer is at fault."""


class Refused(IssuerError):
    """The issuer refused the request.

    Attributes:
        issuer_message: the issuer's own message, on one line, cut to 300 characters.
        status: the HTTP status of the response.
        bad_field: the field of the request that the issuer refuses, if it names one.
        reason: the reason, if it is one of those that are known.
    """

    outcome = Outcome.REFUSED
    hint = "Correct what the issuer names, or mint a new token there and store it."

    def __init__(
        self,
        message: str,
        *,
        issuer_message: str,
        status: int,
        hint: str | None = None,
        bad_field: str = "",
        reason: RefusalReason | None = None,
    ) -> None:
        if hint is None and reason is RefusalReason.CAP_PASSED:
            hint = (
                "Ask an administrator of the issuer to raise the longest lifetime or the latest "
                "expiry of the server and the roles; until then a new token is refused, too."
            )
        super().__init__(message, hint=hint)
        self.issuer_message = remove_control_characters(issuer_message)
        self.status = status
        self.bad_field = bad_field
        self.reason = reason
        self.needs_new_token = reason is RefusalReason.NO_ROLES


class Capped(IssuerError):
    """The lifetime that the issuer grants is not worth a swap."""

    outcome = Outcome.CAPPED
    hint = (
        "Raise `lifetime_minutes`, if it is set, or ask an administrator of the issuer to raise "
        "the longest lifetime or the latest expiry of the server and the roles."
    )


class Rejected(IssuerError):
    """The issuer's token failed verification and was not stored.

    Attributes:
        violations: what is wrong with the token, a clause each.
    """

    outcome = Outcome.REJECTED
    hint = "The token in use was not changed; compare it with the issuer's records."

    def __init__(
        self, message: str, *, violations: tuple[str, ...], hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.violations = violations


class BudgetExhausted(IssuerError):
    """The issuer has minted as many tokens of this name as the budget allows."""

    outcome = Outcome.BUDGET_EXHAUSTED
    hint = "Find out why so many were needed; requests resume when the hour or the day is over."


class IssuerUnavailable(IssuerError):
    """The issuer sent no usable response, and minted nothing.

    Attributes:
        is_late: whether the time for the response was over, here or at a proxy.
    """

    outcome = Outcome.UNAVAILABLE
    retryable = True
    is_late: bool = False
    hint = "The request is retried; if the error persists, check the issuer."


class Throttled(IssuerUnavailable):
    """The issuer asked to wait; after more than 30 s the next run is soon enough.

    Attributes:
        retry_after: seconds to wait, between 0 and 3600.
    """

    longest_pause: ClassVar[float] = 30.0

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.retryable = retry_after <= self.longest_pause


class HistoryTimeout(IssuerUnavailable):
    """The issuer's history of the user did not arrive in time.

    An issuer goes on preparing the list after the client has left: do not repeat it at once.
    """


class AmbiguousResponse(IssuerUnavailable):
    """The issuer may have minted a token, but the response was lost or unreadable."""


def _make_showable(text: str) -> str:
    """Remove control characters, except line breaks: an error may list others, one on each line."""
    return "\n".join(map(remove_control_characters, text.split("\n")))
