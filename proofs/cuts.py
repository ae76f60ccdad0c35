"""The answer to a renewal, cut after some of its bytes: the agent still ends with one successor.

`python -m proofs.cuts` cuts after every byte; the tests cut at the boundaries alone.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from demo.parts import prepare_process
from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.issuer import Issuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.succession import History
from flowauth_rotator.core.tokens import Claims, PublicKey, Token, read_unverified
from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.history import HistoryRow
from flowauth_rotator.server.signing import Signer
from proofs.flowauth import FlowAuth, serve
from proofs.processes.serving import AUDIENCE, USERNAME, prepare
from proofs.proxy import Proxy, proxy_to
from proofs.rivals import serving
from proofs.timer import InstantTimer

POLICY = RotationPolicy()
ROLES = {"runner": ["run"]}
LIFETIME, AGE = 60, 45  # minutes, of a token that is due
TIMEOUT = 10  # seconds for an answer
WINDOW = 12  # characters of a token that no log may show
ROTATED, ADOPTED = "rotated", "adopted"


def list_all_places(answer: bytes) -> range:
    """Return all places of a cut, by how many bytes pass; the last one cuts nothing."""
    return range(len(answer) + 1)


def find_boundaries(answer: bytes) -> list[int]:
    """Return the places at which a parser of HTTP, of headers or of JSON changes its state.

    Before the first byte; within and after each line of the head; after the first byte, in the
    middle and before the last byte of the body; before, within and after each field of its JSON;
    and at the end, where nothing is cut.
    """
    head = answer.index(b"\r\n\r\n") + 4
    body = answer[head:]
    spans = [line.span() for line in re.finditer(rb"[^\r\n]+\r\n", answer[:head])]
    spans += [(head + start, head + end) for start, end in _find_fields(body)]
    places = {0, head, head + 1, head + len(body) // 2, len(answer) - 1, len(answer)}
    for start, end in spans:
        places |= {start, (start + end) // 2, end}
    return sorted(places)


def _find_fields(body: bytes) -> Iterator[tuple[int, int]]:
    """Find where each field of a JSON object begins and ends."""
    for name, value in json.loads(body).items():
        field = rb"\s*:\s*".join(re.escape(json.dumps(part).encode()) for part in (name, value))
        if match := re.search(field, body):
            yield match.span()


@dataclass(frozen=True)
class Subject:
    """An issuer whose answers are cut, and the agent that asks it.

    Attributes:
        proxy: stands between the two.
        issuer: the agent's way to the issuer, through the proxy.
        public_key: verifies the issuer's tokens.
        outcome_after_cut: of a rotation whose answer was cut.
        restore: returns the predecessor, which the agent has to renew as if for the first time.
        list_successors: returns the tokens that were issued in place of the predecessor.
    """

    proxy: Proxy
    issuer: Issuer
    public_key: PublicKey
    outcome_after_cut: str
    restore: Callable[[], Token]
    list_successors: Callable[[], Sequence[Token]]


@dataclass(frozen=True)
class Sweep:
    """What came of all cuts of one issuer's answer.

    Attributes:
        length: bytes of the answer.
        cuts: the places of the cuts.
        violations: what should not have been, a clause for each.
    """

    length: int
    cuts: tuple[int, ...]
    violations: tuple[str, ...]


def sweep(subject: Subject, choose: Callable[[bytes], Iterable[int]]) -> Sweep:
    """Cut the answer at the chosen places, one rotation after the other.

    The first answer is cut before its first byte, since an issuer may add a header when it repeats
    one. The second passes whole: its bytes are what `choose` is given, whose last place is their
    end.
    """
    with _capture_log() as log:
        first = list(_check_rotation(subject, log, cut=0))
        second = list(_check_rotation(subject, log, cut=None))
        answer = subject.proxy.answer
        cuts = tuple(choose(answer))
        violations = [
            f"cut after {cut} of {len(answer)} bytes: {clause}"
            for cut in cuts
            for clause in _check_rotation(subject, log, cut if cut < len(answer) else None)
        ]
    if len(subject.proxy.answer) != len(answer):
        violations.append(f"the last answer has {len(subject.proxy.answer)} bytes")
    return Sweep(len(answer), cuts, (*first, *second, *violations))


def _check_rotation(subject: Subject, log: StringIO, cut: int | None) -> Iterator[str]:
    """Rotate once, with the answer cut or whole; yield what should not have been."""
    predecessor = subject.restore()
    store, cuts = MemoryStore(predecessor), subject.proxy.cuts
    if cut is not None:
        subject.proxy.arm(after=cut)
    outcome = _rotate(store, subject)
    if subject.proxy.cuts - cuts != (cut is not None):
        yield f"{subject.proxy.cuts - cuts} answers were cut"
    if outcome != (ROTATED if cut is None else subject.outcome_after_cut):
        yield f"the rotation ended {outcome}"
    successors = subject.list_successors()
    if len(successors) != 1:
        yield f"there are {len(successors)} successors"
    if store.token not in successors:
        yield "what is in use is not a successor"
    shown = log.getvalue() + outcome
    if any(shows_part(shown, token) for token in (predecessor, *successors)):
        yield "the log shows a part of a token"
    log.seek(0)
    log.truncate()


def _rotate(store: MemoryStore, subject: Subject) -> str:
    """Rotate once; return the outcome, or the error as a sentence."""
    now = datetime.now(timezone.utc)
    try:
        report = rotate(
            *(store, subject.issuer, POLICY),
            now=now,
            public_key=lambda: subject.public_key,
            timer=InstantTimer(),
        )
    except RotatorError as error:
        return f"{error.outcome}: {error}"
    logging.getLogger(__name__).debug("%s", report)  # so that it is looked through, too
    return str(report.outcome)


def shows_part(text: str, token: Token) -> bool:
    """Whether a text has twelve characters of a token's payload or signature."""
    secret = token.reveal().partition(".")[2]
    runs = set(re.findall(rf"[\w.-]{{{WINDOW},}}", text))
    return any(
        run[at : at + WINDOW] in secret for run in runs for at in range(len(run) - WINDOW + 1)
    )


@contextmanager
def _capture_log() -> Iterator[StringIO]:
    """Collect what is logged at any level until the block ends."""
    text = StringIO()
    handler, root = logging.StreamHandler(text), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    with warnings.catch_warnings():
        # The standard library's words for a cookie that is cut at its Max-Age.
        warnings.filterwarnings("ignore", "http.cookiejar bug")
        try:
            yield text
        finally:
            root.setLevel(level)
            root.removeHandler(handler)


@contextmanager
def connect_bearer(services: Services, url: str) -> Iterator[Subject]:
    """The bundled server, asked by a token: it answers the same key with the same bytes."""
    first = _mint_due(services, "BEARER")
    with (
        proxy_to(_port_of(url)) as proxy,
        closing(BearerIssuer(proxy.url, timeout=TIMEOUT)) as issuer,
    ):
        yield Subject(
            proxy=proxy,
            issuer=issuer,
            public_key=PublicKey(services.keyring.current_signer().public_pem),
            outcome_after_cut=ROTATED,
            restore=lambda: _reveal(services, first),
            list_successors=lambda: _list_children(services, first),
        )


class ForgetfulSession(SessionIssuer):
    """A sign-in whose first look at the history, in each rotation, shows what was there before.

    Attributes:
        rows_before: what the first look shows.
        has_looked: whether it was shown in this rotation, before which it is cleared.
    """

    rows_before = History()
    has_looked = False

    def rows(self, claims: Claims) -> History:
        """Return the history, at first as it was."""
        if self.has_looked:
            return super().rows(claims)
        self.has_looked = True
        return self.rows_before


@contextmanager
def connect_session(services: Services, url: str, password: str) -> Iterator[Subject]:
    """The bundled server, asked by a sign-in: after a cut the history shows the successor."""
    first = _mint_due(services, "SESSION")
    predecessor = _reveal(services, first)
    with (
        proxy_to(_port_of(url)) as proxy,
        closing(ForgetfulSession(proxy.url, USERNAME, password, timeout=TIMEOUT)) as issuer,
    ):
        issuer.rows_before = SessionIssuer.rows(issuer, read_unverified(predecessor))

        def restore() -> Token:
            issuer.has_looked = False
            return predecessor

        yield Subject(
            proxy=proxy,
            issuer=issuer,
            public_key=PublicKey(services.keyring.current_signer().public_pem),
            outcome_after_cut=ADOPTED,
            restore=restore,
            list_successors=lambda: _list_children(services, first),
        )


@contextmanager
def connect_flowauth() -> Iterator[Subject]:
    """FlowAuth's model, which knows no key: the row that was made before the cut is adopted."""
    key = Ed25519PrivateKey.generate()
    model = FlowAuth(
        time.time,
        lambda claims: jwt.encode(claims, key, "EdDSA"),
        roles=ROLES,
        first_id=10**6,  # so that all answers are of the same length
    )

    def restore() -> Token:
        model.rows.clear()
        return Token(model.mint("T", tuple(ROLES), LIFETIME, issued_at=time.time() - AGE * 60))

    with (
        serve(model.answer) as url,
        proxy_to(_port_of(url)) as proxy,
        closing(
            SessionIssuer(proxy.url, model.username, model.password, timeout=TIMEOUT)
        ) as issuer,
    ):
        yield Subject(
            proxy=proxy,
            issuer=issuer,
            public_key=PublicKey(Signer(key).public_pem),
            outcome_after_cut=ADOPTED,
            restore=restore,
            list_successors=lambda: [Token(row.token) for row in model.rows[1:]],
        )


def _mint_due(services: Services, name: str) -> HistoryRow:
    """Mint a token that is due, and return its row."""
    owner = services.accounts.get_user(USERNAME)
    audience = services.accounts.get_audience(AUDIENCE)
    issued_at = int(time.time()) - AGE * 60
    issued = services.issuer.mint(owner, audience.id, name, tuple(ROLES), LIFETIME, now=issued_at)
    return next(row for row in services.listing.iterate_rows() if row.id == issued.row_id)


def _list_children(services: Services, first: HistoryRow) -> list[Token]:
    """Return the tokens of all later rows with the name of a row.

    Raises:
        RuntimeError: one of them descends from another row.
    """
    rows = [row for row in services.listing.iterate_rows() if row.name == first.name]
    if {row.parent_id for row in rows} - {None, first.id}:
        raise RuntimeError(f"A row of {first.name} descends from another one.")
    return [_reveal(services, row) for row in rows if row.id != first.id]


def _reveal(services: Services, row: HistoryRow) -> Token:
    return Token(services.history.reveal(row))


def _port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None  # noqa: S101 - of a server of ours
    return port


def main() -> int:
    """Cut each answer after every byte; 1 if anything was violated."""
    prepare_process()
    password = secrets.token_urlsafe(18)
    with TemporaryDirectory(prefix="proofs-") as folder:
        short = {"USER_CLAIMS": "plain"}  # tokens, since each byte is a rotation
        settings = Settings.load(Path(folder) / "server", short)
        prepare(settings, password, Ed25519PrivateKey.generate())
        services = Services.open(settings)
        with closing(services.database), serving(settings.data_dir, **short) as url:
            subjects = {
                "the server, by token": connect_bearer(services, url),
                "the server, by sign-in": connect_session(services, url, password),
                "FlowAuth's model": connect_flowauth(),
            }
            violations = sum(_report(name, subject) for name, subject in subjects.items())
    print(f"{violations} violations")
    return 1 if violations else 0


def _report(name: str, subject: AbstractContextManager[Subject]) -> int:
    """Cut one answer after every byte, print what came of it, and return the violations."""
    began = time.monotonic()
    with subject as issuer:
        result = sweep(issuer, list_all_places)
    seconds = time.monotonic() - began
    print(f"{name}: {len(result.cuts)} cuts of {result.length} bytes, in {seconds:.0f} s")
    for violation in result.violations:
        print(f"{name}: {violation}")
    return len(result.violations)


if __name__ == "__main__":
    sys.exit(main())
