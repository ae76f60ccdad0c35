"""Figure 7: the page's /metrics with many tokens and a month of history, against its API."""

from __future__ import annotations

import json
import secrets
import sqlite3
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, alternate, timed
from benchmarks.page import signed_in, store_tokens
from demo.parts import BIN, DAG, AirflowHome, PartFailed, free_port, running, wait_until_healthy
from demo.up import add_admin
from flowauth_rotator.core.report import Outcome, Report
from flowauth_rotator.provider.publishing import OUTCOME

TOKENS = 1000
DAYS = 30  # of history, in each of which every token was rotated
CHECKS = 24  # of these a day
REPETITIONS = 12

Row = dict[str, Any]


def scraping(folder: Path) -> list[Figure]:
    """Both at the same address, from the same rows."""
    home = AirflowHome(folder)
    scrape_token = secrets.token_urlsafe(24)
    home.env["AIRFLOW__FLOWAUTH_ROTATOR__SCRAPE_TOKEN"] = scrape_token
    home.set_up()
    store_tokens(home, TOKENS)
    if home.airflow("dags", "test", DAG):
        raise PartFailed(f"A run of the DAG failed; see {home.log}")
    add_history(home.folder / "airflow.db")
    with _page_alone(home) as (url, password):
        viewer = signed_in(url, password)
        api = _asking(f"{url}/flowauth-rotator/api/tokens", viewer)
        metrics = _asking(f"{url}/flowauth-rotator/metrics", f"Bearer {scrape_token}")
        pairs = alternate(api, metrics, REPETITIONS)
    slowest = max(pairs.ours)
    return [
        Figure(
            7,
            f"a scrape of {TOKENS:,} tokens, each rotated {DAYS} times",
            "the page's API, of the same",
            pairs,
            1.0,
            note=f"slowest {slowest:.2f} s; {DAYS * CHECKS:,} checks",
        )
    ]


def add_history(path: Path) -> None:
    """Give the only run there is predecessors: a month of checks, and of rotations of all tokens.

    Args:
        path: Airflow's database.
    """
    with closing(sqlite3.connect(path)) as database, database:
        database.row_factory = sqlite3.Row
        [run] = _rows(database, "dag_run")
        survey = next(it for it in _rows(database, "task_instance") if it["task_id"] == "survey")
        pushed = [it for it in _rows(database, "xcom") if it["task_id"] == "survey"]
        names = [it["name"] for it in _told(pushed, "report")]
        now = datetime.now(timezone.utc)
        for check in range(DAYS * CHECKS):
            at = now - timedelta(days=DAYS) + check * timedelta(days=1) / CHECKS
            moment = f"{at:%Y-%m-%d %H:%M:%S.%f}"
            begun: Row = {"run_id": f"scheduled__{at.isoformat()}", "start_date": moment}
            begun |= {"end_date": moment, "timestamp": moment, "logical_date": moment}
            begun |= {"run_after": moment, "dag_run_id": check + 2}
            _insert(database, "dag_run", [{**run, **begun, "id": check + 2, "state": "success"}])
            _insert(database, "task_instance", [{**survey, **begun, "id": uuid.uuid4().hex}])
            _insert(database, "xcom", [{**one, **begun} for one in pushed])
            if check % CHECKS == 0:
                _insert(database, "task_instance", _tasks(survey, begun, names))
                _insert(database, "xcom", _outcomes(pushed[0], begun, names, at))
        # The run that was real stays the newest.
        newest = DAYS * CHECKS + 2
        database.execute("UPDATE dag_run SET id = ? WHERE id = ?", (newest, run["id"]))
        database.execute("UPDATE xcom SET dag_run_id = ? WHERE dag_run_id = ?", (newest, run["id"]))


def _tasks(survey: Row, begun: Row, names: Iterable[str]) -> Iterator[Row]:
    """The rotations of a run."""
    for index, name in enumerate(names):
        which = {"task_id": "rotate", "map_index": index, "rendered_map_index": name}
        yield {
            **survey,
            **begun,
            **which,
            "id": uuid.uuid4().hex,
            "operator": "RotateTokenOperator",
        }


def _outcomes(pushed: Row, begun: Row, names: Iterable[str], at: datetime) -> Iterator[Row]:
    """What these have pushed."""
    day = timedelta(days=1)
    for index, name in enumerate(names):
        report = Report(
            name,
            f"Variable {name}",
            Outcome.ROTATED,
            "The successor expires a day later.",
            at,
            predecessor_expires_at=at + day / 3,
            successor_expires_at=at + day,
            issued_at=at,
            renew_at=at + day * 2 / 3,
            renewal_requests=1,
            newest_issued_expires_at=at + day,
            clock_skew=0,
        )
        which = {"task_id": "rotate", "map_index": index}
        document = json.dumps(report.to_json())
        yield {**pushed, **begun, **which, "key": "report", "value": document}
        yield {**pushed, **begun, **which, "key": f"{OUTCOME}{report.outcome}", "value": "true"}


def _told(pushed: Iterable[Row], key: str) -> Any:  # noqa: ANN401 - JSON
    [value] = [one["value"] for one in pushed if one["key"] == key]
    return json.loads(value)


def _rows(database: sqlite3.Connection, table: str) -> list[Row]:
    return [dict(row) for row in database.execute(f"SELECT * FROM {table}")]  # noqa: S608


def _insert(database: sqlite3.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Of each row what the table has a column for."""
    columns = [row["name"] for row in database.execute(f"PRAGMA table_info({table})")]
    values = ", ".join("?" * len(columns))
    database.executemany(
        f"INSERT INTO {table} VALUES ({values})",  # noqa: S608 - our own words
        ([row.get(column) for column in columns] for row in rows),
    )


@contextmanager
def _page_alone(home: AirflowHome) -> Iterator[tuple[str, str]]:
    """Airflow's web server, without the rest, which would work meanwhile: address and password."""
    password, port, log = add_admin(home), free_port(), home.folder.parent / "api-server.log"
    command = [str(BIN / "airflow"), "api-server", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with running([*command, "--workers", "1"], env=home.env, log=log) as process:
        wait_until_healthy(f"{url}/api/v2/monitor/health", process, "Airflow's api-server", log)
        yield url, password


def _asking(address: str, authorization: str) -> Callable[[], float]:
    """A request, for the seconds until all of its answer is there."""
    headers = {"Authorization": authorization}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - loopback

    def ask() -> None:
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            answer.read()

    return timed(ask)
