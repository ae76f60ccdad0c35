"""The HTTP server of one worker: waitress, which gives a complete request to a thread.

A client that sends slowly, or nothing, holds a connection and no thread.
"""

from __future__ import annotations

import json
import logging
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import create_server
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import Error

from flowauth_rotator.server.blueprint import MAX_BODY

logger = logging.getLogger(__name__)

MAX_HEADER = 32 * 1024  # bytes: a bearer token with many roles exceeds the usual 8 KiB
MAX_CONNECTIONS = 250  # of a worker; above, the one that has waited longest is closed
REQUEST_SECONDS = 20  # for a client to complete a request, and to read some of the response
MAX_WAITING_SIGN_IN = 16  # more are refused
_MAX_WAITING_REFUSALS = 100  # the connections of more are closed, to leave room for others
_SIGN_IN_SECONDS = 0.03  # from one sign-in to the next: a flood of refusals must cost little, too
_THREADS = 3  # more do not help: the GIL lets only one compute
_GRACEFUL_SECONDS = 30
_OTHER_FILES = 60  # of a worker: its database, logs, listening socket, and some to spare


class HttpServer:
    """Serves a WSGI application on a listening socket that several processes may share.

    Args:
        app: The WSGI application.
        listening: The listening socket.
    """

    def __init__(self, app: Callable[..., Any], listening: socket.socket) -> None:
        logging.getLogger("waitress").setLevel(logging.WARNING)
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._map: dict[int, Any] = {}
        self._next_check = 0.0
        self._incomplete: list[str] = []  # the clients of closed requests, to be logged
        self._max_connections = _compute_max_connections()
        self._server = create_server(
            app,
            map=self._map,
            sockets=[listening],
            threads=_THREADS,
            connection_limit=2 * self._max_connections,
            channel_timeout=3600,  # a limit of waitress's own; `_close_waiting` is earlier
            max_request_header_size=MAX_HEADER,
            max_request_body_size=MAX_BODY + 1,  # the app refuses a longer body
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=False,  # TRUSTED_PROXIES decides instead
            log_socket_errors=False,
            ident=None,
        )
        self._server.channel_class = _Channel
        self._server.task_dispatcher = _Dispatcher(self._server.task_dispatcher)

    def wake(self) -> None:
        """End the current `serve_for`; may be called by a signal handler."""
        self._server.pull_trigger()

    def serve_for(self, seconds: float) -> None:
        """Serve until something happens, and for at most so long."""
        wasyncore.poll2(seconds, self._map)
        self._close_waiting()

    def stop(self, on_wait: Callable[[], object]) -> None:
        """Accept no more connections, answer the requests that are complete, and close all.

        Args:
            on_wait: Called several times a second.
        """
        self._server.accepting = False
        self._server.del_channel()
        deadline = time.monotonic() + _GRACEFUL_SECONDS
        while self._is_busy() and time.monotonic() < deadline:
            on_wait()
            wasyncore.poll2(0.1, self._map)
        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._map)

    def _is_busy(self) -> bool:
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)

    def _close_waiting(self) -> None:
        """Close connections whose client has not done its part in time, or that are too many."""
        channels, now = list(self._server.active_channels.values()), time.monotonic()
        is_check_due = now >= self._next_check
        if len(channels) <= self._max_connections and not is_check_due:
            return
        waiting = sorted(
            (channel for channel in channels if channel.waits_for_client()),
            key=lambda channel: channel.waiting_since,
        )
        excess = max(0, len(channels) - self._max_connections)
        late = [c for c in waiting if c.waiting_since < now - REQUEST_SECONDS]
        closed = late if len(late) > excess else waiting[:excess]
        for channel in closed:
            channel.handle_close()
        self._incomplete += [c.addr[0] for c in closed if c.request is not None]
        if is_check_due:
            self._next_check = now + 1
            self._report_incomplete()

    def _report_incomplete(self) -> None:
        """Log how many incomplete requests were closed: one line, lest a flood fill the log."""
        if self._incomplete:
            facts = {"number": len(self._incomplete), "client": self._incomplete[0]}
            logger.warning("requests_incomplete", extra={"facts": facts})
            self._incomplete = []


def _compute_max_connections() -> int:
    """Return how many connections a worker keeps: fewer if it can open few files."""
    files, _hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, (files - _OTHER_FILES) // 2))


class _Overloaded(Error):  # type: ignore[misc]
    code = 503
    reason = "Service Unavailable"


class _Dispatcher:
    """Gives requests to threads; sign-ins, which cost the most, to a thread of their own.

    Sign-ins that are too many are refused by another one: the requests of a client that repeats
    them at once must not take the time of the others.

    Args:
        others: The threads of all other requests.
    """

    def __init__(self, others: ThreadedTaskDispatcher) -> None:
        self._others = others
        self._sign_ins, self._refusals = ThreadedTaskDispatcher(), ThreadedTaskDispatcher()
        for dispatcher in (self._sign_ins, self._refusals):
            dispatcher.set_thread_count(1)

    def add_task(self, channel: _Channel) -> None:
        """Queue the first request of a channel."""
        request = channel.requests[0]
        if request.error or not request.path.endswith("/signin"):
            self._others.add_task(channel)
        elif len(self._sign_ins.queue) < MAX_WAITING_SIGN_IN:
            self._sign_ins.add_task(_SignIn(channel))
        elif len(self._refusals.queue) < _MAX_WAITING_REFUSALS:
            request.error = _Overloaded("Too many clients sign in at once; try again.")
            self._refusals.add_task(_SignIn(channel))
        else:
            channel.cancel()

    def shutdown(self) -> None:
        """End all threads."""
        for dispatcher in (self._sign_ins, self._refusals, self._others):
            dispatcher.shutdown()


class _SignIn:
    """A sign-in, and a pause after its response if that was quick: without a hash."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def service(self) -> None:
        """Answer it."""
        next_at = time.monotonic() + _SIGN_IN_SECONDS
        self._channel.service()
        time.sleep(max(0.0, next_at - time.monotonic()))

    def cancel(self) -> None:
        """Close its connection."""
        self._channel.cancel()


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """A refusal by this server, before the app, in the format of the app's refusals."""

    def execute(self) -> None:
        """Write the response."""
        error = self.request.error
        # The other texts of waitress repeat what the client has sent.
        message = error.body if isinstance(error, _Overloaded) else f"{error.reason}."
        body = json.dumps({"code": error.code, "message": message}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        if error.code == 503:
            self.response_headers.append(("Retry-After", "1"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)
        facts = {"status": error.code, "client": self.channel.addr[0], "reason": message}
        logger.info("refused", extra={"facts": facts})


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Parses a request, and refuses what waitress accepts or fails at."""

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the request line and the headers.

        Raises:
            ParsingError: They are invalid, or have two lengths: a proxy may use the other one.
        """
        try:
            super().parse_header(header_plus)
        except ValueError:  # of an address or a number; the message repeats it
            raise ParsingError("Invalid request") from None
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("Content-Length and Transfer-Encoding")


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows since when it waits for its client.

    Attributes:
        waiting_since: The last time at which the client began a request, or took some of a
            response, by the monotonic clock.
    """

    parser_class = _Parser
    error_task_class = _ErrorTask

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - waitress's
        self.waiting_since = time.monotonic()
        super().__init__(*args, **kwargs)

    def received(self, data: bytes) -> bool:
        """Receive a part of a request."""
        before = self.request
        result: bool = super().received(data)
        if self.request is not before:
            self.waiting_since = time.monotonic()
        return result

    def waits_for_client(self) -> bool:
        """Return whether only the client can do the next step."""
        return not self.requests or self.total_outbufs_len > 0

    def _flush_some(self, do_close: bool = True) -> bool:
        has_sent: bool = super()._flush_some(do_close)
        if has_sent:
            self.waiting_since = time.monotonic()
        return has_sent
