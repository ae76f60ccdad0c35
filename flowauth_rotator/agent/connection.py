"""Connections with one deadline for a whole exchange, whatever the other side sends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any

import requests
from requests.adapters import HTTPAdapter


class Session(requests.Session):
    """A session of requests, whose connections end at the deadline of the exchange."""

    def __init__(self) -> None:
        super().__init__()
        self.deadline = Deadline()
        for prefix in ("https://", "http://"):
            self.mount(prefix, _Adapter(self.deadline))

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        """Return no target: to follow a redirect, requests would read the whole body first."""
        return

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self.deadline.forget_connection()


class Deadline:
    """Shuts the connection of an exchange down when its time is over.

    A socket's timeout is for each read. It never ends an exchange with a server that sends a byte
    of a header now and then, or `100 Continue` for ever.

    Attributes:
        is_over: whether the time of the latest exchange was over before its end.
        is_connecting: whether the latest exchange has begun a connection that is not complete:
            no request has been sent.
    """

    def __init__(self) -> None:
        self.is_over = self.is_connecting = False
        self._connection: Any = None
        # Of its socket: http.client drops that with the head of a response without a length, and
        # TLS hides it.
        self._duplicate: socket.socket | None = None

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Limit the exchange in this block to a number of seconds."""
        self.is_over = self.is_connecting = False
        timer = Timer(seconds, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if getattr(self._connection, "sock", None) is None:
                self.forget_connection()

    @contextmanager
    def connect(self, connection: Any) -> Iterator[None]:  # noqa: ANN401 - of urllib3
        """Mark the connection in this block as incomplete."""
        self.is_connecting, self._connection = True, connection
        yield
        self._check()
        self.is_connecting = False

    def watch(self, sock: socket.socket) -> None:
        """Watch the socket of the connection from now on."""
        self.forget_connection()
        self._duplicate = sock.dup()
        self._check()

    def forget_connection(self) -> None:
        """Close the duplicate of a socket that is not used any more."""
        if self._duplicate:
            self._duplicate.close()
            self._duplicate = None

    def _check(self) -> None:
        if self.is_over:
            raise TimeoutError

    def _end(self) -> None:
        self.is_over = True
        if duplicate := self._duplicate:
            with suppress(OSError):
                duplicate.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Has the deadline watch each connection, also one to a proxy."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - of requests
        super().init_poolmanager(*args, **kwargs)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - of requests
        manager = super().proxy_manager_for(*args, **kwargs)
        if not getattr(manager, "is_watched", False):  # requests keeps it
            self._watch(manager)
        return manager

    def _watch(self, manager: Any) -> None:  # noqa: ANN401 - of urllib3
        manager.is_watched = True
        manager.pool_classes_by_scheme = {
            scheme: _build_watched_pool(pool, self._deadline)
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }


def _build_watched_pool(pool: Any, deadline: Deadline) -> type:  # noqa: ANN401 - a class of urllib3
    class Connection(pool.ConnectionCls):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            sock: socket.socket = super()._new_conn()
            try:
                deadline.watch(sock)
            except BaseException:
                sock.close()
                raise
            return sock

        def connect(self) -> None:
            with deadline.connect(self):
                super().connect()

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})
