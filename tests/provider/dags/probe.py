"""An Airflow DAG with one task that performs the action of its conf on a Variable."""

from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta, timezone
from unittest.mock import Mock, patch

from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider import FlowAuthHook, ManagedToken, VariableStore
from flowauth_rotator.provider.compat import AIRFLOW_2, dag, get_current_context, redact, task
from flowauth_rotator.provider.survey import survey_token
from flowauth_rotator.provider.variable_store import mask_token


@contextmanager
def outage():
    """Simulate an outage of Airflow's API server, on Airflow 2 of its database."""
    if AIRFLOW_2:
        from sqlalchemy.exc import OperationalError

        lost = OperationalError("SELECT 1", {}, ConnectionError("lost"))
        with patch("airflow.settings.Session", side_effect=lost):
            yield
    else:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ErrorResponse

        lost = AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        with patch.object(task_runner, "SUPERVISOR_COMMS", Mock(**{"send.side_effect": lost})):
            yield


def act(conf):
    store = VariableStore(conf["key"])
    if conf["do"] == "issuer":
        hook = FlowAuthHook(conf["key"])
        issuer = hook.get_conn()
        return [type(issuer).__name__, issuer.url, issuer._http.timeout, issuer._http._verify]
    if conf["do"] == "survey":
        now, interval = datetime.now(timezone.utc), timedelta(seconds=conf["schedule"])
        token, is_scheduled = ManagedToken(conf["key"]), conf["scheduled"]
        surveyed = survey_token(token, interval, now, None, is_scheduled=is_scheduled)
        return surveyed.report.to_json()
    if conf["do"] == "test":
        return list(FlowAuthHook(conf["key"]).test_connection())
    if conf["do"] == "mask":
        pieces = conf["pieces"]
        before = [redact(piece) == piece for piece in pieces]
        mask_token(Token(".".join(pieces)))
        return [before, ["***" in redact(f"the log says: {piece}!") for piece in pieces]]
    if conf["do"] == "read":
        return store.read().reveal()
    if conf["do"] == "preflight":
        return store.preflight()
    return store.write(Token(conf["value"]), conf["description"])


@dag(schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc))
def probe():
    @task
    def answer():
        conf = get_current_context()["dag_run"].conf
        try:
            with outage() if conf.get("outage") else nullcontext():
                return {"answer": act(conf)}
        except RotatorError as error:
            return {"error": type(error).__name__, "text": str(error)}

    answer()


probe()
