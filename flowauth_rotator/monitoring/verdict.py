"""The verdict on a token or on rotation DAGs: a severity, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowauth_rotator.core.report import Severity


@dataclass(frozen=True)
class Verdict:
    """The severity of a token or of rotation DAGs, and why.

    Attributes:
        severity: the severity.
        message: why, without a full stop: "Expires in 3 d 4 h (2026-11-24 13:00 UTC)".
        hint: what the operator can do; empty if no action is needed.
        reasons: the clauses of the message of a token, without its expiry.
    """

    severity: Severity
    message: str
    hint: str = ""
    reasons: Sequence[str] = ()
