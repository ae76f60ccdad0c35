"""Several managed tokens in one Airflow DAG, in every state."""

from flowauth_rotator.provider import ManagedToken, rotation_dag

rotation_dag(
    [
        ManagedToken("HEALTHY"),
        ManagedToken("DUE", name="ETL", description="for the nightly ETL"),
        ManagedToken("MALFORMED"),
        ManagedToken("MISSING"),
        ManagedToken("ALSO_DUE"),
    ],
    dag_id="several",
    schedule="@hourly",
)
