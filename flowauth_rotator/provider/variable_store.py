"""The Airflow Variable as a store of a token."""

from __future__ import annotations

from flowauth_rotator.core.errors import MissingToken, ShadowedStore
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider import compat


def mask_token(token: Token) -> None:
    """Have Airflow mask the token and each of its segments, which may appear alone, in logs."""
    text = token.reveal()
    compat.mask_secret([text, *filter(None, text.split("."))])


def format_place(key: str) -> str:
    """Return the place of a report for the Variable with this key."""
    return f"Variable {key}"


def parse_value(key: str, value: str | None) -> Token:
    """Return the token in the value of a Variable, without white space around it.

    The value is None if the Variable does not exist.

    Raises:
        MissingToken: the Variable does not exist or is blank.
    """
    if not value or not value.strip():
        problem = "does not exist" if value is None else "is empty"
        raise MissingToken(f"{format_place(key)} {problem}.")
    return Token.strip(value)


class VariableStore:
    """The Airflow Variable with this key, read and written inside a task."""

    def __init__(self, key: str) -> None:
        self.key = self.name = key
        self.place = format_place(key)

    def read(self) -> Token:
        """Read the Variable as this worker sees it."""
        value = compat.read_variable(self.key)
        if value is None and not compat.lists_every_variable():
            raise MissingToken(
                f"{self.place} does not exist, or the team of this DAG cannot read it.",
                hint="Store a FlowAPI token there. A Variable of another team, and one that "
                "Airflow cannot decrypt, look the same to this task.",
            )
        return parse_value(self.key, value)

    def preflight(self) -> None:
        """Check that readers find the key in Airflow's database and not somewhere else first.

        If Airflow does not say whether its database has the key, the Variable passes: the read
        after the write decides.
        """
        backend = compat.find_shadowing_backend(self.key)
        if backend == "EnvironmentVariablesBackend":
            raise ShadowedStore(
                f"{self.place} is set in the worker's environment, so a write has no effect.",
                hint=f"Remove AIRFLOW_VAR_{self.key.upper()} from the environment.",
            )
        if backend:
            raise ShadowedStore(
                f"{self.place} is set in the secrets backend {backend}, so a write has no effect.",
                hint=f"Remove {self.key} from that backend, and store it as a Variable in "
                "Airflow's database.",
            )
        if compat.is_stored(self.key) is False:
            raise ShadowedStore(
                f"{self.place} is not in Airflow's database: the API server reads it from its "
                "environment or a secrets backend, so a write has no effect.",
                hint=f"Remove {self.key} there, and store it as a Variable in the database.",
            )

    def write(self, token: Token, description: str) -> None:
        """Write the Variable; Airflow would clear a description that is not written again."""
        compat.write_variable(self.key, token.reveal(), description)
