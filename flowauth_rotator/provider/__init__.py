"""The public names of the Airflow provider, each imported at its first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowauth_rotator.provider.assets import token_asset as token_asset
    from flowauth_rotator.provider.dag import rotation_dag as rotation_dag
    from flowauth_rotator.provider.hook import FlowAuthHook as FlowAuthHook
    from flowauth_rotator.provider.managed_tokens import ManagedToken as ManagedToken
    from flowauth_rotator.provider.operator import RotateTokenOperator as RotateTokenOperator
    from flowauth_rotator.provider.plugin import FlowAuthRotatorPlugin as FlowAuthRotatorPlugin
    from flowauth_rotator.provider.plugin import FolderPlugin as FolderPlugin
    from flowauth_rotator.provider.sensor import FlowAPITokenSensor as FlowAPITokenSensor
    from flowauth_rotator.provider.variable_store import VariableStore as VariableStore

_MODULES = {
    "FlowAPITokenSensor": "sensor",
    "FlowAuthHook": "hook",
    "FlowAuthRotatorPlugin": "plugin",
    "FolderPlugin": "plugin",
    "ManagedToken": "managed_tokens",
    "RotateTokenOperator": "operator",
    "VariableStore": "variable_store",
    "rotation_dag": "dag",
    "token_asset": "assets",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
