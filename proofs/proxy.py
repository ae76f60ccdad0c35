"""A TCP proxy on loopback that cuts an issuer's answer to a renewal after so many bytes."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from selectors import EVENT_READ, DefaultSelector

_RENEWAL = re.compile(rb"POST [^ ]*/renew HTTP/1\.[01]\r\n")
_PIECE = 64 * 1024


class Proxy:
    """Stands between an agent and an issuer; all but the answer it is armed for passes unchanged.

    Attributes:
        port: where it listens, on 127.0.0.1.
        url: the same, as an issuer's address.
        answer: the latest answer to a renewal, as far as it passed; it holds a token.
        cuts: how many answers were cut so far.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream = ("127.0.0.1", upstream_port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.answer = b""
        self.cuts = 0
        self._lock = threading.Lock()
        self._armed: int | None = None
        self._on_cut: Callable[[], object] = _nothing

    def arm(self, after: int, on_cut: Callable[[], object] | None = None) -> None:
        """Cut the answer to the next renewal, if it is longer than so many bytes.

        Args:
            after: how many bytes still pass.
            on_cut: called once they have passed, before the connection is closed.
        """
        with self._lock:
            self._armed, self._on_cut = after, on_cut or _nothing

    def close(self) -> None:
        """Take no more connections; those that are open end with their ends."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def serve(self) -> None:
        """Forward until `close`, each connection in a thread of its own."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._upstream) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer: _Answer | None = None
            for data, from_client in _pieces(client, server):
                if from_client:
                    # An answered request is over: what comes from the client begins the next one.
                    if answer is None or answer.passed:
                        answer = self._asked(data)
                    server.sendall(data)
                    continue
                if answer is None:
                    client.sendall(data)
                    continue
                passing = answer.let_through(data)
                self.answer = bytes(answer.passed)
                client.sendall(passing)
                if answer.is_cut:
                    self.cuts += 1
                    answer.on_cut()
                    return

    def _asked(self, request: bytes) -> _Answer | None:
        """What to do with the answer to a request; the first renewal disarms."""
        if not _RENEWAL.match(request):
            return None
        with self._lock:
            answer = _Answer(self._armed, self._on_cut)
            self._armed, self._on_cut = None, _nothing
        return answer


class _Answer:
    """The answer to one renewal, as far as it has come."""

    def __init__(self, limit: int | None, on_cut: Callable[[], object]) -> None:
        self._limit = limit
        self.on_cut = on_cut
        self.passed = bytearray()
        self.is_cut = False

    def let_through(self, data: bytes) -> bytes:
        """What of the next piece may pass."""
        if self._limit is not None and len(self.passed) + len(data) > self._limit:
            self.is_cut = True
            data = data[: self._limit - len(self.passed)]
        self.passed += data
        return data


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A proxy before the server at this port of 127.0.0.1, until the block ends."""
    proxy = Proxy(port)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


def _pieces(client: socket.socket, server: socket.socket) -> Iterator[tuple[bytes, bool]]:
    """What either end sends, and whether it was the client, until one of them ends."""
    with DefaultSelector() as selector:
        for end in (client, server):
            selector.register(end, EVENT_READ)
        while True:
            for key, _ in selector.select():
                data = key.fileobj.recv(_PIECE)  # type: ignore[union-attr]  # a socket, as above
                if not data:
                    return
                yield data, key.fileobj is client


def _nothing() -> None:
    """By default nothing is done at a cut."""
