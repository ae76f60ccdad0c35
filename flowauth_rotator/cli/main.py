"""The command line: the rotation of a token in a file, and the bundled renewal server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from flowauth_rotator.cli.check import check, in_airflow
from flowauth_rotator.cli.options import airflow, renew_before, scrape_token_file

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import BearerIssuer, SessionIssuer
    from flowauth_rotator.core.policy import State
    from flowauth_rotator.core.report import Report
    from flowauth_rotator.monitoring.snapshot import Snapshot

SERVER_COMMANDS = {
    "serve": "Run the renewal server.",
    "server": "Set up the renewal server: keys, users, roles, tokens.",
}


class _Commands(click.Group):
    """Loads Flask and SQLAlchemy for the server's commands alone, and not for their listing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours and the server's."""
        return sorted([*super().list_commands(ctx), *SERVER_COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of ours or, loaded now, one of the server's."""
        if cmd_name not in SERVER_COMMANDS:
            return super().get_command(ctx, cmd_name)
        try:
            commands = import_module("flowauth_rotator.server.commands")
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"The renewal server needs {error.name}, which is not installed. "
                "Install it with: pip install 'flowauth-rotator[server]'"
            ) from None
        command: click.Command = getattr(commands, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List all, loading none."""
        helps = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted({**helps, **SERVER_COMMANDS}.items()))


def _plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the library's errors into one sentence, or the report as JSON, and exit code 1."""

    @wraps(command)
    def run(**arguments: Any) -> None:  # noqa: ANN401 - click's
        from flowauth_rotator.agent.stores import FileStore
        from flowauth_rotator.core.errors import RotatorError

        try:
            command(**arguments)
        except RotatorError as error:
            if arguments["as_json"] and arguments["file"]:
                store, now = FileStore(arguments["file"]), datetime.now(timezone.utc)
                report = error.report(name=store.name, place=store.place, checked_at=now)
                click.echo(json.dumps(report.to_json()))
            raise click.ClickException(str(error)) from None

    return run


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flowauth-rotator")
def main() -> None:
    """Keep FlowAPI tokens alive: renew them at FlowAuth before they expire.

    In Airflow this is the DAG's work; here the same rotation serves a token in a file.
    """


@main.command(short_help="Say when tokens will be renewed.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@airflow
@scrape_token_file
@renew_before
@as_json
@_plainly
def plan(
    *,
    file: Path | None,
    airflow: str | None,
    scrape_token_file: IO[bytes] | None,
    renew_before: float | timedelta,
    as_json: bool,
) -> None:
    """Say when the token in FILE, or each that an Airflow keeps alive, will be renewed.

    Without FILE it asks the Airflow in whose environment it runs, or the one at --airflow. It
    changes nothing. --renew-before is for a file: in Airflow each token has its own.

    \b
    Examples:
      flowauth-rotator plan
      flowauth-rotator plan --airflow https://airflow.example.org \\
          --scrape-token-file scrape.token
      flowauth-rotator plan flowapi.token
    """  # noqa: D301 - \b is click's, for text to be left as it is
    now = datetime.now(timezone.utc)
    if file is None:
        _print_plan(in_airflow(airflow or "here", scrape_token_file, now), as_json=as_json)
        return
    if airflow or scrape_token_file:
        raise click.UsageError("Give a FILE or an Airflow to ask, not both.")
    from flowauth_rotator.agent.rotation import check
    from flowauth_rotator.agent.stores import FileStore
    from flowauth_rotator.core.policy import RotationPolicy

    policy = RotationPolicy(renew_before=renew_before)
    found = check(FileStore(file), policy, now=now)
    _print(found.report, state=found.decision.state, as_json=as_json)


def _print_plan(snapshot: Snapshot, *, as_json: bool) -> None:
    """A table in a terminal, lines of columns with tabs between them in a pipe."""
    from rich.console import Console

    from flowauth_rotator.monitoring import json_output, terminal
    from flowauth_rotator.monitoring.assessment import assess

    assessment = assess(snapshot)
    console = Console(highlight=False)
    if as_json:
        click.echo(json.dumps(json_output.document(assessment)))
    elif console.is_terminal:
        terminal.show(assessment, console)
    else:
        click.echo(terminal.lines(assessment), nl=False)


@main.command(short_help="Renew a token, if it is due.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--url", required=True, help="Address of FlowAuth or of the renewal server.")
@click.option(
    "--username", help="Owner of the token. Without one, the token is its own credential."
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--public-key",
    type=click.File(errors="replace"),
    help="The issuer's public key, PEM or JWK Set, to verify.",
)
@renew_before
@click.option("--lifetime-minutes", type=int, help="Lifetime to ask for.  [default: the maximum]")
@click.option("--dry-run", is_flag=True, help="Stop before the issuer is asked.")
@as_json
@_plainly
def rotate(
    *,
    file: Path,
    url: str,
    username: str | None,
    password_stdin: bool,
    public_key: Any,  # noqa: ANN401 - an open text file
    renew_before: float | timedelta,
    lifetime_minutes: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Renew the token in FILE, if it is due, and put its successor in its place.

    \b
    Examples:
      flowauth-rotator rotate flowapi.token --url http://127.0.0.1:9091
      flowauth-rotator rotate flowapi.token --url https://flowauth.example.org \\
          --username flowbot --password-stdin < password.txt
    """  # noqa: D301 - \b is click's, for text to be left as it is
    from flowauth_rotator.agent import rotation
    from flowauth_rotator.agent.stores import FileStore
    from flowauth_rotator.core.policy import RotationPolicy
    from flowauth_rotator.core.tokens import PublicKey

    now = datetime.now(timezone.utc)
    store = FileStore(file)
    policy = RotationPolicy(renew_before=renew_before, lifetime_minutes=lifetime_minutes)
    issuer = _issuer(url, username, password_stdin=password_stdin)
    key = PublicKey(public_key.read()) if public_key else None
    with closing(issuer):
        if dry_run:
            found = rotation.check(store, policy, now=now)
            if found.decision.due:
                store.preflight()
            _print(found.report, state=found.decision.state, as_json=as_json)
            return
        report = rotation.rotate(store, issuer, policy, now=now, public_key=lambda: key)
    _print(report, as_json=as_json)
    if report.failed:
        sys.exit(1)


def _issuer(
    url: str, username: str | None, *, password_stdin: bool
) -> SessionIssuer | BearerIssuer:
    from flowauth_rotator.agent.issuer import BearerIssuer, SessionIssuer

    if username is None:
        if password_stdin:
            raise click.UsageError("--password-stdin needs --username.")
        return BearerIssuer(url)
    if password_stdin:
        password = sys.stdin.buffer.readline().decode("utf-8", "replace")
        password = password.rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, err=True)
    else:
        raise click.UsageError("--username needs --password-stdin, or a terminal to ask at.")
    return SessionIssuer(url, username, password)


def _print(report: Report, *, state: State | None = None, as_json: bool) -> None:
    """What a person or a machine wants to know: where a token stands, or how a rotation ended."""
    from flowauth_rotator.core.report import clock

    if as_json:
        document = report.to_json()
        if state:
            document |= {"outcome": None, "state": state}
        click.echo(json.dumps(document))
        return
    lines = {
        report.place: f"{state or report.outcome}. {report.reason} {report.advice}".rstrip(),
        "name": report.name,
        "expires": report.successor_expires_at or report.predecessor_expires_at,
        "renewal due": report.renew_at,
        "clock": report.clock_warning or None,
        "old one until": report.predecessor_expires_at if report.successor_expires_at else None,
    }
    width = max(map(len, lines))
    for what, fact in lines.items():
        if fact is not None:
            text = clock(fact) if isinstance(fact, datetime) else fact
            click.echo(f"{what:<{width}}  {text}")


main.add_command(check)


@main.group(short_help="Write out what is shipped for monitoring systems.")
def monitoring() -> None:
    """What is shipped for Prometheus, Checkmk, Nagios and Icinga."""


@monitoring.command(short_help="Write rules, checks, a dashboard and runbooks into a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--runbook-url", default="", help="Address of the folder that you put runbooks/ into."
)
@click.option("--force", is_flag=True, help="Overwrite what is different there.")
def export(*, folder: Path, runbook_url: str, force: bool) -> None:
    """Write rules, checks, a dashboard and runbooks into DIR.

    Links to runbooks are relative, or begin with the address that is given. What somebody has
    changed is not overwritten without --force.

    \b
    Examples:
      flowauth-rotator monitoring export monitoring
      flowauth-rotator monitoring export monitoring \\
          --runbook-url https://wiki.example.org/flowauth
    """  # noqa: D301 - \b is click's, for text to be left as it is
    from flowauth_rotator.monitoring.export import USES, NotWritten
    from flowauth_rotator.monitoring.export import export as write

    try:
        written = write(folder, runbook_url=runbook_url, force=force)
    except NotWritten as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}.") from None
    paths = {top: str(folder / top) for top in written}
    width = max(map(len, paths.values()))
    for top, number in written.items():
        count = f"{number:>2} file{'s' if number > 1 else ' '}"
        click.echo(f"{paths[top]:<{width}}  {count}  {USES[top]}")
