"""Renew FlowAPI tokens before they expire: read, decode, decide, renew, verify, swap, report.

The names below are the public interface; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowauth_rotator.agent.bearer import BearerIssuer as BearerIssuer
    from flowauth_rotator.agent.flowauth import SessionIssuer as SessionIssuer
    from flowauth_rotator.agent.issuer import Issuer as Issuer
    from flowauth_rotator.agent.rehearsal import rehearse as rehearse
    from flowauth_rotator.agent.rotation import rotate as rotate
    from flowauth_rotator.agent.stores import FileStore as FileStore
    from flowauth_rotator.agent.stores import MemoryStore as MemoryStore
    from flowauth_rotator.agent.stores import TokenStore as TokenStore
    from flowauth_rotator.core.clock import ClockReading as ClockReading
    from flowauth_rotator.core.errors import AmbiguousResponse as AmbiguousResponse
    from flowauth_rotator.core.errors import BudgetExhausted as BudgetExhausted
    from flowauth_rotator.core.errors import Capped as Capped
    from flowauth_rotator.core.errors import ConflictingWrite as ConflictingWrite
    from flowauth_rotator.core.errors import ExpiredToken as ExpiredToken
    from flowauth_rotator.core.errors import HistoryTimeout as HistoryTimeout
    from flowauth_rotator.core.errors import IssuerError as IssuerError
    from flowauth_rotator.core.errors import IssuerUnavailable as IssuerUnavailable
    from flowauth_rotator.core.errors import MalformedToken as MalformedToken
    from flowauth_rotator.core.errors import Misconfigured as Misconfigured
    from flowauth_rotator.core.errors import MissingToken as MissingToken
    from flowauth_rotator.core.errors import Refused as Refused
    from flowauth_rotator.core.errors import Rejected as Rejected
    from flowauth_rotator.core.errors import RotatorError as RotatorError
    from flowauth_rotator.core.errors import ShadowedStore as ShadowedStore
    from flowauth_rotator.core.errors import StoreError as StoreError
    from flowauth_rotator.core.errors import StoreUnavailable as StoreUnavailable
    from flowauth_rotator.core.errors import Throttled as Throttled
    from flowauth_rotator.core.errors import TokenError as TokenError
    from flowauth_rotator.core.errors import UnexpectedError as UnexpectedError
    from flowauth_rotator.core.limits import Limit as Limit
    from flowauth_rotator.core.limits import Outlook as Outlook
    from flowauth_rotator.core.policy import Decision as Decision
    from flowauth_rotator.core.policy import RotationPolicy as RotationPolicy
    from flowauth_rotator.core.policy import decide as decide
    from flowauth_rotator.core.report import Outcome as Outcome
    from flowauth_rotator.core.report import Report as Report
    from flowauth_rotator.core.succession import History as History
    from flowauth_rotator.core.succession import RenewalResponse as RenewalResponse
    from flowauth_rotator.core.succession import Row as Row
    from flowauth_rotator.core.tokens import Claims as Claims
    from flowauth_rotator.core.tokens import PublicKey as PublicKey
    from flowauth_rotator.core.tokens import Token as Token
    from flowauth_rotator.core.tokens import read_unverified as read_unverified

__version__ = "0.1.0"

_MODULES = {
    "AmbiguousResponse": "core.errors",
    "BearerIssuer": "agent.bearer",
    "BudgetExhausted": "core.errors",
    "Capped": "core.errors",
    "Claims": "core.tokens",
    "ClockReading": "core.clock",
    "ConflictingWrite": "core.errors",
    "Decision": "core.policy",
    "ExpiredToken": "core.errors",
    "FileStore": "agent.stores",
    "History": "core.succession",
    "HistoryTimeout": "core.errors",
    "Issuer": "agent.issuer",
    "IssuerError": "core.errors",
    "IssuerUnavailable": "core.errors",
    "Limit": "core.limits",
    "MalformedToken": "core.errors",
    "MemoryStore": "agent.stores",
    "Misconfigured": "core.errors",
    "MissingToken": "core.errors",
    "Outcome": "core.report",
    "Outlook": "core.limits",
    "PublicKey": "core.tokens",
    "Refused": "core.errors",
    "Rejected": "core.errors",
    "RenewalResponse": "core.succession",
    "Report": "core.report",
    "RotationPolicy": "core.policy",
    "RotatorError": "core.errors",
    "Row": "core.succession",
    "SessionIssuer": "agent.flowauth",
    "ShadowedStore": "core.errors",
    "StoreError": "core.errors",
    "StoreUnavailable": "core.errors",
    "Throttled": "core.errors",
    "Token": "core.tokens",
    "TokenError": "core.errors",
    "TokenStore": "agent.stores",
    "UnexpectedError": "core.errors",
    "decide": "core.policy",
    "read_unverified": "core.tokens",
    "rehearse": "agent.rehearsal",
    "rotate": "agent.rotation",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
