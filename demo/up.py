"""`make up`: run the renewal server and an Airflow with its page until Ctrl-C."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
from contextlib import ExitStack

from rich.console import Console

from demo.names import DAG, VARIABLE
from demo.parts import (
    PAGE,
    ROLES,
    ROOT,
    USER,
    AirflowHome,
    PartFailed,
    RenewalServer,
    prepare_process,
)

FOLDER = ROOT / ".up"
LIFETIME_MINUTES = 30

console = Console(highlight=False)


def add_admin(airflow: AirflowHome) -> str:
    """Create the user admin, who has all permissions, and return the password."""
    password = secrets.token_urlsafe(12)
    passwords = airflow.folder / "passwords.json"
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({"admin": password}))
    airflow.env.update(
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="admin:admin",
    )
    return password


def main() -> int:
    """Start everything, print the addresses, and wait for Ctrl-C."""
    prepare_process()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    server, airflow = RenewalServer(FOLDER), AirflowHome(FOLDER)
    airflow.env["AIRFLOW__CORE__DAGS_FOLDER"] = str(ROOT / "demo" / "dags")
    with ExitStack() as parts:
        try:
            with console.status("starting the renewal server and Airflow ..."):
                server.set_up()
                parts.enter_context(server.running())
                airflow.set_up()
                airflow.put_connection(server.url, USER, server.password)
                airflow.put_token(server.mint(LIFETIME_MINUTES))
                password = add_admin(airflow)
                url = parts.enter_context(airflow.running())
            print_addresses(url, password, server)
            while True:
                time.sleep(3600)
        except PartFailed as problem:
            console.print(f" [red]✗[/red] {problem}", soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            console.print("\nStopping ...")
    console.print("All processes have ended.")
    return 0


def print_addresses(url: str, password: str, server: RenewalServer) -> None:
    """Print the addresses and credentials."""
    folder = FOLDER.relative_to(ROOT)
    console.print(
        f"""
[bold]The page[/bold]        {url}/plugin/{PAGE}
                user admin, password {password}
[bold]The DAG[/bold]         {url}/dags/{DAG}
[bold]Renewal server[/bold]  {server.url}
                user {USER}, password {server.password}, roles {", ".join(sorted(ROLES))}
                .venv/bin/flowauth-rotator server tokens --data-dir {folder}/server

The token in Variable {VARIABLE} lives for {LIFETIME_MINUTES} minutes and is renewed in its
last third. The DAG {DAG} checks every minute, and whenever
you trigger it. Logs are in {folder}/.

[bold]Press Ctrl-C to stop everything.[/bold]""",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
