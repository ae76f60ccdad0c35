"""A sensor alone, in an Airflow DAG."""

from datetime import datetime, timezone

from airflow import DAG

from flowauth_rotator.provider import FlowAPITokenSensor

for mode in ("poke", "deferred"):
    with DAG(f"waits_{mode}", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
        FlowAPITokenSensor(
            task_id="wait",
            variable="{{ dag_run.conf['variable'] }}",
            min_remaining=1800,
            poke_interval=0.5,
            timeout=3,
            deferrable=mode == "deferred",
        )
