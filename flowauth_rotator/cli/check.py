"""`flowauth-rotator check`: report tokens and rotation DAGs to a monitoring system."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from flowauth_rotator.cli.options import (
    FractionOrDuration,
    airflow,
    ca_file,
    name_options,
    read_secret,
    renew_before,
    scrape_token_file,
    totp_secret_file,
)
from flowauth_rotator.cli.terminal import show_status
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.plugin_codes import PLUGIN_CODES

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.status import StatusDocument

FORMATS = ("nagios", "checkmk", "prometheus", "json")
UNKNOWN = PLUGIN_CODES[Severity.UNKNOWN]  # the exit code of a check that failed itself


@dataclass(frozen=True)
class CheckOptions:
    """The options of one call of `check`, in the order of its help."""

    output_format: str
    airflow: str | None
    scrape_token_file: IO[bytes] | None
    issuer: str | None
    username: str | None
    password_file: IO[bytes] | None
    totp_secret_file: IO[bytes] | None
    names: Sequence[str]
    agent: bool
    warning: float | timedelta
    critical: float | timedelta
    renew_before: float | timedelta
    ca_file: str | None
    timeout: int
    verbose: bool

    @property
    def request_options(self) -> dict[str, Any]:
        """The options of each request; its timeout leaves time for a second one."""
        return {"verify": self.ca_file or True, "timeout": max(20.0, 0.4 * self.timeout)}

    @property
    def only_issuer(self) -> bool:
        """Whether the issuer is queried without an Airflow."""
        return bool(self.issuer and not self.airflow)


class _CheckCommand(click.Command):
    """A command that prints usage errors, too, in the format of the monitoring system."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's
    ) -> click.Context:
        """Parse the arguments.

        By the convention of plugins, help and version are UNKNOWN: a service that runs them by
        mistake is not OK.
        """
        arguments = list(args)  # click consumes the list
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.exceptions.Exit:
            raise click.exceptions.Exit(UNKNOWN) from None
        except click.ClickException as error:
            output_format = _find_format(arguments)
            if output_format in ("nagios", "checkmk"):
                only_issuer = _has_option(arguments, "--issuer") and not _has_option(
                    arguments, "--airflow"
                )
                _exit_with_failure(output_format, _describe(error), only_issuer=only_issuer)
            raise


@click.command(cls=_CheckCommand, short_help="Check the tokens for a monitoring system.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(FORMATS),
    default="nagios",
    show_default=True,
    help="Output format.",
)
@airflow
@scrape_token_file
@click.option("--issuer", metavar="URL", help="URL of FlowAuth or of the renewal server to query.")
@click.option("--username", help="Owner of the tokens at the issuer.")
@click.option(
    "--password-file",
    type=click.File("rb"),
    help="File containing the owner's password, or - for stdin.",
)
@totp_secret_file
@click.option(
    "--name", "names", multiple=True, help="Name of a token to check; repeatable.  [default: all]"
)
@click.option("--agent", is_flag=True, help="Check the rotation DAGs only, without tokens.")
@click.option(
    *("--warning", "-w"),
    type=FractionOrDuration(),
    default="0.6",
    show_default=True,
    help="Remaining lifetime below which a token is a warning: a fraction of the time from due to "
    "expiry, or a duration like 2d.",
)
@click.option(
    *("--critical", "-c"),
    type=FractionOrDuration(),
    default="0.3",
    show_default=True,
    help="Remaining lifetime below which a token is critical, like --warning.",
)
@renew_before
@ca_file
@click.option(
    *("--timeout", "-t"),
    type=click.IntRange(1, 3600),
    metavar="SECONDS",
    default=50,
    show_default=True,
    help="Seconds after which the check ends as UNKNOWN.",
)
@click.option(
    *("--verbose", "-v"),
    is_flag=True,
    help="Also print the requests, and the place of an internal error, on standard error.",
)
@click.version_option(None, "--version", "-V", package_name="flowauth-rotator")
def check(**arguments: Any) -> None:  # noqa: ANN401 - the fields of CheckOptions
    """Check the tokens in use in Airflow, the newest tokens at their issuer, or both.

    Tokens in use are in Airflow's Variables. By default the command queries the Airflow of this
    environment, with --airflow URL a remote one, and with --issuer alone no Airflow. With both, a
    token that was renewed and is not in use is a warning. --renew-before applies to --issuer
    alone; in Airflow each token has its own setting.

    With the format nagios, the exit code is 0 (OK), 1 (WARNING), 2 (CRITICAL) or 3 (UNKNOWN, or the
    check itself failed); with checkmk it is always 0. For a check each minute use --airflow URL:
    the Airflow of this environment takes seconds to load.

    \b
    Examples:
      flowauth-rotator check --name "etl main"
      flowauth-rotator check --airflow https://airflow.example.org \\
          --scrape-token-file scrape.token --format checkmk
      flowauth-rotator check --issuer https://flowauth.example.org \\
          --username flowbot --password-file password.txt
    """  # noqa: D301 - \b is click's, for text to be left as it is
    if sys.stdout is None:  # closed: the next file that is opened would take its descriptor
        sys.exit(UNKNOWN)
    options, now = CheckOptions(**arguments), datetime.now(timezone.utc)
    if options.verbose:
        _log_requests()
    try:
        with _limit_time(options.timeout):
            text, code = _render(options, _read_document(options, now), now)
    except BaseException as error:  # noqa: BLE001 - exit code 1 would be a warning, and 0 OK
        if options.verbose and _is_internal(error):
            for line in traceback.format_tb(error.__traceback__):  # without the text of the error
                click.echo(line.rstrip(), err=True)
        _exit_with_failure(
            options.output_format,
            _describe(error),
            options.names,
            only_issuer=options.only_issuer,
        )
    _exit(text, code)


def _read_document(options: CheckOptions, now: datetime) -> StatusDocument:
    from flowauth_rotator.cli import sources
    from flowauth_rotator.core.errors import IssuerError
    from flowauth_rotator.core.policy import RotationPolicy

    if not options.issuer:
        if options.username or options.password_file or options.totp_secret_file:
            raise click.UsageError(
                "--username, --password-file and --totp-secret-file need --issuer."
            )
        return read_airflow(
            options.airflow or "here", options.scrape_token_file, now, **options.request_options
        )
    in_use = None
    if options.airflow:
        in_use = read_airflow(
            options.airflow, options.scrape_token_file, now, **options.request_options
        )
    if not (options.username and options.password_file):
        raise click.UsageError("--issuer needs --username and --password-file.")
    policy = RotationPolicy(renew_before=options.renew_before)
    password = read_secret(options.password_file, "--password-file")
    codes = options.totp_secret_file
    totp_secret = read_secret(codes, "--totp-secret-file") if codes else None
    try:
        with show_status("Querying the issuer ..."):
            issued = sources.list_issued_tokens(
                *(options.issuer, options.username, password, policy, now),
                totp_secret=totp_secret,
                **options.request_options,
            )
    except IssuerError as error:
        if in_use is None:
            raise
        return replace(in_use, issuer=options.issuer, issuer_failure=error.message)
    return in_use.with_issued(issued) if in_use else issued


def read_airflow(
    airflow: str,
    scrape_token_file: IO[bytes] | None,
    now: datetime,
    **options: Any,  # noqa: ANN401 - of `HttpClient`
) -> StatusDocument:
    """Read the status document of the local or of a remote Airflow.

    Args:
        airflow: `here`, or the URL of Airflow.
        scrape_token_file: contains the scrape token of the Airflow at that URL.
        now: an aware time.
        options: those of `HttpClient` for a remote Airflow.

    Raises:
        click.UsageError: a URL without a scrape token, or a scrape token without a URL.
        RotatorError: Airflow cannot be read.
    """
    from flowauth_rotator.cli import sources

    if airflow == "here":
        if scrape_token_file:
            raise click.UsageError("--scrape-token-file needs --airflow with the URL of Airflow.")
        with show_status("Querying the Airflow of this environment ..."):
            return sources.read_local_airflow(now)
    if scrape_token_file is None:
        raise click.UsageError("--airflow with a URL needs --scrape-token-file.")
    scrape_token = read_secret(scrape_token_file, "--scrape-token-file")
    with show_status("Querying the remote Airflow ..."):
        return sources.fetch_remote_airflow(airflow, scrape_token, **options)


def _render(options: CheckOptions, document: StatusDocument, now: datetime) -> tuple[str, int]:
    """Return the text to print and the exit code."""
    from flowauth_rotator.monitoring import checkmk, json_output, nagios, prometheus
    from flowauth_rotator.monitoring.assessment import assess
    from flowauth_rotator.monitoring.thresholds import Thresholds

    if options.agent and document.dags is None:
        raise click.UsageError("--agent needs --airflow: an issuer has no rotation DAGs.")
    if options.names or options.agent:
        document = document.select(options.names, now)
    assessment = assess(document, now, Thresholds(options.warning, options.critical))
    if options.output_format == "prometheus":
        return prometheus.render(assessment).decode(), 0
    if options.output_format == "json":
        return f"{json.dumps(json_output.render(assessment))}\n", 0
    if options.output_format == "checkmk":
        return checkmk.render(assessment), 0
    if options.names and not options.agent:
        assessment = replace(assessment, dags=None)
    return nagios.render(assessment), PLUGIN_CODES[assessment.severity]


def _is_internal(error: BaseException) -> bool:
    from flowauth_rotator.core.errors import RotatorError

    return not isinstance(error, (click.ClickException, RotatorError))


def _describe(error: BaseException) -> str:
    """Describe an error; an unexpected one by its class alone, since its text may hold a secret."""
    from flowauth_rotator.core.errors import RotatorError

    if isinstance(error, click.ClickException):
        return f"Usage error: {error.format_message()}"
    if isinstance(error, RotatorError):
        return name_options(str(error), input_option="--password-file")
    if isinstance(error, _TimeoutReached):
        return f"The check did not end within {error.seconds} s. Set a longer --timeout."
    return f"The check failed with an internal error: {type(error).__name__}."


class _TimeoutReached(BaseException):
    """The check took too long; not an `Exception`, which a library may handle."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds


@contextmanager
def _limit_time(seconds: int) -> Iterator[None]:
    """Raise `_TimeoutReached` in the block after a number of seconds."""

    def stop(*_: object) -> NoReturn:
        raise _TimeoutReached(seconds)

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _log_requests() -> None:
    """Log method, path and status of each request on standard error, without headers."""
    logger = logging.getLogger("urllib3")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.DEBUG)


def _find_format(arguments: Sequence[str]) -> str:
    """Find the output format in arguments that cannot be parsed."""
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--format":
            return value or next(iter(arguments[position + 1 :]), "")
    return FORMATS[0]


def _has_option(arguments: Sequence[str], option: str) -> bool:
    return any(argument.startswith(option) for argument in arguments)


def _exit_with_failure(
    output_format: str, message: str, names: Sequence[str] = (), *, only_issuer: bool
) -> NoReturn:
    """Print that the check itself failed, in the output format."""
    from flowauth_rotator.monitoring import checkmk, nagios

    if output_format == "nagios":
        _exit(nagios.render_failure(message), UNKNOWN)
    if output_format == "checkmk":
        service = checkmk.ISSUER_SERVICE if only_issuer else checkmk.DAGS_SERVICE
        _exit(checkmk.render_failure(message, names, service=service), 0)
    raise click.ClickException(message)


def _exit(text: str, code: int) -> NoReturn:
    """Print and exit; UNKNOWN if the text cannot be printed, since no output and 0 would be OK."""
    try:
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        code = UNKNOWN
    sys.exit(code)
