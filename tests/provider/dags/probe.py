"""An Airflow DAG with one task that does to a Variable what its conf says."""

from datetime import datetime, timezone

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.log import redact

from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider import FlowAuthHook, VariableStore
from flowauth_rotator.provider.variable import mask


class NoAirflow:
    """What a task sees of an API server that is down."""

    def send(self, _message):
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))


def act(conf):
    store = VariableStore(conf["key"])
    if conf["do"] == "issuer":
        hook = FlowAuthHook(conf["key"])
        issuer = hook.get_conn()
        return [type(issuer).__name__, issuer.url, issuer._wire.timeout, hook.public_key]
    if conf["do"] == "mask":
        pieces = conf["pieces"]
        before = [redact(piece) == piece for piece in pieces]
        mask(Token(".".join(pieces)))
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
        from airflow.sdk.execution_time import task_runner

        conf = get_current_context()["dag_run"].conf
        comms = task_runner.SUPERVISOR_COMMS
        if conf.get("outage"):
            task_runner.SUPERVISOR_COMMS = NoAirflow()
        try:
            return {"answer": act(conf)}
        except RotatorError as error:
            return {"error": type(error).__name__, "text": str(error)}
        finally:
            task_runner.SUPERVISOR_COMMS = comms

    answer()


probe()
