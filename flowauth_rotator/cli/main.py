"""The commands of `flowauth-rotator`; those of the renewal server are imported when used."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from importlib.util import find_spec

import click

from flowauth_rotator.cli.check import check
from flowauth_rotator.cli.export import monitoring
from flowauth_rotator.cli.init_dag import init_dag
from flowauth_rotator.cli.plan import plan
from flowauth_rotator.cli.rotate import rotate
from flowauth_rotator.cli.terminal import is_terminal

SERVER_COMMANDS = {
    "serve": "Run the renewal server.",
    "server": "Set up the renewal server: keys, users, roles, tokens.",
}


class _Commands(click.Group):
    """A group that imports Flask and SQLAlchemy only to run a command of the server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *SERVER_COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; one of the server is imported now."""
        if cmd_name not in SERVER_COMMANDS:
            return super().get_command(ctx, cmd_name)
        try:
            commands = import_module("flowauth_rotator.server.commands")
        except ImportError as error:  # ModuleNotFoundError, or a package that is too old
            raise click.ClickException(_describe_import_error(error)) from None
        command: click.Command = getattr(commands, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List all commands without importing the server."""
        helps = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted({**helps, **SERVER_COMMANDS}.items()))


def _describe_import_error(error: ImportError) -> str:
    """Return what the server lacks, and where to install it."""
    fault = f"The renewal server cannot be imported: {error}."
    if isinstance(error, ModuleNotFoundError):
        fault = f"The renewal server needs {error.name}, which is not installed."
    command = "pip install 'flowauth-rotator[server]'"
    if find_spec("airflow") is None:
        return f"{fault} Run: {command}"
    return (
        f"{fault} Install it outside of this environment, since it needs other versions of "
        f"Airflow's packages: python3 -m venv DIR && DIR/bin/{command}"
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", "-V", package_name="flowauth-rotator")
def main() -> None:
    """Renew the FlowAPI tokens of an Airflow before they expire.

    A DAG in Airflow renews the tokens: init-dag writes its file, and plan and check report on the
    tokens. Without Airflow, rotate renews a token in a file.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may not exist in a terminal's encoding
        sys.stdout.reconfigure(errors="replace")


for command in (check, init_dag, monitoring, plan, rotate):
    main.add_command(command)


def run() -> None:
    """Run the command line; in a terminal, an error is in colour unless NO_COLOR is set."""
    try:
        code = main(standalone_mode=False)
    except click.Abort:
        click.echo("Aborted!", err=True)
        code = 1
    except click.ClickException as error:
        _print_error(error)
        code = error.exit_code
    sys.exit(code)


def _print_error(error: click.ClickException) -> None:
    if not is_terminal():
        error.show()
        return
    from rich.console import Console
    from rich.text import Text

    buffer = io.StringIO()
    error.show(buffer)
    text = Text(buffer.getvalue())
    text.highlight_regex("(?m)^Error:", "red")
    Console(stderr=True, highlight=False).print(text, soft_wrap=True, end="")
