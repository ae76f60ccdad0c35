"""The command that runs the server."""

from __future__ import annotations

import errno
import os
import re
import socket

import click

from flowauth_rotator.server import Services, Settings, create_app
from flowauth_rotator.server.commands import options


def parse_address(value: str) -> str:
    """Validate HOST:PORT, with an IPv6 host in brackets."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", value)
    if match and 1 <= int(match[2]) <= 65535:
        return value
    raise click.BadParameter(f"{value!r} is not HOST:PORT, like 127.0.0.1:9091.")


@click.command(cls=options.Command)
@click.option(
    "--bind",
    type=parse_address,
    metavar="HOST:PORT",
    default="127.0.0.1:9091",
    show_default=True,
    help="Listening address.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Number of worker processes.",
)
@options.data_dir
def serve(settings: Settings, bind: str, workers: int) -> None:
    """Run the renewal server in the foreground.

    SIGTERM stops it after the current requests, Ctrl-C immediately.

    Put a reverse proxy with https in front of it before you bind it to a public address.

    \b
    Example:
      flowauth-rotator serve --data-dir /var/lib/flowauth-rotator --bind 127.0.0.1:9091
    """  # noqa: D301 - \b is click's mark for preformatted text
    from flowauth_rotator.server.serving import Gunicorn

    Services.open(settings).database.close()
    _refuse_used_address(bind)
    _warn_of_owner_and_rival(settings)
    Gunicorn(
        load_app=lambda counters: create_app(settings.data_dir, counters=counters),
        bind=bind,
        workers=workers,
        on_ready=lambda: click.echo(f"Serving {settings.data_dir} on http://{bind}"),
    ).run()


def _warn_of_owner_and_rival(settings: Settings) -> None:
    directory = settings.directory
    if directory.has_other_owner():
        click.echo(
            f"Warning: {settings.data_dir} belongs to another user than this process "
            f"(user {os.geteuid()}), and files that it creates may be unusable for the owner. Run "
            "it as the owner.",
            err=True,
        )
    if settings.database_url is None and not directory.lock():
        click.echo(
            f"Warning: another server already serves {settings.data_dir}. Stop one of them, or "
            "use PostgreSQL for several servers.",
            err=True,
        )


def _refuse_used_address(bind: str) -> None:
    """Fail at once if the address cannot be used; gunicorn would retry for five seconds."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, int(port)))
        except OSError as error:
            raise click.ClickException(
                f"Cannot listen on {bind}: {error.strerror}. {_advise(error, host)}"
            ) from None


def _advise(error: OSError, host: str) -> str:
    """Return what to do about an address that cannot be used."""
    if error.errno == errno.EADDRINUSE:
        return "Stop the program that uses it, or choose another port with --bind HOST:PORT."
    if error.errno == errno.EACCES:
        return "Ports below 1024 are reserved for root: choose another one with --bind HOST:PORT."
    return f"{host} is not an address of this machine: choose one with --bind HOST:PORT."
