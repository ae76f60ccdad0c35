"""FlowKit's own client takes the tokens that are issued here, and so does who has the key."""

import flowclient
import pytest
import requests


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
