"""The errors of the server: refused requests, and setups in which it cannot run."""

from __future__ import annotations


class Refused(Exception):
    """The server refuses a request.

    Attributes:
        code: The HTTP status.
        message: The reason, for the client.
        bad_field: The invalid field of the request, if there is one.
        retry_after: Seconds after which a retry may succeed.
        operator_message: The reason for the operator at the shell, with the command that helps;
            by default `message`.
        reason: The reason for the log; by default `message`, which must not repeat text of the
            client then.
    """

    def __init__(
        self,
        code: int,
        message: str,
        bad_field: str | None = None,
        *,
        retry_after: int | None = None,
        operator_message: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.bad_field = bad_field
        self.retry_after = retry_after
        self.operator_message = operator_message or message
        self.reason = reason or message


class SetupError(Exception):
    """The server cannot run with this setup; the message names the fault and the remedy."""


class DatabaseUnreachable(SetupError):
    """The database is unavailable, perhaps only temporarily."""
