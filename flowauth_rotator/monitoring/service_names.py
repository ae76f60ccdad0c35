"""The name of a service for each token: a public contract, since people's rules refer to it."""

from __future__ import annotations

import hashlib
import re
import string
from collections import defaultdict
from collections.abc import Iterable

PREFIX = "FlowAuth_Token_"
ALLOWED = frozenset(string.ascii_letters + string.digits + "_.:@/+ -")


def service_name(name: str) -> str:
    """The service of the token of this name, `FlowAuth_Token_<name>`.

    Checkmk knows no escapes. What it cannot take becomes `_`, blanks are collapsed, and then `_`
    and the first 8 hex digits of the SHA-256 of the name (UTF-8) keep it apart from others. A name
    of ASCII letters, digits, `_.:@/+-`, single blanks inside, and printable characters beyond
    ASCII stays as it is.
    """
    fit = "".join(character if _is_allowed(character) else "_" for character in name)
    fit = re.sub(" +", " ", fit).strip(" ")
    if fit == name and name:
        return f"{PREFIX}{name}"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{PREFIX}{fit}_{digest[:8]}"


def collisions(names: Iterable[str]) -> dict[str, list[str]]:
    """The services that stand for several names, with these.

    Eight digits leave hardly a chance for it; but a name that needs no change may have been chosen
    to be what becomes of another one.
    """
    by_service: dict[str, set[str]] = defaultdict(set)
    for name in names:
        by_service[service_name(name)].add(name)
    return {service: sorted(some) for service, some in by_service.items() if len(some) > 1}


def _is_allowed(character: str) -> bool:
    return character in ALLOWED or (not character.isascii() and character.isprintable())
