"""Read and write the database of an Airflow from inside: JSON on stdin, JSON on stdout.

Airflow's command line takes values as arguments, which other users of the machine can see and
which its audit log stores.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from airflow.models import Connection, Variable
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

from demo.names import CONNECTION, DAG, STATUS_VARIABLE, VARIABLE


def put_token(token: str) -> None:
    """Store a token."""
    Variable.set(VARIABLE, token, description="stored by hand")


def put_connection(fields: dict[str, Any]) -> None:
    """Store the connection to the issuer."""
    with create_session() as session:
        session.add(Connection(conn_id=CONNECTION, conn_type="flowauth", **fields))


def variable(_: object) -> dict[str, str]:
    """Return the decrypted value and the description of the Variable."""
    with create_session() as session:
        row = session.scalars(select(Variable).where(Variable.key == VARIABLE)).one()
        value = row.get_val()  # type: ignore[no-untyped-call]
        return {"value": value or "", "description": row.description or ""}


def last_result(_: object) -> dict[str, Any] | None:
    """Return the only token's result of the last run, with its name; None if the run failed."""
    with create_session() as session:
        runs = select(DagRun.run_id, DagRun.state).where(DagRun.dag_id == DAG)
        run = session.execute(runs.order_by(DagRun.id.desc()).limit(1)).one()
        row = session.scalars(select(Variable).where(Variable.key == STATUS_VARIABLE)).one()
        [token] = json.loads(row.get_val() or "")["tokens"]  # type: ignore[no-untyped-call]
        result: dict[str, Any] = token["last_check"] | {"name": token["name"]}
        return result if (result["run_id"], run.state) == (run.run_id, "success") else None


FUNCTIONS = {
    function.__name__: function for function in (put_token, put_connection, variable, last_result)
}

if __name__ == "__main__":
    print(json.dumps(FUNCTIONS[sys.argv[1]](json.load(sys.stdin))))
