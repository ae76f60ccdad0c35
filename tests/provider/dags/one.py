"""The operator alone in an Airflow DAG, retried at once."""

from datetime import datetime, timedelta, timezone

from airflow import DAG

from flowauth_rotator.provider import RotateTokenOperator
from flowauth_rotator.provider.compat import Variable, redact


class Redacting(RotateTokenOperator):
    """Answers what Airflow's masker leaves of the old token and of the new one, in pieces."""

    def execute(self, context):
        pieces = Variable.get(self.variable).split(".")
        before = [redact(piece) == piece for piece in pieces]
        super().execute(context)
        pieces += Variable.get(self.variable).split(".")
        return {"before": before, "after": [redact(f"log: {piece}!") for piece in pieces]}


with DAG("one", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
    Redacting(
        task_id="rotate",
        variable="{{ dag_run.conf['variable'] }}",
        flowauth_conn_id="{{ dag_run.conf['connection'] }}",
        renew_before=timedelta(minutes=20),
        retries=1,
        retry_delay=timedelta(0),
    )

with DAG("careless", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
    RotateTokenOperator(task_id="rotate", variable="ONE", also_variables="TWO")

with DAG("hasty", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
    RotateTokenOperator(
        task_id="rotate",
        variable="ONE",
        flowauth_conn_id="{{ dag_run.conf['connection'] }}",
        execution_timeout=timedelta(seconds=5),
        renew_before=timedelta(minutes=20),
    )
