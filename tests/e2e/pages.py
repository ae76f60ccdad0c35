"""Fetch all pages of Airflow that show tokens, DAGs and runs to an administrator."""

import json
import re
from urllib.parse import urlencode

import requests

DAGS = ("flowauth_token_rotation", "consumers", "after_rotation")


def disable_sign_in(home):
    """Treat every visitor as an administrator, without a sign-in."""
    home.env |= {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
        "AIRFLOW__WEBSERVER__EXPOSE_CONFIG": "True",
        "AIRFLOW__API__EXPOSE_CONFIG": "True",
    }
    (home.folder / "webserver_config.py").write_text('AUTH_ROLE_PUBLIC = "Admin"\n')


def fetch_pages(url, deployment, folder):
    """Save each page as a file in `folder`; return the target of the rotation's link."""
    two = deployment.home.version().startswith("2.")
    folder.mkdir()
    with requests.Session() as http:
        if not two:
            token = http.get(f"{url}/auth/token", timeout=30).json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
        number = 0

        def fetch(path, **query):
            nonlocal number
            address = f"{url}{path}?{urlencode(query)}"
            response = http.get(address, timeout=60)
            assert response.status_code == 200, f"{path} responded with {response.status_code}"
            number += 1
            (folder / f"{number}{re.sub('[^a-z]+', '-', path)}").write_bytes(response.content)
            return response.text

        for path in ("", "api/tokens", "metrics"):
            fetch(f"/flowauth-rotator/{path}")
        return (_airflow_2 if two else _airflow_3)(fetch, deployment)


def _tasks(deployment, *more):
    """Return the tasks that succeeded, with further columns."""
    columns = ", ".join(["dag_id", "run_id", "task_id", "map_index", *more])
    return deployment.ask(
        f"SELECT {columns} FROM task_instance WHERE state = 'success' AND dag_id IN {DAGS}"
    )


def _airflow_3(fetch, deployment):
    """Fetch the data of its pages."""
    api = "/api/v2"
    for path in ("variables", "connections", "eventLogs", "assets", "assets/events", "dags"):
        fetch(f"{api}/{path}", limit=100)
    for path in ("config", "importErrors", "plugins", "providers", "variables/FLOWAPI_TOKEN"):
        fetch(f"{api}/{path}")
    for dag in DAGS:
        fetch(f"/dags/{dag}")
        fetch(f"{api}/dags/{dag}/dagRuns", limit=100)
        fetch(f"{api}/dagSources/{dag}")
        fetch(f"/ui/grid/runs/{dag}")
    link = None
    for dag, run, task, index in _tasks(deployment):
        at = f"{api}/dags/{dag}/dagRuns/{run}/taskInstances/{task}"
        fetch(f"{at}/{index}" if index >= 0 else at)
        fetch(f"{at}/logs/1", map_index=index)
        for entry in json.loads(fetch(f"{at}/xcomEntries", map_index=index))["xcom_entries"]:
            fetch(f"{at}/xcomEntries/{entry['key']}", map_index=index)
        links = json.loads(fetch(f"{at}/links", map_index=index))["extra_links"]
        link = links.get("FlowAPI token", link)
    return link


def _airflow_2(fetch, deployment):
    """Fetch its pages."""
    for path in ("variable", "connection", "log", "xcom", "dagrun", "taskinstance"):
        fetch(f"/{path}/list/", page_size=1000)
    [(variable,)] = deployment.ask("SELECT id FROM variable WHERE key = 'FLOWAPI_TOKEN'")
    for path in ("home", "datasets", "configuration", "plugin", "provider"):
        fetch(f"/{path}")
    fetch(f"/variable/edit/{variable}")
    for dag in DAGS:
        fetch(f"/dags/{dag}/grid")
        fetch("/object/grid_data", dag_id=dag)
        fetch("/code", dag_id=dag)
    link = None
    for dag, run, task, index in _tasks(deployment):
        [(date,)] = deployment.ask(
            f"SELECT execution_date FROM dag_run WHERE dag_id = '{dag}' AND run_id = '{run}'"
        )
        about = {"dag_id": dag, "task_id": task, "execution_date": date, "map_index": index}
        for path in ("task", "rendered-templates", "xcom", "log"):
            fetch(f"/{path}", **about)
        fetch(f"/api/v1/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1", map_index=index)
        if task == "rotate":
            link = json.loads(fetch("/extra_links", link_name="FlowAPI token", **about))["url"]
    return link
