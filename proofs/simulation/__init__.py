"""A simulated world around the real `rotate()` and the real issuing rules; see docs/protocol.md.

What a token says is remembered from one look to the next: a pure function, and half of the cost.
"""

from functools import lru_cache

from flowauth_rotator.agent import rotation
from flowauth_rotator.core import succession, tokens

read_unverified = lru_cache(4096)(tokens.read_unverified)
for module in (rotation, succession, tokens):
    module.read_unverified = read_unverified  # type: ignore[attr-defined]
