"""How many RSA signatures a second one process makes: what to compare machines by."""

from __future__ import annotations

import time
from functools import cache

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

SECONDS = 0.25  # of signing


@cache
def _key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def signatures_per_second(bits: int) -> float:
    """Sign RS256 and nothing else, a text as long as a renewal's claims, with a key of `bits`."""
    key, message, count, began = _key(bits), bytes(4096), 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < SECONDS:
        key.sign(message, padding.PKCS1v15(), SHA256())
        count += 1
    return count / seconds


if __name__ == "__main__":
    print(f"One process makes {signatures_per_second(4096):.0f} RSA-4096 signatures a second.")
