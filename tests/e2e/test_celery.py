"""An Airflow whose tasks a Celery worker runs, with a Redis between."""

import base64
import contextlib
import itertools
import re

import pytest

from demo.parts import AirflowHome, clean_environment, running, wait_until
from tests.e2e.deployment import DAGS, Deployment
from tests.e2e.search import OWN_TOKEN, parts_of
from tests.e2e.test_schedule import rotate_twenty


class Redis:
    """A Redis that keeps nothing, reached over a socket file, and a record of its commands."""

    def __init__(self, program, folder):
        self._program, self.socket = program, folder / "socket"
        self._log, self._record = folder / "log", folder / "record"

    @contextlib.contextmanager
    def running(self):
        env, at = clean_environment(), str(self.socket)
        server = [self._program, "--port", "0", "--unixsocket", at, "--save", ""]
        with running([*server, "--unixsocketperm", "700"], env=env, log=self._log):
            wait_until(self.socket.is_socket, f"Redis starts, see {self._log}")
            with running(["redis-cli", "-s", at, "monitor"], env=env, log=self._record):
                wait_until(lambda: self._record.read_text().startswith("OK"), "the record begins")
                yield

    def read_record(self):
        """Return all commands with Celery's messages decoded, and without Airflow's own tokens."""
        plain = re.sub(
            r'(?<=\\"body\\": \\")[\w+/=]+',
            lambda body: base64.b64decode(body[0]).decode(),
            self._record.read_text(),
        )
        return re.sub(OWN_TOKEN, "", plain)


class CeleryDeployment(Deployment):
    """One whose executor is Celery's, with a worker that runs four tasks at a time."""

    def __init__(self, home, database, redis):
        self.redis = redis
        settings = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": f"redis+socket://{redis.socket}",
            # By this alone Airflow 2 learns that a worker's process is gone; Airflow 3 is told.
            "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "30",
        }
        super().__init__(home, DAGS / "twenty", database, **settings)

    @contextlib.contextmanager
    def running(self):
        worker = [str(self.home.binaries / "airflow"), "celery", "worker", "--skip-serve-logs"]
        log = self.home.folder.parent / "worker.log"
        with (
            super().running(),
            running([*worker, "--concurrency", "4"], env=self.home.env, log=log),
        ):
            yield

    def dump(self, folder):
        super().dump(folder)
        (folder / "redis").write_text(self.redis.read_record())


@pytest.fixture
def deployment(
    tmp_path, tmp_path_factory, airflow_binaries, postgresql, airflow_database, redis_server
):
    redis = Redis(redis_server, tmp_path_factory.mktemp("redis"))
    with redis.running():
        home = AirflowHome(tmp_path, airflow_binaries)
        database = postgresql.create(like=airflow_database)
        deployment = CeleryDeployment(home, database, redis)
        yield deployment
        deployment.close()


def test_rotations_that_are_killed_in_a_worker_are_ended_by_the_next_try(
    deployment, renewal_server
):
    """Alone or with their process of the worker: all swapped, none minted twice, nothing leaked."""
    tokens = rotate_twenty(deployment, renewal_server, itertools.cycle([1, 2]))
    assert deployment.leaks("scheduled__20") >= {"dag_run", "redis"}
    assert deployment.leaks("worker-heartbeat") >= {"redis"}  # which Celery wraps
    assert deployment.leaks(*parts_of(*tokens), renewal_server.password) == set()
