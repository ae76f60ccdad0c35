"""A real Prometheus and a renewal server with a thousand names."""

import contextlib
import json
import time
import urllib.parse
import urllib.request

import yaml

from demo.parts import BIN, clean_environment, free_port, running, wait_until, wait_until_healthy
from flowauth_rotator.server import Parts, Settings
from flowauth_rotator.server.schema import tokens
from tests.server.scraping import EXPIRY, WITHOUT_SUCCESSOR

NAMES = 1000
TOKENS = 30  # of each name
DAY = 86400  # seconds


def test_prometheus_takes_a_thousand_names_within_two_seconds(monitors, data_dir, tmp_path):
    """All of them, each with what has become of it, and no scrape of several is lost."""
    add_history(data_dir)
    serving = f"127.0.0.1:{free_port()}"
    env = clean_environment(FLOWAUTH_ROTATOR_DATA_DIR=str(data_dir))
    command = [str(BIN / "flowauth-rotator"), "serve", "--bind", serving, "--workers", "2"]
    with running(command, env=env, log=tmp_path / "server.log") as process:
        wait_until_healthy(
            f"http://{serving}/version", process, "The server", tmp_path / "server.log"
        )
        with prometheus(monitors, serving, data_dir / "metrics.token", tmp_path) as ask:
            wait_until(lambda: ask("count_over_time(up[1h])") >= 5, "five scrapes")
            assert ask("min_over_time(up[1h])") == 1
            assert ask(f"count({EXPIRY})") == NAMES
            assert ask(f"count({WITHOUT_SUCCESSOR} == 0)") == NAMES / 2
            assert ask(f"count({WITHOUT_SUCCESSOR} == 1)") == NAMES / 2


@contextlib.contextmanager
def prometheus(monitors, target, token_file, folder):
    """A Prometheus that gives a scrape two seconds; the block gets a way to ask for a value."""
    config, port, log = folder / "prometheus.yml", free_port(), folder / "prometheus.log"
    job = {
        "job_name": "renewal-server",
        "scrape_interval": "2s",
        "scrape_timeout": "2s",
        "authorization": {"credentials_file": str(token_file)},
        "static_configs": [{"targets": [target]}],
    }
    config.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    command = [
        str(monitors.prometheus),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'storage'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]

    def ask(query):
        """The value of a query's only sample; 0 when there is none."""
        address = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            samples = json.load(answer)["data"]["result"]
        return float(samples[0]["value"][1]) if samples else 0

    with running(command, env=clean_environment(), log=log) as process:
        wait_until_healthy(f"http://127.0.0.1:{port}/-/ready", process, "Prometheus", log)
        yield ask


def add_history(data_dir):
    """Names with a month of tokens each; half of them were not renewed in time."""
    parts = Parts.open(Settings.load(data_dir))
    now = int(time.time())
    owner = parts.accounts.named_user("flowbot").id
    rows = [
        {
            "owner_id": owner,
            "audience_id": 1,
            "name": f"etl {name}",
            "roles": [[1, "viewer"]],
            "jti": f"{name}-{day}",
            "family_began_at": now - TOKENS * DAY,
            "issued_at": now - day * DAY,
            "expires_at": now - day * DAY + (2 * DAY if name % 2 else DAY // 2),
        }
        for day in range(TOKENS, 0, -1)
        for name in range(NAMES)
    ]
    with parts.database.writing() as connection:
        connection.execute(tokens.insert(), rows)
    parts.database.close()
