"""The examples of the documents, run as DAG files in a real Airflow."""

import json
import re
from email import message_from_bytes, policy

import pytest
from aiosmtpd.controller import Controller

from demo.parts import ROOT, free_port
from tests.provider.conftest import driven

FOR_AIRFLOW_2 = {
    "from airflow.sdk import Variable, dag, task": "from airflow.decorators import dag, task\n"
    "from airflow.models import Variable",
    "from airflow.sdk import dag, task": "from airflow.decorators import dag, task",
}


@pytest.fixture
def example(airflow_home, tmp_path):
    """An Airflow with the one DAG of a document in which some words stand."""
    two = airflow_home.version().startswith("2.")

    def example(page, words):
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        [text] = [block for block in blocks if words in block]
        for line, instead in FOR_AIRFLOW_2.items() if two else ():
            text = text.replace(line, instead)
        (tmp_path / "example.py").write_text(text)
        return driven(airflow_home, AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path))

    return example


def test_a_consumer_reads_the_token_at_use(example, airflow, renewal_server, flowapi):
    """It waits until the token lives long enough, and FlowKit's own client is never refused."""
    token = renewal_server.mint("AIRFLOW", lifetime_minutes=180)
    for key, value in {"FLOWAPI_TOKEN": token, "flowapi_url": flowapi}.items():
        airflow.put_variable(key=key, value=value, description=None)
    with example("docs/consumers.md", "flowclient.Connection") as airflow:
        done = airflow.run(dag_id="aggregates")
    assert done["state"] == "success"
    assert done["tasks"]["wait"]["state"] == "success"
    assert done["tasks"]["pull"]["answer"] == [200, 200, 200]


def test_a_dag_that_runs_on_a_swap_is_one(example):
    """Airflow runs it, here by hand; the schedule is for the end-to-end tests."""
    with example("docs/consumers.md", "token_asset") as airflow:
        done = airflow.run(dag_id="after_rotation")
    assert done["tasks"]["tell"]["answer"] == "The token AIRFLOW was swapped."


class Inbox:
    """A mailbox behind a real SMTP server."""

    def __init__(self):
        self.mails = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.fixture
def smtp(airflow):
    """The inbox of a server that the connection `smtp_default` leads to."""
    inbox = Inbox()
    controller = Controller(inbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    airflow.put_connection(
        conn_id="smtp_default",
        conn_type="smtp",
        host="127.0.0.1",
        port=controller.port,
        extra=json.dumps({"disable_tls": True, "disable_ssl": True}),
    )
    yield inbox
    controller.stop()


def test_a_mail_says_which_tokens_need_a_person(example, smtp):
    """One mail a run, with every name and reason."""
    tokens = json.dumps([{"variable": "GONE_TOKEN"}, {"variable": "LOST_TOKEN", "name": "<ETL>"}])
    with example("docs/airflow.md", "SmtpNotifier") as airflow:
        done = airflow.run(
            dag_id="flowauth_token_rotation",
            environment={
                "AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": tokens,
                "AIRFLOW_CONN_FLOWAUTH_DEFAULT": '{"conn_type": "flowauth", "host": "http://x"}',
            },
        )
    assert done["state"] == "failed"
    [mail] = smtp.mails
    assert (mail["subject"], mail["to"]) == ("FlowAPI tokens need you", "oncall@example.org")
    body = mail.get_body().get_content()
    assert "GONE_TOKEN: missing. There is no Variable GONE_TOKEN." in body
    assert "&lt;ETL&gt;: missing." in body
