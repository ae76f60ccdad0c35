"""Minting at the shell, and the history as an operator sees it."""

import json
import re
import subprocess
import time

import pytest

DATABASES = ["SQLite", "PostgreSQL"]

MINT = "mint --user flowbot --audience TEST_SERVER --name AIRFLOW --role viewer"


def test_the_table(says, flowbot):
    flowbot.renew(flowbot.minted(lifetime_minutes=60)["id"], {"lifetime_minutes": 90})
    header, *lines = says("tokens").splitlines()
    cells = [re.split("  +", line) for line in (header, *lines)]
    assert cells[0][:6] == ["ID", "PARENT", "NAME", "USER", "AUDIENCE", "ROLES"]
    assert cells[0][6:] == ["ISSUED (UTC)", "EXPIRES (UTC)", "STATE"]
    assert cells[1][:6] == ["1", "-", "AIRFLOW", "flowbot", "TEST_SERVER", "runner, viewer"]
    assert cells[1][6:] == ["2100-01-01 00:00:00", "2100-01-01 01:00:00", "live"]
    assert cells[2][:2] == ["2", "1"]
    assert {line.index("live") for line in lines} == {header.index("STATE")}


def test_json(says, flowbot):
    token = flowbot.minted(lifetime_minutes=60)["token"]
    listed = says("tokens --json --user flowbot")
    assert json.loads(listed) == [
        {
            "id": 1,
            "parent": None,
            "name": "AIRFLOW",
            "user": "flowbot",
            "audience": "TEST_SERVER",
            "roles": ["runner", "viewer"],
            "issued_at": 4_102_444_800,
            "expires_at": 4_102_448_400,
            "state": "live",
        }
    ]
    shown = token[-20:] in listed
    assert not shown


class TestWhichAreListed:
    @pytest.fixture(autouse=True)
    def expired(self, services):
        owner = services.accounts.get_user("flowbot")
        services.issuer.mint(owner, 1, "OLD", ["viewer"], 5, now=int(time.time()) - 600)

    @pytest.fixture
    def names(self, says):
        return lambda *how: [row["name"] for row in json.loads(says("tokens --json", *how))]

    def test_by_default_those_that_can_be_renewed(self, names, flowbot, monkeypatch):
        assert names() == []
        flowbot.mint(name="NEW")
        assert names() == ["NEW"]
        monkeypatch.setenv("RENEW_EXPIRED_GRACE", "1h")
        assert names() == ["OLD", "NEW"]

    def test_all(self, names, says, flowbot):
        flowbot.mint(name="NEW")
        assert names("--all") == ["OLD", "NEW"]
        assert says("tokens --all").splitlines()[1].endswith("expired")

    def test_of_one_user_or_name(self, names, flowbot, mallory):
        flowbot.mint(name="NEW")
        mallory.mint(name="NEW")
        mallory.mint(name="OTHER")
        assert names("--user", "mallory") == ["NEW", "OTHER"]
        assert names("--name", "NEW") == ["NEW", "NEW"]
        assert names("--user", "mallory", "--name", "NEW") == ["NEW"]
        assert names("--user", "mallory", "--all") == ["NEW", "OTHER"]

    def test_none(self, says):
        assert says("tokens") == "No renewable tokens. List expired tokens too with --all.\n"
        assert says("tokens --all --name NEW") == (
            "No tokens named 'NEW'. List the tokens of all names without --name.\n"
        )
        assert says("tokens --name NEW --user flowbot") == (
            "No renewable tokens named 'NEW' of user 'flowbot'. "
            "List expired tokens too with --all.\n"
        )
        assert says("tokens --json") == "[]\n"


def test_a_long_history_is_listed_to_its_end(says, fill, flowbot):
    """Across the batches that it is read in, oldest first, columns aligned."""
    fill(1200, expires_at=1)
    flowbot.mint(name="A_LONGER_NAME_THAN_THE_OTHERS")
    assert [row["id"] for row in json.loads(says("tokens --all --json"))] == [*range(1, 1202)]
    header, *lines = says("tokens --all").splitlines()
    assert len(lines) == 1201
    assert {line.index("FILLED") for line in lines[:500]} == {header.index("NAME")}
    assert [row["id"] for row in json.loads(says("tokens --json"))] == [1201]


def test_a_reader_who_has_seen_enough_ends_it_in_silence(start, fill):
    fill(3000)
    with start("tokens", "--all") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_mint_prints_the_token_alone_from_a_real_shell(start):
    """As a process of its own: stdout is one line, stderr is empty."""
    process = start(*MINT.split(), stdin=subprocess.DEVNULL)
    stdout, stderr = process.communicate()
    assert stderr == ""
    counts = [stdout.count(character) for character in "\n."]
    assert counts == [1, 2]


class TestOutput:
    """`mint --output FILE`, by a process of its own with the usual umask."""

    @pytest.fixture
    def mint(self, start):
        def mint(file, *options):
            process = start(*MINT.split(), "--output", str(file), *options, umask=0o022)
            stdout, stderr = process.communicate()
            return process.returncode, stdout, stderr

        return mint

    def test_the_file_is_the_token_and_only_its_owner_reads_it(self, mint, tmp_path, claims_of):
        file = tmp_path / "flowapi.token"
        code, stdout, stderr = mint(file)
        claims = claims_of(file.read_text())
        assert (code, stderr, claims["token_name"]) == (0, "", "AIRFLOW")
        assert re.fullmatch(
            rf"Wrote token 'AIRFLOW' to {file}\. It expires at [-0-9]+ [:0-9]+ UTC\.\n", stdout
        )
        assert file.stat().st_mode & 0o777 == 0o600
        counts = [file.read_text().count(character) for character in "\n. "]
        assert counts == [0, 2, 0]

    def test_without_a_place_for_it_nothing_is_minted(self, mint, tmp_path, services):
        file = tmp_path / "flowapi.token"
        file.write_text("precious")
        code, stdout, stderr = mint(file)
        assert (code, stdout, file.read_text()) == (1, "", "precious")
        assert "An existing file is never overwritten" in stderr
        code, _, stderr = mint(tmp_path / "none" / "flowapi.token")
        assert (code, f"mkdir -p {tmp_path}/none" in stderr) == (1, True)
        assert list(services.listing.iterate_rows()) == []

    def test_a_refused_one_leaves_no_file(self, mint, tmp_path):
        code, _, _ = mint(tmp_path / "flowapi.token", "--lifetime-minutes", "999999")
        assert (code, (tmp_path / "flowapi.token").exists()) == (1, False)
