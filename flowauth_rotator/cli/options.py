"""Options that several commands share."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import IO, Any

import click


class FractionOrDuration(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """A fraction like 1/3 or 0.25, or a duration like 8h."""

    name = "fraction|duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float | timedelta:
        """Parse the value of the option."""
        from flowauth_rotator.core.durations import parse_fraction_or_duration

        try:
            return parse_fraction_or_duration(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a fraction like 1/3 nor a duration like 8h.", param, ctx
            )


class AirflowAddress(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """The URL of an Airflow, or `here`."""

    name = "here|url"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """Check the value of the option."""
        if value != "here" and not re.match("https?://", value):
            self.fail(
                "The value is neither `here` nor a URL like https://airflow.example.org.",
                param,
                ctx,
            )
        return str(value)


renew_before = click.option(
    "--renew-before",
    type=FractionOrDuration(),
    default="1/3",
    show_default=True,
    help="Remaining lifetime at which renewal is due: a fraction, or a duration like 8h.",
)
airflow = click.option(
    "--airflow",
    type=AirflowAddress(),
    help="Airflow to query: `here` for the Airflow of this environment, or its URL.",
)
scrape_token_file = click.option(
    "--scrape-token-file",
    type=click.File("rb"),
    help="File containing the scrape token of the Airflow at that URL, or - for stdin.",
)
totp_secret_file = click.option(
    "--totp-secret-file",
    type=click.File("rb"),
    help="File containing the base32 secret of the owner's two-factor codes.",
)
ca_file = click.option(
    "--ca-file",
    type=click.Path(exists=True),
    help="File or folder of the certificates to trust (PEM).  [default: those of requests]",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON (times in epoch seconds)."
)


def read_secret(file: IO[bytes], option: str) -> str:
    """Read the secret in the first line of the input of an option.

    Raises:
        click.UsageError: the line is empty, or not UTF-8.
    """
    from flowauth_rotator.core.text import decode_secret

    try:
        secret = decode_secret(file.readline())
    except ValueError as error:
        raise click.UsageError(f"The input of {option} {error}") from None
    if not secret:
        raise click.UsageError(
            f"The input of {option} has an empty first line, where the secret belongs."
        )
    return secret


def name_options(message: str, *, input_option: str = "--password-stdin") -> str:
    """Replace setting names in a message of the library by what the command line offers.

    Args:
        message: the message, with names like `verify` in backticks.
        input_option: the option by which the command reads the password.
    """
    options = {
        "login": "--username",
        "password": input_option,
        "totp_secret": "--totp-secret-file",
        "verify": "--ca-file",
    }
    names = "|".join((*options, "renew_before|lifetime_minutes|warning|critical|timeout"))
    return re.sub(
        f"`({names})`",
        lambda match: options.get(match[1]) or f"--{match[1].replace('_', '-')}",
        message,
    )
