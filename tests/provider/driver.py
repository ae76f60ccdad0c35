"""Keep a real Airflow running: JSON commands on stdin, JSON responses on stdout, one per line."""

# ruff: noqa: E402
import json
import os
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what Airflow prints, while it is imported too, goes to the log

from airflow import __version__
from airflow.models import Connection, DagModel, DagRun, Variable
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import delete, event, func, literal, select, text, update

AIRFLOW_2 = __version__.startswith("2.")
if AIRFLOW_2:
    from airflow.models import DagBag
    from airflow.models.xcom import XCom
else:
    from airflow.dag_processing import dagbag
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
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


@contextmanager
def run_type(value):
    """Have the runs that `DAG.test` creates be of this type, as the scheduler's are `scheduled`."""

    def set_type(_mapper, _connection, run):
        run.run_type = value

    event.listen(DagRun, "before_insert", set_type)
    try:
        yield
    finally:
        event.remove(DagRun, "before_insert", set_type)


def is_airflows(key):
    """Whether Airflow itself pushes XComs of this key."""
    return key.startswith(("_", "pipeline_"))


def run(dag_id, conf=None, environment=None, kind="manual"):
    """Run a DAG to its end; return its state and its tasks by id and label.

    `environment` holds for this run alone: Airflow reads most of its settings when it needs them.
    """
    dag = bag.dags[dag_id]
    if "force" in dag.params:  # all parameters: in one process a DAG remembers the last run's
        conf = {
            "names": [],
            "force": False,
            "dry_run": False,
            "lifetime_minutes": None,
            **(conf or {}),
        }
    with environment_with(environment or {}), run_type(kind):
        run = run_tasks(dag, conf)
    with create_session() as session:
        xcoms = session.scalars(select(XCom).where(XCom.run_id == run.run_id))
        values = {(row.task_id, row.map_index, row.key): value_of(row) for row in xcoms}
        tasks = session.scalars(select(TaskInstance).where(TaskInstance.run_id == run.run_id))
        return {
            "state": str(run.state),
            "run_id": run.run_id,
            "xcoms": sorted({f"{task} {key}" for task, _, key in values if not is_airflows(key)}),
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


def run_tasks(dag, conf):
    """Run a DAG; a timeout of a task ends the whole of it in Airflow 2, and not on a worker."""
    try:
        return dag.test(run_conf=conf)
    except BaseException as error:
        if type(error).__name__ != "AirflowTaskTimeout":
            raise
    with create_session() as session:
        runs = select(DagRun).where(DagRun.dag_id == dag.dag_id).order_by(DagRun.id.desc())
        return session.scalars(runs).first()


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


def put_connection(conn_id, conn_type="flowauth", **settings):
    with create_session() as session:
        session.execute(delete(Connection).filter_by(conn_id=conn_id))
        session.add(Connection(conn_id=conn_id, conn_type=conn_type, **settings))


def status(dag_id="managed"):
    """Return the status document of a DAG, as its Variable holds it."""
    from flowauth_rotator.provider.status_variable import build_key

    return json.loads(variable(build_key(dag_id))["value"])


def forget_status(dag_id="managed"):
    """Delete the status document of a DAG, as before its first check."""
    from flowauth_rotator.provider.status_variable import build_key

    with create_session() as session:
        session.execute(delete(Variable).where(Variable.key == build_key(dag_id)))


def clean_records():
    """Clean all tables as `airflow db clean` does, of everything up to now; DAGs return at once."""
    from airflow.utils.db_cleanup import run_cleanup

    run_cleanup(
        clean_before_timestamp=datetime.now(timezone.utc) + timedelta(days=1),
        skip_archive=True,
        confirm=False,
    )
    sync_dags()


def count_records():
    """Return the number of XComs and of tasks that have run."""
    with create_session() as session:
        tasks = select(func.count()).where(TaskInstance.start_date.is_not(None))
        xcoms = select(func.count()).select_from(XCom)
        return {"xcoms": session.scalar(xcoms), "tasks": session.scalar(tasks)}


def sync_dags():
    """Write the DAGs to the database, as the DAG processor does."""
    if AIRFLOW_2:
        bag.sync_to_db()
    else:
        sync_bag_to_db(bag, "dags-folder", None)


def sync_once():
    """Sync the DAGs now, and not before each run: their files do not change.

    `DAG.test` of Airflow 3 would parse all of them, in a third of the time of a run.
    """
    DagBundlesManager().sync_bundles_to_db()
    sync_dags()
    dagbag.BundleDagBag = lambda **_: bag
    dagbag.sync_bag_to_db = lambda *_: None


def read_assessment():
    """Return the JSON of `flowauth-rotator check` on this Airflow."""
    from flowauth_rotator.monitoring import json_output
    from flowauth_rotator.monitoring.assessment import assess
    from flowauth_rotator.provider.web import api

    sync_dags()
    now = datetime.now(timezone.utc)
    return json_output.render(assess(api.read_document(None, now), now))


def record(reports, dag_id="managed"):
    """Record the reports of rotations, by Variable, in the status document of a DAG."""
    from flowauth_rotator.core.report import Report
    from flowauth_rotator.monitoring.status import StatusDocument
    from flowauth_rotator.provider.status_updates import Run, record_rotations
    from flowauth_rotator.provider.status_variable import build_key

    key, now = build_key(dag_id), datetime.now(timezone.utc)
    before = StatusDocument.load(variable(key)["value"])
    rotations = {
        key: (0, Report(checked_at=now, name=key, place="", **report))
        for key, report in reports.items()
    }
    run = Run(dag_id, "run", timedelta(minutes=1), now)
    put_variable(key, record_rotations(before, rotations, run).dump(), "")


def edit_status(changes, dag_id="managed"):
    """Change fields of the DAG in its status document."""
    document = status(dag_id)
    document["dags"][0] |= changes
    from flowauth_rotator.provider.status_variable import build_key

    put_variable(build_key(dag_id), json.dumps(document), "")


def fail_reads(key):
    """Have all reads of a Variable in tasks fail from now on, and no other: a part of an outage."""
    from flowauth_rotator.provider import compat

    get_variable = compat._get_variable

    def get(wanted):
        if wanted == key:
            raise TimeoutError("Airflow does not respond")
        return get_variable(wanted)

    compat._get_variable = get


def change_dag(dag_id="managed", **columns):
    """Change the row of a DAG, as the scheduler, the DAG processor or a user does."""
    if AIRFLOW_2 and "is_stale" in columns:
        columns["is_active"] = not columns.pop("is_stale")
    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id == dag_id).values(**columns))


class Anyone:
    """A user of the page who may do everything."""

    name = "anyone"

    def may_read(self, _variable=None):
        return True

    def may_read_dag(self, _dag_id):
        return True

    def may_renew(self, _dag_id):
        return True


def read_surfaces():
    """Return what each surface shows now: page, API, metrics, and `check` in its four formats."""
    from flowauth_rotator.provider.web import api

    now = datetime.now(timezone.utc)
    return {
        "page": api.list_tokens(Anyone(), now),
        "api/check": api.build_check_document(None, now),
        "metrics": api.render_metrics(None, now).decode(),
        **{name: check("--format", name) for name in ("json", "nagios", "checkmk", "prometheus")},
        "plan": call_cli("plan", "--json"),
    }


def check(*arguments):
    return call_cli("check", *arguments)


def call_cli(*arguments):
    """Return the standard output of the command line, in a fork: Airflow takes long to import."""
    from airflow import settings

    from flowauth_rotator.cli.main import main

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        settings.engine.dispose(close=False)
        os.dup2(writing, 1)
        os.close(reading)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        code = 1
        try:
            main(arguments)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    os.waitpid(child, 0)
    return text


if __name__ == "__main__":
    folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
    if AIRFLOW_2:
        bag = DagBag(folder, include_examples=False)
    else:
        bag = BundleDagBag(folder, bundle_path=folder)
        sync_once()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answer = globals()[name](**arguments)
        sys.stdout.flush()  # into the log, which tests read
        print(json.dumps(answer), file=answers, flush=True)
