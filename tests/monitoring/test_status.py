"""The JSON of a snapshot, from an Airflow to a monitoring host."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowauth_rotator.core.report import Outcome
from flowauth_rotator.monitoring.status import InvalidSnapshot, Snapshot
from tests.monitoring import hostile

counts = st.dictionaries(
    st.sampled_from([str(outcome) for outcome in Outcome]), st.integers(0, 10**9)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def to_the_second(snapshot):
    """The same as it comes back: times are whole seconds in JSON."""
    return Snapshot.from_json(snapshot.to_json())


@given(hostile.snapshots, counts, st.dictionaries(hostile.texts, st.integers(-(10**6), 10**6)))
def test_what_was_written_is_what_is_read(snapshot, rotations, skews):
    """Names, sentences, counts and times."""
    tokens = [replace(token, rotations=rotations) for token in snapshot.tokens]
    whole = replace(snapshot, tokens=tokens, clock_skews=skews)
    try:
        once = to_the_second(whole)
    except InvalidSnapshot:  # rounded up, the last second of the year 9999 is no time
        return
    text = json.dumps(once.to_json())
    assert Snapshot.from_json(json.loads(text)) == once
    assert [token.name for token in once.tokens] == [token.name for token in tokens]
    assert all(token.rotations == rotations for token in once.tokens)
    assert once.clock_skews == skews


@given(json_values)
def test_whatever_else_is_answered_is_refused_as_that(document):
    """With one error, whose sentence quotes none of it."""
    with pytest.raises(InvalidSnapshot, match="not a snapshot of token states"):
        Snapshot.from_json(document)


@given(hostile.snapshots, st.data())
def test_a_snapshot_with_a_part_of_another_kind_is_refused_or_read(snapshot, data):
    """It never breaks in another way."""
    document = json.loads(json.dumps(to_the_second(snapshot).to_json()))
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(json_values)
    with suppress(InvalidSnapshot):
        Snapshot.from_json(document)
    del document[key]
    with pytest.raises(InvalidSnapshot):
        Snapshot.from_json(document)
