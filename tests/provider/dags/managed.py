"""The tokens that the Variable flowauth_rotator_tokens lists, in an Airflow DAG."""

from datetime import timedelta

from flowauth_rotator.provider import rotation_dag

managed = rotation_dag(dag_id="managed", schedule=timedelta(minutes=1))
for task in managed.tasks:
    task.retry_delay = timedelta(0)  # tests need not wait between two attempts
