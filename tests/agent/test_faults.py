"""Whatever a library raises, wherever agent or core calls it: what leaves is a `RotatorError`.

Faults are of the thread that rotates: the timer of a deadline has one of its own.
"""

import gc
import sys
import traceback
from contextlib import closing
from datetime import datetime, timezone
from pathlib import PurePath

import pytest
from pyotp import random_base32

from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.public_key import load_public_key
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import Token
from proofs.timer import InstantTimer

POLICY = RotationPolicy()
SECRET = "correct-horse-battery-staple"


class Injected(Exception):
    """What no library raises; its text is a secret."""


class Injector:
    """Raises at one place where our code calls another package, or only finds those places.

    Args:
        place: file, line and what is called there; None finds all of them.

    Attributes:
        places: those that were reached.
        has_raised: whether the one of the injector was.
    """

    def __init__(self, place=None):
        self.place = place
        self.has_raised = False
        self.places: set[str] = set()

    def __enter__(self):
        self.previous = sys.getprofile()
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_):
        sys.setprofile(self.previous)

    def _look(self, frame, event, argument):
        caller = frame if event == "c_call" else frame.f_back
        if event not in ("call", "c_call") or caller is None or not is_ours(caller.f_code):
            return
        if event == "call" and (is_ours(frame.f_code) or is_plain(frame)):
            return
        if event == "c_call" and module_of(argument) in (None, "builtins"):
            return
        name = getattr(argument, "__qualname__", None) or frame.f_code.co_name
        place = f"{PurePath(caller.f_code.co_filename).name}, line {caller.f_lineno}: {name}"
        self.places.add(place)
        if self.place == place:
            sys.setprofile(None)
            self.has_raised = True
            raise Injected(SECRET)


def is_ours(code):
    parts = PurePath(code.co_filename).parts
    return "flowauth_rotator" in parts and parts[-2] in ("agent", "core")


def module_of(function):
    """The module of a function in C; of a method, such as a socket's, that of its object's type."""
    owner = getattr(function, "__self__", None)
    return getattr(function, "__module__", None) or type(owner).__module__


def is_plain(frame):
    """Whether it is of the standard library's own plumbing, in which nothing outside takes part."""
    module = frame.f_globals.get("__name__", "").partition(".")[0]
    plumbing = {"dataclasses", "contextlib", "enum", "typing", "abc", "functools", "tests"}
    # or made by dataclass, or by the import
    return module in plumbing or frame.f_code.co_filename.startswith("<")


def renew_by_session(server, predecessor):
    store = MemoryStore(predecessor)
    login = (server.url, server.username, server.password)
    with closing(SessionIssuer(*login, timeout=3)) as issuer:
        key = load_public_key(server.public_key_pem)
        rotate(
            *(store, issuer, POLICY),
            now=now(),
            public_key=lambda: key,
            timer=InstantTimer(),
        )


def renew_by_token(server, predecessor):
    with closing(BearerIssuer(server.url, timeout=3)) as issuer:
        rotate(MemoryStore(predecessor), issuer, POLICY, now=now(), timer=InstantTimer())


def check_connections(server, predecessor):
    login = (server.url, server.username, server.password)
    for issuer in (SessionIssuer(*login), BearerIssuer(server.url)):
        with closing(issuer):
            issuer.version()
            issuer.test_connection()
    load_public_key(f"{server.url}/.well-known/jwks.json")


def sign_in_with_codes(server, predecessor):
    SessionIssuer(server.url, "flowbot", SECRET, totp_secret=random_base32())


def now():
    return datetime.now(timezone.utc)


SCENARIOS = (renew_by_session, renew_by_token, check_connections, sign_in_with_codes)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # faults in `close`
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_fault_in_a_library_leaves_as_an_error_of_ours(renewal_server, scenario):
    """At each call in turn: an outcome, one sentence, no secret, and nothing else."""
    issued_at = renewal_server.now() - 3000

    def mint(number):
        return Token(renewal_server.mint(f"NAME_{number}", issued_at=issued_at))

    scenario(renewal_server, mint("warm"))  # imports happen once
    with Injector() as finder:
        scenario(renewal_server, mint("finder"))
    assert len(finder.places) > 2
    for number, place in enumerate(sorted(finder.places)):
        token = mint(number)
        leak = None
        try:
            with Injector(place) as injector:
                scenario(renewal_server, token)
        except RotatorError as error:
            leak = SECRET in "".join(traceback.format_exception(error))
        except BaseException as error:  # noqa: BLE001 - its traceback would be that of the test
            pytest.fail(f"{type(error).__name__} left from {place}", pytrace=False)
        assert injector.has_raised, f"{place} was not reached again"
        assert not leak, place
    gc.collect()  # closes what a fault in `close` has left open, while its warning is ignored
