"""Real processes, killed at every point; `python -m proofs.processes` is the same at length."""

import secrets
import time
from dataclasses import replace

import pytest

from flowauth_rotator.core.tokens import Token
from flowauth_rotator.server import Settings
from proofs.processes.points import POINTS
from proofs.processes.serving import prepare
from proofs.processes.store import KeptStore
from proofs.processes.trials import campaign

pytestmark = pytest.mark.holds_secrets("kept/*")  # the store's own files
BY_NAME = {point.name: point for point in POINTS}


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def conducted(request, tmp_path_factory):
    """Server, store and agents to kill; the two databases begin with different agents."""
    settings, password = {}, secrets.token_urlsafe(18)
    if request.param == "PostgreSQL":
        settings = {"DATABASE_URL": request.getfixturevalue("postgresql").create()}
    data_dir = tmp_path_factory.mktemp("killed") / "server"
    prepare(Settings.load(data_dir, settings), password)
    with campaign(data_dir, settings, password, shift=len(settings)) as conducted:
        yield conducted


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_whatever_dies_two_runs_later_all_is_well(conducted, point):
    """One successor, the same wherever it existed already, in use and described."""
    for number in range(max(2, len(point.dies))):
        trial = conducted.trial(point, number)
        assert (str(trial.death), trial.violations) == (str(trial.death), ())


def test_no_log_shows_a_part_of_a_secret(conducted):
    """Neither the server's nor the agents', whatever they were killed at."""
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


def test_an_agent_that_does_not_die_is_noticed(conducted):
    """Otherwise nothing would be proved."""

    class Immortal:
        def run(self, errand):
            return conducted.agents.run(replace(errand, dies_at=None))

    trial = replace(conducted, agents=Immortal()).trial(BY_NAME["P8"], 101)
    assert trial.violations[:2] == ("nothing died", "that run ended rotated")


def test_a_second_successor_is_noticed(conducted):
    """Minted under another key, as an agent without one would do it."""
    issuing, keys = conducted.parts.issuing, iter("abc")

    def renew(errand):
        token = KeptStore(conducted.keeper.socket, errand.name).read()
        issuing.renew_presented(
            token.reveal(), None, idempotency_key=next(keys), now=int(time.time())
        )

    trial = replace(conducted, agents=Meddling(conducted.agents, renew)).trial(BY_NAME["P0"], 102)
    assert "it left 2 rows" in trial.violations
    assert [clause for clause in trial.violations if clause.endswith("rows in the end")]


def test_a_token_of_somebody_else_is_noticed(conducted):
    """What is in use must be what the history says."""

    def overwrite(errand):
        KeptStore(conducted.keeper.socket, errand.name).write(Token("another"), "")

    meddled = replace(conducted, agents=Meddling(conducted.agents, overwrite))
    trial = meddled.trial(BY_NAME["P13"], 103)
    assert "what is in use is not the row's token" in trial.violations
    assert "what is in use is not described" in trial.violations
