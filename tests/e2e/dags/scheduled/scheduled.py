"""A token that is rotated by the schedule, a task that waits for that, and one that uses it."""

import time
from datetime import datetime, timedelta, timezone

from flowauth_rotator.provider import FlowAPITokenSensor, rotation_dag, token_asset
from flowauth_rotator.provider.compat import Variable, dag, task  # Airflow

rotation_dag(schedule=timedelta(seconds=10))


@dag(schedule="@once", start_date=datetime(2024, 1, 1, tzinfo=timezone.utc))
def consumers():
    FlowAPITokenSensor(
        task_id="wait",
        min_remaining=timedelta(minutes=30),
        poke_interval=15,
        deferrable=True,
    )

    @task
    def use(ti=None):
        """Use the old token until after the swap, and return all status codes.

        The first one is in XCom when the old token was read and used.
        """
        import flowclient

        held = Variable.get("FLOWAPI_TOKEN")
        connection = flowclient.Connection(url=Variable.get("flowapi_url"), token=held)

        def request():
            return connection.get_url(route="available_dates").status_code

        statuses = [request()]
        ti.xcom_push(key="first_status", value=statuses[0])
        while Variable.get("FLOWAPI_TOKEN") == held:
            statuses.append(request())
            time.sleep(0.5)
        statuses.append(request())
        return sorted(set(statuses))

    use()


consumers()


@dag(
    schedule=[token_asset("AIRFLOW")],
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
)
def after_rotation():
    @task
    def receive_event(triggering_asset_events=None, triggering_dataset_events=None):
        """Return the event of the swap that triggered the run."""
        events = triggering_asset_events or triggering_dataset_events
        [event] = next(iter(events.values()))
        return event.extra

    receive_event()


after_rotation()
