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
    ROLES,
    ROOT,
    TOKEN_NAME,
    USER,
    VARIABLE,
    WAIT_LIMIT,
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
# Run 2 and the test of the overlap must fit into the last third of the first token's lifetime.
SHORTEST_LIFETIME = 3  # minutes
LONGEST_LIFETIME = 48
COMMANDS = 6  # of Airflow, which take about as long as run 2 and that test

console = Console(highlight=False)


class Deviation(Exception):
    """The result differs from the expected one."""


class TooSlow(Deviation):
    """The first token is too close to its expiry to show its overlap with the second."""


def require(condition: bool, message: str) -> None:
    """Stop with the message unless the condition holds."""
    if not condition:
        raise Deviation(message)


def print_step(name: str, text: str) -> None:
    """Print the result of a step."""
    console.print(f" [green]✓[/green] [bold]{name:<15}[/bold] {text}", soft_wrap=True)


def format_clock(epoch: float) -> str:
    """Format a time of this day, in UTC."""
    return f"{datetime.fromtimestamp(epoch, timezone.utc):%H:%M:%S}"


def run_dag(server: RenewalServer, airflow: AirflowHome, number: int) -> tuple[dict[str, Any], int]:
    """Run the DAG; return its result and the number of renewal requests."""
    before = server.renewal_requests()
    with console.status(f"run {number} of the DAG ..."):
        result = airflow.run_dag()
    count = server.renewal_requests() - before
    requests_ = f"{count} renewal request{'' if count == 1 else 's'}"
    print_step(
        f"run {number}", f"[bold]{result['outcome']}[/bold], {requests_}. {result['message']}"
    )
    return result, count


def wait_until_due(claims: Claims) -> None:
    """Wait until the renewal is due, with a countdown.

    Raises:
        TooSlow: it is due already.
    """
    now = datetime.now(timezone.utc)
    due_at = decide(claims, RotationPolicy(), now).renew_at
    if due_at <= now:
        raise TooSlow("The first run took longer than the first token needed to become due.")
    seconds = round((due_at - now).total_seconds()) + 1
    console.print(
        f"   waiting {seconds} s until the renewal is due, {format_clock(due_at.timestamp())} UTC"
    )
    with console.status("") as status:
        while (remaining := (due_at - datetime.now(timezone.utc)).total_seconds()) > -1:
            status.update(f"{max(remaining, 0):.0f} s")
            time.sleep(0.5)


def verify(token: str, public_key: str) -> dict[str, Any]:
    """Verify a token as FlowAPI does: with the public key alone."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token, public_key, algorithms=["RS256"], audience=AUDIENCE
        )
    except jwt.PyJWTError as error:
        raise Deviation(f"A token does not verify: {error}.") from None
    return claims


def renew_again(server: RenewalServer, predecessor: Token) -> str:
    """Request the renewal of the predecessor again; the server returns the existing successor."""
    logged = server.renewal_requests()
    response = requests.post(
        f"{server.url}/tokens/renew",
        json={},
        headers={
            "Authorization": f"Bearer {predecessor.reveal()}",
            "Idempotency-Key": idempotency_key(read_unverified(predecessor), None),
        },
        timeout=WAIT_LIMIT,
    )
    require(response.status_code == 200, f"The predecessor was refused: {response.status_code}.")
    # A worker logs a request after its response; run 3 must not count this one.
    wait_until(lambda: server.renewal_requests() > logged, "the server logs the request")
    return str(response.json()["token"])


def set_up(airflow: AirflowHome) -> float:
    """Create the metadata database, and return the seconds that a command of Airflow takes."""
    with console.status("setting up Airflow ..."):
        airflow.set_up()
        began = time.monotonic()
        has_imported = airflow.airflow("dags", "list-import-errors") == 0
        seconds = time.monotonic() - began
    require(has_imported, f"Airflow cannot import the DAG file; see {airflow.log}")
    print_step(
        "Airflow", f"{airflow.version()}, with a home of its own in {format_path(airflow.folder)}"
    )
    return seconds


def run_steps(server: RenewalServer, airflow: AirflowHome, first: Token) -> dict[str, Any]:
    """Run all steps from the first token to the proof of the overlap; return the summary."""
    airflow.put(first.reveal(), server.url, USER, server.password)
    before = read_unverified(first)
    [untouched] = server.history()
    issued_at, expires_at = (
        format_clock(time.timestamp()) for time in (before.issued_at, before.expires_at)
    )
    print_step(
        "first token",
        f"{TOKEN_NAME}, valid from {issued_at} to {expires_at} UTC, in Variable {VARIABLE}",
    )

    results = [run_dag(server, airflow, 1)]
    require(
        airflow.variable()["value"] == first.reveal(),
        "The Variable was changed before the renewal was due.",
    )
    wait_until_due(before)
    results += [run_dag(server, airflow, 2)]
    variable = airflow.variable()
    second = Token(variable["value"])
    public_key = server.public_key()
    accepted = Token(renew_again(server, first)) == second
    require(accepted, "The server returned another successor.")
    old, new = verify(first.reveal(), public_key), verify(second.reveal(), public_key)
    now = time.time()
    print_step(
        "overlap",
        f"the old token verifies and is accepted at {format_clock(now)}, until {expires_at} UTC",
    )
    results += [run_dag(server, airflow, 3)]

    after = read_unverified(second)
    history = [row for row in server.history() if row["name"] == TOKEN_NAME]
    summary = {
        "variable": VARIABLE,
        "name": results[1][0]["name"],
        "outcomes": [result["outcome"] for result, _ in results],
        "renewal_requests": [count for _, count in results],
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
    verify_summary(summary, history, untouched)
    return summary


def verify_summary(
    summary: dict[str, Any], history: list[dict[str, Any]], untouched: dict[str, Any]
) -> None:
    """Stop at the first deviation from the expected summary."""
    require(
        summary["outcomes"] == ["healthy", "rotated", "healthy"],
        f"The outcomes are {', '.join(summary['outcomes'])} instead of healthy, rotated, healthy.",
    )
    require(
        summary["renewal_requests"] == [0, 1, 0],
        f"The renewal requests are {summary['renewal_requests']} instead of [0, 1, 0].",
    )
    require(summary["name"] == TOKEN_NAME, f"The successor is named {summary['name']!r}.")
    require(
        summary["roles_before"] == summary["roles_after"] == sorted(ROLES),
        f"The roles changed from {summary['roles_before']} to {summary['roles_after']}.",
    )
    require(len(history) == 2, f"The history has {len(history)} rows of the name instead of 2.")
    [row] = [row for row in history if row["id"] == untouched["id"]]
    row["state"] = untouched["state"]  # on a slow machine it has expired by now
    require(row == untouched, "The predecessor's row in the history was changed.")


def print_summary(summary: dict[str, Any]) -> None:
    """Print the summary as a table."""
    table = Table(
        title=f"\n{summary['name']} in Variable {summary['variable']}", title_justify="left"
    )
    for column in ("", "predecessor", "successor"):
        table.add_column(column)
    old, new = summary["predecessor"], summary["successor"]
    for label, key in (("issued", "issued_at"), ("expires", "expires_at")):
        table.add_row(f"{label} (UTC)", format_date(old[key]), format_date(new[key]))
    table.add_row("roles", ", ".join(summary["roles_before"]), ", ".join(summary["roles_after"]))
    table.add_row("accepted now", "yes", "yes, and in use")
    console.print(table)
    overlap, rows = old["expires_at"] - new["issued_at"], summary["history_rows"]
    console.print(
        f"Overlap: {overlap} s in which both work. Rows of that name: {rows}, the old untouched."
    )
    console.print(f"Description of the Variable: {summary['variable_description']}", soft_wrap=True)


def format_date(epoch: int) -> str:
    """Format a time with its date, in UTC."""
    return f"{datetime.fromtimestamp(epoch, timezone.utc):%Y-%m-%d %H:%M:%S}"


def format_path(path: Path) -> str:
    """Format a path relative to the checkout."""
    return str(path.relative_to(ROOT))


def run_demo(minutes: int) -> dict[str, Any]:
    """Run the demo in an empty folder.

    Args:
        minutes: the least lifetime of the first token; doubled if the machine is too slow.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    server, airflow = RenewalServer(FOLDER), AirflowHome(FOLDER)
    with console.status("setting up the renewal server ..."):
        server.set_up()
    with server.running():
        print_step("renewal server", f"{server.url}, user {USER}, roles {', '.join(sorted(ROLES))}")
        needed = math.ceil(set_up(airflow) * COMMANDS * 3 / 60)
        minutes = min(max(minutes, needed), LONGEST_LIFETIME)
        first = Token(server.mint(minutes))
        try:
            return run_steps(server, airflow, first)
        except (Deviation, PartFailed) as problem:
            has_expired = read_unverified(first).expires_at <= datetime.now(timezone.utc)
            if minutes == LONGEST_LIFETIME or not (has_expired or isinstance(problem, TooSlow)):
                raise
    minutes *= 2
    console.print(f"   This machine is busy. Starting over with a token of {minutes} minutes.")
    return run_demo(minutes)


def main() -> int:
    """Run the demo; the exit code is 0 if all results are as expected."""
    prepare_process()
    console.print("\n[bold]One token, one rotation, in a real Airflow[/bold], about 3 minutes\n")
    try:
        summary = run_demo(SHORTEST_LIFETIME)
    except (Deviation, PartFailed, RotatorError, requests.RequestException) as problem:
        console.print(f"\n [red]✗[/red] {problem}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\n Stopped; everything that was started has ended.")
        return 130
    document = FOLDER / "summary.json"
    document.write_text(json.dumps(summary, indent=2) + "\n")
    print_summary(summary)
    console.print(f"Written: {format_path(document)}. Everything that was started has ended.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
