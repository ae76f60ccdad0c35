"""Waits until the token in a Variable lives long enough for what is to be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.errors import Misconfigured, RotatorError
from flowauth_rotator.core.tokens import read_unverified
from flowauth_rotator.provider.compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    Context,
    conf,
    trigger_at,
)
from flowauth_rotator.provider.variable_store import VariableStore, mask

# Airflow 3.3's LocalExecutor takes the end of a worker, some 5 s after a task has deferred, for the
# end of the task itself if that has come back in the meantime, and fails it.
SHORTEST_DEFERRAL = timedelta(seconds=15)


class FlowAPITokenSensor(BaseSensorOperator):
    """Wait until the token in a Variable will outlive `min_remaining`.

    A token that is missing or cannot be read is told of and waited for. Deferred, it gives its
    worker back between two looks, for 15 s or longer; what waits then knows a time and no token.

    :param min_remaining: how long the token must live on, as a `timedelta` or in seconds.
    :param variable: key of the Variable that holds the token.
    :param deferrable: whether to defer; Airflow's `[operators] default_deferrable` by default.
    """

    template_fields: Sequence[str] = ("variable",)

    def __init__(
        self,
        *,
        min_remaining: float | timedelta,
        variable: str = "FLOWAPI_TOKEN",
        deferrable: bool | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseSensorOperator's
    ) -> None:
        super().__init__(**kwargs)
        self.min_remaining = min_remaining
        self.variable = variable
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._wanted = _checked_duration(min_remaining)

    def poke(self, context: Context) -> bool:  # noqa: ARG002 - BaseSensorOperator's
        """Look once, and say until when the token lives."""
        store = VariableStore(self.variable)
        try:
            token = store.read()
            mask(token)
            expires_at = read_unverified(token).expires_at
        except RotatorError as error:
            self.log.warning("%s: %s", store.place, error)
            return False
        left = expires_at - datetime.now(timezone.utc).replace(microsecond=0)
        self.log.info(
            "The token in %s lives until %s, for %s; wanted: %s.",
            *(store.place, format_time(expires_at), max(left, timedelta(0)), self._wanted),
        )
        return left >= self._wanted

    def execute(self, context: Context) -> Any:  # noqa: ANN401 - BaseSensorOperator's
        """Look until the token lives long enough."""
        if not self.deferrable:
            return super().execute(context)
        until = datetime.now(timezone.utc) + timedelta(seconds=self.timeout)
        return self.look_again(context, None, until.isoformat())

    def look_again(
        self,
        context: Context,
        event: object,  # noqa: ARG002 - the trigger's
        until: str | None = None,
    ) -> None:
        """Look once more, and defer unless it is enough.

        `until` is when the waiting ends; `airflow dags test` drops it, and then it ends now.
        """
        if self.poke(context):
            return
        now = datetime.now(timezone.utc)
        end = datetime.fromisoformat(until) if until else now
        if now >= end:
            sentence = f"Waited {self.timeout:g} s for the token in Variable {self.variable}."
            raise (AirflowSkipException if self.soft_fail else AirflowSensorTimeout)(sentence)
        next_look = min(now + timedelta(seconds=self.poke_interval), end)
        self.defer(
            trigger=trigger_at(max(next_look, now + SHORTEST_DEFERRAL)),
            method_name="look_again",
            kwargs={"until": until},
        )


def _checked_duration(given: float | timedelta) -> timedelta:
    try:
        duration = given if isinstance(given, timedelta) else timedelta(seconds=given)
    except (TypeError, ValueError, OverflowError):
        duration = timedelta(0)
    if duration <= timedelta(0):
        raise Misconfigured(
            f"`min_remaining` is {given!r}.", advice="Use a duration, or seconds, above 0."
        )
    return duration
