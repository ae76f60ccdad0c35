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


EXAMPLES = {  # by words that only the example has: its document
    "flowclient.Connection": "docs/consumers.md",
    "token_asset": "docs/consumers.md",
    "SmtpNotifier": "docs/airflow.md",
}


def read_example(words, two):
    """The one block of Python in which these words stand, for Airflow 3 or 2."""
    page = (ROOT / EXAMPLES[words]).read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [text] = [block for block in blocks if words in block]
    for line, instead in FOR_AIRFLOW_2.items() if two else ():
        text = text.replace(line, instead)
    return text


@pytest.fixture(scope="module")
def airflow_with_examples(airflow_home, tmp_path_factory):
    """The Airflow of all tests, with the examples as its DAGs."""
    folder = tmp_path_factory.mktemp("examples")
    two = airflow_home.version().startswith("2.")
    for words in EXAMPLES:
        (folder / f"{words}.py").write_text(read_example(words, two))
    with driven(airflow_home, AIRFLOW__CORE__DAGS_FOLDER=str(folder)) as driver:
        yield driver


def test_a_consumer_reads_the_token_at_use(airflow, airflow_with_examples, renewal_server, flowapi):
    """It waits until the token lives long enough, and FlowKit's own client is never refused."""
    token = renewal_server.mint("AIRFLOW", lifetime_minutes=180)
    for key, value in {"FLOWAPI_TOKEN": token, "flowapi_url": flowapi}.items():
        airflow.put_variable(key=key, value=value, description=None)
    done = airflow_with_examples.run(dag_id="aggregates")
    assert done["state"] == "success"
    assert done["tasks"]["wait"]["state"] == "success"
    assert done["tasks"]["pull"]["answer"] == [200, 200, 200]


def test_a_dag_that_runs_on_a_swap_is_one(airflow_with_examples):
    """Airflow runs it, here by hand; the schedule is for the end-to-end tests."""
    done = airflow_with_examples.run(dag_id="after_rotation")
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


def test_a_mail_says_which_tokens_need_a_person(airflow_with_examples, smtp):
    """One mail a run, with every name and message."""
    tokens = json.dumps([{"variable": "GONE_TOKEN"}, {"variable": "LOST_TOKEN", "name": "<ETL>"}])
    environment = {
        "AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": tokens,
        "AIRFLOW_CONN_FLOWAUTH_DEFAULT": '{"conn_type": "flowauth", "host": "http://x"}',
    }
    dag_id = "flowauth_token_rotation"
    done = airflow_with_examples.run(dag_id=dag_id, environment=environment)
    assert done["state"] == "failed"
    [mail] = smtp.mails
    assert (mail["subject"], mail["to"]) == ("FlowAPI tokens need you", "oncall@example.org")
    body = mail.get_body().get_content()
    assert "GONE_TOKEN: missing. Variable GONE_TOKEN does not exist." in body
    assert "&lt;ETL&gt;: missing." in body
