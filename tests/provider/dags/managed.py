"""The tokens that the Variable flowauth_rotator_tokens lists, in an Airflow DAG."""

from datetime import timedelta

from flowauth_rotator.provider import rotation_dag

rotation_dag(dag_id="managed", schedule=timedelta(minutes=1))
