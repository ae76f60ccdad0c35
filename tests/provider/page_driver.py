"""The page's API on a real metadata database: JSON commands on stdin, JSON responses on stdout."""

# ruff: noqa: E402
import json
import os
import sys
import uuid
from datetime import datetime, timedelta, timezone

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what Airflow prints, while it is imported too, goes to the log

from airflow import __version__, settings
from airflow.models import DagModel, DagRun, TaskInstance, Variable
from airflow.models.dag import DagTag
from airflow.utils.session import create_session
from sqlalchemy import delete, event, insert, select, text

from flowauth_rotator.provider.web import api

AIRFLOW_2 = __version__.startswith("2.")
if AIRFLOW_2:
    from airflow.models.dataset import DagScheduleDatasetReference as Reference
    from airflow.models.dataset import DatasetModel as Asset

    REFERENCE_KEY = "dataset_id"
else:
    from airflow.models.asset import AssetModel as Asset
    from airflow.models.asset import DagScheduleAssetReference as Reference

    REFERENCE_KEY = "asset_id"


class Visitor:
    """A user who may read the Variables that are not hidden, and start runs of these DAGs."""

    name = "visitor"

    def __init__(self, hidden, startable):
        self.hidden, self.startable = hidden, startable

    def may_read(self, variable=None):
        return variable not in self.hidden

    def may_read_dag(self, dag_id):
        return dag_id not in self.hidden

    def may_renew(self, dag_id):
        return dag_id in self.startable


def to_time(epoch):
    return None if epoch is None else datetime.fromtimestamp(epoch, timezone.utc)


def reset():
    """Delete all that a test has put here."""
    with create_session() as session:
        for table in (TaskInstance, DagRun, Reference, DagTag, DagModel, Asset, Variable):
            session.execute(delete(table))
        if not AIRFLOW_2:
            session.execute(text("DELETE FROM dag_bundle"))
            session.execute(text("INSERT INTO dag_bundle (name, active) VALUES ('test', true)"))


def put_dag(dag_id, tag="flowauth-rotator", stale=False, next_check_at=None, **columns):
    """Store a DAG as the DAG processor and the scheduler do."""
    columns |= {"is_active": not stale} if AIRFLOW_2 else {"is_stale": stale, "bundle_name": "test"}
    with create_session() as session:
        dag = DagModel(
            dag_id=dag_id,
            next_dagrun_create_after=to_time(next_check_at),
            max_active_tasks=1,
            max_consecutive_failed_dag_runs=0,
            has_task_concurrency_limits=False,
            **columns,
        )
        dag.is_paused = columns.get("is_paused", False)
        session.add(dag)
        session.flush()
        session.add(DagTag(name=tag, dag_id=dag_id))


def put_runs(dag_id, states, requested_at, conf=None):
    """Store runs by id and state that a user requested."""
    with create_session() as session:
        for number, (run_id, state) in enumerate(states.items()):
            at = to_time(requested_at)
            columns = {"run_type": "manual", "run_id": run_id, "dag_id": dag_id, "state": state}
            date = {"execution_date": at + timedelta(microseconds=number)}  # of each run, its own
            run = DagRun(conf=conf, **columns, **(date if AIRFLOW_2 else {"run_after": at}))
            run.queued_at = at
            if not AIRFLOW_2:
                run.triggering_user_name = "admin"
            session.add(run)
            session.flush()


def put_task_instances(dag_id, run_id, states):
    """Store task instances of a run by task and state; a task with several is mapped."""
    with create_session() as session:
        for task_id, of_task in states.items():
            for index, state in enumerate(of_task):
                values = {
                    "dag_id": dag_id,
                    "run_id": run_id,
                    "task_id": task_id,
                    "map_index": index if len(of_task) > 1 else -1,
                    "state": state,
                    "pool": "default_pool",
                    "pool_slots": 1,
                }
                if not AIRFLOW_2:
                    values["id"] = uuid.uuid4()
                session.execute(insert(TaskInstance.__table__).values(**values))


def schedule_dag(dag_id, uri):
    """Store a DAG that is scheduled on an asset."""
    put_dag(dag_id, tag="other")
    with create_session() as session:
        asset = session.scalar(select(Asset).where(Asset.uri == uri)) or Asset(uri=uri)
        session.add(asset)
        session.flush()
        session.add(Reference(**{REFERENCE_KEY: asset.id, "dag_id": dag_id}))


def put_variables(values):
    with create_session() as session:
        for key, value in values.items():
            Variable.set(key, value, session=session)


def garble(key):
    """Make the stored value undecryptable, as a changed Fernet key does."""
    with create_session() as session:
        session.execute(text("UPDATE variable SET val = 'garbled' WHERE key = :key"), {"key": key})


def list_tokens(now, hidden=(), startable=()):
    """Return the document of the page, and the SQL statements that it took."""
    statements = []

    def record(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(settings.engine, "before_cursor_execute", record)
    try:
        document = api.list_tokens(Visitor(hidden, startable), to_time(now))
    finally:
        event.remove(settings.engine, "before_cursor_execute", record)
    return {"document": document, "statements": statements}


def renew(name, body, now, startable=()):
    """Return the error of a request to renew a token; None if it was started."""
    try:
        api.renew_token(Visitor((), startable), name, body, to_time(now))
    except api.ApiError as error:
        return error.document
    return None


def read_check(now):
    """Return the document for monitoring."""
    return api.build_check_document(None, to_time(now))


def read_metrics(now):
    """Return the metrics."""
    return api.render_metrics(None, to_time(now)).decode()


if __name__ == "__main__":
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answer = globals()[name](**arguments)
        print(json.dumps(answer), file=answers, flush=True)
