"""For `make test-lowest`: click 8.1's test runner keeps the streams apart, as that of 8.2 does.

The tests read `stderr` apart from `stdout`, and both in `output`. click 8.1, which the constraints
of Airflow 2.10 pin, has this with an option that 8.2 no longer takes.
"""

from functools import partialmethod

import click.testing

click.testing.CliRunner.__init__ = partialmethod(click.testing.CliRunner.__init__, mix_stderr=False)
click.testing.Result.output = property(lambda result: result.stdout + result.stderr)
