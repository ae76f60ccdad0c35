"""Keep a real Airflow running: JSON commands on stdin, JSON responses on stdout, one per line."""

# ruff: noqa: E402
import json
import os
import sys
from contextlib import contextmanager
from datetime import datetime, timezone

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what Airflow prints, while it is imported too, goes to the log

from airflow import __version__
from airflow.models import Connection, Variable
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import delete, literal, select, text, update

AIRFLOW_2 = __version__.startswith("2.")
if AIRFLOW_2:
    from airflow.models import DagBag
    from airflow.models.xcom import XCom
else:
    from airflow.dag_processing.processor import BundleDagBag
    from airflow.models.xcom import XComModel as XCom


def value_of(xcom):
    return xcom.value if AIRFLOW_2 else XCom.deserialize_value(xcom)


@contextmanager
def environment_with(settings):
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def run(dag_id, conf=None, environment=None):
    """Run a DAG to its end; return its state and its tasks by id and label.

    `environment` holds for this run alone: Airflow reads most of its settings when it needs them.
    """
    with environment_with(environment or {}):
        run = bag.dags[dag_id].test(run_conf=conf)
    with create_session() as session:
        xcoms = session.scalars(select(XCom).where(XCom.run_id == run.run_id))
        values = {(row.task_id, row.map_index, row.key): value_of(row) for row in xcoms}
        tasks = session.scalars(select(TaskInstance).where(TaskInstance.run_id == run.run_id))
        return {
            "state": str(run.state),
            "tasks": {
                f"{task.task_id} {task.rendered_map_index or ''}".strip(): {
                    "state": task.state,
                    "tries": task.try_number,
                    "answer": values.get((task.task_id, task.map_index, "return_value")),
                    "report": values.get((task.task_id, task.map_index, "report")),
                }
                for task in tasks
            },
        }


def put_variable(key, value, description):
    Variable.set(key, value, description=description)


def put_team_variable(key, value, team):
    """Store a Variable of a team, or of no team."""
    from airflow.models.team import Team

    with create_session() as session:
        if team and not Team.get_name_if_exists(team, session=session):
            session.add(Team(name=team))
    with create_session() as session:
        session.execute(delete(Variable).filter_by(key=key))
    Variable.set(key, value, team_name=team)


def set_team(team):
    """Make all tasks those of a team, or of no team.

    Airflow looks up the team by the task of the request, which is unknown in `DAG.test`.
    """
    from airflow.api_fastapi.execution_api import security

    security._team_name_for_ti_stmt = lambda _: select(literal(team))


def variable(key):
    with create_session() as session:
        row = session.scalars(select(Variable).where(Variable.key == key)).one()
        return {"value": row.get_val(), "description": row.description}


def garble(key):
    """Make the stored value undecryptable, as a changed Fernet key does."""
    with create_session() as session:
        session.execute(text("UPDATE variable SET val = 'garbled' WHERE key = :key"), {"key": key})


def lose_rotations(dag_id):
    """Make all rotations look like those of a killed worker: failed, without a report."""
    with create_session() as session:
        rotation = {"dag_id": dag_id, "task_id": "rotate"}
        session.execute(delete(XCom).filter_by(**rotation))
        lost = update(TaskInstance).filter_by(**rotation).values(state="failed")
        session.execute(lost.execution_options(synchronize_session=False))


def put_connection(conn_id, conn_type="flowauth", **settings):
    with create_session() as session:
        session.execute(delete(Connection).filter_by(conn_id=conn_id))
        session.add(Connection(conn_id=conn_id, conn_type=conn_type, **settings))


def read_snapshot():
    """Return the monitoring snapshot of this Airflow."""
    from flowauth_rotator.provider.web import api

    if AIRFLOW_2:
        bag.sync_to_db()  # Airflow 3 does so when it runs a DAG
    return api.read_snapshot(None, datetime.now(timezone.utc)).to_json()


if __name__ == "__main__":
    folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
    if AIRFLOW_2:
        bag = DagBag(folder, include_examples=False)
    else:
        bag = BundleDagBag(folder, bundle_path=folder)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answer = globals()[name](**arguments)
        sys.stdout.flush()  # into the log, which tests read
        print(json.dumps(answer), file=answers, flush=True)
