"""`make up`: the renewal server and an Airflow with its page, left running until Ctrl-C."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
from contextlib import ExitStack

from rich.console import Console

from demo.parts import (
    BIN,
    DAG,
    ROLES,
    ROOT,
    USER,
    VARIABLE,
    AirflowHome,
    PartFailed,
    RenewalServer,
    free_port,
    prepare_process,
    running,
    wait_until_healthy,
)

FOLDER = ROOT / ".up"
LIFETIME_MINUTES = 30

console = Console(highlight=False)


def start_airflow(airflow: AirflowHome, parts: ExitStack) -> tuple[str, str]:
    """Start Airflow's processes; return its address and the password of the user admin."""
    port, password = free_port(), secrets.token_urlsafe(12)
    url = f"http://127.0.0.1:{port}"
    passwords = airflow.folder / "passwords.json"
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({"admin": password}))
    airflow.env.update(
        AIRFLOW__API__BASE_URL=url,
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{url}/execution/",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="admin:admin",
    )
    commands = {
        "api-server": ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        "dag-processor": [],
        "scheduler": ["--skip-serve-logs"],
    }
    for name, options in commands.items():
        log = FOLDER / f"{name}.log"
        command = [str(BIN / "airflow"), name, *options]
        process = parts.enter_context(running(command, env=airflow.env, log=log))
        if name == "api-server":
            health = f"{url}/api/v2/monitor/health"
            wait_until_healthy(health, process, "Airflow's API server", log)
    return url, password


def main() -> int:
    """Start everything, say where it is, wait."""
    prepare_process()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    server, airflow = RenewalServer(FOLDER), AirflowHome(FOLDER)
    with ExitStack() as parts:
        try:
            with console.status("starting the renewal server and Airflow ..."):
                server.set_up()
                parts.enter_context(server.running())
                airflow.set_up()
                airflow.put(server.mint(LIFETIME_MINUTES), server.url, USER, server.password)
                url, password = start_airflow(airflow, parts)
            show(url, password, server)
            while True:
                time.sleep(3600)
        except PartFailed as problem:
            console.print(f" [red]✗[/red] {problem}", soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            console.print("\nStopping ...")
    console.print("Everything that was started has ended.")
    return 0


def show(url: str, password: str, server: RenewalServer) -> None:
    """Addresses and credentials."""
    folder = FOLDER.relative_to(ROOT)
    console.print(
        f"""
[bold]Airflow[/bold]         {url}/dags/{DAG}
                user admin, password {password}
[bold]Renewal server[/bold]  {server.url}
                user {USER}, password {server.password}, roles {", ".join(sorted(ROLES))}
                .venv/bin/flowauth-rotator server tokens --data-dir {folder}/server

The token in Variable {VARIABLE} lives for {LIFETIME_MINUTES} minutes and is renewed in its
last third. The DAG {DAG} looks every five minutes, and whenever
you trigger it. Logs are in {folder}/.

[bold]Ctrl-C ends all of it.[/bold]""",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
