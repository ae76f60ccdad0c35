"""A token that is rotated by the schedule, a task that waits for that, and one that uses it."""

import time
from datetime import datetime, timedelta, timezone

from flowauth_rotator.provider import FlowAPITokenSensor, ManagedToken, rotation_dag, token_asset
from flowauth_rotator.provider.compat import Variable, dag, task  # Airflow

rotation_dag([ManagedToken("FLOWAPI_TOKEN")], schedule=timedelta(seconds=10))


@dag(schedule="@once", start_date=datetime(2024, 1, 1, tzinfo=timezone.utc))
def consumers():
    FlowAPITokenSensor(
        task_id="wait",
        min_remaining=timedelta(minutes=30),
        poke_interval=15,
        deferrable=True,
    )

    @task
    def use():
        """Hold the token from before the swap until after it; what was it answered?"""
        import requests

        def ask():
            address = Variable.get("flowapi_address")
            headers = {"Authorization": f"Bearer {held}"}
            return requests.get(f"{address}/api/0/available_dates", headers=headers, timeout=30)

        held = Variable.get("FLOWAPI_TOKEN")
        answers = []
        while Variable.get("FLOWAPI_TOKEN") == held:
            answers.append(ask().status_code)
            time.sleep(0.5)
        answers.append(ask().status_code)
        return sorted(set(answers))

    use()


consumers()


@dag(
    schedule=[token_asset("AIRFLOW")],
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
)
def after_rotation():
    @task
    def told(triggering_asset_events=None, triggering_dataset_events=None):
        """Of which swap?"""
        events = triggering_asset_events or triggering_dataset_events
        [[event]] = events.values()
        return event.extra

    told()


after_rotation()
