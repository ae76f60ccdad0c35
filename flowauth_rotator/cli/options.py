"""Options that several commands have."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import IO, Any

import click

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Share(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """A fraction like 1/3 or 0.25, or a duration like 8h."""

    name = "share"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float | timedelta:
        """A fraction like 1/3 or 0.25, or a duration like 8h."""
        if fraction := re.fullmatch(r"(\d{1,9})/([1-9]\d{0,8})", value):
            return int(fraction[1]) / int(fraction[2])
        if duration := re.fullmatch(r"(\d{1,6})([smhdw])", value):
            return timedelta(**{UNITS[duration[2]]: int(duration[1])})
        try:
            return float(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a fraction like 1/3 nor a duration like 8h.", param, ctx
            )


class Address(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """The address of an Airflow, or `here`."""

    name = "here|url"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """The value, if it is one of these."""
        if value != "here" and not re.match("https?://", value):
            sentence = (
                f"{value!r} is neither `here` nor an address like https://airflow.example.org."
            )
            self.fail(sentence, param, ctx)
        return str(value)


renew_before = click.option(
    "--renew-before",
    type=Share(),
    default="1/3",
    show_default=True,
    help="Remaining lifetime at which to renew: a fraction, or a duration like 8h.",
)
airflow = click.option(
    "--airflow",
    type=Address(),
    help="Ask the Airflow in whose environment this runs (here), or one elsewhere.",
)
scrape_token_file = click.option(
    "--scrape-token-file",
    type=click.File("rb"),
    help="First line: the scrape token of an Airflow elsewhere; - reads standard input.",
)


def secret_of(file: IO[bytes]) -> str:
    """The first line of a file that holds a secret."""
    return file.readline().decode("utf-8", "replace").rstrip("\r\n")
