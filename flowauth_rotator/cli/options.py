"""Options that several commands have."""

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
        """Parse the text of the option."""
        from flowauth_rotator.core.durations import parse_fraction_or_duration

        try:
            return parse_fraction_or_duration(value)
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
    type=FractionOrDuration(),
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


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def secret_of(file: IO[bytes]) -> str:
    """The first line of a file that holds a secret."""
    return file.readline().decode("utf-8", "replace").rstrip("\r\n")
