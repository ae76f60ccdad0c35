"""The Airflow DAG of `make up`, whose token lives for half an hour: it needs more checks."""

from flowauth_rotator.provider import rotation_dag

dag = rotation_dag(schedule="* * * * *")
