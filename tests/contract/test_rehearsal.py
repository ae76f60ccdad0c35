"""A rehearsal finds what would make the renewal fail, and mints nothing."""

import time
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.probe import Probe
from flowauth_rotator.agent.rehearsal import rehearse
from flowauth_rotator.agent.stores import FileStore, MemoryStore
from flowauth_rotator.core.errors import Capped, Misconfigured, Refused, RotatorError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import PublicKey, Token
from proofs.flowapi import PATH, FlowApi
from proofs.flowauth import FlowAuth, document, serve

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.fixture
def flowauth(signing_key):
    """FlowAuth on a socket, as far as a client can tell, with its address and all requests."""
    model = FlowAuth(
        time.time,
        lambda claims: jwt.encode(claims, signing_key, algorithm="RS256"),
        roles={"viewer": ["get_results"], "runner": ["run"]},
    )
    model.longest_minutes = 24 * 60
    model.requests = []

    def answer(method, path, headers, body):
        model.requests.append(f"{method} {path}")
        return model.answer(method, path, headers, body)

    with serve(answer) as model.url:
        yield model


@pytest.fixture
def rehearse_token(flowauth):
    """Rehearse the renewal of a token that was issued an hour ago, for a day."""
    issued_at = time.time() - HOUR
    token = flowauth.mint("NAME", ["viewer", "runner"], 24 * 60, issued_at=issued_at)

    def rehearse_token(token=token, store=None, password=flowauth.password, steps=None, **others):
        policy = RotationPolicy(lifetime_minutes=others.pop("lifetime_minutes", None))
        store = store or MemoryStore(Token(token))
        if steps is not None:
            others["on_step"] = steps.append
        issuer = SessionIssuer(flowauth.url, flowauth.username, password)
        with closing(issuer):
            return rehearse(store, issuer, policy, now=datetime.now(timezone.utc), **others)

    return rehearse_token


def test_a_renewal_that_will_work_mints_nothing(flowauth, rehearse_token):
    """It says when it is due, learns the name, and changes neither the history nor the store."""
    rows, steps = list(flowauth.rows), []
    report = rehearse_token(steps=steps)
    assert (report.outcome, report.severity, report.name) == ("healthy", "ok", "NAME")
    assert report.message.startswith("The renewal due at ")
    assert report.message.endswith(" will work.")
    assert flowauth.rows == rows
    assert [each for each in flowauth.requests if each.startswith("POST")] == [
        "POST /signin",
        "POST /tokens/tokens/0/renew",
    ]
    assert len(steps) == 4


def let_roles_shorten(flowauth):
    flowauth.longest_minutes = 10 * 60


def let_the_cap_pass_before_the_renewal(flowauth):
    flowauth.latest_expiry = time.time() + 10 * HOUR


def let_the_cap_end_soon_after_the_renewal(flowauth):
    flowauth.latest_expiry = time.time() + 24 * HOUR


def delete_a_role(flowauth):
    flowauth.delete_role("runner")


def forget_the_row(flowauth):
    flowauth.rows.clear()


def take_all_roles(flowauth):
    flowauth.held.clear()


def speak_https(flowauth):
    flowauth.https = True
    flowauth._has_csrf = lambda _: False


FAULTS = {
    let_roles_shorten: (
        "capped",
        "The role '(viewer|runner)' allows no successor that gains enough",
    ),
    let_the_cap_pass_before_the_renewal: ("refused", "allows no expiry after"),
    let_the_cap_end_soon_after_the_renewal: ("capped", "allows no successor that gains enough"),
    delete_a_role: ("refused", "Roles of this token no longer exist at .*: 'runner'"),
    forget_the_row: ("refused", "no renewable token matching this one"),
    take_all_roles: ("refused", "holds no role on server 'TEST_SERVER'"),
    speak_https: ("misconfigured", "refused the request with 'CSRF error'"),
}


@pytest.mark.parametrize(
    ("fault", "expected"), FAULTS.items(), ids=[fault.__name__ for fault in FAULTS]
)
def test_a_renewal_that_would_fail_is_a_warning(flowauth, rehearse_token, fault, expected):
    """With the outcome and the message that the renewal would have."""
    fault(flowauth)
    count = len(flowauth.rows)
    outcome, words = expected
    with pytest.raises(RotatorError, match=words) as failure:
        rehearse_token()
    assert (failure.value.outcome, failure.value.severity) == (outcome, "warning")
    assert failure.value.hint
    assert failure.value.details.expires_at
    assert len(flowauth.rows) == count


@pytest.mark.parametrize("offset", [20700, -18000])
def test_the_latest_expiry_is_read_in_the_local_time_of_flowauth(flowauth, rehearse_token, offset):
    """Which it calls GMT: its rows show how far that is from the times of their tokens."""
    flowauth.utc_offset = offset
    renew_at = flowauth.rows[-1].claims["exp"] - 8 * HOUR
    flowauth.latest_expiry = renew_at + MINUTE
    with pytest.raises(RotatorError, match="allows no successor that gains enough"):
        rehearse_token()
    flowauth.latest_expiry = renew_at - MINUTE
    with pytest.raises(Refused, match="allows no expiry after"):
        rehearse_token()
    flowauth.latest_expiry = renew_at + 2 * DAY
    assert not rehearse_token().failed


def test_a_latest_expiry_at_the_end_of_time_limits_nothing(flowauth, rehearse_token):
    """As administrators write it who want none."""
    flowauth.latest_expiry = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc).timestamp()
    flowauth.utc_offset = -18000
    flowauth.latest_expiry += 18000
    assert not rehearse_token().failed


def test_a_wrong_password_is_found(rehearse_token):
    """As it would be when the token is due."""
    with pytest.raises(Refused, match="Sign-in of 'flowbot' failed") as failure:
        rehearse_token(password="wrong")
    assert failure.value.severity == "warning"


@pytest.mark.parametrize(
    ("minutes", "works"), [(24 * 60, False), (24 * 60 - 1, True), (10**12, False)]
)
def test_a_lifetime_that_the_issuer_refuses_is_found(rehearse_token, minutes, works):
    """FlowAuth refuses its maximum, too."""
    if works:
        assert not rehearse_token(lifetime_minutes=minutes).failed
        return
    with pytest.raises(Refused, match=f"`lifetime_minutes` is {minutes}") as failure:
        rehearse_token(lifetime_minutes=minutes)
    assert "allows less than 1440 minutes" in failure.value.message


def test_a_key_that_does_not_verify_the_token_is_found(rehearse_token):
    """It would reject each successor."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(RotatorError, match="does not match the configured key") as failure:
        rehearse_token(public_key=lambda: PublicKey(pem))
    assert failure.value.outcome == "rejected"


def test_a_store_that_cannot_be_written_is_found(rehearse_token, tmp_path, flowauth):
    """Before any request."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "token").write_text(flowauth.rows[-1].token)
    (folder / ".token.new").mkdir()  # where a draft would be
    with pytest.raises(RotatorError, match="cannot be written"):
        rehearse_token(store=FileStore(folder / "token"))
    assert flowauth.requests == []


def test_a_token_that_has_expired_is_critical(flowauth, rehearse_token):
    """A failure of a rehearsal by hand is as severe as one of the renewal."""
    token = flowauth.mint("OLD", ["viewer"], 60, issued_at=time.time() - 2 * HOUR)
    flowauth.held.clear()
    with pytest.raises(RotatorError) as failure:
        rehearse_token(token=token)
    assert failure.value.severity == "critical"


def test_the_newest_token_at_the_issuer_is_reported(flowauth, rehearse_token):
    """It may be one that no agent has stored."""
    flowauth.mint("NAME", ["viewer", "runner"], 25 * 60)
    newest = datetime.fromtimestamp(flowauth.rows[-1].claims["exp"], timezone.utc)
    assert rehearse_token().newest_issued_expires_at == newest
    assert newest > datetime.now(timezone.utc) + timedelta(hours=20)


@pytest.fixture
def rehearse_at_server(renewal_server):
    """Rehearse the renewal of a token of the bundled server, which was issued a minute ago."""
    issued_at = int(time.time()) - MINUTE
    token = renewal_server.mint("NAME", issued_at=issued_at, lifetime_minutes=24 * 60)

    def rehearse_at_server(by, **settings):
        issuer = BearerIssuer(renewal_server.url)
        if by == "sign-in":
            issuer = SessionIssuer(
                renewal_server.url, renewal_server.username, renewal_server.password
            )
        with closing(issuer):
            return rehearse(
                MemoryStore(Token(token)),
                issuer,
                RotationPolicy(**settings),
                now=datetime.now(timezone.utc),
            )

    return rehearse_at_server


@pytest.mark.parametrize("by", ["sign-in", "token"])
def test_the_bundled_server_issues_nothing(renewal_server, rehearse_at_server, by):
    """Its history is the same before and after."""
    rows = renewal_server.rows()
    report = rehearse_at_server(by)
    assert (report.outcome, report.name) == ("healthy", "NAME")
    assert report.message.endswith(" will work.")
    assert renewal_server.rows() == rows


def test_the_bundled_server_judges_a_token_by_all_rules(renewal_server, rehearse_at_server):
    """It names the role that was revoked."""
    rows = renewal_server.rows()
    renewal_server.revoke("runner")
    with pytest.raises(Refused, match="no longer assigned to you: runner") as failure:
        rehearse_at_server("token")
    assert failure.value.severity == "warning"
    assert renewal_server.rows() == rows


@pytest.mark.parametrize("by", ["sign-in", "token"])
def test_a_role_that_grants_too_little_is_found(renewal_server, rehearse_at_server, by):
    """The renewal would be capped."""
    renewal_server.limit("runner", minutes=10 * 60)
    with pytest.raises(Capped, match="The role 'runner' allows no successor that gains enough"):
        rehearse_at_server(by)


def test_the_limit_of_the_server_is_found(renewal_server, rehearse_at_server):
    """Which FlowAuth does not show."""
    renewal_server.limit_server(minutes=10 * 60)
    with pytest.raises(Capped, match="The server 'TEST_SERVER' allows no successor"):
        rehearse_at_server("token")


@pytest.mark.parametrize("by", ["sign-in", "token"])
@pytest.mark.parametrize(("minutes", "works"), [(2880, True), (2881, False)])
def test_the_bundled_server_grants_its_maximum(
    renewal_server, rehearse_at_server, by, minutes, works
):
    """FlowAuth does not."""
    renewal_server.limit("runner", minutes=2880)
    if works:
        assert not rehearse_at_server(by, lifetime_minutes=minutes).failed
        return
    with pytest.raises(Refused, match="allows at most 2880 minutes"):
        rehearse_at_server(by, lifetime_minutes=minutes)


def test_an_issuer_that_does_not_know_rehearsals_is_asked_once(flowauth, rehearse_token):
    """It may have issued a token, and would issue another at each retry."""
    token = flowauth.rows[-1].token
    asked = []

    def answer(method, path, headers, body):
        asked.append(path)
        return document({"id": 9, "token": token})

    with serve(answer) as url, closing(BearerIssuer(url)) as issuer:
        store, now = MemoryStore(Token(token)), datetime.now(timezone.utc)
        with pytest.raises(Misconfigured, match="does not rehearse renewals"):
            rehearse(store, issuer, RotationPolicy(), now=now)
    assert asked == ["/tokens/renew"]


@pytest.fixture
def flowapi_that():
    """FlowAPI on a socket that refuses tokens with this status; None accepts them."""
    with ExitStack() as served:

        def start(status):
            return f"{served.enter_context(serve(FlowApi(lambda _: status).answer))}{PATH}"

        yield start


def test_flowapi_accepts_the_token_in_use(rehearse_token, flowapi_that):
    """The last step; a request without a token is refused, so that the answer says something."""
    steps = []
    with closing(Probe(flowapi_that(None))) as probe:
        rehearse_token(probe=probe, steps=steps)
    assert steps[-1] == "FlowAPI accepts the token in use."


def test_a_token_that_flowapi_refuses_is_found(rehearse_token, flowapi_that):
    """As if it has the public key of another FlowAuth."""
    refused = pytest.raises(RotatorError, match="FlowAPI refuses the token in use")
    with closing(Probe(flowapi_that(422))) as probe, refused as failure:
        rehearse_token(probe=probe)
    assert (failure.value.outcome, failure.value.severity) == ("rejected", "warning")
    assert "`PUBLIC_JWT_SIGNING_KEY`" in failure.value.hint


@pytest.mark.parametrize("status", [407, 408, 503])
def test_a_proxy_in_front_of_flowapi_says_nothing_of_a_token(flowapi_that, status):
    """A retry may help, and neither the issuer nor the token is at fault."""
    with closing(Probe(flowapi_that(status))) as probe, pytest.raises(RotatorError) as failure:
        probe.accepts(Token("a.b.c"))
    assert (failure.value.outcome, failure.value.retryable) == ("unavailable", True)
    assert f"responded with {status}" in failure.value.message
    assert failure.value.hint.endswith("check FlowAPI and `probe_url`.")


def test_an_address_that_needs_no_token_is_found(rehearse_token, flowapi_that):
    """It would accept any token."""
    address = flowapi_that(None).removesuffix(PATH)
    found = pytest.raises(Misconfigured, match="does not refuse a request without a token")
    with closing(Probe(address)) as probe, found:
        rehearse_token(probe=probe)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("flowapi.example.org", "`probe_url` does not begin with http"),
        ("ftp://flowapi.example.org", "`probe_url` has the scheme 'ftp'"),
        ("https://user:pw@flowapi.example.org", "`probe_url`"),
    ],
)
def test_an_invalid_address_names_the_setting(address, problem):
    with pytest.raises(Misconfigured) as failure:
        Probe(address)
    assert problem.lower() in failure.value.message.lower()
    assert "pw" not in str(failure.value)
