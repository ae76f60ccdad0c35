"""The stores of managed tokens: a Variable, a secret in a backend, or a class of the operator's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

from flowauth_rotator.core.errors import Misconfigured, RotatorError, StoreUnavailable

if TYPE_CHECKING:
    from flowauth_rotator.agent.stores import TokenStore

_SECRET_STORES = {  # by the scheme of the setting `store`: module, class, extra
    "vault": ("flowauth_rotator.provider.vault_store", "VaultStore", "vault"),
    "aws": ("flowauth_rotator.provider.aws_store", "AwsStore", "aws"),
}
_ADDRESS = re.compile(rf"({'|'.join(_SECRET_STORES)})://([^/\s]+)(?:/(\S*?))?/*")
_CLASS = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\.([A-Za-z_]\w*)")


def check_store(store: str | None) -> None:
    """Check the form of the setting `store`, without an import.

    Raises:
        Misconfigured: it is neither an address nor the path of a class.
    """
    if store is not None and not (_ADDRESS.fullmatch(store) or _CLASS.fullmatch(store)):
        raise Misconfigured(
            "`store` is neither the address of a secrets backend nor the path of a class.",
            hint='Write it like "vault://vault_default/variables", '
            '"aws://aws_default/airflow/variables" or "my_package.my_module.MyStore".',
        )


def open_store(key: str, store: str | None = None) -> TokenStore:
    """Return the store of a token.

    Args:
        key: the key of the Variable, or of the token in another store.
        store: `SCHEME://CONN_ID/FOLDER` for a secrets backend, the path of a class that is called
            with the key, or None for a Variable in Airflow's database.

    Raises:
        Misconfigured: the setting is invalid, or its code cannot be imported.
        StoreUnavailable: the class of the operator's failed.
    """
    if store is None:
        from flowauth_rotator.provider.variable_store import VariableStore

        return VariableStore(key)
    check_store(store)
    if address := _ADDRESS.fullmatch(store):
        scheme, conn_id, folder = address.groups()
        module, name, extra = _SECRET_STORES[scheme]
        hint = f"Install flowauth-rotator[{extra}] where Airflow's tasks run."
        arguments: Sequence[str] = (key, conn_id, folder or "")
    else:
        module, name = cast("re.Match[str]", _CLASS.fullmatch(store)).groups()
        hint = "Install its package where Airflow's tasks run, or correct `store`."
        arguments = (key,)
    factory = _import_class(module, name, store, hint)
    try:
        return cast("TokenStore", factory(*arguments))
    except RotatorError:
        raise
    except Exception as error:  # noqa: BLE001 - code of the operator's may raise any error
        kind = type(error).__name__
    raise StoreUnavailable(
        f"The store {store} failed with {kind} when it was called with a key.",
        hint="The next check tries again. If the error persists, correct the class, or `store`.",
    )


def _import_class(module: str, name: str, store: str, hint: str) -> Callable[..., object]:
    try:
        return cast("Callable[..., object]", getattr(import_module(module), name))
    except (ImportError, AttributeError) as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - as the code of a module is run
        problem = type(error).__name__
    raise Misconfigured(f"The store {store} cannot be imported: {problem}.", hint=hint)


def get_backend(store: str) -> str:
    """Return what the tokens of a store have in common: scheme and connection, or the class."""
    return "/".join(store.split("/")[:3])


def open_stores(
    key: str, also: Sequence[str], store: str | None
) -> tuple[TokenStore, list[TokenStore]]:
    """Return the store of a token, and those of its copies."""
    return open_store(key, store), [open_store(other, store) for other in also]
