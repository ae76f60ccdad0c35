"""`flowauth-rotator check`: the states of tokens and agent, for a monitoring system."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from flowauth_rotator.cli.options import (
    FractionOrDuration,
    airflow,
    renew_before,
    scrape_token_file,
    secret_of,
)

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.assessment import Thresholds
    from flowauth_rotator.monitoring.snapshot import Snapshot

FORMATS = ("nagios", "checkmk", "prometheus", "json")
UNKNOWN = 3  # the exit code by which a plugin of Nagios says that it could not find out


class _Check(click.Command):
    """Answers a wrong call, too, in the words of the monitoring system that made it."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's
    ) -> click.Context:
        """Parse the arguments."""
        given = list(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            form = _format_of(given)
            if form in ("nagios", "checkmk"):
                alone = any(it.startswith("--issuer") for it in given) and not any(
                    it.startswith("--airflow") for it in given
                )
                _end_with(form, f"Wrong call: {error.format_message()}", issuer_alone=alone)
            raise


@click.command(cls=_Check, short_help="Tell a monitoring system how the tokens are.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="nagios",
    show_default=True,
    help="Whose reading to print.",
)
@airflow
@scrape_token_file
@click.option("--issuer", metavar="URL", help="Ask FlowAuth or the renewal server, too, or alone.")
@click.option("--username", help="Owner of the tokens at the issuer.")
@click.option(
    "--password-file",
    type=click.File("rb"),
    help="First line: their password; - reads standard input.",
)
@click.option(
    "--name", "names", multiple=True, help="A token to look at; repeat it for more.  [default: all]"
)
@click.option("--agent", is_flag=True, help="Look at the DAGs that renew, and at no token.")
@click.option(
    "--warning",
    type=FractionOrDuration(),
    default="0.6",
    show_default=True,
    help="Remaining lifetime: a fraction of the time from due to expiry, or a duration like 2d.",
)
@click.option(
    "--critical", type=FractionOrDuration(), default="0.3", show_default=True, help="Likewise."
)
@renew_before
def check(
    *,
    form: str,
    airflow: str | None,
    scrape_token_file: IO[bytes] | None,
    issuer: str | None,
    username: str | None,
    password_file: IO[bytes] | None,
    names: Sequence[str],
    agent: bool,
    warning: float | timedelta,
    critical: float | timedelta,
    renew_before: float | timedelta,
) -> None:
    """Say how the tokens in use are, how the newest at their issuer are, or both.

    Tokens in use are in Airflow's Variables: run it where Airflow runs, or name an Airflow
    elsewhere. Asked both, it also tells of tokens that were renewed and are not in use. The renewal
    of tokens in use is due as Airflow has it; --renew-before is for an issuer that is asked alone.

    In the format nagios the exit code is 0, 1, 2, or 3 if it cannot know; in checkmk always 0.

    \b
    Examples:
      flowauth-rotator check --name "etl main"
      flowauth-rotator check --airflow https://airflow.example.org \\
          --scrape-token-file scrape.token --format checkmk
      flowauth-rotator check --issuer https://flowauth.example.org \\
          --username flowbot --password-file password.txt
    """  # noqa: D301 - \b is click's, for text to be left as it is
    if sys.stdout is None:  # closed: whatever is opened next takes its place
        sys.exit(UNKNOWN)
    try:
        from flowauth_rotator.monitoring.assessment import Thresholds

        snapshot = _found(airflow, scrape_token_file, issuer, username, password_file, renew_before)
        text, code = _read(snapshot, Thresholds(warning, critical), form, names, agent=agent)
    except BaseException as error:  # noqa: BLE001 - its 1 would be a warning, a library's exit OK
        _end_with(form, _sentence(error), names, issuer_alone=bool(issuer and not airflow))
    _end(text, code)


def _found(
    airflow: str | None,
    scrape_token_file: IO[bytes] | None,
    issuer: str | None,
    username: str | None,
    password_file: IO[bytes] | None,
    renew_before: float | timedelta,
) -> Snapshot:
    from flowauth_rotator.cli import sources
    from flowauth_rotator.core.errors import IssuerError
    from flowauth_rotator.core.policy import RotationPolicy

    now = datetime.now(timezone.utc)
    if (username or password_file) and not issuer:
        raise click.UsageError("--username and --password-file need --issuer.")
    if not issuer:
        return in_airflow(airflow or "here", scrape_token_file, now)
    in_use = in_airflow(airflow, scrape_token_file, now) if airflow else None
    if not (username and password_file):
        raise click.UsageError("--issuer needs --username and --password-file.")
    policy = RotationPolicy(renew_before=renew_before)
    try:
        issued = sources.issuer_list(issuer, username, secret_of(password_file), policy, now)
    except IssuerError as error:
        if in_use is None:
            raise
        return replace(in_use, issuer=issuer, issuer_trouble=error.reason)
    return in_use.with_issued(issued) if in_use else issued


def in_airflow(airflow: str, scrape_token_file: IO[bytes] | None, now: datetime) -> Snapshot:
    """What the Airflow here or elsewhere says.

    Raises:
        click.UsageError: one elsewhere needs a scrape token.
        RotatorError: it does not say.
    """
    from flowauth_rotator.cli import sources

    if airflow == "here":
        if scrape_token_file:
            raise click.UsageError("--scrape-token-file needs the address of an Airflow.")
        return sources.airflow_here(now)
    if scrape_token_file is None:
        raise click.UsageError("An Airflow elsewhere needs --scrape-token-file.")
    return sources.airflow_at(airflow, secret_of(scrape_token_file))


def _read(
    snapshot: Snapshot, thresholds: Thresholds, form: str, names: Sequence[str], *, agent: bool
) -> tuple[str, int]:
    """The text to print and the exit code."""
    from flowauth_rotator.monitoring import checkmk, json_output, nagios, prometheus
    from flowauth_rotator.monitoring.assessment import assess

    if agent and snapshot.agents is None:
        raise click.UsageError("--agent needs --airflow: an issuer knows of no DAG.")
    if names or agent:
        snapshot = snapshot.named(names)
    if form == "prometheus":
        return prometheus.exposition(snapshot).decode(), 0
    assessment = assess(snapshot, thresholds)
    if form == "json":
        return f"{json.dumps(json_output.document(assessment))}\n", 0
    if form == "checkmk":
        return checkmk.reading(assessment), 0
    if names and not agent:
        assessment = replace(assessment, agent=None)
    return nagios.reading(assessment), int(assessment.state)


def _sentence(error: BaseException) -> str:
    """What to say of an error; of one that nobody foresaw its class, since it may hold a secret."""
    from flowauth_rotator.core.errors import RotatorError

    if isinstance(error, click.ClickException):
        return f"Wrong call: {error.format_message()}"
    if isinstance(error, RotatorError):
        return str(error)
    return f"The check itself failed: {type(error).__name__}."


def _format_of(arguments: Sequence[str]) -> str:
    """The format that a call asks for which cannot be parsed."""
    for at, word in enumerate(arguments):
        name, _, value = word.partition("=")
        if name == "--format":
            return value or next(iter(arguments[at + 1 :]), "")
    return FORMATS[0]


def _end_with(
    form: str, sentence: str, names: Sequence[str] = (), *, issuer_alone: bool = False
) -> NoReturn:
    """Say that nothing could be found out, as the format has it."""
    from flowauth_rotator.monitoring import checkmk, nagios

    if form == "nagios":
        _end(nagios.failure(sentence), UNKNOWN)
    if form == "checkmk":
        service = checkmk.ISSUER if issuer_alone else checkmk.AGENT
        _end(checkmk.failure(sentence, names, service=service), 0)
    raise click.ClickException(sentence)


def _end(text: str, code: int) -> NoReturn:
    """Print, and end; what cannot be printed is not known, since no output and 0 would be OK."""
    try:
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        code = UNKNOWN
    sys.exit(code)
