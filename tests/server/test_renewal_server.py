"""The fixture that other rooms' tests lean on keeps its promises."""

import time
import urllib.request

import jwt

from demo.parts import WAIT_LIMIT


def test_it_serves_on_its_url_and_counts_what_it_is_asked(renewal_server):
    with urllib.request.urlopen(f"{renewal_server.url}/version", timeout=WAIT_LIMIT) as answer:
        assert answer.status == 200
    assert renewal_server.requests == ["GET /version"]


def test_its_tokens_can_have_been_issued_in_the_past(renewal_server):
    """So that a token is due, or expired, without waiting."""
    now = int(time.time())
    token = renewal_server.mint("DUE", lifetime_minutes=60, issued_at=now - 3000)
    claims = jwt.decode(
        token, renewal_server.public_key_pem, algorithms=["RS256"], audience=renewal_server.audience
    )
    assert (claims["iat"], claims["exp"]) == (now - 3000, now + 600)
    assert [row.name for row in renewal_server.rows("DUE")] == ["DUE"]
    assert renewal_server.rows("OTHER") == []


def test_its_roles_and_its_clock_can_be_moved(renewal_server):
    renewal_server.add_role("short", max_lifetime_minutes=5)
    token = renewal_server.mint(roles=["short"], lifetime_minutes=None)
    renewal_server.revoke("short")
    renewal_server.grant("short")
    renewal_server.clock_offset = 301
    request = urllib.request.Request(
        f"{renewal_server.url}/tokens/renew",
        method="POST",
        headers={"Authorization": f"Bearer {token}"},
    )
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.HTTPHandler())
    with opener.open(request, timeout=WAIT_LIMIT) as answer:
        assert answer.status == 401
