"""`make demo`: one token, one rotation, in a real Airflow against a real renewal server."""

from __future__ import annotations

import json
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

from demo.names import VARIABLE
from demo.parts import (
    AUDIENCE,
    ROLES,
    ROOT,
    TOKEN_NAME,
    USER,
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
LIFETIME = 60  # minutes, of the first token
DUE_AFTER = 40 * 60  # seconds: by default the renewal is due in the last third
COMMANDS = 7  # of Airflow; run 1 takes as long as some, and ends before the renewal is due
MOST_COMMANDS = 100

console = Console(highlight=False)


class Deviation(Exception):
    """The result differs from the expected one."""


class TooSlow(Deviation):
    """The first token was due before the first run ended."""


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
    """Wait until the renewal is due.

    Raises:
        TooSlow: it is due already.
    """
    now = datetime.now(timezone.utc)
    due_at = decide(claims, RotationPolicy(), now).renew_at
    if due_at <= now:
        raise TooSlow("The first run took longer than the first token needed to become due.")
    seconds = (due_at - now).total_seconds()
    console.print(
        f"   waiting {seconds:.0f} s until the renewal is due, "
        f"{format_clock(due_at.timestamp())} UTC"
    )
    time.sleep(seconds + 1)


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


def mint_first(server: RenewalServer, due_in: float) -> Token:
    """Mint a first token whose renewal becomes due in so many seconds."""
    return Token(server.mint(LIFETIME, age=DUE_AFTER - due_in))


def run_steps(server: RenewalServer, airflow: AirflowHome, first: Token) -> dict[str, Any]:
    """Run all steps from the first token to the proof of the overlap; return the summary."""
    airflow.put_token(first.reveal())
    before = read_unverified(first)
    [untouched] = server.history()
    issued_at, expires_at = (
        format_clock(time.timestamp()) for time in (before.issued_at, before.expires_at)
    )
    print_step(
        "first token",
        f"{TOKEN_NAME} in Variable {VARIABLE}, "
        f"backdated to {issued_at}, expires at {expires_at} UTC",
    )

    results = [run_dag(server, airflow, 1)]
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


def run_demo(commands: int = COMMANDS) -> dict[str, Any]:
    """Run the demo in an empty folder.

    Args:
        commands: the renewal becomes due within the time of so many commands of Airflow; doubled
            if that was too short.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    server, airflow = RenewalServer(FOLDER), AirflowHome(FOLDER)
    with console.status("setting up the renewal server ..."):
        server.set_up()
    with server.running():
        print_step("renewal server", f"{server.url}, user {USER}, roles {', '.join(sorted(ROLES))}")
        with console.status("setting up Airflow ..."):
            airflow.set_up()
            began = time.monotonic()
            airflow.put_connection(server.url, USER, server.password)
            seconds = time.monotonic() - began
        place = format_path(airflow.folder)
        print_step("Airflow", f"{airflow.version()}, with a home of its own in {place}")
        try:
            return run_steps(server, airflow, mint_first(server, due_in=commands * seconds))
        except TooSlow:
            if commands > MOST_COMMANDS:
                raise
    console.print("   This machine is busy. Starting over, with more time for the first run.")
    return run_demo(2 * commands)


def main() -> int:
    """Run the demo; the exit code is 0 if all results are as expected."""
    prepare_process()
    console.print("\n[bold]One token, one rotation, in a real Airflow[/bold], about a minute\n")
    try:
        summary = run_demo()
    except (Deviation, PartFailed, RotatorError, requests.RequestException) as problem:
        console.print(f"\n [red]✗[/red] {problem}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\n Stopped; everything that was started has ended.")
        return 130
    document = FOLDER / "summary.json"
    document.write_text(json.dumps(summary, indent=2) + "\n")
    print_summary(summary)
    console.print(f"Written: {format_path(document)}. Everything that was started has ended.")
    console.print(
        "\nNext: `make up` leaves the same parts running, with Airflow's pages;"
        "\ndocs/getting-started.md describes the set-up in your own Airflow.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
