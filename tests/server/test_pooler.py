"""A PostgreSQL behind PgBouncer, which gives each transaction to another session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from demo.parts import ROOT, free_port, running, wait_until
from flowauth_rotator.server import Services, Settings
from tests.conftest import prepare
from tests.external import report_missing
from tests.server.test_gunicorn import opened_and_minted, renew
from tests.server.test_slow_clients import serving

pytestmark = pytest.mark.slow


@pytest.fixture
def pooled_url(request, postgresql, tmp_path) -> Iterator[str]:
    """An empty database by way of PgBouncer in transaction mode, with few sessions."""
    root = ROOT / ".pgbouncer" / "root"
    program = root / "usr/sbin/pgbouncer"
    if not program.exists():
        report_missing(request, "PgBouncer is missing. On Debian or Ubuntu: make pgbouncer")
    folder, port = tmp_path / "pgbouncer", free_port()
    folder.mkdir()
    url = make_url(postgresql.create())
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{url.database} = host={url.query['host']} user={url.username}\n"
        "[pgbouncer]\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
    )
    command = [program, folder / "pgbouncer.ini"]
    if os.geteuid() == 0:  # which PgBouncer does not run as
        capabilities = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
        command = ["setpriv", "--reuid=65534", "--clear-groups", *capabilities, *command]
    libraries = ":".join(map(str, root.glob("usr/lib/*-linux-*")))
    env, log = os.environ | {"LD_LIBRARY_PATH": libraries}, folder / "log"
    with running(command, env=env, log=log):
        wait_until(lambda: "process up" in log.read_text(), "PgBouncer is up")
        yield f"postgresql://{url.username}@127.0.0.1:{port}/{url.database}"


def test_renewals_go_on_behind_a_pooler(
    pooled_url, data_dir: Path, tmp_path, signing_key, cheap_hasher, monkeypatch
):
    """`init` and a hundred renewals by four clients at two workers: none fails."""
    monkeypatch.setenv("DATABASE_URL", pooled_url)
    shutil.rmtree(data_dir)
    prepare(Settings.load(data_dir), signing_key, cheap_hasher)
    services, token = opened_and_minted(data_dir)
    monkeypatch.setenv("RENEWAL_RATE_LIMIT", "1000/minute")
    with serving(data_dir, tmp_path) as served, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda key: renew(served.url, token, str(key)), range(100)))
    rows = list(services.listing.iterate_rows())
    services.database.close()
    assert len(set(answers)) == 100
    assert len(rows) == 101
    assert served.events("busy") == served.events("database_error") == []


def test_a_writer_gives_up_behind_a_pooler_too(
    pooled_url, data_dir: Path, signing_key, cheap_hasher, monkeypatch
):
    """The time to wait for the write lock is set in each transaction."""
    from flowauth_rotator.server.database import Database, OperationalError

    monkeypatch.setenv("DATABASE_URL", pooled_url)
    shutil.rmtree(data_dir)
    prepare(Settings.load(data_dir), signing_key, cheap_hasher)
    services = Services.open(Settings.load(data_dir))
    hasty = Database.postgresql(make_url(pooled_url), busy_seconds=0.1)
    with services.database.writing(), pytest.raises(OperationalError), hasty.writing():
        pass
    with hasty.writing():
        pass
    hasty.close()
    services.database.close()
