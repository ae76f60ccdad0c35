"""Many agents for one token; `python -m proofs.rivals` is the same at length."""

import time
from contextlib import ExitStack, closing

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.tokens import PublicKey, Token
from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.signing import Signer
from proofs.flowauth import FlowAuth, serve
from proofs.rivals import DecidedSession, contend, contest, outcomes_of, serving
from tests.conftest import PASSWORD

pytestmark = pytest.mark.slow

AGENTS = 8  # at FlowAuth, which knows no key of a request


def test_rivals_are_given_one_successor_for_each_token(data_dir):
    """Twelve agents, twenty tokens: all decide, then all ask, on gunicorn with two workers."""
    services = Services.open(Settings.load(data_dir))
    with closing(services.database), serving(data_dir) as url:
        result = contest(services, url, agents=12, events=20)
    assert result.violations == ()
    assert (result.requests, result.rows) == (12 * 20, 20)
    assert sum(result.outcomes.values()) == 12 * 20


@pytest.fixture
def key():
    return Ed25519PrivateKey.generate()


@pytest.fixture
def flowauth(key):
    """FlowAuth as deployed."""
    roles = {"runner": ["run"]}
    sign = lambda claims: jwt.encode(claims, key, "EdDSA")  # noqa: E731
    return FlowAuth(time.time, sign, password=PASSWORD, roles=roles)


@pytest.fixture
def rivals(flowauth):
    """Agents with a sign-in each."""
    with ExitStack() as stack:
        url = stack.enter_context(serve(flowauth.answer))
        issuers = (DecidedSession(url, flowauth.username, PASSWORD) for _ in range(AGENTS))
        yield [stack.enter_context(closing(issuer)) for issuer in issuers]


def test_rivals_at_flowauth_add_a_row_each_at_most_and_agree(flowauth, rivals, key):
    """All find no successor, then all ask; whoever comes later adopts what they agreed on."""
    public_key = PublicKey(Signer(key).public_pem)
    due = Token(flowauth.mint("T", ["runner"], 60, issued_at=time.time() - 2700))
    store = MemoryStore(due)
    outcomes = outcomes_of(contend(rivals, [store], public_key))
    assert (len(flowauth.rows), sum(outcomes.values())) == (1 + AGENTS, AGENTS)
    assert outcomes.keys() <= {"rotated", "superseded"}
    successors = [Token(row.token).digest for row in flowauth.rows[1:]]
    assert store.token.digest in successors

    assert outcomes_of(contend(rivals, [store], public_key)) == {"healthy": AGENTS}
    late = [MemoryStore(due) for _ in rivals]
    for issuer, own in zip(rivals, late, strict=True):
        assert outcomes_of(contend([issuer], [own], public_key)) == {"adopted": 1}
    assert len({own.token.digest for own in late}) == 1
    assert len(flowauth.rows) == 1 + AGENTS
