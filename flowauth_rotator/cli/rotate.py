"""`flowauth-rotator rotate`: renew the token in a file."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowauth_rotator.cli.file_report import print_report, report_errors
from flowauth_rotator.cli.options import as_json, renew_before

if TYPE_CHECKING:
    from flowauth_rotator.agent.bearer import BearerIssuer
    from flowauth_rotator.agent.flowauth import SessionIssuer


@click.command(short_help="Renew a token, if it is due.")
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
@report_errors
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
            print_report(found.report, state=found.decision.state, as_json=as_json)
            return
        report = rotation.rotate(store, issuer, policy, now=now, public_key=lambda: key)
    print_report(report, as_json=as_json)
    if report.failed:
        sys.exit(1)


def _issuer(
    url: str, username: str | None, *, password_stdin: bool
) -> SessionIssuer | BearerIssuer:
    from flowauth_rotator.agent.bearer import BearerIssuer
    from flowauth_rotator.agent.flowauth import SessionIssuer

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
