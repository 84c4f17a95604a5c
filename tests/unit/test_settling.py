"""The two tables of settling, over all their inputs, against a second reading of the specification."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncsvc.rules.settling import (
    CLOCK_RESOLUTION,
    Decision,
    Doubt,
    Finding,
    Grade,
    Reading,
    Sighting,
    Terms,
    Then,
    Verdict,
    find,
    find_witness,
    grade_of,
    opening,
    read_answer,
    weigh,
)

ROWS = 5
SENT = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
SETTLE = timedelta(minutes=5)
GIVE_UP = timedelta(hours=1)
GOOD = {"import_id": "i-1", "imported_members": ROWS}

NOT_APPLIED = {
    401: Then.PAUSE,
    403: Then.PAUSE,
    404: Then.PAUSE,
    405: Then.PAUSE,
    413: Then.SMALLER,
    429: Then.WAIT,
}

NAMING_ROWS = {"message": "x", "errors": {"users.1.email": ["a@b.example is bad"], "users.3": ["bad"]}}
NAMING_NONE: list[Any] = [
    None,
    "<html>",
    [],
    {},
    {"message": "The given data was invalid."},
    {"errors": None},
    {"errors": []},
    {"errors": ["users.1.email"]},
    {"errors": {}},
    {"errors": {f"users.{ROWS}.email": ["a row that was not sent"]}},
    {"errors": {"users.x.email": ["bad"], "user.1.email": ["bad"], "x.users.1.email": ["bad"]}},
    {"errors": {"users.-1.email": ["bad"], "users.1.email\n": ["bad"], "users.1\u0663.email": ["bad"]}},
]
NAMING_THE_WHOLE: list[Any] = [
    {"errors": {"organization_id": ["MARKED"]}},
    {"errors": {"users": ["too many"]}},
]
BAD_SUCCESS: list[Any] = [
    None,
    True,
    5,
    "ok",
    [],
    [GOOD],
    {},
    {"imported_members": ROWS},
    {"import_id": "", "imported_members": ROWS},
    {"import_id": None, "imported_members": ROWS},
    {"import_id": 7, "imported_members": ROWS},
    {"import_id": "i-1"},
    {"import_id": "i-1", "imported_members": None},
    {"import_id": "i-1", "imported_members": ROWS - 1},
    {"import_id": "i-1", "imported_members": ROWS + 1},
    {"import_id": "i-1", "imported_members": 0},
    {"import_id": "i-1", "imported_members": -ROWS},
    {"import_id": "i-1", "imported_members": ROWS + 0.5},
    {"import_id": "i-1", "imported_members": [ROWS]},
    {"import_id": "i-1", "imported_members": "five"},
    {"import_id": "i-1", "imported_members": "\u0665"},
    {"data": GOOD},
]
ERRORS_INSIDE: list[Any] = [
    GOOD | {"success": False},
    GOOD | {"status": "failed"},
    GOOD | {"error": "Something went wrong."},
    GOOD | {"errors": ["bad"]},
]
BODIES = [GOOD, NAMING_ROWS, *NAMING_NONE, *BAD_SUCCESS, *ERRORS_INSIDE]


def expected(status: int, body: Any) -> tuple[Verdict, set[int]]:
    """The first table of the specification, read a second time."""
    if status in NOT_APPLIED:
        return Verdict.REFUTED, set()
    if status == 422:
        return (Verdict.ROWS_REFUSED, {1, 3}) if body is NAMING_ROWS else (Verdict.UNREADABLE, set())
    if 200 <= status < 300 and body == GOOD:
        return Verdict.LANDED, set()
    return Verdict.DOUBT, set()


def test_every_status_with_every_kind_of_body_proves_what_the_table_says() -> None:
    for status, body in itertools.product(range(100, 600), BODIES):
        reading = read_answer(status, body, rows=ROWS)
        verdict, refused = expected(status, body)
        assert (reading.verdict, set(reading.refused or ())) == (verdict, refused), (status, body)


@pytest.mark.parametrize(("status", "then"), sorted(NOT_APPLIED.items()))
def test_an_answer_before_any_row_was_looked_at_says_what_the_delivery_does_next(
    status: int, then: Then
) -> None:
    for body in BODIES:
        assert read_answer(status, body, rows=ROWS).then is then


@pytest.mark.parametrize("status", [400, 402, 409, 418, 500, 502, 503, 504, 520, 599, 100, 199])
def test_a_wallet_that_fails_gets_time(status: int) -> None:
    assert read_answer(status, GOOD, rows=ROWS).then is Then.WAIT


@pytest.mark.parametrize("status", range(300, 400))
def test_a_redirect_pauses_the_delivery_for_a_person(status: int) -> None:
    assert read_answer(status, GOOD, rows=ROWS).then is Then.PAUSE


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_an_answer_of_success_or_422_lets_the_delivery_go_on(status: int) -> None:
    for body in BODIES:
        assert read_answer(status, body, rows=ROWS).then is Then.GO_ON
        assert read_answer(422, body, rows=ROWS).then is Then.GO_ON


@pytest.mark.parametrize("body", NAMING_THE_WHOLE)
def test_a_refusal_of_the_whole_request_blames_no_row_and_pauses(body: Any) -> None:
    reading = read_answer(422, body, rows=ROWS)
    assert (reading.verdict, reading.then, reading.refused) == (Verdict.DOUBT, Then.PAUSE, None)
    assert "MARKED" not in reading.detail


def test_a_landed_batch_keeps_its_import_id_and_count() -> None:
    reading = read_answer(201, GOOD | {"extra": 1}, rows=ROWS)
    assert (reading.import_id, reading.imported) == ("i-1", ROWS)


def test_a_short_success_keeps_what_the_wallet_said() -> None:
    reading = read_answer(200, {"import_id": "i-1", "imported_members": 2}, rows=ROWS)
    assert (reading.verdict, reading.import_id, reading.imported) == (Verdict.DOUBT, "i-1", 2)


def test_a_count_that_is_true_is_not_one_row() -> None:
    assert read_answer(200, {"import_id": "i", "imported_members": True}, rows=1).verdict is Verdict.DOUBT


def test_no_detail_repeats_what_the_wallet_wrote() -> None:
    body = {
        "message": "MARKED",
        "error": "MARKED",
        "errors": {"users.1.email": ["MARKED"], "MARKED": ["MARKED"]},
    }
    for status in range(100, 600):
        reading = read_answer(status, body, rows=ROWS)
        assert "MARKED" not in repr(reading), status
        assert reading.detail


def test_a_row_refused_for_two_fields_is_refused_once_for_the_first() -> None:
    body = {"errors": {"users.0.points": ["bad"], "users.0.email": ["bad"], "users.0": ["bad"]}}
    assert read_answer(422, body, rows=ROWS).refused == {0: "points"}


@given(
    status=st.integers(-1, 1000),
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["import_id", "imported_members", "errors", "error", "success", "users.0"])
                | st.text(),
                inner,
            )
        ),
        max_leaves=8,
    ),
    rows=st.integers(1, 2000),
)
def test_whatever_a_wallet_answers_is_read_and_never_called_landed_without_its_proof(
    status: int, body: Any, rows: int
) -> None:
    reading = read_answer(status, body, rows=rows)
    assert isinstance(reading, Reading)
    assert all(0 <= position < rows for position in reading.refused or ())
    if reading.verdict is Verdict.LANDED:
        assert 200 <= status < 300
        assert isinstance(body["import_id"], str)
        assert body["import_id"]
        assert str(body["imported_members"]).lstrip("0") == str(rows)


# What the log shows of a row.


def sighting(moved_to: datetime | None, *, before: str | None = "old") -> Sighting:
    """An entry that moved to a time, or stands still where there is none."""
    if moved_to is None:
        return Sighting(before, before, SENT - 10 * DAY if before else None)
    return Sighting(before, moved_to.isoformat(), moved_to)


def doubt(
    *,
    age: timedelta = timedelta(),
    quiet: timedelta = timedelta(),
    resolution: timedelta = SECOND,
    witness: Finding | None = None,
) -> Doubt:
    return Doubt(SENT, age, quiet, resolution, witness)


def terms(evidence: Grade = Grade.WINDOW, on_doubt: Decision = Decision.HOLD) -> Terms:
    return Terms(SETTLE, GIVE_UP, evidence, on_doubt)


INSIDE = sighting(SENT + 2 * SECOND)
OUTSIDE = sighting(SENT + SETTLE + 5 * SECOND)
UNMOVED = sighting(None)


@pytest.mark.parametrize(
    ("seen", "finding"),
    [
        (Sighting("a", "a", SENT - DAY), Finding.UNMOVED),
        (Sighting(None, None, None), Finding.UNMOVED),
        (Sighting("a", "b", SENT), Finding.IN_WINDOW),
        (Sighting(None, "b", SENT), Finding.IN_WINDOW),
        (Sighting("a", "b", SENT + SETTLE), Finding.IN_WINDOW),
        (Sighting("a", "b", SENT + SETTLE + 2 * SECOND), Finding.ELSEWHERE),
        (Sighting("a", "b", SENT - 3 * SECOND), Finding.ELSEWHERE),
        (Sighting("a", "b", None), Finding.ELSEWHERE),
    ],
)
def test_an_entry_stands_still_or_moves_into_the_window_or_elsewhere(
    seen: Sighting, finding: Finding
) -> None:
    assert find(seen, doubt(), SETTLE) is finding


@given(offset=st.integers(-3 * 86400, 3 * 86400), resolution=st.sampled_from([SECOND, 60 * SECOND, DAY]))
def test_the_window_opens_by_the_resolution_before_the_request_and_closes_settle_after_later(
    offset: int, resolution: timedelta
) -> None:
    at = SENT + offset * SECOND
    found = find(Sighting("a", "b", at), doubt(resolution=resolution), SETTLE)
    inside = SENT - resolution - CLOCK_RESOLUTION <= at <= SENT + SETTLE + CLOCK_RESOLUTION
    assert (found is Finding.IN_WINDOW) is inside


@pytest.mark.parametrize("resolution", [timedelta(milliseconds=1), SECOND, 60 * SECOND, DAY])
def test_an_award_truncated_to_the_logs_resolution_still_falls_into_its_own_window(
    resolution: timedelta,
) -> None:
    for late in (0, 1, 59, 86399):
        sent = SENT + late * SECOND + timedelta(milliseconds=999)
        told = datetime.fromtimestamp(
            sent.timestamp() // resolution.total_seconds() * resolution.total_seconds(), UTC
        )
        seen = Sighting("a", "b", told)
        at = Doubt(sent, timedelta(), timedelta(), resolution)
        assert find(seen, at, SETTLE) is Finding.IN_WINDOW


@pytest.mark.parametrize(
    ("inside", "rows", "grade"),
    [
        (9, 9, Grade.WINDOW),
        (9, 10, Grade.UNANIMOUS),
        (8, 10, Grade.WINDOW),
        (10, 11, Grade.UNANIMOUS),
        (9, 11, Grade.WINDOW),
        (0, 10, Grade.WINDOW),
        (1800, 2000, Grade.UNANIMOUS),
        (1799, 2000, Grade.WINDOW),
    ],
)
def test_unanimity_is_nine_in_ten_of_at_least_ten_rows(inside: int, rows: int, grade: Grade) -> None:
    findings = [Finding.IN_WINDOW] * inside + [Finding.UNMOVED] * (rows - inside)
    assert grade_of(findings, None) is grade


def test_unanimity_is_counted_exactly_for_every_size_of_a_batch() -> None:
    for rows in range(1, 2001):
        least = -(-rows * 9 // 10)
        assert Fraction(least, rows) >= Fraction(9, 10)
        for inside in (least, least - 1):
            findings = [Finding.IN_WINDOW] * inside + [Finding.ELSEWHERE] * (rows - inside)
            unanimous = rows >= 10 and inside == least
            assert (grade_of(findings, None) is Grade.UNANIMOUS) is unanimous, (inside, rows)


def test_only_a_witness_that_moved_into_the_window_bears_witness() -> None:
    rows = [Finding.ELSEWHERE] * 20
    assert grade_of(rows, Finding.IN_WINDOW) is Grade.WITNESS
    assert grade_of(rows, Finding.ELSEWHERE) is Grade.WINDOW
    assert grade_of(rows, Finding.UNMOVED) is Grade.WINDOW
    assert grade_of([Finding.IN_WINDOW] * 20, Finding.IN_WINDOW) is Grade.WITNESS


# The second table, over every combination.

STRENGTH = {Grade.WINDOW: 1, Grade.UNANIMOUS: 2, Grade.WITNESS: 3}
COMPANY = {Grade.WINDOW: (0, None), Grade.UNANIMOUS: (99, None), Grade.WITNESS: (0, Finding.IN_WINDOW)}
TIMES = [timedelta(), SETTLE - SECOND, SETTLE + SECOND, GIVE_UP - SECOND, GIVE_UP + SECOND]


def table(
    finding: Finding, grade: Grade, evidence: Grade, age: timedelta, quiet: timedelta, on_doubt: Decision
) -> tuple[Decision, Grade]:
    """The second table of the specification, read a second time."""
    if finding is Finding.UNMOVED:
        passed = age > SETTLE and quiet > SETTLE
        return (Decision.REFUTED if passed else Decision.WAIT), Grade.UNMOVED
    landed = finding is Finding.IN_WINDOW or grade in {Grade.UNANIMOUS, Grade.WITNESS}
    if landed and STRENGTH[grade] >= STRENGTH[evidence]:
        return Decision.LANDED, grade
    return (on_doubt, Grade.POLICY) if age > GIVE_UP else (Decision.WAIT, grade)


@pytest.mark.parametrize("grade", COMPANY)
@pytest.mark.parametrize("evidence", STRENGTH)
@pytest.mark.parametrize(
    ("seen", "finding"),
    [(UNMOVED, Finding.UNMOVED), (INSIDE, Finding.IN_WINDOW), (OUTSIDE, Finding.ELSEWHERE)],
)
def test_a_row_in_doubt_is_settled_as_the_table_says(
    seen: Sighting, finding: Finding, grade: Grade, evidence: Grade
) -> None:
    company, witness = COMPANY[grade]
    for age, quiet, on_doubt in itertools.product(
        TIMES, TIMES, (Decision.HOLD, Decision.AWARD, Decision.SKIP)
    ):
        rows = [seen, *[INSIDE] * company]
        case = doubt(age=age, quiet=quiet, witness=witness)
        first = weigh(rows, case, terms(evidence, on_doubt))[0]
        assert first == table(finding, grade, evidence, age, quiet, on_doubt), (age, quiet, on_doubt)


sightings = st.builds(
    Sighting,
    before=st.none() | st.just("a"),
    now=st.sampled_from(["a", "b"]),
    at=st.none() | st.integers(-200_000, 200_000).map(lambda offset: SENT + offset * SECOND),
)
spans = st.integers(0, 8000).map(lambda seconds: seconds * SECOND)


@given(
    rows=st.lists(sightings, max_size=12),
    age=spans,
    quiet=spans,
    witness=st.none() | st.sampled_from(list(Finding)),
    evidence=st.sampled_from(list(STRENGTH)),
    on_doubt=st.sampled_from([Decision.HOLD, Decision.AWARD, Decision.SKIP]),
)
def test_every_row_has_one_decision_and_none_is_sent_anew_without_proof_or_policy(
    rows: Sequence[Sighting],
    age: timedelta,
    quiet: timedelta,
    witness: Finding | None,
    evidence: Grade,
    on_doubt: Decision,
) -> None:
    decided = weigh(rows, doubt(age=age, quiet=quiet, witness=witness), terms(evidence, on_doubt))
    assert len(decided) == len(rows)
    for row, (decision, grade) in zip(rows, decided, strict=True):
        if decision is Decision.REFUTED:
            assert row.now == row.before
            assert min(age, quiet) > SETTLE
        if decision is Decision.LANDED:
            assert row.now != row.before
            assert STRENGTH[grade] >= STRENGTH[evidence]
        if decision in {Decision.HOLD, Decision.AWARD, Decision.SKIP}:
            assert decision is on_doubt
            assert age > GIVE_UP
        if age <= SETTLE:
            assert decision in {Decision.WAIT, Decision.LANDED}


@given(rows=st.lists(sightings, min_size=1, max_size=12), age=spans, quiet=spans, more=spans)
def test_time_alone_never_turns_a_settled_row_around(
    rows: Sequence[Sighting], age: timedelta, quiet: timedelta, more: timedelta
) -> None:
    sooner = weigh(rows, doubt(age=age, quiet=quiet), terms())
    later = weigh(rows, doubt(age=age + more, quiet=quiet + more), terms())
    for before, after in zip(sooner, later, strict=True):
        assert before[0] is Decision.WAIT or after == before


@pytest.mark.parametrize("proof", [Grade.WITNESS, Grade.UNANIMOUS])
def test_a_row_that_somebody_else_moved_lands_with_a_proven_batch(proof: Grade) -> None:
    company, witness = COMPANY[proof]
    rows = [OUTSIDE, *[INSIDE] * company]
    assert weigh(rows, doubt(witness=witness), terms())[0] == (Decision.LANDED, proof)


def test_a_row_that_somebody_else_moved_alone_stays_in_doubt_until_the_policy_decides() -> None:
    assert weigh([OUTSIDE], doubt(age=GIVE_UP, quiet=GIVE_UP), terms())[0][0] is Decision.WAIT
    past = doubt(age=GIVE_UP + SECOND, quiet=GIVE_UP)
    assert weigh([OUTSIDE], past, terms())[0] == (Decision.HOLD, Grade.POLICY)


def test_a_batch_that_still_moves_refutes_nothing_however_old_it_is() -> None:
    rows = [UNMOVED, INSIDE]
    decided = weigh(rows, doubt(age=10 * GIVE_UP, quiet=SETTLE), terms())
    assert decided[0] == (Decision.WAIT, Grade.UNMOVED)


# Trap (a): an award within the log's resolution leaves no trace.


@given(
    resolution=st.sampled_from([timedelta(milliseconds=1), SECOND, 60 * SECOND, DAY]),
    sent=st.integers(0, 200_000_000).map(lambda ms: SENT + timedelta(milliseconds=ms)),
    earlier=st.integers(0, 200_000_000).map(lambda ms: timedelta(milliseconds=ms)),
)
def test_an_entry_older_than_the_opening_cannot_be_equal_to_that_of_the_request(
    resolution: timedelta, sent: datetime, earlier: timedelta
) -> None:
    def told(at: datetime) -> int:
        return (at - datetime(1970, 1, 1, tzinfo=UTC)) // resolution

    before = sent - earlier
    shown = datetime(1970, 1, 1, tzinfo=UTC) + told(before) * resolution
    heard = sent.replace(microsecond=0)  # the wallet's clock tells whole seconds
    if shown < opening(heard, resolution):
        assert told(before) != told(sent)


FRESH = [(Sighting("a", "a", SENT - resolution), resolution) for resolution in (SECOND, 60 * SECOND, DAY)] + [
    (Sighting("a", "a", SENT), SECOND),
    (Sighting("a", "a", SENT + SECOND), SECOND),
]


@pytest.mark.parametrize(("seen", "resolution"), FRESH)
def test_an_unmoved_entry_as_fresh_as_the_request_proves_nothing(
    seen: Sighting, resolution: timedelta
) -> None:
    late = doubt(age=GIVE_UP, quiet=GIVE_UP, resolution=resolution)
    assert weigh([seen], late, terms())[0][0] is Decision.WAIT


def test_an_unmoved_entry_clearly_older_than_the_request_is_proof() -> None:
    for resolution in (SECOND, 60 * SECOND, DAY):
        seen = Sighting("a", "a", opening(SENT, resolution) - SECOND)
        late = doubt(age=GIVE_UP, quiet=GIVE_UP, resolution=resolution)
        assert weigh([seen], late, terms())[0] == (Decision.REFUTED, Grade.UNMOVED)


def test_an_entry_that_is_gone_from_the_log_proves_nothing() -> None:
    late = doubt(age=GIVE_UP, quiet=GIVE_UP)
    assert weigh([Sighting("a", None, None)], late, terms())[0][0] is Decision.WAIT


def test_a_witness_that_stood_still_refutes_what_others_moved() -> None:
    late = doubt(age=SETTLE + SECOND, quiet=SETTLE + SECOND, witness=Finding.UNMOVED)
    assert weigh([INSIDE], late, terms())[0][0] is not Decision.LANDED


def test_a_count_of_absurd_length_is_an_answer_in_doubt() -> None:
    body = GOOD | {"imported_members": "9" * 5000}
    assert read_answer(200, body, rows=ROWS).verdict is Verdict.DOUBT


# Trap (b): an entry may move late.


@given(lag=st.integers(0, int(SETTLE.total_seconds())), looks=st.lists(st.integers(0, 4000), max_size=6))
def test_an_award_shown_at_most_settle_after_late_is_never_refuted(lag: int, looks: list[int]) -> None:
    moved = sighting(SENT + lag * SECOND)
    for look in sorted(looks):
        age = look * SECOND
        seen = moved if look >= lag else UNMOVED
        decision, _ = weigh([seen], doubt(age=age, quiet=age), terms())[0]
        assert decision is (Decision.LANDED if look >= lag else Decision.WAIT)


# Every kind of entry, with every kind of company, witness and log.

FRESH = Sighting("a", "a", SENT)
UNREAD = Sighting("a", "a", None)
RESTATED = Sighting("a", "b", SENT, restated=True)
GONE = Sighting("a", None, None)
UNREADABLE = Sighting("a", "b", None)
EARLIER = Sighting("a", "b", SENT - DAY)
KINDS = {
    "unmoved": (UNMOVED, Finding.UNMOVED),
    "never seen": (Sighting(None, None, None), Finding.UNMOVED),
    "inside": (INSIDE, Finding.IN_WINDOW),
    "later": (OUTSIDE, Finding.ELSEWHERE),
    "earlier": (EARLIER, Finding.ELSEWHERE),
    "moved to what is no time": (UNREADABLE, Finding.ELSEWHERE),
    "as fresh as the request": (FRESH, Finding.MUTE),
    "no time all along": (UNREAD, Finding.MUTE),
    "another form of the same time": (RESTATED, Finding.MUTE),
    "gone": (GONE, Finding.MUTE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_entry_is_found_to_be_what_it_is(kind: str) -> None:
    seen, finding = KINDS[kind]
    assert find(seen, doubt(), SETTLE) is finding


@pytest.mark.parametrize("kind", KINDS)
def test_a_witness_is_as_any_row_but_an_earlier_time_says_that_it_has_not_moved(kind: str) -> None:
    seen, finding = KINDS[kind]
    expected = Finding.UNMOVED if kind == "earlier" else finding
    assert find_witness(seen, doubt(), SETTLE) is expected


def weighed(
    finding: Finding,
    company: Sequence[Finding],
    evidence: Grade,
    on_doubt: Decision,
    case: Doubt,
) -> tuple[Decision, Grade]:
    """What the specification says of one row among others, read a second time."""
    findings = [finding, *company]
    if case.witness is Finding.UNMOVED:
        findings = [it if it is Finding.UNMOVED else Finding.MUTE for it in findings]
    if case.short:
        findings = [Finding.MUTE if it is Finding.UNMOVED else it for it in findings]
    inside = findings.count(Finding.IN_WINDOW)
    unanimous = len(findings) >= 10 and Fraction(inside, len(findings)) >= Fraction(9, 10)
    grade = Grade.UNANIMOUS if unanimous else Grade.WINDOW
    grade = Grade.WITNESS if case.witness is Finding.IN_WINDOW else grade
    finding = findings[0]
    if finding is Finding.UNMOVED:
        passed = case.age > SETTLE and case.quiet > SETTLE
        return (Decision.REFUTED if passed else Decision.WAIT), Grade.UNMOVED
    ours = {Finding.IN_WINDOW} | ({Finding.ELSEWHERE} if grade is not Grade.WINDOW else set())
    if finding in ours and STRENGTH[grade] >= STRENGTH[evidence]:
        return Decision.LANDED, grade
    return (on_doubt, Grade.POLICY) if case.age > GIVE_UP else (Decision.WAIT, grade)


@pytest.mark.parametrize("witness", [None, *Finding])
@pytest.mark.parametrize("short", [False, True])
def test_every_row_in_every_company_is_settled_as_the_specification_says(
    *, witness: Finding | None, short: bool
) -> None:
    companies = [[], ["inside"] * 9, ["inside"] * 8 + ["later"], ["unmoved"] * 9]
    count = 0
    for kind, company, evidence, age, quiet, on_doubt in itertools.product(
        KINDS,
        companies,
        STRENGTH,
        TIMES,
        [SETTLE - SECOND, SETTLE + SECOND],
        (Decision.HOLD, Decision.AWARD, Decision.SKIP),
    ):
        case = Doubt(SENT, age, quiet, SECOND, witness, short)
        rows = [KINDS[it] for it in (kind, *company)]
        found = weigh([seen for seen, _ in rows], case, terms(evidence, on_doubt))[0]
        others = [finding for _, finding in rows[1:]]
        expected = weighed(rows[0][1], others, evidence, on_doubt, case)
        assert found == expected, (kind, company, evidence, age, quiet, on_doubt)
        count += 1
        if found[0] is Decision.REFUTED:
            assert not short
        if witness is Finding.UNMOVED or kind in {"gone", "another form of the same time"}:
            assert found[0] is not Decision.LANDED
    assert count == len(KINDS) * 4 * 3 * 5 * 2 * 3


FLAGS: list[dict[str, Any]] = [
    {},
    {"success": True},
    {"success": False},
    {"status": "failed"},
    {"status": "done"},
    {"error": "x"},
    {"error": ""},
    {"errors": []},
    {"errors": {"users.0": ["x"]}},
]
IDS: list[Any] = ["i-1", "", None, 7, ["i"]]
COUNTS: list[Any] = [
    ROWS,
    str(ROWS),
    f"0{ROWS}",
    ROWS - 1,
    0,
    -ROWS,
    None,
    True,
    float(ROWS),
    "",
    " 5",
    "9" * 5000,
]


def test_every_combination_of_what_an_answer_of_success_may_hold_is_read_as_the_table_says() -> None:
    bad = [{"success": False}, {"status": "failed"}, {"error": "x"}, {"errors": {"users.0": ["x"]}}]
    for status, flags, import_id, count in itertools.product((200, 201, 299), FLAGS, IDS, COUNTS):
        body = {"import_id": import_id, "imported_members": count, **flags}
        landed = flags not in bad and import_id == "i-1" and count in {ROWS, str(ROWS), f"0{ROWS}"}
        landed = landed and not isinstance(count, float)
        reading = read_answer(status, body, rows=ROWS)
        assert (reading.verdict is Verdict.LANDED) is landed, (status, body)
        assert reading.verdict in {Verdict.LANDED, Verdict.DOUBT}
