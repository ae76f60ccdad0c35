"""Renew FlowAPI tokens before they expire: read, decode, decide, renew, verify, swap, report.

The names below are the public interface; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowauth_rotator.agent.bearer import BearerIssuer as BearerIssuer
    from flowauth_rotator.agent.flowauth import SessionIssuer as SessionIssuer
    from flowauth_rotator.agent.rotation import rotate as rotate
    from flowauth_rotator.agent.stores import FileStore as FileStore
    from flowauth_rotator.agent.stores import MemoryStore as MemoryStore
    from flowauth_rotator.agent.stores import TokenStore as TokenStore
    from flowauth_rotator.core.errors import RotatorError as RotatorError
    from flowauth_rotator.core.policy import Decision as Decision
    from flowauth_rotator.core.policy import RotationPolicy as RotationPolicy
    from flowauth_rotator.core.policy import decide as decide
    from flowauth_rotator.core.report import Outcome as Outcome
    from flowauth_rotator.core.report import Report as Report
    from flowauth_rotator.core.tokens import Claims as Claims
    from flowauth_rotator.core.tokens import Token as Token
    from flowauth_rotator.core.tokens import read_unverified as read_unverified

__version__ = "0.1.0"

_MODULES = {
    "BearerIssuer": "agent.bearer",
    "Claims": "core.tokens",
    "Decision": "core.policy",
    "FileStore": "agent.stores",
    "MemoryStore": "agent.stores",
    "Outcome": "core.report",
    "Report": "core.report",
    "RotationPolicy": "core.policy",
    "RotatorError": "core.errors",
    "SessionIssuer": "agent.flowauth",
    "Token": "core.tokens",
    "TokenStore": "agent.stores",
    "decide": "core.policy",
    "read_unverified": "core.tokens",
    "rotate": "agent.rotation",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
