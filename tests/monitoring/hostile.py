"""Strategies for hostile status documents: any names, times and texts that JSON can hold."""

from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import (
    Event,
    RotationDagStatus,
    Signature,
    StatusDocument,
    TokenStatus,
)
from flowauth_rotator.monitoring.thresholds import Thresholds

NASTY = (
    *("", " ", "-", "etl main", "a  b", 'x\n2 "FlowAuth_Token_y" - forged', "cr\rlf\r\n", "nul\0"),
    *('say "hi"', "it's", "a|b", "a | remaining=1s", "back\\slash", "\\n", "end\\", "$HOME", "a;b"),
    *("\u202eright to left", "\u200bno width", "\u2028line", "\u0085next", "half \ud800", "\x1b[m"),
    *("Düngemittel 東京", "🔑", "%s%d{0}", "<b>", "--name", "e\u0301"),
)
long_texts = st.sampled_from('x"').map(lambda character: character * 3000)
texts = st.deferred(  # which keeps the representation of the strategies below short
    lambda: (
        st.sampled_from(NASTY)
        | st.text(max_size=30)
        | st.text(alphabet='a |"\\\n;', max_size=8)
        | long_texts
    )
)
moments = st.datetimes(timezones=st.just(timezone.utc))
near = st.integers(-(10**7), 10**7).map(
    lambda seconds: datetime(2026, 11, 27, tzinfo=timezone.utc) + timedelta(seconds=seconds)
)
times = near | moments
optional_times = st.none() | times
optional_texts = st.none() | texts
severities = st.sampled_from(Severity)
outcomes = st.sampled_from(Outcome).map(str)
fingerprints = st.none() | st.sampled_from(["0123abcd", "fedcba98"])
counts = st.integers(0, 10**9)
events = st.builds(
    Event,
    at=times,
    outcome=outcomes,
    severity=severities,
    message=texts,
    hint=texts,
    fingerprint=fingerprints,
    expires_at=optional_times,
    needs_new_token=st.booleans(),
    run_id=optional_texts,
    task_id=optional_texts,
    map_index=st.integers(-1, 1000),
    requested_by=optional_texts,
)
settings = st.dictionaries(
    st.sampled_from(["variable", "name", "flowauth_conn_id"]), texts, max_size=3
)
tokens = st.builds(
    TokenStatus,
    name=texts,
    variable=optional_texts,
    dag_id=st.none() | st.sampled_from(["rotation", "other"]) | texts,
    name_is_known=st.booleans(),
    former_name=optional_texts,
    renamed_at=optional_times,
    settings=settings,
    fingerprint=fingerprints,
    owner=optional_texts,
    audience=optional_texts,
    roles=st.lists(texts, max_size=3).map(tuple),
    signature=st.none() | st.sampled_from(Signature),
    issued_at=optional_times,
    renew_at=optional_times,
    critical_at=optional_times,
    expires_at=optional_times,
    last_check=st.none() | events,
    rotations=st.lists(events, max_size=2).map(tuple),
    rotation_counts=st.dictionaries(outcomes, counts, max_size=3),
    last_success_at=optional_times,
    newest_issued_at=optional_times,
    newest_issued_expires_at=optional_times,
    longest_minutes=st.none() | counts,
    setup=fingerprints,
    last_rehearsal=st.none() | events,
    rehearsal_steps=st.lists(texts, max_size=2).map(tuple),
    read_error=st.none() | events,
    next_check_at=optional_times,
    renewal_check_at=optional_times,
)
durations = st.integers(1, 10**9).map(lambda seconds: timedelta(seconds=seconds))
dags = st.builds(
    RotationDagStatus,
    dag_id=st.sampled_from(["rotation", "other"]) | texts,
    schedule=optional_texts | st.floats(1, 10**6),
    checked_at=optional_times,
    checked_by=optional_texts,
    deadline_at=optional_times,
    interval=st.none() | durations,
    grace_period=durations,
    token_count=st.none() | st.integers(0, 3),
    configuration_errors=st.lists(texts, max_size=2).map(tuple),
    failure=st.none() | events,
    clock_skews=st.dictionaries(texts, st.integers(-(10**6), 10**6), max_size=2),
    public_keys=st.dictionaries(texts, texts, max_size=2),
    exists=st.booleans(),
    is_paused=st.booleans(),
    has_import_error=st.booleans(),
    next_check_at=optional_times,
)
documents = st.builds(
    StatusDocument,
    dags=st.none() | st.lists(dags, max_size=3, unique_by=lambda dag: dag.dag_id).map(tuple),
    tokens=st.lists(tokens, max_size=3).map(tuple),
    issuer=texts,
    issuer_failure=texts,
    taken_at=optional_times,
)
thresholds = st.builds(Thresholds, st.floats(0.5, 1), st.floats(0.001, 0.5)) | st.builds(
    Thresholds, st.just(timedelta(seconds=10**9)), durations
)
assessments = st.builds(assess, documents, times, thresholds)
