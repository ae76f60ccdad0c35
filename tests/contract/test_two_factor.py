"""An account with two-factor authentication at FlowAuth, and the secret of its codes."""

import time
from contextlib import closing
from datetime import datetime, timezone

import jwt
import pytest
from pyotp import TOTP, random_base32

from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.cli.main import main
from flowauth_rotator.core.errors import Misconfigured, Refused
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import Token
from proofs.flowauth import FlowAuth, serve

WINDOW = 30  # seconds that a code serves


class Account:
    """FlowAuth on a socket, whose one account has a second factor, and a clock for all."""

    def __init__(self, sign, now=1_000_000_005.0):
        self.now, self.secret = now, random_base32()
        self.flowauth = FlowAuth(lambda: self.now, sign, roles={"viewer": ["get_results"]})
        self.flowauth.totp = TOTP(self.secret)
        self.pauses = []
        self.ahead = 0  # by which the clock here is wrong
        self.before_sign_in = lambda: None

    def answer(self, method, path, headers, body):
        if path == "/signin":
            self.before_sign_in()
        return self.flowauth.answer(method, path, headers, body)

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def rotate(self, name, secret):
        """Rotate a due token of this name; the report."""
        token = self.flowauth.mint(name, ["viewer"], 60, issued_at=self.now - 2700)
        options = {
            "totp_secret": secret,
            "clock": lambda: self.now + self.ahead,
            "sleep": self.sleep,
        }
        username, password = self.flowauth.username, self.flowauth.password
        now = datetime.fromtimestamp(self.now, timezone.utc)
        with closing(SessionIssuer(self.url, username, password, **options)) as issuer:
            return rotate(MemoryStore(Token(token)), issuer, RotationPolicy(), now=now)


@pytest.fixture
def account(signing_key):
    account = Account(lambda claims: jwt.encode(claims, signing_key, algorithm="RS256"))
    with serve(account.answer) as account.url:
        yield account


@pytest.mark.parametrize("separator", [" ", "-", "\u00a0", " \u2013 "])
def test_the_secret_of_the_codes_makes_such_an_account_work(account, separator):
    """However it is spelt: authenticators show it in groups, in small letters."""
    grouped = separator.join(account.secret[at : at + 4].lower() for at in range(0, 32, 4))
    assert account.rotate("SPELT", grouped).outcome == "rotated"
    assert account.pauses == []


def test_a_code_that_was_used_is_followed_by_the_next(account):
    """Two rotations within one code's time: the second waits for its own."""
    for name in ("FIRST", "SECOND"):
        assert account.rotate(name, account.secret).outcome == "rotated"
    [pause] = account.pauses
    assert pause <= WINDOW + 1
    assert len(account.flowauth.rows) == 4


def test_a_clock_that_is_wrong_is_no_matter(account):
    """After the first refusal the codes are those of the issuer's clock."""
    account.ahead = 100
    assert account.rotate("AHEAD", account.secret).outcome == "rotated"
    assert len(account.pauses) == 1


def test_many_rotations_wait_for_their_turns(account):
    """Eight at once, of which one signs in with each code: all are done in the end."""
    others = iter(range(7))

    def rival():
        if next(others, None) is not None:  # somebody else is faster
            account.flowauth.codes_used.add(account.flowauth.totp.at(int(account.now)))

    account.before_sign_in = rival
    assert account.rotate("LAST", account.secret).outcome == "rotated"
    assert len(account.pauses) == 7


def test_a_wrong_secret_is_told_and_not_shown(account):
    """After as many codes as any rivals could have used; no successor was asked for."""
    wrong = random_base32()
    with pytest.raises(Refused) as told:
        account.rotate("WRONG", wrong)
    assert "did not accept 10 two-factor codes of 'flowbot'" in str(told.value)
    assert "Correct `totp_secret`." in str(told.value)
    assert wrong not in repr(vars(told.value)) + str(told.value)
    assert told.value.details.renewal_requests == 0
    assert len(account.pauses) == 9


def test_whoever_waits_in_person_waits_for_one_code_alone(account):
    """As the button that tests a connection does."""
    login = account.flowauth.username, account.flowauth.password
    options = {"totp_secret": random_base32(), "clock": lambda: account.now}
    with closing(SessionIssuer(account.url, *login, sleep=account.sleep, **options)) as issuer:
        issuer.max_codes = 2
        with pytest.raises(Refused, match="did not accept 2 two-factor codes"):
            issuer.test_connection()
    assert len(account.pauses) == 1


def test_without_the_secret_the_sentence_says_what_to_do(account):
    """No code, no sign-in, and no second try."""
    with pytest.raises(Misconfigured, match=r"two-factor code.*`totp_secret`"):
        account.rotate("NONE", None)


REFUSED = {
    "": "has 0 characters; at least 16 are needed",
    "====": "has 0 characters; at least 16 are needed",
    "A": "has 1 character; at least 16 are needed",
    "AA": "has 2 characters; at least 16 are needed",
    "ABCD-EFGH-ABCD-EFG=": "has 15 characters; at least 16 are needed",
    "A" * 17: "has 17 characters, and is incomplete",
    "A" * 19: "has 19 characters, and is incomplete",
    "abcdefgh1jklmnop": "is not a base32 text: it contains a digit other than 2 to 7",
    "not-base-32!": "is not a base32 text: it contains a sign",
    "äbcdefghijklmnop": "is not a base32 text: it contains a letter or digit that is not ASCII",
    "abcd\u200befghijklmnop": "is not a base32 text: it contains U+200B ZERO WIDTH SPACE",
}


@pytest.mark.parametrize(("secret", "problem"), REFUSED.items())
def test_what_is_not_a_secret_is_named_without_it(secret, problem):
    """Where it is configured, before a request: wrong codes may lock the account."""
    with pytest.raises(Misconfigured) as refused:
        SessionIssuer("http://127.0.0.1:1", "flowbot", "pw", totp_secret=f" {secret}")
    assert refused.value.message == f"`totp_secret` {problem}."
    assert refused.value.hint.endswith("with which the account's authenticator was set up.")
    assert refused.value.__context__ is None


def test_of_the_address_in_a_qr_code_only_the_secret_is_used():
    """The hint says which part."""
    secret = random_base32()
    with pytest.raises(Misconfigured, match="`totp_secret` is the whole otpauth:// ") as refused:
        SessionIssuer(
            "http://127.0.0.1:1",
            "flowbot",
            "pw",
            totp_secret=f"otpauth://totp/x?secret={secret}&issuer=y",
        )
    assert refused.value.hint == "Use only the value of `secret=`."
    assert secret not in repr(vars(refused.value))


def test_a_check_of_the_issuer_signs_in_with_a_code(signing_key, capfd, tmp_path):
    """Without the secret it says which option is missing."""
    flowauth = FlowAuth(
        time.time,
        lambda claims: jwt.encode(claims, signing_key, algorithm="RS256"),
        roles={"viewer": ["get_results"]},
    )
    secret = random_base32()
    flowauth.totp = TOTP(secret)
    flowauth.mint("NAME", ["viewer"], 60)
    for name, text in (("password", flowauth.password), ("totp", secret)):
        (tmp_path / name).write_text(f"{text}\n")
    with serve(flowauth.answer) as url:
        words = ["check", "--issuer", url, "--username", flowauth.username]
        words += ["--password-file", str(tmp_path / "password")]
        with pytest.raises(SystemExit):
            main(words)
        without = capfd.readouterr().out
        with pytest.raises(SystemExit):
            main([*words, "--totp-secret-file", str(tmp_path / "totp")])
    assert "Set --totp-secret-file" in without
    assert capfd.readouterr().out.startswith("TOKEN OK - 'NAME'")


class ShortTotp(TOTP):
    min_secret_length_bits = 80


def test_a_secret_of_80_bits_makes_codes(account):
    """As accounts have that were set up long ago; new versions of pyotp ask for more by default."""
    secret = random_base32()[:16]
    account.flowauth.totp = ShortTotp(secret)
    assert account.rotate("SHORT", secret).outcome == "rotated"
