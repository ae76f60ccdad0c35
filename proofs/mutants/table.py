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
        "the token is stored before it is verified",
        "certbot",
        f"{ROTATION}:_Rotation._verify",
        "A is None or _",
        "A is None",
    ),
    Mutant(
        "each request has another idempotency key",
        "FlowAuth, generators",
        f"{SUCCESSION}:idempotency_key",
        "return _",
        "return __import__('os').urandom(32).hex()",
    ),
    Mutant(
        "the idempotency key has no generation: a useless successor is returned for ever",
        "certmagic#361",
        f"{SUCCESSION}:idempotency_key",
        "retry_generation",
        "0",
    ),
    Mutant(
        "the idempotency key does not depend on the requested lifetime",
        "practice",
        f"{SUCCESSION}:idempotency_key",
        "lifetime_minutes",
        "None",
    ),
    Mutant(
        "the request is repeated after a lost response, without a look for a successor",
        "spire#1033",
        f"{RENEWAL}:Renewal._request",
        "self.calls.renew(_, A, key=B, lifetime_minutes=C)",
        "self.calls.retry(lambda: self.calls.renew(self.inspection.token, A, key=B, "
        "lifetime_minutes=C))",
    ),
    Mutant(
        "the request is sent without a look for a successor",
        "certmagic#361",
        f"{RENEWAL}:Renewal._attempt",
        "find_successors(...)",
        "()",
    ),
    Mutant(
        "there is no pause between attempts",
        "vault#26382",
        f"{CALLS}:_pause",
        "return _",
        "return 0.0",
    ),
    Mutant(
        "the number of attempts is not limited",
        "vault#26382",
        f"{CALLS}:IssuerCalls.retry",
        "A.stop_after_attempt(_)",
        "A.stop_after_attempt(1000)",
    ),
    Mutant(
        "`renew_before` is not limited to half of the lifetime: a new token is due at once",
        "cert-manager#4423",
        f"{POLICY}:resolve_duration",
        "min(A, _)",
        "A",
    ),
    Mutant(
        "a successor with a small gain is stored as a success",
        "smallstep/cli#523",
        f"{SUCCESSION}:find_violations",
        "decide(...).due",
        "False",
    ),
    Mutant(
        "a successor that expires earlier is stored",
        "cert-manager#8610",
        f"{ROTATION}:_Rotation._verify",
        "raise Capped(...)",
        "pass",
    ),
    Mutant(
        "a capped token is renewed again by each check",
        "FlowKit#7274",
        f"{RENEWAL}:Renewal._attempt",
        "may_request_renewal(...)",
        "True",
    ),
    Mutant(
        "there is no budget of mints",
        "certmate#391",
        f"{SUCCESSION}:check_budget",
        "raise BudgetExhausted(...)",
        "pass",
    ),
    Mutant(
        "a successor with other roles is adopted",
        "FlowAuth deletes roles",
        f"{SUCCESSION}:find_violations",
        "predecessor.roles",
        "successor.roles",
    ),
    Mutant(
        "a token of another user is accepted",
        "FlowAuth tests",
        f"{SUCCESSION}:find_violations",
        "predecessor.subject",
        "successor.subject",
    ),
    Mutant(
        "a token of another audience is accepted",
        "FlowAuth tests",
        f"{SUCCESSION}:find_violations",
        "predecessor.audience",
        "successor.audience",
    ),
    Mutant(
        "a token that is not valid yet is accepted",
        "kubernetes#124022",
        f"{SUCCESSION}:find_violations",
        "_ > _ + policy.leeway",
        "False",
    ),
    Mutant(
        "the signature is not verified",
        "JWT practice",
        f"{SUCCESSION}:evaluate_candidate",
        "_.verifies(_)",
        "True",
    ),
    Mutant(
        "`alg: none` is accepted",
        "JWT practice",
        f"{TOKENS}:read_unverified",
        "_ == 'none'",
        "False",
    ),
    Mutant(
        "the token is minted before the preflight of the store",
        "certbot#3553",
        f"{ROTATION}:_Rotation.run",
        "self._store.preflight()",
        "None",
    ),
    Mutant(
        "a token that an operator has just stored is overwritten",
        "last-write-wins stores",
        f"{ROTATION}:_Rotation._swap",
        "if A != _.token: ...",
        "A",
    ),
    Mutant(
        "copies of a token do not get the successor",
        "practice",
        f"{ROTATION}:_Rotation.run",
        "problems = update_copies(A, B, C, D)",
        "problems = ()",
    ),
    Mutant(
        "the foreign value of a copy is overwritten",
        "practice",
        "flowauth_rotator.agent.copies:_store",
        "_check_value(A, B, C, D)",
        "None",
    ),
    Mutant(
        "the write removes the description of the Variable",
        "airflow#17889",
        f"{ROTATION}:_Rotation._swap",
        "store.write(A, _)",
        "store.write(A, '')",
    ),
    Mutant(
        "the store is not read back: a shadowed write counts as a swap",
        "airflow#64060",
        f"{ROTATION}:_Rotation._swap",
        "_ == successor",
        "not failure",
    ),
    Mutant(
        "a write that raised an error counts as failed without a read",
        "practice",
        f"{ROTATION}:_Rotation._swap",
        "try: A\nexcept StoreError as E: ...",
        "A",
    ),
    Mutant(
        "a failure is reported as a success",
        "vault#28611",
        f"{ROTATION}:rotate",
        "raise failure",
        "return inspection.report",
    ),
    Mutant(
        "only the local clock decides",
        "google-auth#158",
        f"{CLOCKS}:Clocks.theirs",
        "_.clock",
        "None",
    ),
    Mutant(
        "a local time counts as UTC",
        "FlowKit#3089",
        f"{CLOCK}:to_utc",
        "A.astimezone(B)",
        "A.replace(tzinfo=B)",
    ),
    Mutant(
        "`Retry-After` is not limited",
        "calico#7694",
        f"{WIRE}:_retry_after",
        "return min(max(A, _), _) if _ else _",
        "return A",
    ),
    Mutant(
        "each 401 counts as a lost session",
        "FlowAuth",
        f"{WIRE}:HttpClient.build_error",
        "A == 401 and document is None",
        "A == 401",
    ),
    Mutant(
        "redirects are followed",
        "practice",
        f"{WIRE}:HttpClient.build_error",
        "_is_redirect(_)",
        "False",
    ),
    Mutant(
        "the size of a response is not limited",
        "practice",
        f"{WIRE}:HttpClient._exchange",
        "len(_) > max_bytes",
        "False",
        ("tests/agent", "tests/contract/test_misbehaving_issuer.py"),
    ),
    Mutant(
        "an exception contains the token",
        "airflow#48536",
        f"{TOKENS}:_check_text",
        "if len(A) != 3 or B: ...",
        "if len(A) != 3 or B: raise MalformedToken(f'The text {text[-60:]} has no 3 segments.')",
    ),
    Mutant(
        "the token is written before Airflow masks it",
        "Airflow",
        f"{RENEWAL}:Renewal._evaluate",
        "_.on_token(_)",
        "None",
    ),
    Mutant(
        "a token file is written in place",
        "practice",
        f"{STORES}:FileStore._write_draft",
        "_.replace(A)",
        "A.write_text(text)",
    ),
    Mutant(
        "the server does not store the idempotency key",
        "generators",
        f"{ISSUING}:TokenIssuer._plan_renewal",
        "idempotency_key",
        "None",
        SERVER,
    ),
    Mutant(
        "the server decides before it has the write lock",
        "practice",
        f"{ISSUING}:TokenIssuer._issue",
        "confirmed = build_plan(_)",
        "confirmed = plan",
        SERVER,
    ),
    Mutant(
        "the server renews the token of another user",
        "FlowAuth tests",
        f"{ISSUING}:TokenIssuer._find_own",
        "_ != caller.id",
        "False",
        SERVER,
    ),
    Mutant(
        "the server renews revoked roles",
        "practice",
        f"{ISSUE_RULES}:select_renewed_roles",
        "if _: raise Refused(401, ...)",
        "return tuple(role for old in parent.roles for role in held if role.id == old.id)",
        SERVER,
    ),
    Mutant(
        "the server returns a stored successor for a request with another lifetime",
        "practice",
        f"{ISSUING}:TokenIssuer._replay",
        "_.requested_minutes != _",
        "False",
        SERVER,
    ),
    Mutant(
        "a successor that FlowAPI refuses is stored",
        "practice",
        f"{PROBE}:Trial.admit",
        "raise Rejected(...)",
        "return",
        PROBES,
    ),
    Mutant(
        "the token in use is not tried at FlowAPI before the swap",
        "practice",
        f"{PROBE}:Trial.admit",
        "self.is_accepted is not False or _",
        "True",
        PROBES,
    ),
    Mutant(
        "the swap is refused for ever if FlowAPI refuses both tokens",
        "practice",
        f"{PROBE}:Trial.admit",
        "is_in_use_accepted is None",
        "True",
        PROBES,
    ),
    Mutant(
        "a missing response of FlowAPI counts as a refusal",
        "practice",
        f"{PROBE}:Trial._try",
        "return None",
        "return False",
        PROBES,
    ),
    Mutant(
        "the predecessor is not tried at FlowAPI after the swap",
        "practice",
        f"{PROBE}:Trial.add_to",
        "self._try(_)",
        "True",
        PROBES,
    ),
    Mutant(
        "a rehearsal by token renews it",
        "practice",
        "flowauth_rotator.agent.bearer:BearerIssuer.rehearse",
        "{'dry_run': True}",
        "{}",
        PROBES,
    ),
    Mutant(
        "a rehearsal by sign-in renews a row",
        "practice",
        f"{FLOWAUTH}:SessionIssuer._check_csrf",
        "path = _",
        "path = '/tokens/tokens/1/renew'",
        PROBES,
    ),
    Mutant(
        "the server issues a token in a dry run",
        "practice",
        "flowauth_rotator.server.blueprint:_parse_dry_run",
        "return _",
        "return False",
        ("tests/server/test_rehearsal.py",),
    ),
    Mutant(
        "the server does not check its limits in a dry run",
        "practice",
        f"{ISSUING}:TokenIssuer._rehearse",
        "limit.refuse_if_exceeded(_, _)",
        "None",
        ("tests/server/test_rehearsal.py",),
    ),
)
