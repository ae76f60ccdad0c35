"""The status documents with the facts that only Airflow knows when they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache

from flowauth_rotator.agent.rotation import Inspection, inspect_token
from flowauth_rotator.agent.stores import TokenStore
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.tokens import Claims, Token, read_unverified
from flowauth_rotator.monitoring.status import (
    Event,
    RotationDagStatus,
    Signature,
    StatusDocument,
    TokenStatus,
)
from flowauth_rotator.provider.assets import build_asset_uri
from flowauth_rotator.provider.managed_tokens import ManagedToken, parse_tokens, resolve_name
from flowauth_rotator.provider.schedule import Schedule, estimate_next_check, find_first_check
from flowauth_rotator.provider.signatures import verify_signature
from flowauth_rotator.provider.web.page_runs import PageRun, build_run_prefix

MOST_CLAIMS = 4096  # of tokens, to keep in memory
_known_claims: dict[str, Claims] = {}  # by the digest of the token, which is not kept itself

Scopes = Mapping[str, Sequence[str]]  # by role


@dataclass(frozen=True)
class LiveStatus:
    """The status of rotation DAGs and tokens at one moment.

    Attributes:
        document: the merged documents with live facts.
        scopes: by Variable, the scopes of each role of the token in use.
        runs: the last runs that users started from the page, by DAG and by the prefix of their ids.
        scheduled_dags: the ids of the DAGs that are scheduled on the asset of a token, by its URI.
    """

    document: StatusDocument
    scopes: Mapping[str, Scopes] = field(default_factory=dict)
    runs: Mapping[tuple[str, str], PageRun] = field(default_factory=dict)
    scheduled_dags: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def find_run(self, token: TokenStatus) -> PageRun | None:
        """Return the last run that a user started to renew a token; None if there was none."""
        return self.runs.get((token.dag_id or "", build_run_prefix(token.variable or "")))

    def select(self, tokens: Sequence[TokenStatus], dag_ids: Collection[str]) -> LiveStatus:
        """Return the status of these tokens and DAGs alone."""
        dags = [dag for dag in self.document.dags or () if dag.dag_id in dag_ids]
        return replace(self, document=replace(self.document, dags=dags, tokens=tokens))

    def select_scheduled_dags(self, is_visible: Callable[[str], bool]) -> LiveStatus:
        """Return the status with the scheduled DAGs of the tokens that are visible to a user."""
        uris = {build_asset_uri(token.name) for token in self.document.tokens}
        needed = {uri: dags for uri, dags in self.scheduled_dags.items() if uri in uris}
        visible = {dag for dags in needed.values() for dag in dags}
        visible = {dag_id for dag_id in visible if is_visible(dag_id)}
        scheduled = {
            uri: [dag_id for dag_id in dags if dag_id in visible] for uri, dags in needed.items()
        }
        return replace(self, scheduled_dags=scheduled)


def add_dags(
    document: StatusDocument, live_dags: Sequence[RotationDagStatus], now: datetime
) -> StatusDocument:
    """Return the documents with the live facts of the DAGs, and without replaced DAGs.

    A DAG without a document has not checked yet. A DAG that Airflow does not know is missing.

    Args:
        document: the merged documents.
        live_dags: the DAGs that Airflow knows.
        now: an aware time.
    """
    known = {dag.dag_id: dag for dag in document.dags or ()}
    live = {dag.dag_id: dag for dag in live_dags}
    dags = [
        _add_dag_facts(
            known.get(dag_id, RotationDagStatus(dag_id)),
            live.get(dag_id, RotationDagStatus(dag_id, exists=False)),
            now,
        )
        for dag_id in sorted({*known, *live})
    ]
    tokens = [token for token in document.tokens if token.variable and token.dag_id in known]
    return replace(document, dags=dags, tokens=tokens).without_replaced_dags()


def add_tokens(
    document: StatusDocument, stores: Mapping[str, TokenStore], now: datetime
) -> LiveStatus:
    """Return the status with the live facts of the tokens.

    A token in another store than Airflow's database, which the web server may not reach, is as the
    last check has found it.

    Args:
        document: the documents with the live facts of the DAGs.
        stores: the Variable of each token, by its key.
        now: an aware time.
    """
    dags = {dag.dag_id: dag for dag in document.dags or ()}
    scopes: dict[str, Scopes] = {}
    tokens = []
    for known in document.tokens:
        settings, dag = parse_settings(known), dags[known.dag_id or ""]
        if settings.store:
            tokens.append(_add_checks(known, dag))
            continue
        try:
            inspection = inspect_token(
                stores[known.variable or ""],
                settings.policy,
                now=now,
                name=settings.name,
                decode=_decode,
            )
        except RotatorError as error:
            tokens.append(_build_unreadable_token(known, settings, dag, error, now))
        else:
            tokens.append(_build_token(known, settings, dag, inspection))
            scopes[known.variable or ""] = inspection.claims.scopes
    return LiveStatus(replace(document, tokens=tokens), scopes)


def parse_settings(token: TokenStatus) -> ManagedToken:
    """Return the settings in the status of a token, or the default if they are not valid."""
    parsed = _parse_settings(json.dumps([dict(token.settings)]))
    return parsed or ManagedToken(token.variable or ManagedToken.variable)


@lru_cache(maxsize=4096)
def _parse_settings(text: str) -> ManagedToken | None:
    """Return the token of a list in JSON that has one; None if it is not valid."""
    parsed, _ = parse_tokens(text)
    return parsed[0] if parsed else None


def _decode(token: Token) -> Claims:
    """Return the claims of a token, decoded once: each view of the page needs those of all."""
    digest = token.digest
    claims = _known_claims.get(digest)
    if claims is None:
        if len(_known_claims) >= MOST_CLAIMS:
            _known_claims.clear()
        claims = _known_claims[digest] = read_unverified(token)
    return claims


def _add_dag_facts(
    dag: RotationDagStatus, live: RotationDagStatus, now: datetime
) -> RotationDagStatus:
    next_check_at = live.next_check_at
    if next_check_at is None and live.is_scheduled:
        next_check_at = estimate_next_check(_parse_schedule(dag.schedule), dag.checked_at, now)
    return replace(
        dag,
        exists=live.exists,
        is_paused=live.is_paused,
        has_import_error=live.has_import_error,
        next_check_at=next_check_at,
    )


def _build_token(
    known: TokenStatus, settings: ManagedToken, dag: RotationDagStatus, inspection: Inspection
) -> TokenStatus:
    claims, decision = inspection.claims, inspection.decision
    fingerprint = inspection.token.fingerprint
    is_swapped = fingerprint != known.fingerprint and _is_successor(claims, known)
    name, name_is_known = resolve_name(
        settings, claims.token_name, known.fingerprint if is_swapped else fingerprint, known
    )
    signature = known.signature
    if signature is not Signature.VALID or fingerprint != known.fingerprint:
        key = dag.public_keys.get(settings.flowauth_conn_id)
        signature = verify_signature(inspection.token, key)
    token = replace(
        known,
        name=name,
        name_is_known=name_is_known,
        fingerprint=fingerprint,
        signature=signature,
        owner=claims.subject,
        audience=claims.audience,
        roles=tuple(sorted(claims.roles)),
        issued_at=claims.issued_at,
        renew_at=decision.renew_at,
        critical_at=decision.critical_at,
        expires_at=claims.expires_at,
    )
    return _add_checks(token, dag)


def _add_checks(token: TokenStatus, dag: RotationDagStatus) -> TokenStatus:
    """Return the token with the time of its next check, and of the one that renews it."""
    token = replace(token, next_check_at=dag.next_check_at)
    if token.renew_at is None:
        return token
    renewal_check_at = find_first_check(
        _parse_schedule(dag.schedule), token.renew_at, dag.next_check_at
    )
    return replace(token, renewal_check_at=renewal_check_at)


def _parse_schedule(schedule: str | float | None) -> Schedule:
    return timedelta(seconds=schedule) if isinstance(schedule, (int, float)) else schedule


def _is_successor(claims: Claims, known: TokenStatus) -> bool:
    """Whether a token may be the successor of the one in the document.

    A rotation stores the successor before the document knows of it. Its name, which FlowAuth's
    JWTs do not contain, must not change in that time.
    """
    return (
        known.issued_at is not None
        and claims.issued_at >= known.issued_at
        and (claims.subject, claims.audience) == (known.owner, known.audience)
        and claims.roles == frozenset(known.roles)
    )


def _build_unreadable_token(
    known: TokenStatus,
    settings: ManagedToken,
    dag: RotationDagStatus,
    error: RotatorError,
    now: datetime,
) -> TokenStatus:
    name, name_is_known = resolve_name(settings, None, None, known)
    return replace(
        known,
        name=name,
        name_is_known=name_is_known,
        fingerprint=None,
        signature=None,
        owner=None,
        audience=None,
        roles=(),
        issued_at=None,
        renew_at=None,
        critical_at=None,
        expires_at=None,
        read_error=Event(now, error.outcome, error.severity, error.message, error.hint),
        next_check_at=dag.next_check_at,
    )
