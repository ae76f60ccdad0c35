"""Read and write the database of an Airflow from inside: JSON on stdin, JSON on stdout.

Airflow's command line takes values as arguments, which other users of the machine can see and
which its audit log stores.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from airflow import __version__
from airflow.models import Connection, Variable
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

from demo.parts import CONNECTION, DAG, VARIABLE

AIRFLOW_2 = __version__.startswith("2.")
if AIRFLOW_2:
    from airflow.models.xcom import XCom
else:
    from airflow.models.xcom import XComModel as XCom


def put(document: dict[str, Any]) -> None:
    """Store a token and a connection."""
    Variable.set(VARIABLE, document["token"], description="stored by hand")
    with create_session() as session:
        session.add(Connection(conn_id=CONNECTION, conn_type="flowauth", **document["connection"]))


def variable(_: object) -> dict[str, str]:
    """Return the decrypted value and the description of the Variable."""
    with create_session() as session:
        row = session.scalars(select(Variable).where(Variable.key == VARIABLE)).one()
        value = row.get_val()  # type: ignore[no-untyped-call]
        return {"value": value or "", "description": row.description or ""}


def last_reports(_: object) -> Any:  # noqa: ANN401 - JSON
    """Return the reports of the last run of the DAG; None if it failed.

    If nothing was to be rotated, the survey alone has run, and reports.
    """
    with create_session() as session:
        runs = select(DagRun.run_id).where(DagRun.dag_id == DAG).order_by(DagRun.id.desc()).limit(1)
        xcoms = select(XCom).where(XCom.dag_id == DAG, XCom.run_id == session.scalars(runs).one())
        rows = [((row.task_id, row.key), row) for row in session.scalars(xcoms)]
        values = {key: row.value if AIRFLOW_2 else XCom.deserialize_value(row) for key, row in rows}
        if values.get(("survey", "return_value")) == []:
            return values["survey", "report"]
        return values.get(("report", "return_value"))


FUNCTIONS = {function.__name__: function for function in (put, variable, last_reports)}

if __name__ == "__main__":
    print(json.dumps(FUNCTIONS[sys.argv[1]](json.load(sys.stdin))))
