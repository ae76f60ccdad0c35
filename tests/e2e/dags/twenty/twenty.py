"""Twenty tokens that are rotated by the schedule."""

from datetime import timedelta

from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

rotation_dag(
    [ManagedToken(f"TOKEN_{number}") for number in range(20)],
    dag_id="twenty",
    schedule=timedelta(seconds=10),
)
