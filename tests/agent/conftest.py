import time

import jwt
import pytest

from flowauth_rotator.core.tokens import Token


@pytest.fixture
def make_token(signing_key):
    """A signed token; by default issued now for an hour, for flowbot as viewer."""

    def make(*, issued=0, lifetime=3600, key=signing_key, algorithm="RS256", **claims) -> Token:
        iat = int(time.time()) + issued
        said = {
            "iat": iat,
            "nbf": iat,
            "exp": iat + lifetime,
            "sub": "flowbot",
            "aud": "TEST_SERVER",
            "user_claims": {"viewer": ["run"]},
            "jti": str(time.perf_counter_ns()),
        }
        return Token(jwt.encode({**said, **claims}, key, algorithm=algorithm))

    return make
