"""Real processes, killed at every point; `python -m proofs.processes` is the same at length.

On PostgreSQL only what dies within a transaction or right after it; the rest is the same there.
"""

import secrets
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from flowauth_rotator.core.tokens import Token
from flowauth_rotator.server import Settings
from proofs.processes.points import POINTS, WORKER
from proofs.processes.serving import prepare
from proofs.processes.store import KeptStore
from proofs.processes.trials import campaign

pytestmark = [pytest.mark.slow, pytest.mark.holds_secrets("kept/*")]  # the store's own files
BY_NAME = {point.name: point for point in POINTS}
DEATHS = [("on_sqlite", point) for point in POINTS]
DEATHS += [("on_postgresql", point) for point in POINTS if WORKER in point.dies]


@contextmanager
def conduct(folder, settings, *, shift=0):
    """Server, store and agents to kill; `shift` says which kind of agent begins."""
    password = secrets.token_urlsafe(18)
    prepare(Settings.load(folder / "server", settings), password)
    with campaign(folder / "server", settings, password, shift=shift) as conducted:
        yield conducted


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory):
    with conduct(tmp_path_factory.mktemp("killed"), {}) as conducted:
        yield conducted


@pytest.fixture(scope="module")
def on_postgresql(postgresql, tmp_path_factory):
    settings = {"DATABASE_URL": postgresql.create()}
    with conduct(tmp_path_factory.mktemp("killed"), settings, shift=1) as conducted:
        yield conducted


@pytest.mark.parametrize(
    ("database", "point"),
    [pytest.param(*death, id=f"{death[0]}-{death[1].name}") for death in DEATHS],
)
def test_whatever_dies_two_runs_later_all_is_well(request, database, point):
    """One successor, the same wherever it existed already, in use and described."""
    conducted = request.getfixturevalue(database)
    for number in range(max(2, len(point.dies))):
        trial = conducted.trial(point, number)
        assert (str(trial.death), trial.violations) == (str(trial.death), ())


@pytest.mark.parametrize("database", ["on_sqlite", "on_postgresql"])
def test_no_log_shows_a_part_of_a_secret(request, database):
    """Neither the server's nor the agents', whatever they were killed at."""
    conducted = request.getfixturevalue(database)
    conducted.trial(POINTS[0], 100)
    assert len(conducted.secrets) >= 4
    assert conducted.leaks() == []
    conducted.logs[0].write_text(f"it was {next(iter(conducted.secrets))[20:40]}.\n")
    assert conducted.leaks() == [conducted.logs[0].name]
    conducted.logs[0].write_text("")


class Meddling:
    """Agents; after each run somebody does something else."""

    def __init__(self, agents, meddle):
        self.agents, self.meddle = agents, meddle

    def run(self, errand):
        end = self.agents.run(errand)
        self.meddle(errand)
        return end


def test_an_agent_that_does_not_die_is_noticed(on_sqlite):
    """Otherwise nothing would be proved."""

    class Immortal:
        def run(self, errand):
            return on_sqlite.agents.run(replace(errand, dies_at=None))

    trial = replace(on_sqlite, agents=Immortal()).trial(BY_NAME["P8"], 101)
    assert trial.violations[:2] == ("nothing died", "that run ended rotated")


def test_a_second_successor_is_noticed(on_sqlite):
    """Minted under another key, as an agent without one would do it."""
    issuer, keys = on_sqlite.services.issuer, iter("abc")

    def renew(errand):
        token = KeptStore(on_sqlite.keeper.socket, errand.name).read()
        issuer.renew_presented(
            token.reveal(), None, idempotency_key=next(keys), now=int(time.time())
        )

    trial = replace(on_sqlite, agents=Meddling(on_sqlite.agents, renew)).trial(BY_NAME["P0"], 102)
    assert "it left 2 rows" in trial.violations
    assert [clause for clause in trial.violations if clause.endswith("rows in the end")]


def test_a_token_of_somebody_else_is_noticed(on_sqlite):
    """What is in use must be what the history says."""

    def overwrite(errand):
        KeptStore(on_sqlite.keeper.socket, errand.name).write(Token("another"), "")

    meddled = replace(on_sqlite, agents=Meddling(on_sqlite.agents, overwrite))
    trial = meddled.trial(BY_NAME["P13"], 103)
    assert "what is in use is not the row's token" in trial.violations
    assert "what is in use is not described" in trial.violations
