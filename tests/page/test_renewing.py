"""Renewing by hand: what is offered and what is not, what one sees of it, and what comes of it."""

import json
import re
import time

import pytest
from playwright.sync_api import expect

from demo.parts import ROOT, free_port
from flowauth_rotator.core.tokens import Token, read_unverified
from tests.e2e.deployment import until
from tests.e2e.search import parts_of
from tests.page.browsing import pick, renew, renew_button, row

HOUR = 3600
DAY = 24 * HOUR
A_DAG = """
from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

dag = rotation_dag([ManagedToken({variable!r})], dag_id={dag_id!r})
"""
IMPATIENT_DAG = """
from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

dag = rotation_dag(
    [ManagedToken("DOWN_TOKEN", flowauth_conn_id="down")], dag_id="impatient"
)
dag.get_task("rotate").partial_kwargs["retries"] = 0
"""
OF_DAGS = {"sleeping": "PAUSED", "torn": "BROKEN", "gone": "GONE"}  # what becomes of them


@pytest.fixture(scope="module")
def site(make_site, issuer):
    """Tokens of a day, and each thing that may be wrong with one; all have been looked at."""
    site = make_site()
    stored = {
        f"{name}_TOKEN": issuer.mint(name, lifetime_minutes=1440)
        for name in ("TWICE", "MEANWHILE", "DOWN", *OF_DAGS.values())
    }
    stored["FLOWAPI_TOKEN"] = issuer.mint("AIRFLOW", lifetime_minutes=1440)
    for role in ("FRAGILE", "SHORT"):
        issuer.add_role(role.lower(), max_lifetime_minutes=1440)
        stored[f"{role}_TOKEN"] = issuer.mint(role, [role.lower()], 1440)
    stored["EXPIRED_TOKEN"] = issuer.mint("EXPIRED", issued_at=int(time.time()) - DAY)
    stored["MALFORMED_TOKEN"] = f"Bearer {stored['TWICE_TOKEN']}"
    listed = [key for key in stored if key.removesuffix("_TOKEN") not in OF_DAGS.values()]
    listed.remove("DOWN_TOKEN")
    listed.append("MISSING_TOKEN")
    site.home.load(
        "variables",
        stored | {"flowauth_rotator_tokens": json.dumps([{"variable": key} for key in listed])},
    )
    at = {"conn_type": "flowauth", "login": issuer.username, "password": issuer.password}
    site.home.load(
        "connections",
        {
            "flowauth_default": at | {"host": issuer.url},
            "down": at | {"host": f"http://127.0.0.1:{free_port()}"},
        },
    )
    site.put_dag("default", (ROOT / "dags" / "flowauth_token_rotation.py").read_text())
    for dag_id, name in OF_DAGS.items():
        site.put_dag(dag_id, A_DAG.format(dag_id=dag_id, variable=f"{name}_TOKEN"))
    site.put_dag("impatient", IMPATIENT_DAG)
    with site.running():
        site.wait_for_checks("flowauth_token_rotation", "impatient", *OF_DAGS)
        yield site


def test_what(site, visit):
    visitor = visit("admin")
    page = visitor.open(site.page)
    page.screenshot(path="/tmp/work/a.png", full_page=True)
    print(json.dumps(site.tokens(), indent=1))
