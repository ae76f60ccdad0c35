"""Figure 7: a scrape of the plugin with many tokens and a month of history, in a real Airflow."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.measure import Figure, alternate, timed
from benchmarks.page import API, Client, prepare_airflow
from benchmarks.sizes import Sizes
from demo.up import add_admin
from flowauth_rotator.core.report import Outcome, Report

METRICS = "flowauth-rotator/metrics"
DAY = timedelta(days=1)  # how long a token lives; it is rotated after two thirds of it
CHECK = timedelta(minutes=5)
CHECKS_OF_A_LIFE = DAY * 2 // 3 // CHECK

Row = dict[str, Any]


def measure_scrape(folder: Path, sizes: Sizes) -> list[Figure]:
    """Scrape beside the page's API, which reads the same, and Airflow's list of the Variables."""
    tokens = sizes.scrape_tokens
    home = prepare_airflow(folder, tokens)
    with closing(sqlite3.connect(home.folder / "airflow.db")) as database:
        rotations = _add_history(
            database, sizes.scrape_history // CHECK, reports_kept=sizes.reports_kept
        )
    password = add_admin(home)
    scrape_token = secrets.token_urlsafe(32)
    home.env["AIRFLOW__FLOWAUTH_ROTATOR__SCRAPE_TOKEN"] = scrape_token
    with home.running() as url:
        admin, scraper = Client.signed_in(url, password), Client(url, scrape_token)
        note = f"{rotations:,} rotations in the database; {scraper.get(METRICS) // 1024} KiB"
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


def _add_history(database: sqlite3.Connection, checks: int, *, reports_kept: int) -> int:
    """Write so many checks before the one that there is, and all of their rotations.

    Args:
        database: Airflow's.
        checks: how many.
        reports_kept: how many of them, the last, have their reports of all tokens.

    Returns:
        how many rotations.
    """
    # Here, since it imports Airflow.
    from flowauth_rotator.provider.assets import OUTCOME_KEY_PREFIX

    database.row_factory = sqlite3.Row
    run = _only(database, "SELECT * FROM dag_run")
    survey = _only(database, "SELECT * FROM task_instance WHERE task_id = 'survey'")
    told = _only(database, "SELECT * FROM xcom WHERE task_id = 'survey' AND key = 'report'")
    reports = [Report.from_json(one) for one in json.loads(told["value"])]
    last = datetime.now(timezone.utc)
    first = run["id"] - checks
    if first <= 0:  # ids grow with time
        for table, column in (("xcom", "dag_run_id"), ("dag_run", "id")):
            database.execute(f"UPDATE {table} SET {column} = {column} + {checks}")  # noqa: S608
        run, told = run | {"id": run["id"] + checks}, told | {"dag_run_id": run["id"] + checks}
        first += checks
    rotations = 0
    for number in range(checks):
        at = last - (checks - number) * CHECK
        here = {"id": first + number, "run_id": f"scheduled__{at.isoformat()}"}
        of_run = {"dag_run_id": here["id"], "run_id": here["run_id"], "timestamp": _moment(at)}
        times = dict.fromkeys(("start_date", "end_date"), _moment(at))
        dates = dict.fromkeys(("logical_date", "run_after", "queued_at"), _moment(at))
        _insert(database, "dag_run", [run | here | times | _known(run, dates)])
        _insert(database, "task_instance", [survey | times | _task(here)])
        if checks - number <= reports_kept:
            _insert(database, "xcom", [told | of_run])
        swapped = list(_rotated(reports[number % CHECKS_OF_A_LIFE :: CHECKS_OF_A_LIFE], at))
        tasks = [
            survey | times | _task(here, "rotate", index, report.name)
            for index, report in enumerate(swapped)
        ]
        _insert(database, "task_instance", tasks)
        _insert(
            database,
            "xcom",
            [
                told
                | of_run
                | {"task_id": "rotate", "map_index": index, "key": key, "value": value}
                for index, report in enumerate(swapped)
                for key, value in (
                    ("report", json.dumps(report.to_json())),
                    (f"{OUTCOME_KEY_PREFIX}{report.outcome}", "true"),
                )
            ],
        )
        rotations += len(swapped)
    database.commit()
    return rotations


def _rotated(reports: Iterable[Report], at: datetime) -> Iterator[Report]:
    for report in reports:
        yield replace(
            report,
            outcome=Outcome.ROTATED,
            checked_at=at,
            predecessor_expires_at=at + DAY / 3,
            successor_expires_at=at + DAY,
            newest_issued_expires_at=at + DAY,
            renewal_requests=1,
            clock_skew=0,
        )


def _task(run: Row, task_id: str = "survey", index: int = -1, label: str | None = None) -> Row:
    return {
        "id": str(uuid4()),
        "run_id": run["run_id"],
        "task_id": task_id,
        "map_index": index,
        "rendered_map_index": label,
    }


def _known(row: Row, values: Row) -> Row:
    """Those of the values that the table has columns for."""
    return {key: value for key, value in values.items() if key in row}


def _moment(time: datetime) -> str:
    """As SQLAlchemy stores it in SQLite."""
    return f"{time:%Y-%m-%d %H:%M:%S.%f}"


def _only(database: sqlite3.Connection, query: str) -> Row:
    [row] = database.execute(query)
    return dict(row)


def _insert(database: sqlite3.Connection, table: str, rows: list[Row]) -> None:
    if rows:
        values = ", ".join(f":{column}" for column in rows[0])
        insertion = f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({values})"  # noqa: S608
        database.executemany(insertion, rows)
