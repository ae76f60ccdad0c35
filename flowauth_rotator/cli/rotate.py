"""`flowauth-rotator rotate`: renew the token in a file."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from flowauth_rotator.cli.file_report import print_report, report_errors
from flowauth_rotator.cli.options import (
    as_json,
    ca_file,
    read_secret,
    renew_before,
    totp_secret_file,
)
from flowauth_rotator.cli.terminal import show_status

if TYPE_CHECKING:
    from flowauth_rotator.agent.bearer import BearerIssuer
    from flowauth_rotator.agent.flowauth import SessionIssuer


@click.command(short_help="Renew the token in a file if it is due.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--url", metavar="URL", required=True, help="Address of FlowAuth or of the renewal server."
)
@click.option(
    "--username", help="Owner of the token. Without it, the token authenticates its own renewal."
)
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from the first line of standard input.",
)
@click.option(
    "--public-key",
    type=click.File(errors="replace"),
    help="File containing the issuer's public key (PEM or JWK Set), or - for stdin.",
)
@totp_secret_file
@ca_file
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    help="Seconds for one request.",
)
@renew_before
@click.option(
    "--lifetime-minutes",
    type=int,
    metavar="MINUTES",
    help="Lifetime to request.  [default: the maximum]",
)
@click.option(
    "--dry-run", is_flag=True, help="Check that a renewal would succeed, without a new token."
)
@as_json
@report_errors()
def rotate(
    *,
    file: Path,
    url: str,
    username: str | None,
    password_stdin: bool,
    public_key: Any,  # noqa: ANN401 - an open text file
    totp_secret_file: IO[bytes] | None,
    ca_file: str | None,
    timeout: float,
    renew_before: float | timedelta,
    lifetime_minutes: int | None,
    dry_run: bool,
    as_json: bool,
    now: datetime,
) -> None:
    """Renew the token in FILE if it is due, and replace it with its successor.

    With --dry-run no token is issued and nothing is written: the command signs in, finds the token
    at the issuer, and checks the file, the public key and the limits of the issuer.

    \b
    Examples:
      flowauth-rotator rotate flowapi.token --url http://127.0.0.1:9091
      flowauth-rotator rotate flowapi.token --url https://flowauth.example.org \\
          --username flowbot --password-stdin < password.txt
    """  # noqa: D301 - \b is click's, for text to be left as it is
    from flowauth_rotator.agent.rehearsal import rehearse
    from flowauth_rotator.agent.rotation import rotate as rotate_token
    from flowauth_rotator.agent.stores import FileStore
    from flowauth_rotator.core.policy import RotationPolicy
    from flowauth_rotator.core.tokens import PublicKey

    store = FileStore(file)
    policy = RotationPolicy(renew_before=renew_before, lifetime_minutes=lifetime_minutes)
    issuer = _create_issuer(
        url,
        username,
        password_stdin=password_stdin,
        totp_secret=(
            read_secret(totp_secret_file, "--totp-secret-file") if totp_secret_file else None
        ),
        timeout=timeout,
        verify=ca_file or True,
    )
    key = PublicKey(public_key.read()) if public_key else None
    with closing(issuer):
        if dry_run:
            report = rehearse(
                *(store, issuer, policy),
                now=now,
                public_key=lambda: key,
                on_step=(lambda _: None) if as_json else _print_step,
            )
        else:
            with show_status("Renewing the token if it is due ..."):
                report = rotate_token(store, issuer, policy, now=now, public_key=lambda: key)
    print_report(report, as_json=as_json)
    if report.failed:
        sys.exit(1)


def _print_step(step: str) -> None:
    click.echo(f"ok: {step}")


def _create_issuer(
    url: str,
    username: str | None,
    *,
    password_stdin: bool,
    totp_secret: str | None,
    **options: Any,  # noqa: ANN401 - of an issuer
) -> SessionIssuer | BearerIssuer:
    from flowauth_rotator.agent.bearer import BearerIssuer
    from flowauth_rotator.agent.flowauth import SessionIssuer
    from flowauth_rotator.core.address import Address

    address = Address.parse(url, "--url")
    if username is None:
        if password_stdin or totp_secret:
            option = "--password-stdin" if password_stdin else "--totp-secret-file"
            raise click.UsageError(f"{option} needs --username.")
        return BearerIssuer(address, **options)
    if password_stdin:
        password = read_secret(sys.stdin.buffer, "--password-stdin")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, err=True)
    else:
        raise click.UsageError(
            "--username needs --password-stdin, or a terminal for the password prompt."
        )
    return SessionIssuer(address, username, password, totp_secret=totp_secret, **options)
