"""The DAG that keeps tokens alive: survey, rotate what is due, report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from flowauth_rotator.core.errors import Misconfigured, RotatorError, StoreUnavailable
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Report
from flowauth_rotator.provider.compat import (
    AirflowException,
    AirflowFailException,
    TriggerRule,
    dag,
    get_current_context,
    task,
)
from flowauth_rotator.provider.operator import RotateTokenOperator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ManagedToken:
    """A token that the DAG keeps alive; the fields are those of `RotateTokenOperator`.

    Raises:
        Misconfigured: a setting is out of its range.
    """

    variable: str = "FLOWAPI_TOKEN"
    name: str | None = None
    flowauth_conn_id: str = "flowauth_default"
    description: str | None = None
    renew_before: float | timedelta = RotationPolicy.renew_before
    critical_before: float | timedelta = RotationPolicy.critical_before
    lifetime_minutes: int | None = None

    def __post_init__(self) -> None:
        for setting in ("variable", "flowauth_conn_id", "name", "description"):
            value = getattr(self, setting)
            optional = setting in ("name", "description") and value is None
            if not optional and not (isinstance(value, str) and value):
                raise Misconfigured(f"`{setting}` is {value!r}.", advice="Give it a text.")
        self.policy  # noqa: B018 - a wrong setting is told where it is written

    @property
    def policy(self) -> RotationPolicy:
        """When this token is due."""
        return RotationPolicy(
            renew_before=self.renew_before,
            critical_before=self.critical_before,
            lifetime_minutes=self.lifetime_minutes,
        )


def rotation_dag(
    tokens: Sequence[ManagedToken] = (ManagedToken(),),
    *,
    dag_id: str = "flowauth_token_rotation",
    schedule: str | timedelta = "*/5 * * * *",
) -> Any:  # noqa: ANN401 - a DAG, of a class that differs between generations of Airflow
    """The DAG that checks `tokens` on `schedule` and rotates those that are due.

    Args:
        tokens: the tokens to keep alive; by default the one in the Variable FLOWAPI_TOKEN.
        dag_id: the DAG's id.
        schedule: how often to check: several times between due and expiry of any token.

    Raises:
        Misconfigured: `tokens` is no list of managed tokens, or names a Variable twice.
    """
    _check_tokens(tokens)

    @dag(
        dag_id=dag_id,
        description="Keeps FlowAPI tokens alive: survey, rotate what is due, report.",
        schedule=schedule,
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=1),
        default_args={
            "retries": 3,
            "retry_delay": timedelta(seconds=30),
            "execution_timeout": timedelta(minutes=15),
        },
        tags=["flowauth"],
        doc_md=__doc__,
    )
    def rotation() -> None:
        due = task(survey)(tokens)
        rotate = RotateTokenOperator.partial(
            task_id="rotate", map_index_template="{{ task.name or task.variable }}"
        ).expand_kwargs(due)
        rotate >> task(trigger_rule=TriggerRule.ALL_DONE, retries=0)(report)()

    return rotation()


def _check_tokens(tokens: Sequence[ManagedToken]) -> None:
    if not isinstance(tokens, (list, tuple)) or not all(
        isinstance(token, ManagedToken) for token in tokens
    ):
        raise Misconfigured(
            "`tokens` is no list of managed tokens.",
            advice='Write it as in rotation_dag([ManagedToken("FLOWAPI_TOKEN")]).',
        )
    variables = [token.variable for token in tokens]
    for variable in variables:
        if variables.count(variable) > 1:
            raise Misconfigured(
                f"Variable {variable} is managed twice.", advice="Leave one of the two out."
            )


def survey(tokens: Sequence[ManagedToken]) -> list[dict[str, Any]]:
    """Read and decide for all tokens; hand on those that are due, or that nobody can read.

    Pushes the reports of the healthy ones as XCom `healthy`.
    """
    from flowauth_rotator.agent.rotation import check
    from flowauth_rotator.provider.variable import VariableStore

    now = datetime.now(timezone.utc)
    due, healthy = [], []
    for token in tokens:
        store = VariableStore(token.variable)
        try:
            found = check(store, token.policy, now=now, name=token.name)
        except StoreUnavailable as error:
            raise AirflowException(str(error)) from None
        except RotatorError:
            due.append(asdict(token))  # its own task tells what is wrong with it, and turns red
        else:
            if found.decision.due:
                due.append(asdict(token) | {"name": found.report.name})
            else:
                healthy.append(found.report.to_json())
    get_current_context()["ti"].xcom_push(key="healthy", value=healthy)
    return due


def report() -> list[dict[str, Any]]:
    """Tell of every token what became of it; fail if a person should look at one."""
    ti = get_current_context()["ti"]
    due = ti.xcom_pull(task_ids="survey")
    if due is None:
        raise AirflowFailException("The survey failed: its log says why. No token was rotated.")
    documents = list(ti.xcom_pull(task_ids="survey", key="healthy"))
    lost = []
    for index, token in enumerate(due):
        document = ti.xcom_pull(task_ids="rotate", key="report", map_indexes=index)
        if document is None:
            lost.append(f"{token['name'] or token['variable']}: its task left no report.")
        else:
            documents.append(document)
    reports = [Report.from_json(document) for document in documents]
    for report in reports:
        logger.info("%s", report)
    if failed := lost + [str(report) for report in reports if report.failed]:
        raise AirflowFailException("\n".join(failed))
    return documents
