"""`make demo`: one token, one rotation, in a real Airflow against a real renewal server."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jwt
import requests
from rich.console import Console
from rich.table import Table

from demo.parts import (
    AUDIENCE,
    PATIENCE,
    ROLES,
    ROOT,
    TOKEN_NAME,
    USER,
    VARIABLE,
    AirflowHome,
    PartFailed,
    RenewalServer,
    prepare_process,
    wait_until,
)
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.policy import RotationPolicy, decide
from flowauth_rotator.core.succession import idempotency_key
from flowauth_rotator.core.tokens import Claims, Token, read_unverified

FOLDER = ROOT / ".demo"
# Run 2 and the look at the overlap must fit into the last third of the first token's lifetime.
SHORTEST_LIFETIME = 3  # minutes
LONGEST_LIFETIME = 48
COMMANDS = 6  # of Airflow, that take about as long as run 2 and the look

console = Console(highlight=False)


class Deviation(Exception):
    """Something went otherwise than it should."""


class TooSlow(Deviation):
    """The first token came too near to its expiry to show its overlap with the second."""


def expect(truth: bool, otherwise: str) -> None:
    """Stop with a sentence unless `truth`."""
    if not truth:
        raise Deviation(otherwise)


def done(what: str, text: str) -> None:
    """Tell of a step that is over."""
    console.print(f" [green]✓[/green] [bold]{what:<15}[/bold] {text}", soft_wrap=True)


def utc(epoch: float) -> str:
    """A time of this day."""
    return f"{datetime.fromtimestamp(epoch, timezone.utc):%H:%M:%S}"


def run(server: RenewalServer, airflow: AirflowHome, number: int) -> tuple[dict[str, Any], int]:
    """Run the DAG; return its report, and how many renewals the server was asked for."""
    before = server.renewal_requests()
    with console.status(f"run {number} of the DAG ..."):
        report = airflow.run_dag()
    asked = server.renewal_requests() - before
    requests_ = f"{asked} renewal request{'' if asked == 1 else 's'}"
    done(f"run {number}", f"[bold]{report['outcome']}[/bold], {requests_}. {report['reason']}")
    return report, asked


def wait_until_due(claims: Claims) -> None:
    """Wait for the threshold, telling how long it will take.

    Raises:
        TooSlow: it has passed already.
    """
    now = datetime.now(timezone.utc)
    due = decide(claims, RotationPolicy(), now).renew_at
    if due <= now:
        raise TooSlow("The first run took longer than the first token needed to become due.")
    seconds = round((due - now).total_seconds()) + 1
    console.print(f"   waiting {seconds} s until the renewal is due, {utc(due.timestamp())} UTC")
    with console.status("") as status:
        while (left := (due - datetime.now(timezone.utc)).total_seconds()) > -1:
            status.update(f"{max(left, 0):.0f} s")
            time.sleep(0.5)


def verify(token: str, public_key: str) -> dict[str, Any]:
    """Verify a token as FlowAPI does: with nothing but the public key."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token, public_key, algorithms=["RS256"], audience=AUDIENCE
        )
    except jwt.PyJWTError as error:
        raise Deviation(f"A token does not verify: {error}.") from None
    return claims


def accepted_by(server: RenewalServer, predecessor: Token) -> str:
    """Present the predecessor to the server again; it answers with the successor that exists."""
    logged = server.renewal_requests()
    answer = requests.post(
        f"{server.url}/tokens/renew",
        json={},
        headers={
            "Authorization": f"Bearer {predecessor.reveal()}",
            "Idempotency-Key": idempotency_key(read_unverified(predecessor), None),
        },
        timeout=PATIENCE,
    )
    expect(answer.status_code == 200, f"The predecessor was refused: {answer.status_code}.")
    # A worker logs a request after it has answered: it must not count as one of run 3.
    wait_until(lambda: server.renewal_requests() > logged, "the server logs the request")
    return str(answer.json()["token"])


def set_up(airflow: AirflowHome) -> float:
    """Make the metadata database, and return the seconds that a command of Airflow's takes."""
    with console.status("setting up Airflow ..."):
        airflow.set_up()
        began = time.monotonic()
        found = airflow.airflow("dags", "list-import-errors") == 0
        seconds = time.monotonic() - began
    expect(found, f"Airflow cannot import the DAG file; see {airflow.log}")
    done("Airflow", f"{airflow.version()}, with a home of its own in {relative(airflow.folder)}")
    return seconds


def main_job(server: RenewalServer, airflow: AirflowHome, first: Token) -> dict[str, Any]:
    """Everything from the first token to the proof of the overlap; returns the summary."""
    airflow.put(first.reveal(), server.url, USER, server.password)
    before = read_unverified(first)
    [untouched] = server.history()
    issued, expires = (int(time.timestamp()) for time in (before.issued_at, before.expires_at))
    done(
        "first token",
        f"{TOKEN_NAME}, valid from {utc(issued)} to {utc(expires)} UTC, in Variable {VARIABLE}",
    )

    reports = [run(server, airflow, 1)]
    expect(airflow.variable()["value"] == first.reveal(), "The Variable changed too early.")
    wait_until_due(before)
    reports += [run(server, airflow, 2)]
    variable = airflow.variable()
    second = Token(variable["value"])
    public_key = server.public_key()
    accepted = Token(accepted_by(server, first)) == second
    expect(accepted, "The server answered with another successor.")
    old, new = verify(first.reveal(), public_key), verify(second.reveal(), public_key)
    now = time.time()
    done(
        "overlap",
        f"the old token verifies and is accepted at {utc(now)}, until {utc(expires)} UTC",
    )
    reports += [run(server, airflow, 3)]

    after = read_unverified(second)
    history = [row for row in server.history() if row["name"] == TOKEN_NAME]
    summary = {
        "variable": VARIABLE,
        "name": reports[1][0]["name"],
        "outcomes": [report["outcome"] for report, _ in reports],
        "renewal_requests": [asked for _, asked in reports],
        "predecessor": {
            "issued_at": old["iat"],
            "expires_at": old["exp"],
            "accepted_after_swap": accepted,
        },
        "successor": {"issued_at": new["iat"], "expires_at": new["exp"]},
        "roles_before": sorted(before.roles),
        "roles_after": sorted(after.roles),
        "history_rows": len(history),
        "variable_description": variable["description"],
    }
    check(summary, history, untouched)
    return summary


def check(
    summary: dict[str, Any], history: list[dict[str, Any]], untouched: dict[str, Any]
) -> None:
    """Stop with a sentence at the first thing that is not as it should be."""
    expect(
        summary["outcomes"] == ["healthy", "rotated", "healthy"],
        f"The outcomes are {', '.join(summary['outcomes'])}; healthy, rotated, healthy were due.",
    )
    expect(
        summary["renewal_requests"] == [0, 1, 0],
        f"The renewal requests are {summary['renewal_requests']} instead of [0, 1, 0].",
    )
    expect(summary["name"] == TOKEN_NAME, f"The successor is named {summary['name']!r}.")
    expect(
        summary["roles_before"] == summary["roles_after"] == sorted(ROLES),
        f"The roles changed from {summary['roles_before']} to {summary['roles_after']}.",
    )
    expect(len(history) == 2, f"The history has {len(history)} rows of the name instead of 2.")
    [kept] = [row for row in history if row["id"] == untouched["id"]]
    kept["state"] = untouched["state"]  # on a slow machine it has expired by now
    expect(kept == untouched, "The predecessor's row in the history was touched.")


def show(summary: dict[str, Any]) -> None:
    """The summary for people."""
    table = Table(
        title=f"\n{summary['name']} in Variable {summary['variable']}", title_justify="left"
    )
    for column in ("", "predecessor", "successor"):
        table.add_column(column)
    old, new = summary["predecessor"], summary["successor"]
    for what, key in (("issued", "issued_at"), ("expires", "expires_at")):
        table.add_row(f"{what} (UTC)", full(old[key]), full(new[key]))
    table.add_row("roles", ", ".join(summary["roles_before"]), ", ".join(summary["roles_after"]))
    table.add_row("accepted now", "yes", "yes, and in use")
    console.print(table)
    overlap, rows = old["expires_at"] - new["issued_at"], summary["history_rows"]
    console.print(
        f"Overlap: {overlap} s in which both work. Rows of that name: {rows}, the old untouched."
    )
    console.print(f"Description of the Variable: {summary['variable_description']}", soft_wrap=True)


def full(epoch: int) -> str:
    """A time with its day."""
    return f"{datetime.fromtimestamp(epoch, timezone.utc):%Y-%m-%d %H:%M:%S}"


def relative(path: Path) -> str:
    """A path as one types it here."""
    return str(path.relative_to(ROOT))


def start_over(minutes: int) -> dict[str, Any]:
    """Run the whole job in an empty folder, with a first token of at least so many minutes."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    server, airflow = RenewalServer(FOLDER), AirflowHome(FOLDER)
    with console.status("setting up the renewal server ..."):
        server.set_up()
    with server.running():
        done("renewal server", f"{server.url}, user {USER}, roles {', '.join(sorted(ROLES))}")
        needed = math.ceil(set_up(airflow) * COMMANDS * 3 / 60)
        minutes = min(max(minutes, needed), LONGEST_LIFETIME)
        first = Token(server.mint(minutes))
        try:
            return main_job(server, airflow, first)
        except (Deviation, PartFailed) as problem:
            has_expired = read_unverified(first).expires_at <= datetime.now(timezone.utc)
            if minutes == LONGEST_LIFETIME or not (has_expired or isinstance(problem, TooSlow)):
                raise
    minutes *= 2
    console.print(f"   This machine is busy. Starting over with a token of {minutes} minutes.")
    return start_over(minutes)


def main() -> int:
    """Run the job; exit code 0 if all went as it should."""
    prepare_process()
    console.print("\n[bold]One token, one rotation, in a real Airflow[/bold], about 3 minutes\n")
    try:
        summary = start_over(SHORTEST_LIFETIME)
    except (Deviation, PartFailed, RotatorError, requests.RequestException) as problem:
        console.print(f"\n [red]✗[/red] {problem}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\n Stopped; everything that was started has ended.")
        return 130
    document = FOLDER / "summary.json"
    document.write_text(json.dumps(summary, indent=2) + "\n")
    show(summary)
    console.print(f"Written: {relative(document)}. Everything that was started has ended.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
