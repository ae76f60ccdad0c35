"""Names in the Airflow of the demo; Python loads them there, too, without the server."""

VARIABLE = "FLOWAPI_TOKEN"
STATUS_VARIABLE = "flowauth_rotator_status"
CONNECTION = "flowauth_default"
DAG = "flowauth_token_rotation"
