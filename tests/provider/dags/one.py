"""The operator alone in an Airflow DAG, retried at once."""

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from flowauth_rotator.provider import RotateTokenOperator

with DAG("one", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
    RotateTokenOperator(
        task_id="rotate",
        variable="{{ dag_run.conf['variable'] }}",
        flowauth_conn_id="{{ dag_run.conf['connection'] }}",
        renew_before=timedelta(minutes=20),
        retries=1,
        retry_delay=timedelta(0),
    )
