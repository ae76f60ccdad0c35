"""A sensor that waits until the token in a Variable is valid for long enough."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.errors import Misconfigured, RotatorError, wrap_unexpected_errors
from flowauth_rotator.core.tokens import read_unverified
from flowauth_rotator.provider.compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    Context,
    build_time_trigger,
    conf,
)
from flowauth_rotator.provider.stores import open_store
from flowauth_rotator.provider.variable_store import mask_token

if TYPE_CHECKING:
    from flowauth_rotator.agent.stores import TokenStore

# A worker of Airflow 3.3's LocalExecutor ends some 5 s after its task has deferred. If the task has
# resumed by then, Airflow mistakes the worker's end for the task's, and fails it.
SHORTEST_DEFERRAL = timedelta(seconds=15)


class FlowAPITokenSensor(BaseSensorOperator):
    """Wait until the remaining lifetime of the token in a Variable is at least `min_remaining`.

    While the token is missing or cannot be read, the sensor logs that and waits. A deferred sensor
    frees its worker between two pokes, for 15 s or longer; its trigger contains no token.

    :param min_remaining: the remaining lifetime to wait for, as a `timedelta` or in seconds.
    :param variable: key of the Variable that contains the token, or of the token in `store`.
    :param store: where the token is kept, as in `ManagedToken`; by default Airflow's database.
    :param deferrable: whether to defer between pokes; by default as Airflow's setting
        `[operators] default_deferrable` says.
    """

    template_fields: Sequence[str] = ("variable",)

    def __init__(
        self,
        *,
        min_remaining: float | timedelta,
        variable: str = "FLOWAPI_TOKEN",
        store: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseSensorOperator's
    ) -> None:
        super().__init__(**kwargs)
        self.min_remaining = min_remaining
        self.variable = variable
        self.store = store
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._min_remaining = _parse_duration(min_remaining)

    def poke(self, context: Context) -> bool:  # noqa: ARG002 - BaseSensorOperator's
        """Read the token, and return whether its remaining lifetime is long enough."""
        store = open_store(self.variable, self.store)
        try:
            expires_at = _read_expiry(store)
        except RotatorError as error:
            self.log.warning("%s: %s", store.place, error)
            return False
        remaining = expires_at - datetime.now(timezone.utc).replace(microsecond=0)
        self.log.info(
            "The token in %s expires at %s, in %s; required: %s.",
            *(
                store.place,
                format_time(expires_at),
                format_duration(max(remaining, timedelta(0))),
                format_duration(self._min_remaining),
            ),
        )
        return remaining >= self._min_remaining

    def execute(self, context: Context) -> Any:  # noqa: ANN401 - BaseSensorOperator's
        """Poke until the remaining lifetime is long enough."""
        if not self.deferrable:
            return super().execute(context)
        ends_at = datetime.now(timezone.utc) + timedelta(seconds=self.timeout)
        return self.poke_or_defer(context, None, ends_at.isoformat())

    def poke_or_defer(
        self,
        context: Context,
        event: object,  # noqa: ARG002 - the trigger's
        ends_at: str | None = None,
    ) -> None:
        """Poke, and defer until the next poke or the timeout.

        `ends_at` is the time of the timeout; `airflow dags test` drops it, which ends the wait.
        """
        if self.poke(context):
            return
        now = datetime.now(timezone.utc)
        end = datetime.fromisoformat(ends_at) if ends_at else now
        if now >= end:
            message = (
                f"After {self.timeout:g} s, the token of {self.variable} still does not "
                f"have a remaining lifetime of {format_duration(self._min_remaining)}."
            )
            raise (AirflowSkipException if self.soft_fail else AirflowSensorTimeout)(message)
        next_poke = min(now + timedelta(seconds=self.poke_interval), end)
        self.defer(
            trigger=build_time_trigger(max(next_poke, now + SHORTEST_DEFERRAL)),
            method_name="poke_or_defer",
            kwargs={"ends_at": ends_at},
        )


@wrap_unexpected_errors
def _read_expiry(store: TokenStore) -> datetime:
    token = store.read()
    mask_token(token)
    return read_unverified(token).expires_at


def _parse_duration(value: float | timedelta) -> timedelta:
    try:
        duration = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (TypeError, ValueError, OverflowError):
        duration = timedelta(0)
    if duration <= timedelta(0):
        raise Misconfigured(
            f"`min_remaining` is {value!r}.", hint="Use a `timedelta` or seconds, above 0."
        )
    return duration
