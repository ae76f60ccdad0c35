"""A reverse proxy as somebody might put before an Airflow, on a loopback port."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}


@contextlib.contextmanager
def serving(handler):
    """Answer on a free loopback port until the block ends, which is told the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(BaseHTTPRequestHandler):
    """Answers with headers and a body, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # of a browser that has left the page
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_args):
        """Say nothing."""


def proxy_to(port):
    """What hands each request on to this loopback port, and the answer back."""

    class Proxy(Quiet):
        def handle_any(self):
            length = int(self.headers.get("Content-Length", 0))
            with requests.request(
                self.command,
                f"http://127.0.0.1:{port}{self.path}",
                headers=dict(self.headers),
                data=self.rfile.read(length),
                allow_redirects=False,
                timeout=60,
            ) as given:
                headers = [
                    (name, value)
                    for name, value in given.raw.headers.items()
                    if name.lower() not in HOP_BY_HOP
                ]
                self.answer(given.status_code, headers, given.content)

        do_GET = do_POST = do_PATCH = handle_any  # noqa: N815 - of http.server

    return Proxy


def page_of(html):
    """What answers everything with this page."""

    class Page(Quiet):
        def do_GET(self):
            self.answer(200, [("Content-Type", "text/html; charset=utf-8")], html.encode())

    return Page
