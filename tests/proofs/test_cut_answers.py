"""The answer to a renewal, cut at its boundaries; `python -m proofs.cuts` cuts after every byte."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flowauth_rotator.core.tokens import Token
from flowauth_rotator.server import Settings
from flowauth_rotator.server.signing import Signer
from proofs.cuts import (
    connect_bearer,
    connect_flowauth,
    connect_session,
    find_boundaries,
    list_all_places,
    shows_part,
    sweep,
)
from tests.conftest import PASSWORD, prepare

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def key():
    return Ed25519PrivateKey.generate()


@pytest.fixture
def data_dir(tmp_path, key, cheap_hasher):
    """As that of all tests, with this key."""
    settings = Settings.load(tmp_path / "server")
    prepare(settings, key, cheap_hasher)
    return settings.data_dir


@pytest.fixture
def server(start_renewal_server, key):
    return start_renewal_server(Signer(key))


@pytest.fixture
def services(server):
    return server.app.extensions["flowauth_rotator"]


def test_a_bearer_ends_with_the_same_successor_wherever_its_answer_is_cut(server, services):
    """Of one predecessor, put back each time: one new row in all, and always the same bytes."""
    with connect_bearer(services, server.url) as subject:
        assert sweep(subject, find_boundaries).violations == ()


def test_a_session_ends_with_the_same_successor_wherever_its_answer_is_cut(server, services):
    """The same; the successor is found in the history after the cut."""
    with connect_session(services, server.url, PASSWORD) as subject:
        assert sweep(subject, find_boundaries).violations == ()


def test_flowauth_adds_one_row_wherever_its_answer_is_cut():
    """It knows no key of a request: the row that was made before the cut is adopted."""
    with connect_flowauth() as subject:
        assert sweep(subject, find_boundaries).violations == ()


ANSWER = b'HTTP/1.1 200 OK\r\nDate: now\r\nX: y\r\n\r\n{"id": 2, "token": "a.b.c"}\n'


@pytest.mark.parametrize(
    "passed",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nDate:",
        b"HTTP/1.1 200 OK\r\nDate: now\r\n",
        b"HTTP/1.1 200 OK\r\nDate: now\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: now\r\nX: y\r\n\r\n{",
        b'HTTP/1.1 200 OK\r\nDate: now\r\nX: y\r\n\r\n{"id": 2',
        b'HTTP/1.1 200 OK\r\nDate: now\r\nX: y\r\n\r\n{"id": 2, ',
        b'HTTP/1.1 200 OK\r\nDate: now\r\nX: y\r\n\r\n{"id": 2, "token":',
        b'HTTP/1.1 200 OK\r\nDate: now\r\nX: y\r\n\r\n{"id": 2, "token": "a.b.c"',
        ANSWER[:-1],
        ANSWER,
    ],
)
def test_each_boundary_is_a_place_of_a_cut(passed):
    """Found in the bytes themselves; all of them are among the places of the whole proof."""
    assert len(passed) in find_boundaries(ANSWER)
    assert set(find_boundaries(ANSWER)) <= set(list_all_places(ANSWER))


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"outcome_after_cut": "rotated"}, "the rotation ended adopted"),
        ({"list_successors": list}, "there are 0 successors"),
        ({"list_successors": lambda: [Token("a.b.c")]}, "what is in use is not a successor"),
    ],
)
def test_a_violation_is_noticed(change, violation):
    """Otherwise nothing would be proved."""
    with connect_flowauth() as subject:
        result = sweep(replace(subject, **change), lambda answer: [100, len(answer)])
    assert f"cut after 100 of {result.length} bytes: {violation}" in result.violations


def test_a_part_of_a_token_in_the_log_is_noticed():
    """Twelve characters of it, and not eleven."""
    token = Token("header.payload-of-a-token.signature")
    assert shows_part("it was 'd-of-a-token'", token)
    assert not shows_part("it was '-of-a-token'", token)
