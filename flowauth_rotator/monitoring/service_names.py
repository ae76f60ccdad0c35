"""The service name of each token: a public contract, since monitoring rules refer to it."""

from __future__ import annotations

import hashlib
import re
import string
from collections import defaultdict
from collections.abc import Iterable

PREFIX = "FlowAuth_Token_"
LONGEST = 200  # bytes of UTF-8; Checkmk keeps files that are named by services
ALLOWED = frozenset(string.ascii_letters + string.digits + "_.:@/+ -")


def service_name(name: str) -> str:
    """Return the service name of a token, `FlowAuth_Token_<name>`.

    Checkmk has no escapes. A name of ASCII letters, digits, `_.:@/+-`, single blanks inside, and
    printable characters beyond ASCII is used unchanged. In others each disallowed character
    becomes `_`, blanks are collapsed, and `_` and the first 8 hex digits of the SHA-256 of the
    name (UTF-8) are appended to keep names apart. A service name of more than 200 bytes is cut, and
    ends in these digits, too.
    """
    safe = "".join(character if _is_allowed(character) else "_" for character in name)
    safe = re.sub(" +", " ", safe).strip(" ")
    service = f"{PREFIX}{safe}"
    if safe == name and name and len(service.encode()) <= LONGEST:
        return service
    ending = f"_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    cut = service.encode()[: LONGEST - len(ending)].decode("utf-8", "ignore")
    return f"{cut.rstrip(' ')}{ending}"


def find_collisions(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the service names that several tokens share, with the names of the tokens.

    An unchanged name may have been chosen to equal the service name of another token.
    """
    by_service: dict[str, set[str]] = defaultdict(set)
    for name in names:
        by_service[service_name(name)].add(name)
    return {service: sorted(group) for service, group in by_service.items() if len(group) > 1}


def _is_allowed(character: str) -> bool:
    return character in ALLOWED or (not character.isascii() and character.isprintable())
