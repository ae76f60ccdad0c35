"""The answer to a renewal cut at every byte: the agent asks again and ends with the same token."""

import re
import time
from contextlib import closing
from datetime import datetime, timezone
from functools import partial
from itertools import count

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flowauth_rotator.agent.issuer import BearerIssuer, SessionIssuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import PublicKey, Token, read_unverified
from flowauth_rotator.server import Settings
from flowauth_rotator.server.signing import Signer
from proofs.flowauth import FlowAuth, serve
from proofs.proxy import proxy_to
from tests.conftest import PASSWORD, prepare

POLICY = RotationPolicy()
OPTIONS = {"timeout": 10, "sleep": lambda _: None}

# The standard library's words for a cookie that is cut at its Max-Age.
pytestmark = pytest.mark.filterwarnings("ignore:http.cookiejar bug")


@pytest.fixture(scope="module")
def key():
    """What signs with fewer bytes than the key of the other tests."""
    return Ed25519PrivateKey.generate()


@pytest.fixture
def data_dir(tmp_path, key, cheap_hasher):
    """As that of all tests, with this key."""
    settings = Settings.load(tmp_path / "server")
    prepare(settings, key, cheap_hasher)
    return settings.data_dir


@pytest.fixture
def server(start_renewal_server, key, monkeypatch):
    """A real renewal server whose tokens are short, since it is the bytes that take time."""
    monkeypatch.setenv("USER_CLAIMS", "plain")
    return start_renewal_server(Signer(key))


@pytest.fixture
def proxy(server):
    """What cuts the server's answers."""
    with proxy_to(port_of(server.url)) as proxy:
        yield proxy


@pytest.fixture
def rotated(key, caplog):
    """Rotate what is in a store: the word for how it ended, and no word of a token in the log."""
    caplog.set_level("DEBUG")

    def rotated(store, issuer):
        now, predecessor = datetime.now(timezone.utc), store.token
        verifier = partial(PublicKey, Signer(key).public_pem)
        report = rotate(store, issuer, POLICY, now=now, public_key=verifier)
        shown = [shows(caplog.text + str(report), token) for token in (predecessor, store.token)]
        assert shown == [False, False]
        caplog.clear()
        return report.outcome

    return rotated


def shows(text, token):
    """Whether a text has twelve characters of a token's payload or signature."""
    secret = token.reveal().partition(".")[2]
    runs = set(re.findall(r"[\w.-]{12,}", text))
    return any(run[at : at + 12] in secret for run in runs for at in range(len(run) - 11))


def port_of(url):
    return int(url.rpartition(":")[2])


def due(mint, name):
    """An hour's token that was minted 45 minutes ago."""
    past = int(time.time()) - 2700
    return Token(mint(name, ["runner"], lifetime_minutes=60, issued_at=past))


class LookedBefore(SessionIssuer):
    """A sign-in whose first look at the history was before anything was minted."""

    rows_before, looks = (), False

    def rows(self, claims):
        if self.looks:
            return super().rows(claims)
        self.looks = True
        return self.rows_before


def test_a_bearer_ends_with_the_same_successor_wherever_its_answer_is_cut(server, proxy, rotated):
    """Of one predecessor, put back each time: one new row in all, and always the same bytes."""
    predecessor, seen = due(server.mint, "T"), set()
    with closing(BearerIssuer(proxy.url, **OPTIONS)) as issuer:
        for cut in count():
            store = MemoryStore(predecessor)
            proxy.arm(after=cut)
            assert (cut, rotated(store, issuer)) == (cut, "rotated")
            seen.add(store.token.digest)
            if proxy.cuts == cut:  # the whole answer passed
                break
    check(server, seen)
    assert cut == proxy.longest


def test_a_session_ends_with_the_same_successor_wherever_its_answer_is_cut(server, proxy, rotated):
    """The same; the successor is found in the history after the cut."""
    predecessor, seen = due(server.mint, "T"), set()
    with closing(LookedBefore(proxy.url, server.username, PASSWORD, **OPTIONS)) as issuer:
        issuer.rows_before = SessionIssuer.rows(issuer, read_unverified(predecessor))
        for cut in count():
            store, issuer.looks = MemoryStore(predecessor), False
            proxy.arm(after=cut)
            outcome = rotated(store, issuer)
            seen.add(store.token.digest)
            if proxy.cuts == cut:  # the whole answer passed
                break
            assert (cut, outcome) == (cut, "adopted")
    check(server, seen)
    assert (outcome, cut) == ("rotated", proxy.longest)


def check(server, seen):
    """All that was seen is the token of the one new row."""
    [old, new] = server.rows()
    history = server.app.extensions["flowauth_rotator"].history
    assert (new.parent_id, seen) == (old.id, {Token(history.reveal(new)).digest})


def test_flowauth_adds_one_row_wherever_its_answer_is_cut(key, rotated):
    """It knows no key of a request: the row that was made before the cut is adopted."""
    model = FlowAuth(
        time.time,
        lambda claims: jwt.encode(claims, key, "EdDSA"),
        password=PASSWORD,
        roles={"runner": ["run"]},
    )
    with (
        serve(model.answer) as url,
        proxy_to(port_of(url)) as proxy,
        closing(SessionIssuer(proxy.url, model.username, PASSWORD, **OPTIONS)) as issuer,
    ):
        for cut in count():
            model.rows.clear()
            store = MemoryStore(due(model.mint, "T"))
            proxy.arm(after=cut)
            outcome = rotated(store, issuer)
            [_, new] = model.rows
            assert store.token.digest == Token(new.token).digest
            if proxy.cuts == cut:  # the whole answer passed
                break
            assert (cut, outcome) == (cut, "adopted")
    assert (outcome, cut) == ("rotated", proxy.longest)
