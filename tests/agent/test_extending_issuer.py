"""The issuer of docs/extending.md, with an API of its own: four methods, no base class."""

import json
import re
from contextlib import closing
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from flowauth_rotator.agent.rehearsal import rehearse
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.errors import Refused
from flowauth_rotator.core.policy import RotationPolicy
from proofs.flowauth import Response, document, serve
from proofs.timer import InstantTimer

DOCS = Path(__file__).parents[2] / "docs"
POLICY = RotationPolicy()


@pytest.fixture(scope="module")
def private_issuer():
    """The class in the documentation."""
    text = (DOCS / "extending.md").read_text()
    [code] = re.findall(r"```python\n(# private_issuer.py\n.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    return names["PrivateIssuer"]


class PrivateServer:
    """Its API: how its clock goes, how many responses are lost, and what it minted by key."""

    def __init__(self, mint):
        self.mint, self.minted, self.requests = mint, {}, 0
        self.ahead, self.losses, self.is_open = timedelta(0), 0, True

    def answer(self, method, path, headers, body):
        self.requests += 1
        if not self.is_open:
            return Response(403, {}, b"closed")
        token = self.minted.setdefault(json.loads(body)["key"], self.mint())
        if self.losses >= self.requests:
            return Response(raw=lambda connection: None)
        date = format_datetime(datetime.now(timezone.utc) + self.ahead, usegmt=True)
        response = document({"token": token.reveal()})
        response.headers["Date"] = date
        return response


@pytest.fixture
def server(make_token):
    server = PrivateServer(make_token)
    with serve(server.answer) as server.url:
        yield server


@pytest.fixture
def run(server, make_token, private_issuer):
    """Renew a token that is due, or rehearse it: its store, and the report."""

    def run(act=rotate):
        store = MemoryStore(make_token(issued=-2700))
        with closing(private_issuer(server.url)) as issuer:
            now = datetime.now(timezone.utc)
            return store, act(store, issuer, POLICY, now=now, timer=InstantTimer())

    return run


def test_four_methods_rotate_a_token(server, run):
    """Its successor is in the store."""
    store, report = run()
    assert (report.outcome, report.renewal_requests) == ("rotated", 1)
    assert [store.token] == list(server.minted.values())


def test_a_lost_response_is_requested_again_with_the_same_key(server, run):
    """The issuer repeats the token that it minted."""
    server.losses = 2
    store, report = run()
    assert (report.outcome, report.renewal_requests) == ("rotated", 3)
    assert [store.token] == list(server.minted.values())


def test_a_refusal_is_final(server, run):
    """It is one request, and the report counts it."""
    server.is_open = False
    with pytest.raises(Refused, match="refused: closed") as refused:
        run()
    assert (server.requests, refused.value.details.renewal_requests) == (1, 1)


def test_the_clock_of_the_issuer_is_compared(server, run):
    """The report says how far it is ahead."""
    server.ahead = timedelta(minutes=2)
    assert run()[1].clock_skew == pytest.approx(120, abs=30)


def test_nothing_to_check_is_a_rehearsal(server, run):
    """`Outlook()` suffices: no clock, no limits, no request."""
    _, report = run(rehearse)
    assert (report.outcome, report.clock_skew, server.requests) == ("healthy", None, 0)
    assert report.message.endswith("will work.")
