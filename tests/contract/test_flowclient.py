"""FlowKit's own client takes the tokens that are issued here, and so does who has the key."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import flowclient
import jwt
import pytest
import requests


@pytest.fixture
def flowapi(renewal_server):
    """An API that knows nothing but the issuer's public key, and tells whom it has recognised."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self):
            token = self.headers["Authorization"].removeprefix("Bearer ")
            claims = jwt.decode(
                token,
                renewal_server.public_key_pem,
                algorithms=["RS256"],
                audience=renewal_server.audience,
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"path": self.path, "user": claims["sub"]}).encode())

        def log_message(self, *_args):
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Api)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_clients_connection_takes_a_token_and_its_successor(renewal_server, flowapi):
    """The real `flowclient.Connection`, before and after a rotation."""
    token = renewal_server.mint()
    with pytest.warns(UserWarning, match="NOT SECURE"):
        connection = flowclient.Connection(url=flowapi, token=token)
    assert connection.user == "flowbot"
    told = connection.get_url(route="available_dates").json()
    assert told == {"path": "/api/0/available_dates", "user": "flowbot"}
    successor = renew(renewal_server, token)
    connection.update_token(successor)
    assert connection.get_url(route="available_dates").json() == told
    connection.session.close()


def renew(server, token):
    answer = requests.post(
        f"{server.url}/tokens/renew", headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    return answer.json()["token"]
