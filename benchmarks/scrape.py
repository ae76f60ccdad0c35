"""Figure 7: a scrape of the plugin with many tokens and a full history, in a real Airflow."""

from __future__ import annotations

import json
import secrets
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography.fernet import Fernet

from benchmarks.measure import Figure, alternate, timed
from benchmarks.page import API, Client, prepare_airflow
from benchmarks.sizes import Sizes
from demo.names import STATUS_VARIABLE
from demo.parts import AirflowHome
from demo.up import add_admin
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.monitoring.status import Event, StatusDocument
from flowauth_rotator.monitoring.stored_status import LONGEST_HISTORY

METRICS = "flowauth-rotator/metrics"
LIFE = timedelta(hours=16)  # from one rotation of a token that lives for a day to the next


def measure_scrape(folder: Path, sizes: Sizes) -> list[Figure]:
    """Scrape beside the page's API, which reads the same, and Airflow's list of the Variables."""
    tokens = sizes.scrape_tokens
    home = prepare_airflow(folder, tokens)
    size = _fill_history(home)
    password = add_admin(home)
    scrape_token = secrets.token_urlsafe(32)
    home.env["AIRFLOW__FLOWAUTH_ROTATOR__SCRAPE_TOKEN"] = scrape_token
    with home.running() as url:
        admin, scraper = Client.signed_in(url, password), Client(url, scrape_token)
        note = f"a document of {size // 1024:,} KiB; {scraper.get(METRICS) // 1024} KiB"
        return [
            Figure(
                7,
                f"a scrape of {tokens:,} tokens",
                baseline,
                alternate(timed(act), timed(lambda: scraper.get(METRICS)), sizes.scrapes),
                target,
                note=note,
            )
            for baseline, act, target in (
                ("the page's API of the same", lambda: admin.get(API), 1.5),
                (
                    f"Airflow's own list of the {tokens:,} Variables",
                    lambda: admin.list_variables(tokens),
                    1.0,
                ),
            )
        ]


def _fill_history(home: AirflowHome) -> int:
    """Give each token in the status document as many rotations as it holds; return its size."""
    with closing(sqlite3.connect(home.folder / "airflow.db")) as database:
        query = "SELECT val FROM variable WHERE key = ?"
        (value,) = database.execute(query, (STATUS_VARIABLE,)).fetchone()
    key = home.env["AIRFLOW__CORE__FERNET_KEY"].encode()
    document = StatusDocument.load(Fernet(key).decrypt(value.encode()).decode())
    now = datetime.now(timezone.utc)
    rotations = tuple(
        Event(
            at=now - number * LIFE,
            outcome=Outcome.ROTATED,
            fingerprint=f"{number:08x}",
            expires_at=now - number * LIFE + timedelta(days=1),
            run_id=f"scheduled__{(now - number * LIFE).isoformat()}",
            task_id="rotate",
            map_index=0,
        )
        for number in range(LONGEST_HISTORY)
    )
    tokens = tuple(
        replace(token, rotations=rotations, rotation_counts={"rotated": 1000})
        for token in document.tokens
    )
    text = replace(document, tokens=tokens).dump()
    home.load("variables", {STATUS_VARIABLE: json.loads(text)})
    return len(text)
