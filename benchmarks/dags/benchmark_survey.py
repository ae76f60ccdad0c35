"""A DAG whose one task times surveys; run as a program it prepares an Airflow and runs the DAG.

Its parameters are `tokens`, which has the number of tokens for each beginning of a key, and
`repetitions`. A key with `token` in it makes Airflow mask the value: each time, it compiles all
values that it masks, at a cost that grows with the square of their number.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict
from typing import Any

from airflow._shared import secrets_masker as core
from airflow.sdk import Variable, dag, get_current_context, task
from airflow.sdk._shared import secrets_masker as sdk

from benchmarks.measure import alternate, timed
from flowauth_rotator.provider.dag import survey
from flowauth_rotator.provider.managed_tokens import ManagedToken


def forget_masks() -> None:
    """Be like a new task and a new API server, with nothing to mask yet, and nothing compiled."""
    core.reset_secrets_masker()
    sdk.reset_secrets_masker()
    re.purge()


@task
def measure() -> list[dict[str, Any]]:
    """Read all Variables of each key barely, and survey them, in turn."""
    params = get_current_context()["params"]
    opened = []
    sys.addaudithook(lambda event, _: opened.append(1) if event == "socket.connect" else None)
    measured = []
    for key, count in params["tokens"].items():
        keys = [f"{key}_{number}" for number in range(count)]
        tokens = [ManagedToken(each, rehearse_every=None) for each in keys]

        def read(tokens: list[ManagedToken] = tokens) -> None:
            for token in tokens:
                Variable.get(token.variable)

        def look(tokens: list[ManagedToken] = tokens) -> None:
            if due := survey(tokens):
                raise ValueError(f"{len(due)} tokens are not healthy")

        before = len(opened)
        pairs = alternate(
            timed(read, before=forget_masks),
            timed(look, before=forget_masks),
            params["repetitions"],
        )
        connections = len(opened) - before
        measured.append({"key": key, "tokens": count, "connections": connections, **asdict(pairs)})
    return measured


@dag(schedule=None, params={"tokens": {}, "repetitions": 0})
def benchmark_survey() -> None:
    """One task."""
    measure()


benchmark = benchmark_survey()


def store_tokens(counts: dict[str, int]) -> None:
    """Store healthy tokens of a day in this Airflow's database, so many for each key."""
    from airflow.models import Connection
    from airflow.models import Variable as StoredVariable
    from airflow.utils.session import create_session

    from flowauth_rotator.server.signing import Signer, compress_claims, generate_key

    signer = Signer(generate_key())
    now = int(time.time())
    claims = {"iat": now, "nbf": now, "exp": now + 86400, "sub": "flowbot", "aud": "TEST_SERVER"}
    claims["user_claims"] = compress_claims({"runner": ["run"], "viewer": ["get_results"]})
    with create_session() as session:
        session.add(Connection(conn_id="flowauth_default", conn_type="flowauth"))
        for key, count in counts.items():
            for number in range(count):
                token = signer.sign({**claims, "jti": f"{key}-{number}"})
                StoredVariable.set(f"{key}_{number}", token, session=session)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    store_tokens(given["tokens"])
    run = benchmark.test(run_conf=given)
    print(json.dumps(run.get_task_instance("measure").xcom_pull("measure")))
