"""A data directory over the years: made, brought up, backed up, kept small."""

import json
import os
import pty
import shutil
import sqlite3
import threading
import time

import jwt
import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner

from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.commands import server


def modes(folder):
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


class TestInit:
    def test_twice_changes_nothing(self, data_dir, fails):
        before = {path.name: path.read_bytes() for path in data_dir.iterdir()}
        assert fails("init") == (
            f"Error: {data_dir} is a data directory already; nothing was changed. Start it with "
            f"`flowauth-rotator serve --data-dir {data_dir}`, or choose a new directory."
        )
        (data_dir / "metrics.token").unlink()
        del before["metrics.token"]
        assert fails("init").endswith("session.key; nothing was changed.")
        assert {path.name: path.read_bytes() for path in data_dir.iterdir()} == before

    def test_a_place_without_rights_is_named_with_the_command_for_root(self, start):
        """As on a machine where the directory above belongs to root."""
        folder = "/flowauth-rotator-of-nobody"
        become = "import os; os.geteuid() or os.seteuid(65534)"
        imports = "from flowauth_rotator.server.commands import server"
        with start("init", "--data-dir", folder, before=f"{imports}\n{become}") as process:
            sentence = process.stderr.read()
        uid = os.geteuid() or 65534
        assert sentence == (
            f"Error: Cannot create {folder}: Permission denied. Choose a directory that you can "
            f"write, or let root create this one for you: install -d -m 700 -o {uid} {folder}\n"
        )

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_the_algorithm_is_chosen(self, tmp_path, algorithm):
        """And its tokens verify with the public key."""
        runner = CliRunner(env={"FLOWAUTH_ROTATOR_DATA_DIR": str(tmp_path / "new")})

        def run(line):
            result = runner.invoke(server, line.split())
            assert result.exit_code == 0, result.stderr
            return result.stdout

        run(f"init --algorithm {algorithm}")
        run("add-audience A --max-lifetime-minutes 5")
        run("add-role r --audience A --scope s --max-lifetime-minutes 5")
        run("add-user u")
        run("grant u r")
        token = run("mint --user u --audience A --name N --role r").strip()
        claims = jwt.decode(token, run("public-key"), algorithms=[algorithm], audience="A")
        assert claims["sub"] == "u"

    def test_a_postgresql_is_made_and_not_twice(self, tmp_path, postgresql, monkeypatch):
        monkeypatch.setenv("DATABASE_URL", postgresql.create())
        runner = CliRunner()
        for folder, code in (("one", 0), ("two", 1)):
            result = runner.invoke(server, ["init", "--data-dir", str(tmp_path / folder)])
            assert result.exit_code == code
        assert "already contains the tables of a server" in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["one"]


class TestUpgrade:
    @pytest.fixture
    def version_0_1(self, data_dir):
        """A data directory as version 0.1 of the package has made it, with nothing in it yet."""
        for path in data_dir.glob("history.db*"):
            path.unlink()
        (data_dir / "history.db").touch(0o600)
        (data_dir / "metrics.token").unlink()
        config = Config()
        config.set_main_option("script_location", "flowauth_rotator.server:migrations")
        database = Settings.load(data_dir).build_database()
        with database.migrating() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
            connection.exec_driver_sql("DROP TABLE alembic_version")
        database.close()

    @pytest.mark.usefixtures("version_0_1")
    def test_an_earlier_version_is_brought_up_and_serves(self, says, fails, data_dir, tmp_path):
        says("backup", tmp_path / "before.db")
        assert "run `flowauth-rotator server upgrade" in fails("tokens")
        assert says("upgrade") == "Upgraded the database schema from version 0001 to 0003.\n"
        says("add-user carol")
        assert "carol" in says("users")
        assert set(modes(data_dir).values()) == {0o600}

    def test_a_present_one_needs_nothing(self, says):
        sentence = "The database schema already has version 0003; nothing was changed.\n"
        assert says("upgrade") == sentence
        assert json.loads(says("upgrade --json")) == {"from": "0003", "to": "0003"}


class TestPrune:
    def test_the_texts_of_expired_tokens_go_and_the_rows_stay(self, says, fill, flowbot):
        fill(700, expires_at=int(time.time()) - 1)
        row = flowbot.minted()
        told = says("prune")
        assert told == "Dropped the text of 700 expired tokens; all rows stay.\n"
        assert len(json.loads(says("tokens --all --json"))) == 701
        same = flowbot.rows()[-1] == row
        assert same
        assert says("prune") == "Dropped the text of 0 expired tokens; all rows stay.\n"

    def test_what_can_still_be_renewed_is_kept(self, says, fill, monkeypatch):
        fill(1, expires_at=int(time.time()) - 60)
        monkeypatch.setenv("RENEW_EXPIRED_GRACE", "1h")
        assert json.loads(says("prune --json")) == {"dropped": 0}
        monkeypatch.delenv("RENEW_EXPIRED_GRACE")
        assert json.loads(says("prune --json")) == {"dropped": 1}

    def test_a_terminal_sees_how_far_it_has_come_and_a_pipe_only_the_result(self, start, fill):
        fill(700, expires_at=1)
        ours, theirs = pty.openpty()
        process = start("prune", stderr=theirs)
        os.close(theirs)
        with process:
            stdout = process.stdout.read()
        shown = os.read(ours, 10_000).decode()
        os.close(ours)
        assert stdout == "Dropped the text of 700 expired tokens; all rows stay.\n"
        assert "Dropping" in shown
        assert "100%" in shown


class TestBackup:
    @pytest.fixture
    def file(self, tmp_path):
        folder = tmp_path / "backups"
        folder.mkdir()
        return folder / "history.db"

    def test_it_is_a_whole_database_private_to_its_maker(self, says, flowbot, file, data_dir):
        flowbot.mint()
        old = os.umask(0)
        try:
            told = says("backup", file).splitlines()
        finally:
            os.umask(old)
        assert told[0] == f"Backed up the database to {file} ({file.stat().st_size:,} bytes)."
        assert told[1].startswith(f"Back up the keys in {data_dir} too")
        assert modes(file.parent) == {"history.db": 0o600}

    def test_with_the_keys_it_is_the_server_again(self, says, flowbot, file, data_dir):
        row = flowbot.minted()
        says("backup", file)
        restored = shutil.copytree(data_dir, data_dir.parent / "restored")
        for path in restored.glob("history.db*"):
            path.unlink()
        shutil.copy(file, restored / "history.db")
        services = Services.open(Settings.load(restored))
        owner = services.accounts.get_user("flowbot")
        issued = services.issuer.renew(
            owner, row["id"], None, idempotency_key=None, now=4_102_444_801
        )
        services.database.close()
        assert issued.name == row["name"]

    def test_others_write_on_and_the_copy_is_of_one_moment(self, says, fill, services, file):
        """Each transaction is in it entirely or not at all."""
        fill(3000, size=2000)
        written, stop = threading.Semaphore(0), threading.Event()

        def write():
            while not stop.is_set():
                fill(2, size=2000)
                written.release()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(3):
                written.acquire()
            says("backup", file)
            for _ in range(3):
                written.acquire()
        finally:
            stop.set()
            writer.join()
        with services.database.reading() as connection:
            after = connection.exec_driver_sql("SELECT count(*) FROM tokens").scalar_one()
        copy = sqlite3.connect(file)
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("PRAGMA foreign_key_check").fetchall() == []
        [[rows]] = copy.execute("SELECT count(*) FROM tokens").fetchall()
        copy.close()
        assert 3006 <= rows < after
        assert rows % 2 == 0

    def test_nothing_is_ever_overwritten(self, fails, file):
        file.write_text("precious")
        assert fails("backup", file) == (
            f"Error: Cannot create {file}: File exists. An existing file is never overwritten: "
            "choose another name, or remove it first."
        )
        assert file.read_text() == "precious"

    def test_a_dangling_link_is_not_followed(self, fails, file):
        file.symlink_to(file.parent / "elsewhere")
        assert fails("backup", file).startswith(f"Error: Cannot create {file}: File exists. ")

    def test_a_directory_is_named_as_one(self, fails, file):
        assert fails("backup", file.parent) == (
            f"Error: Cannot create {file.parent}: it is a directory. Name a new file in it."
        )

    def test_a_place_that_is_not_there_is_named(self, fails, tmp_path):
        assert fails("backup", tmp_path / "none" / "file.db") == (
            f"Error: Cannot create {tmp_path}/none/file.db: No such file or directory. "
            f"Create its directory first: mkdir -p {tmp_path}/none"
        )

    def test_of_a_failed_one_nothing_is_left(self, start, fill, file):
        fill(500, size=2000)
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
        with start("backup", str(file), before=limit) as process:
            sentence = process.stderr.read()
        assert process.returncode == 1
        assert sentence.startswith(f"Error: Cannot write {file}: ")
        assert sentence.endswith("; the file was removed.\n")
        assert sentence.count("\n") == 1
        assert list(file.parent.iterdir()) == []

    def test_a_database_that_is_none_is_not_backed_up(self, fails, data_dir, file):
        (data_dir / "history.db").write_bytes(b"nonsense" * 1000)
        sentence = fails("backup", file)
        assert sentence == "Error: The database is unusable (file is not a database)."
        assert list(file.parent.iterdir()) == []

    def test_a_missing_database_is_named(self, fails, data_dir, file):
        (data_dir / "history.db").unlink()
        assert "lacks history.db: restore it from a backup" in fails("backup", file)
        assert list(file.parent.iterdir()) == []

    def test_a_postgresql_has_a_tool_of_its_own(self, fails, file, monkeypatch):
        monkeypatch.setenv("DATABASE_URL", "postgresql://flow:secret@db.example/flow")
        sentence = fails("backup", file)
        assert "pg_dump" in sentence
        assert "secret" not in sentence
        assert list(file.parent.iterdir()) == []

    def test_json(self, says, file):
        told = json.loads(says("backup", file, "--json"))
        assert told == {"file": str(file), "bytes": file.stat().st_size}
