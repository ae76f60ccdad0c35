"""Strategies for hostile snapshots: any names, times and texts that JSON can hold."""

from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.assessment import Thresholds
from flowauth_rotator.monitoring.status import (
    CheckResult,
    RotationDagStatus,
    Snapshot,
    TokenStatus,
    Validity,
)

NASTY = (
    *("", " ", "-", "etl main", "a  b", 'x\n2 "FlowAuth_Token_y" - forged', "cr\rlf\r\n", "nul\0"),
    *('say "hi"', "it's", "a|b", "a | remaining=1s", "back\\slash", "\\n", "end\\", "$HOME", "a;b"),
    *("\u202eright to left", "\u200bno width", "\u2028line", "\u0085next", "half \ud800", "\x1b[m"),
    *("Düngemittel 東京", "🔑", "x" * 10_000, '"' * 10_000, "%s%d{0}", "<b>", "--name", "e\u0301"),
)
texts = st.sampled_from(NASTY) | st.text(max_size=30) | st.text(alphabet='a |"\\\n;', max_size=8)
moments = st.datetimes(timezones=st.just(timezone.utc))
near = st.integers(-(10**7), 10**7).map(
    lambda seconds: datetime(2026, 11, 27, tzinfo=timezone.utc) + timedelta(seconds=seconds)
)
times = near | moments
validities = st.builds(Validity, times, times, st.none() | times)
tokens = st.builds(
    TokenStatus,
    name=texts,
    place=texts,
    dag_id=st.none() | texts,
    in_use=st.none() | validities,
    issued=st.none() | validities,
    last_check=st.none() | st.builds(CheckResult, texts, st.sampled_from(Severity), texts, texts),
    renewal_check_at=st.none() | times,
    last_success_at=st.none() | times,
)
conditions = st.sampled_from(("ok", "new", "failed", "late", "paused", "missing", "broken"))
rotation_dags = st.builds(
    RotationDagStatus,
    dag_id=texts,
    condition=conditions,
    hint=texts,
    checked_at=st.none() | times,
    deadline_at=st.none() | times,
    next_check_at=st.none() | times,
)
snapshots = st.builds(
    Snapshot,
    taken_at=times,
    tokens=st.lists(tokens, max_size=4),
    rotation_dags=st.none() | st.lists(rotation_dags, max_size=3),
    issuer=texts,
    issuer_trouble=texts,
)
durations = st.integers(1, 10**9).map(lambda seconds: timedelta(seconds=seconds))
thresholds = st.builds(Thresholds, st.floats(0.5, 1), st.floats(0.001, 0.5)) | st.builds(
    Thresholds, st.just(timedelta(seconds=10**9)), durations
)
