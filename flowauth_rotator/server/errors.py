"""The two ways to say no: to whoever asks, and to the operator."""

from __future__ import annotations


class Refused(Exception):
    """A refusal: a status, a sentence for the user, and the field it is about.

    Attributes:
        code: The HTTP status.
        message: The sentence.
        bad_field: The field of the request that is wrong, if it is one.
        retry_after: Seconds after which asking again may be answered otherwise.
    """

    def __init__(
        self,
        code: int,
        message: str,
        bad_field: str | None = None,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.bad_field = bad_field
        self.retry_after = retry_after


class SetupError(Exception):
    """The server cannot run as it is set up; the message says which part and what to do."""


class Unreachable(SetupError):
    """The database cannot be used at the moment; that may pass by itself."""
