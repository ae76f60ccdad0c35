import json
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.parts import AirflowHome
from tests.external import announce

HERE = Path(__file__).parent


class Driver:
    """A real Airflow in a process of its own, in which DAGs are run one after the other."""

    def __init__(self, process):
        self._process = process

    def __getattr__(self, name):
        def call(**arguments):
            self._process.stdin.write(json.dumps([name, arguments]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "Airflow's process ended; see airflow.log in its folder"
            return json.loads(answer)

        return call

    def probe(self, do, key, *, environment=None, **conf):
        """Perform an action on a Variable inside a task; return the result or the error."""
        conf = {"do": do, "key": key, **conf}
        done = self.run(dag_id="probe", conf=conf, environment=environment)
        assert done["state"] == "success"
        return done["tasks"]["answer"]["answer"]


@contextmanager
def driven(home, **settings):
    """An Airflow of `home` that runs the DAGs of this folder."""
    env = {**home.env, "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"), **settings}
    with home.log.open("a") as log:
        process = subprocess.Popen(
            [home.binaries / "python", HERE / "driver.py"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        yield Driver(process)
        process.kill()  # it would take seconds to end by itself, and leaves nothing that matters


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory, airflow_binaries, request):
    """The folder of a real Airflow, with its metadata database."""
    announce(request.config, "Starting an Airflow to run DAGs in ...")
    home = AirflowHome(tmp_path_factory.mktemp("airflow"), airflow_binaries)
    home.set_up()
    return home


@pytest.fixture(scope="session")
def airflow(airflow_home):
    """A real Airflow that runs the DAGs of tests/provider/dags."""
    with driven(airflow_home) as driver:
        yield driver


@pytest.fixture(scope="session")
def airflow_with_backend(airflow_home, tmp_path_factory):
    """The same Airflow with a secrets backend that answers for the Variable BACKED."""
    secrets = tmp_path_factory.mktemp("secrets") / "variables.json"
    secrets.write_text('{"BACKED": "a.b.c"}')
    with driven(
        airflow_home,
        AIRFLOW__SECRETS__BACKEND="airflow.secrets.local_filesystem.LocalFilesystemBackend",
        AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps({"variables_file_path": str(secrets)}),
    ) as driver:
        yield driver


@pytest.fixture
def folders(tmp_path):
    """The folders that Airflow writes to."""
    spool, textfiles = tmp_path / "spool", tmp_path / "textfiles"
    spool.mkdir()
    textfiles.mkdir()
    return spool, textfiles
