"""The status of tokens and DAGs: its JSON, its size, and which tokens and events it selects."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.monitoring import json_output
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import (
    Event,
    InvalidStatus,
    RotationDagStatus,
    StatusDocument,
    TokenStatus,
    build_event,
    merge,
    sort_by_expiry,
)
from flowauth_rotator.monitoring.stored_status import LARGEST_TOKEN, LEAST_NEEDED, LONGEST_HISTORY
from tests.monitoring import hostile

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def through_json(document):
    """The document as it is read elsewhere; times are whole seconds in JSON."""
    return StatusDocument.from_json(json.loads(json.dumps(document.to_json())))


class TestJson:
    """What one process writes, another reads."""

    @given(hostile.documents)
    def test_a_document_comes_back_equal(self, document):
        """All fields, with any text."""
        once = through_json(document)
        assert through_json(once) == once
        assert [token.name for token in once.tokens] == [token.name for token in document.tokens]
        assert [token.settings for token in once.tokens] == [
            token.settings for token in document.tokens
        ]

    @given(hostile.documents, hostile.times, hostile.thresholds)
    def test_the_facts_of_an_assessment_come_back(self, document, now, thresholds):
        """`/api/check` and `check --format json` print a superset of the document."""
        printed = json_output.render(assess(through_json(document), now, thresholds))
        facts = StatusDocument.from_json(json.loads(json.dumps(printed)))
        again = assess(facts, now, thresholds)
        assert json_output.render(again) == printed

    @given(json_values)
    def test_any_other_json_is_rejected(self, document):
        with pytest.raises(InvalidStatus, match="not a status"):
            StatusDocument.from_json(document)

    @given(hostile.documents, st.data())
    def test_a_document_with_a_wrong_value_is_rejected_or_read(self, document, data):
        """No other exception escapes."""
        values = document.to_json()
        key = data.draw(st.sampled_from(sorted(values)))
        values[key] = data.draw(json_values)
        with suppress(InvalidStatus):
            StatusDocument.from_json(values)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"version": 2},
            {"tokens": [{}]},
            {"tokens": [{"name": 1}]},
            {"tokens": [{"name": "a", "roles": "ab"}]},
            {"tokens": [{"name": "a", "expires_at": float("nan")}]},
            {"tokens": [{"name": "a", "expires_at": 10**30}]},
            {"tokens": [{"name": "a", "name_is_known": 1}]},
            {"tokens": [{"name": "a", "longest_minutes": True}]},
            {"tokens": [{"name": "a", "settings": []}]},
            {"tokens": [{"name": "a", "last_check": {"at": 0, "outcome": "a", "severity": "bad"}}]},
            {"dags": [{"dag_id": "a", "schedule": True}]},
            {"dags": [{"dag_id": "a", "schedule": float("inf")}]},
            {"dags": [{"dag_id": "a", "interval": float("nan")}]},
        ],
    )
    def test_a_value_of_another_type_is_rejected(self, wrong):
        with pytest.raises(InvalidStatus):
            StatusDocument.from_json({"version": 3, "dags": [], "tokens": [], **wrong})

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", '{"version": 1}'])
    def test_a_text_that_is_not_a_status_is_rejected(self, text):
        with pytest.raises(InvalidStatus):
            StatusDocument.load(text)


def without_live_values(document):
    """The document as it is stored."""
    return StatusDocument(
        dags=tuple(
            replace(dag, exists=True, is_paused=False, has_import_error=False, next_check_at=None)
            for dag in document.dags or ()
        ),
        tokens=tuple(
            replace(token, read_error=None, next_check_at=None, renewal_check_at=None)
            for token in document.tokens
        ),
    )


class TestDump:
    """The text of the Variable: bounded, and always readable."""

    @given(hostile.documents)
    @example(StatusDocument(None, [TokenStatus("a")]))
    def test_what_is_dumped_can_be_loaded(self, document):
        loaded = StatusDocument.load(document.dump())
        assert StatusDocument.load(loaded.dump()) == loaded
        assert len(loaded.tokens) == len(document.tokens)

    def test_all_but_live_values_are_stored(self):
        document = StatusDocument(
            (
                RotationDagStatus(
                    "rotation",
                    schedule=300.0,
                    checked_at=NOON,
                    checked_by="run",
                    deadline_at=NOON + HOUR,
                    interval=HOUR,
                    grace_period=2 * HOUR,
                    configuration_errors=("Wrong.",),
                    failure=Event(NOON, "unavailable", Severity.WARNING, "No response.", "Wait."),
                    clock_skews={"flowauth_default": -3},
                    is_paused=True,
                    next_check_at=NOON,
                ),
            ),
            (
                TokenStatus(
                    "etl main",
                    variable="ETL",
                    dag_id="rotation",
                    name_is_known=False,
                    former_name="ETL",
                    renamed_at=NOON,
                    settings={"variable": "ETL", "renew_before": 0.25},
                    fingerprint="0123abcd",
                    owner="flowbot",
                    audience="flowapi",
                    roles=("runner", "viewer"),
                    issued_at=NOON,
                    renew_at=NOON + HOUR,
                    critical_at=NOON + 2 * HOUR,
                    expires_at=NOON + 3 * HOUR,
                    last_check=Event(NOON, "refused", Severity.WARNING, "No.", "Ask.", map_index=2),
                    rotations=(Event(NOON, "rotated", run_id="run", task_id="rotate"),),
                    rotation_counts={"rotated": 7},
                    last_success_at=NOON,
                    newest_issued_at=NOON,
                    newest_issued_expires_at=NOON + 3 * HOUR,
                    longest_minutes=180,
                    read_error=Event(NOON, "missing", Severity.CRITICAL, "There is none."),
                    next_check_at=NOON,
                    renewal_check_at=NOON,
                ),
            ),
        )
        assert StatusDocument.load(document.dump()) == without_live_values(document)

    @given(st.data())
    def test_a_token_takes_at_most_four_kibibytes(self, data):
        """Whatever its texts are: control characters take six bytes in JSON."""
        character = data.draw(st.sampled_from(['"', "\0", "é", "東", "🔑", "\ud800", "x"]))
        event = Event(
            NOON,
            "rotated",
            Severity.CRITICAL,
            message=character * 10_000,
            hint=character * 10_000,
            fingerprint="0123abcd",
            expires_at=NOON,
            needs_new_token=True,
            run_id=character * data.draw(st.sampled_from([10, 250, 600])),
            task_id="rotate",
            map_index=1000,
            requested_by=character * 10_000,
        )
        token = TokenStatus(
            character * 200,
            variable=character * 250,
            dag_id="d" * 250,
            name_is_known=False,
            former_name=character * 200,
            renamed_at=NOON,
            settings={
                "variable": character * 250,
                "name": character * 200,
                "flowauth_conn_id": character * 250,
            },
            fingerprint="0123abcd",
            owner=character * 10_000,
            audience=character * 10_000,
            roles=[character * 10] * 100,
            issued_at=NOON,
            renew_at=NOON,
            critical_at=NOON,
            expires_at=NOON,
            last_check=event,
            rotations=[event] * data.draw(st.integers(0, 30)),
            rotation_counts={str(outcome): 10**9 for outcome in Outcome},
            last_success_at=NOON,
            newest_issued_at=NOON,
            newest_issued_expires_at=NOON,
            longest_minutes=10**7,
        )
        text = StatusDocument([], [token]).dump()
        assert len(text.encode()) <= LARGEST_TOKEN + len('{"version":3,"dags":[],"tokens":[]}')
        [loaded] = StatusDocument.load(text).tokens
        assert (len(loaded.name), len(loaded.variable)) == (200, 250)
        assert loaded.rotation_counts == token.rotation_counts
        assert loaded.last_check.outcome == "rotated"
        assert len(loaded.rotations) <= LONGEST_HISTORY

    def test_the_oldest_rotations_are_dropped_first(self):
        """The newest and the last check stay, and all fields that are small."""
        rotations = [
            Event(NOON - number * HOUR, "rotated", fingerprint="0123abcd", run_id="r" * 200)
            for number in range(30)
        ]
        token = TokenStatus("etl", "ETL", rotations=rotations, roles=["viewer"], former_name="ETL")
        [loaded] = StatusDocument.load(StatusDocument([], [token]).dump()).tokens
        assert 5 < len(loaded.rotations) < LONGEST_HISTORY
        assert list(loaded.rotations) == rotations[: len(loaded.rotations)]
        assert (loaded.roles, loaded.former_name) == (("viewer",), "ETL")

    def test_a_token_keeps_the_last_twenty_rotations(self):
        rotations = [Event(NOON - number * HOUR, "rotated") for number in range(30)]
        [loaded] = StatusDocument.load(
            StatusDocument([], [TokenStatus("etl", rotations=rotations)]).dump()
        ).tokens
        assert list(loaded.rotations) == rotations[:LONGEST_HISTORY]

    def test_long_texts_are_cut_and_long_ids_are_left_out(self):
        """A part of an id identifies no run."""
        event = Event(NOON, "refused", message="m" * 700, hint="h" * 700, run_id="r" * 400)
        token = TokenStatus("etl", last_check=event, roles=[f"role {n}" for n in range(100)])
        [loaded] = StatusDocument.load(StatusDocument([], [token]).dump()).tokens
        assert loaded.last_check.message.endswith("m…")
        assert loaded.last_check.hint.endswith("h…")
        assert loaded.last_check.run_id is None
        assert loaded.roles[0] == "role 0"
        assert loaded.roles[-1] == "…"

    def test_what_may_be_dropped_are_fields(self):
        assert set(LEAST_NEEDED) <= set(TokenStatus.__dataclass_fields__)


class TestSelect:
    """A requested name always has a token."""

    document = StatusDocument([], [TokenStatus("etl"), TokenStatus("AIRFLOW")])

    def test_an_unknown_name_may_be_one_of_a_dag_that_has_not_checked_yet(self):
        """As for some minutes after an upgrade, in which no alarm may go off."""
        new = RotationDagStatus("new")
        document = replace(self.document, dags=[*self.document.dags, new])
        [token] = document.select(["gone"], NOON).tokens
        assert token.read_error.severity is Severity.UNKNOWN
        assert token.read_error.message == "No check yet of the tokens of new."

    def test_an_unknown_name_is_a_missing_token(self):
        """Otherwise its service would vanish without a notification."""
        known, missing = self.document.select(["gone", "etl", "gone"], NOON).tokens
        assert known.name == "etl"
        assert (missing.name, missing.read_error.outcome) == ("gone", "missing")
        assert missing.read_error.severity is Severity.CRITICAL
        assert "list of managed tokens" in missing.read_error.hint

    def test_an_issuer_is_named_if_it_has_no_such_token(self):
        issued = StatusDocument(None, [], issuer="https://flowauth.example.org")
        [missing] = issued.select(["gone"], NOON).tokens
        assert missing.read_error.message.startswith("https://flowauth.example.org has no")

    def test_a_former_name_selects_its_token(self):
        """A service that is defined by the Variable's key raises no alert after the renaming."""
        renamed = TokenStatus("etl", former_name="ETL_TOKEN", renamed_at=NOON)
        assert StatusDocument([], [renamed]).select(["ETL_TOKEN"], NOON).tokens == [renamed]

    def test_a_name_that_another_token_has_now_selects_that_one(self):
        renamed = TokenStatus("etl", former_name="AIRFLOW", renamed_at=NOON)
        current = TokenStatus("AIRFLOW")
        assert StatusDocument([], [renamed, current]).select(["AIRFLOW"], NOON).tokens == [current]

    def test_no_name_selects_no_token(self):
        assert self.document.select([], NOON).tokens == []


def test_issued_tokens_are_added_by_name():
    """Of tokens for several audiences the one that expires first counts."""
    issued = StatusDocument(
        None,
        [
            TokenStatus("etl", issued_at=NOON, expires_at=NOON + 5 * HOUR),
            TokenStatus("etl", issued_at=NOON - HOUR, expires_at=NOON + 2 * HOUR),
            TokenStatus("other", issued_at=NOON, expires_at=NOON + HOUR),
        ],
        issuer="https://flowauth.example.org",
    )
    document = StatusDocument([], [TokenStatus("etl"), TokenStatus("AIRFLOW")]).with_issued(issued)
    etl, unknown = document.tokens
    assert (etl.newest_issued_at, etl.newest_issued_expires_at) == (NOON - HOUR, NOON + 2 * HOUR)
    assert unknown == TokenStatus("AIRFLOW")
    assert document.issuer == "https://flowauth.example.org"


def test_documents_of_several_dags_are_merged():
    north, south = (
        StatusDocument([RotationDagStatus(dag_id)], [TokenStatus(dag_id, dag_id=dag_id)])
        for dag_id in ("north", "south")
    )
    merged = merge([north, south])
    assert [dag.dag_id for dag in merged.dags] == ["north", "south"]
    assert [token.name for token in merged.tokens] == ["north", "south"]


def test_a_missing_dag_is_left_out_once_another_one_manages_its_tokens():
    """A DAG that was renamed raises no alert; one that is broken does."""
    old, new = RotationDagStatus("old", exists=False), RotationDagStatus("new")
    tokens = [
        TokenStatus("etl", variable="ETL", dag_id="old"),
        TokenStatus("etl", variable="ETL", dag_id="new"),
    ]
    assert StatusDocument([old, new], tokens).without_replaced_dags() == StatusDocument(
        [new], tokens[1:]
    )
    alone = [*tokens, TokenStatus("other", variable="OTHER", dag_id="old")]
    kept = StatusDocument([old, new], alone).without_replaced_dags()
    assert kept == StatusDocument([old, new], alone[1:])
    broken = replace(old, has_import_error=True)
    assert StatusDocument([broken, new], tokens).without_replaced_dags().dags == [broken, new]


def test_tokens_are_sorted_by_expiry():
    late, soon, unknown = (
        TokenStatus("late", expires_at=NOON + HOUR),
        TokenStatus("soon", expires_at=NOON),
        TokenStatus("unknown"),
    )
    assert sort_by_expiry([late, soon, unknown]) == [unknown, soon, late]


class TestCurrentEvents:
    """An event is about the token that was in use after it."""

    token = TokenStatus("etl", fingerprint="0123abcd", issued_at=NOON, expires_at=NOON + HOUR)

    @pytest.mark.parametrize(
        ("event", "is_current"),
        [
            (Event(NOON + MINUTE, "refused", fingerprint="0123abcd"), True),
            (Event(NOON + MINUTE, "refused", fingerprint="fedcba98"), False),
            (Event(NOON - MINUTE, "shadowed", fingerprint="fedcba98"), True),
            (Event(NOON + MINUTE, "unavailable"), True),
            (Event(NOON - MINUTE, "unavailable"), False),
            (Event(NOON + MINUTE, "missing"), False),
        ],
    )
    def test_the_fingerprint_and_the_time_decide(self, event, is_current):
        token = replace(self.token, last_check=event, rotations=[event])
        assert token.is_current(event) is is_current
        assert token.current_result == (event if is_current else None)

    def test_an_event_before_the_token_could_be_read_is_about_a_token_that_still_cannot(self):
        event = Event(NOON, "missing", Severity.CRITICAL)
        assert TokenStatus("etl", last_check=event).current_result == event

    def test_the_failed_rotation_is_the_last_one_if_it_failed(self):
        refused = Event(NOON, "refused", Severity.WARNING, fingerprint="0123abcd")
        rotated = Event(NOON, "rotated", fingerprint="0123abcd")
        assert replace(self.token, rotations=[refused, rotated]).failed_rotation == refused
        assert replace(self.token, rotations=[rotated, refused]).failed_rotation is None
        assert self.token.failed_rotation is None
        assert self.token.current_result is None


def test_an_event_has_the_facts_of_its_report():
    report = Report(
        "etl",
        "Variable ETL",
        Outcome.REFUSED,
        "No role.",
        NOON,
        severity=Severity.WARNING,
        hint="Grant it.",
        expires_at=NOON + HOUR,
        fingerprint="0123abcd",
        needs_new_token=True,
    )
    event = build_event(report, run_id="run", task_id="rotate", map_index=3)
    assert event == Event(
        NOON,
        "refused",
        Severity.WARNING,
        "No role.",
        "Grant it.",
        "0123abcd",
        NOON + HOUR,
        needs_new_token=True,
        run_id="run",
        task_id="rotate",
        map_index=3,
    )
    assert event.has_failed
