"""All that a person with all rights sees of tokens, DAGs and runs in Airflow's pages."""

import json
import re
from urllib.parse import urlencode

import requests

DAGS = ("flowauth_token_rotation", "consumers", "after_rotation")


def open_to_all(home):
    """Let whoever comes be an administrator, without a sign-in."""
    home.env |= {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
        "AIRFLOW__WEBSERVER__EXPOSE_CONFIG": "True",
        "AIRFLOW__API__EXPOSE_CONFIG": "True",
    }
    (home.folder / "webserver_config.py").write_text('AUTH_ROLE_PUBLIC = "Admin"\n')


def look_at_all(url, deployment, folder):
    """Keep each page as a file in `folder`; the answer is where the rotation's link leads."""
    two = deployment.home.version().startswith("2.")
    folder.mkdir()
    with requests.Session() as http:
        if not two:
            token = http.get(f"{url}/auth/token", timeout=30).json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
        number = 0

        def see(path, **query):
            nonlocal number
            address = f"{url}{path}?{urlencode(query)}"
            answer = http.get(address, timeout=60)
            assert answer.status_code == 200, f"{path} answered {answer.status_code}"
            number += 1
            (folder / f"{number}{re.sub('[^a-z]+', '-', path)}").write_bytes(answer.content)
            return answer.text

        for path in ("", "api/tokens", "metrics"):
            see(f"/flowauth-rotator/{path}")
        return (_airflow_2 if two else _airflow_3)(see, deployment)


def _tasks(deployment, *more):
    """The tasks that ran, with these columns more."""
    columns = ", ".join(["dag_id", "run_id", "task_id", "map_index", *more])
    return deployment.ask(
        f"SELECT {columns} FROM task_instance WHERE state = 'success' AND dag_id IN {DAGS}"
    )


def _airflow_3(see, deployment):
    """What its pages are drawn from."""
    api = "/api/v2"
    for path in ("variables", "connections", "eventLogs", "assets", "assets/events", "dags"):
        see(f"{api}/{path}", limit=100)
    for path in ("config", "importErrors", "plugins", "providers", "variables/FLOWAPI_TOKEN"):
        see(f"{api}/{path}")
    for dag in DAGS:
        see(f"/dags/{dag}")
        see(f"{api}/dags/{dag}/dagRuns", limit=100)
        see(f"{api}/dagSources/{dag}")
        see(f"/ui/grid/runs/{dag}")
    link = None
    for dag, run, task, index in _tasks(deployment):
        at = f"{api}/dags/{dag}/dagRuns/{run}/taskInstances/{task}"
        see(f"{at}/{index}" if index >= 0 else at)
        see(f"{at}/logs/1", map_index=index)
        for entry in json.loads(see(f"{at}/xcomEntries", map_index=index))["xcom_entries"]:
            see(f"{at}/xcomEntries/{entry['key']}", map_index=index)
        links = json.loads(see(f"{at}/links", map_index=index))["extra_links"]
        link = links.get("FlowAPI token", link)
    return link


def _airflow_2(see, deployment):
    """Its pages."""
    for path in ("variable", "connection", "log", "xcom", "dagrun", "taskinstance"):
        see(f"/{path}/list/", page_size=1000)
    [(variable,)] = deployment.ask("SELECT id FROM variable WHERE key = 'FLOWAPI_TOKEN'")
    for path in ("home", "datasets", "configuration", "plugin", "provider"):
        see(f"/{path}")
    see(f"/variable/edit/{variable}")
    for dag in DAGS:
        see(f"/dags/{dag}/grid")
        see("/object/grid_data", dag_id=dag)
        see("/code", dag_id=dag)
    link = None
    for dag, run, task, index in _tasks(deployment):
        [(date,)] = deployment.ask(
            f"SELECT execution_date FROM dag_run WHERE dag_id = '{dag}' AND run_id = '{run}'"
        )
        about = {"dag_id": dag, "task_id": task, "execution_date": date, "map_index": index}
        for path in ("task", "rendered-templates", "xcom", "log"):
            see(f"/{path}", **about)
        see(f"/api/v1/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1", map_index=index)
        if task == "rotate":
            link = json.loads(see("/extra_links", link_name="FlowAPI token", **about))["url"]
    return link
