"""The bugs: where each goes, what it replaces, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proofs.mutants.trees import PlaceMissing, replace_node

ROOT = Path(__file__).parent.parent.parent
AGENT = ("tests/core", "tests/agent", "tests/contract/test_rotation.py")
SERVER = tuple(
    f"tests/server/test_{name}.py"
    for name in ("bearer_renewal", "renewal", "tokens", "two_servers")
)
PROBES = (
    "tests/contract/test_misbehaving_issuer.py::test_flowapi_is_asked_before_and_after_the_swap",
    "tests/contract/test_rehearsal.py",
)


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes:
        name: what is wrong.
        seen_in: who shipped it, as far as it is known.
        place: the function, as module:function.
        pattern: the node that is replaced, in the form that `proofs.mutants.trees` explains.
        replacement: what replaces it.
        tests: what looks at it, beside the simulation.
    """

    name: str
    seen_in: str
    place: str
    pattern: str
    replacement: str
    tests: Sequence[str] = AGENT

    @property
    def file(self) -> Path:
        """The module, relative to the root of the repository."""
        return Path(*self.place.partition(":")[0].split(".")).with_suffix(".py")

    @property
    def function(self) -> str:
        """The qualified name of the function."""
        return self.place.partition(":")[2]


def mutate(mutant: Mutant, root: Path = ROOT) -> str:
    """Return the source of the mutant's module with the bug in it.

    Raises:
        PlaceMissing: the code has changed so that the bug has no place any more.
    """
    try:
        source = (root / mutant.file).read_text()
        return replace_node(source, mutant.function, mutant.pattern, mutant.replacement)
    except FileNotFoundError:
        problem = "there is no such module"
    except PlaceMissing as error:
        problem = str(error)
    raise PlaceMissing(
        f"The mutant {mutant.name!r} does not fit {mutant.place}: {problem}. "
        "Correct its row in proofs/mutants/table.py."
    )


ROTATION = "flowauth_rotator.agent.rotation"
RENEWAL = "flowauth_rotator.agent.renewal"
CLOCKS = "flowauth_rotator.agent.clocks"
CALLS = "flowauth_rotator.agent.issuer_calls"
PROBE = "flowauth_rotator.agent.probe"
FLOWAUTH = "flowauth_rotator.agent.flowauth"
WIRE = "flowauth_rotator.agent.http"
STORES = "flowauth_rotator.agent.stores"
SUCCESSION = "flowauth_rotator.core.succession"
POLICY = "flowauth_rotator.core.policy"
CLOCK = "flowauth_rotator.core.clock"
TOKENS = "flowauth_rotator.core.tokens"
ISSUING = "flowauth_rotator.server.issuing"
ISSUE_RULES = "flowauth_rotator.server.issue_rules"

MUTANTS = (
    Mutant(
        "swapped before it is verified",
        "certbot",
        f"{ROTATION}:_Rotation._verify",
        "A is None or _",
        "A is None",
    ),
    Mutant(
        "another key for each request",
        "FlowAuth, generators",
        f"{SUCCESSION}:idempotency_key",
        "return _",
        "return __import__('os').urandom(32).hex()",
    ),
    Mutant(
        "a key without generation: a useless answer is repeated for ever",
        "certmagic#361",
        f"{SUCCESSION}:idempotency_key",
        "retry_generation",
        "0",
    ),
    Mutant(
        "a key without the lifetime that is asked for",
        "practice",
        f"{SUCCESSION}:idempotency_key",
        "lifetime_minutes",
        "None",
    ),
    Mutant(
        "asked again blindly after a lost answer",
        "spire#1033",
        f"{RENEWAL}:Renewal._request",
        "self.calls.renew(_, A, key=B, lifetime_minutes=C)",
        "self.calls.retry(lambda: self.calls.renew(self.inspection.token, A, key=B, "
        "lifetime_minutes=C))",
    ),
    Mutant(
        "no look for a successor before asking",
        "certmagic#361",
        f"{RENEWAL}:Renewal._attempt",
        "find_successors(...)",
        "()",
    ),
    Mutant(
        "no pause between attempts",
        "vault#26382",
        f"{CALLS}:_pause",
        "return _",
        "return 0.0",
    ),
    Mutant(
        "attempts without end",
        "vault#26382",
        f"{CALLS}:IssuerCalls.retry",
        "A.stop_after_attempt(_)",
        "A.stop_after_attempt(1000)",
    ),
    Mutant(
        "the threshold not clamped: due at birth",
        "cert-manager#4423",
        f"{POLICY}:resolve_duration",
        "min(A, _)",
        "A",
    ),
    Mutant(
        "no check that a successor is worth having",
        "smallstep/cli#523",
        f"{SUCCESSION}:find_violations",
        "decide(...).due",
        "False",
    ),
    Mutant(
        "swapped for one that expires earlier",
        "cert-manager#8610",
        f"{ROTATION}:_Rotation._verify",
        "raise Capped(...)",
        "pass",
    ),
    Mutant(
        "capped, and asked for a new one at each check",
        "FlowKit#7274",
        f"{RENEWAL}:Renewal._attempt",
        "may_request_renewal(...)",
        "True",
    ),
    Mutant(
        "no budget",
        "certmate#391",
        f"{SUCCESSION}:check_budget",
        "raise BudgetExhausted(...)",
        "pass",
    ),
    Mutant(
        "adopted and swapped without a look at the roles",
        "FlowAuth deletes roles",
        f"{SUCCESSION}:find_violations",
        "predecessor.roles",
        "successor.roles",
    ),
    Mutant(
        "another user's token accepted",
        "FlowAuth tests",
        f"{SUCCESSION}:find_violations",
        "predecessor.subject",
        "successor.subject",
    ),
    Mutant(
        "another audience's token accepted",
        "FlowAuth tests",
        f"{SUCCESSION}:find_violations",
        "predecessor.audience",
        "successor.audience",
    ),
    Mutant(
        "a token of the future accepted",
        "kubernetes#124022",
        f"{SUCCESSION}:find_violations",
        "_ > _ + policy.leeway",
        "False",
    ),
    Mutant(
        "the signature not verified",
        "JWT practice",
        f"{SUCCESSION}:evaluate_candidate",
        "_.verifies(_)",
        "True",
    ),
    Mutant(
        "`alg: none` accepted",
        "JWT practice",
        f"{TOKENS}:read_unverified",
        "_ == 'none'",
        "False",
    ),
    Mutant(
        "minted before the store is known to take it",
        "certbot#3553",
        f"{ROTATION}:_Rotation.run",
        "self._store.preflight()",
        "None",
    ),
    Mutant(
        "an operator's paste overwritten",
        "last-write-wins stores",
        f"{ROTATION}:_Rotation._swap",
        "if A != _.token: ...",
        "A",
    ),
    Mutant(
        "copies of a token get no successor",
        "practice",
        f"{ROTATION}:_Rotation.run",
        "problems = update_copies(A, B, C, D)",
        "problems = ()",
    ),
    Mutant(
        "the foreign value of a copy overwritten",
        "practice",
        "flowauth_rotator.agent.copies:_store",
        "_check_value(A, B, C, D)",
        "None",
    ),
    Mutant(
        "the description wiped by the write",
        "airflow#17889",
        f"{ROTATION}:_Rotation._swap",
        "store.write(A, _)",
        "store.write(A, '')",
    ),
    Mutant(
        "not read back: a shadowed write is taken for a swap",
        "airflow#64060",
        f"{ROTATION}:_Rotation._swap",
        "_ == successor",
        "not failure",
    ),
    Mutant(
        "a write that raised taken for one that failed",
        "practice",
        f"{ROTATION}:_Rotation._swap",
        "try: A\nexcept StoreError as E: ...",
        "A",
    ),
    Mutant(
        "a failure that ends as success",
        "vault#28611",
        f"{ROTATION}:rotate",
        "raise failure",
        "return inspection.report",
    ),
    Mutant(
        "judged by the local clock alone",
        "google-auth#158",
        f"{CLOCKS}:Clocks.theirs",
        "_.clock",
        "None",
    ),
    Mutant(
        "a naive time taken for UTC",
        "FlowKit#3089",
        f"{CLOCK}:to_utc",
        "A.astimezone(B)",
        "A.replace(tzinfo=B)",
    ),
    Mutant(
        "Retry-After without bounds",
        "calico#7694",
        f"{WIRE}:_retry_after",
        "return min(max(A, _), _) if _ else _",
        "return A",
    ),
    Mutant(
        "any 401 taken for a lost session",
        "FlowAuth",
        f"{WIRE}:HttpClient.build_error",
        "A == 401 and document is None",
        "A == 401",
    ),
    Mutant(
        "redirects followed",
        "practice",
        f"{WIRE}:HttpClient.build_error",
        "_is_redirect(_)",
        "False",
    ),
    Mutant(
        "a body without end read to its end",
        "practice",
        f"{WIRE}:HttpClient._exchange",
        "len(_) > max_bytes",
        "False",
        ("tests/agent", "tests/contract/test_misbehaving_issuer.py"),
    ),
    Mutant(
        "the token in an exception",
        "airflow#48536",
        f"{TOKENS}:_check_text",
        "if len(A) != 3 or B: ...",
        "if len(A) != 3 or B: raise MalformedToken(f'The text {text[-60:]} has no 3 segments.')",
    ),
    Mutant(
        "written before the host has masked it",
        "Airflow",
        f"{RENEWAL}:Renewal._evaluate",
        "_.on_token(_)",
        "None",
    ),
    Mutant(
        "a file written in place",
        "practice",
        f"{STORES}:FileStore._write_draft",
        "_.replace(A)",
        "A.write_text(text)",
    ),
    Mutant(
        "the server does not keep the key",
        "generators",
        f"{ISSUING}:TokenIssuer._plan_renewal",
        "idempotency_key",
        "None",
        SERVER,
    ),
    Mutant(
        "the server commits what was true before it had the right to write",
        "practice",
        f"{ISSUING}:TokenIssuer._issue",
        "confirmed = build_plan(_)",
        "confirmed = plan",
        SERVER,
    ),
    Mutant(
        "the server renews for whoever asks",
        "FlowAuth tests",
        f"{ISSUING}:TokenIssuer._find_own",
        "_ != caller.id",
        "False",
        SERVER,
    ),
    Mutant(
        "the server renews roles that are held no more",
        "practice",
        f"{ISSUE_RULES}:select_renewed_roles",
        "if _: raise Refused(401, ...)",
        "return tuple(role for old in parent.roles for role in held if role.id == old.id)",
        SERVER,
    ),
    Mutant(
        "the server repeats an answer to another question",
        "practice",
        f"{ISSUING}:TokenIssuer._replay",
        "_.requested_minutes != _",
        "False",
        SERVER,
    ),
    Mutant(
        "a successor swapped in that FlowAPI refuses",
        "practice",
        f"{PROBE}:Trial.admit",
        "raise Rejected(...)",
        "return",
        PROBES,
    ),
    Mutant(
        "the token in use not tried at FlowAPI before it is given up",
        "practice",
        f"{PROBE}:Trial.admit",
        "self.is_accepted is not False or _",
        "True",
        PROBES,
    ),
    Mutant(
        "kept for ever, since FlowAPI refuses both tokens",
        "practice",
        f"{PROBE}:Trial.admit",
        "is_in_use_accepted is None",
        "True",
        PROBES,
    ),
    Mutant(
        "no answer of FlowAPI taken for a refusal",
        "practice",
        f"{PROBE}:Trial._try",
        "return None",
        "return False",
        PROBES,
    ),
    Mutant(
        "the predecessor not tried at FlowAPI after the swap",
        "practice",
        f"{PROBE}:Trial.add_to",
        "self._try(_)",
        "True",
        PROBES,
    ),
    Mutant(
        "a rehearsal that renews the token that is presented",
        "practice",
        "flowauth_rotator.agent.bearer:BearerIssuer.rehearse",
        "{'dry_run': True}",
        "{}",
        PROBES,
    ),
    Mutant(
        "a rehearsal that renews a row of the history",
        "practice",
        f"{FLOWAUTH}:SessionIssuer._check_csrf",
        "path = _",
        "path = '/tokens/tokens/1/renew'",
        PROBES,
    ),
    Mutant(
        "the server issues what is to be rehearsed",
        "practice",
        "flowauth_rotator.server.blueprint:_parse_dry_run",
        "return _",
        "return False",
        ("tests/server/test_rehearsal.py",),
    ),
    Mutant(
        "the server rehearses beyond its limits",
        "practice",
        f"{ISSUING}:TokenIssuer._rehearse",
        "limit.refuse_if_exceeded(_, _)",
        "None",
        ("tests/server/test_rehearsal.py",),
    ),
)
