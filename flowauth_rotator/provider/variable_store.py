"""The Airflow Variable as a place that holds a token."""

from __future__ import annotations

from flowauth_rotator.core.errors import MissingToken, ShadowedStore
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider import compat


def mask(token: Token) -> None:
    """Tell Airflow's log masker the token and each of its segments, which may also appear alone."""
    text = token.reveal()
    compat.mask_secret([text, *filter(None, text.split("."))])


def place_of(key: str) -> str:
    """What reports call the Variable of this key."""
    return f"Variable {key}"


def key_of(place: str) -> str:
    """The key of the Variable that a report calls so."""
    return place.removeprefix(place_of(""))


def token_in(key: str, value: str | None) -> Token:
    """The token that the Variable of this key holds, whose value this is.

    Raises:
        MissingToken: there is no Variable, or nothing in it.
    """
    if not value or not value.strip():
        what = "There is no" if value is None else "Nothing is stored in"
        raise MissingToken(f"{what} {place_of(key)}.")
    return Token(value)


class VariableStore:
    """The Airflow Variable of this key, read and written inside a task."""

    def __init__(self, key: str) -> None:
        self.key = self.name = key
        self.place = place_of(key)

    def read(self) -> Token:
        """The Variable as this worker sees it."""
        return token_in(self.key, compat.read_variable(self.key))

    def preflight(self) -> None:
        """Check that nothing answers for the key before Airflow's database does."""
        backend = compat.hiding_backend(self.key)
        if backend == "EnvironmentVariablesBackend":
            raise ShadowedStore(
                f"{self.place} is set in the environment of the worker, which hides any write.",
                advice=f"Remove AIRFLOW_VAR_{self.key.upper()} from the environment.",
            )
        if backend:
            raise ShadowedStore(
                f"{self.place} comes from the secrets backend {backend}, which hides any write.",
                advice=f"Remove {self.key} there, so that Airflow's database holds it.",
            )
        if not compat.is_stored(self.key):
            raise ShadowedStore(
                f"{self.place} is not in Airflow's database: the API server reads it elsewhere.",
                advice=f"Remove {self.key} from the environment or secrets backend of the API "
                "server, and store it as a Variable.",
            )

    def write(self, token: Token, description: str) -> None:
        """Write the Variable; a write without a description would wipe the one that is there."""
        compat.write_variable(self.key, token.reveal(), description)
