import tests.server.test_faults as tf
from tests.server.test_faults import *
import collections


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("clients", [4, 8, 12, 24])
def test_probe_starve(server, load, reader, clients):
    load.clients = [Client(server.url, load._mint(f"S{n}")) for n in range(clients)] + load.clients
    # answers' times
    waits = []
    orig = Client._ask

    def ask(self, *a):
        t = time.monotonic()
        n = self.refused
        r = orig(self, *a)
        if self.refused > n:
            waits.append(time.monotonic() - t)
        return r

    Client._ask = ask
    tf.CLIENTS = clients + 4
    reads = []
    try:
        with load.applied():
            with load.parts.database.writing():
                end = time.monotonic() + 10
                while time.monotonic() < end:
                    t = time.monotonic()
                    r = reader("/healthz")
                    reads.append(time.monotonic() - t)
                    assert r.ok
                    time.sleep(0.1)
            t = time.monotonic()
            load.goes_on(1)
            print("recovered", time.monotonic() - t)
    finally:
        Client._ask = orig
        tf.CLIENTS = 4
    print(
        clients + 4,
        "renewers; healthz worst",
        max(reads),
        "n",
        len(reads),
        "503 waits",
        [round(x, 1) for x in sorted(waits)][:: max(1, len(waits) // 12)],
    )
