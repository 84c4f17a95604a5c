"""CSV exports: every form a file has, every way in which it is broken, and the results beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.csv import Csv
from syncsvc.errors import NotSentError, OperatorError, SchemaError, StoppedError, TransientError
from syncsvc.model import Contact, FieldValue, Page, WriteBack, Written
from syncsvc.remote.connector import Needs
from syncsvc.remote.transport import Network

AT = datetime(2026, 11, 1, 23, 30, 5, tzinfo=UTC)
NEEDS = Needs(frozenset({"email", "name"}), {"last_updated": "wallet", "status": "state"})
GOOD = b"id,email,name\n1,a@example.org,Ann\n2,b@example.org,Bob\n"


class Still(Network):
    """A network that waits for nothing, and tells what happens meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None
        self.waited: list[float] = []

    def sleep(self, seconds: float) -> None:
        if seconds:
            self.waited.append(seconds)
        self.meanwhile()


@pytest.fixture(scope="module")
def network() -> Still:
    return Still()


class Export:
    """An exported file, and a connector that reads it."""

    def __init__(self, folder: Path, network: Still) -> None:
        self.path = folder / "members.csv"
        self.results = folder / "members.results.csv"
        self.network = network
        network.meanwhile, network.waited = lambda: None, []

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)

    def connect(self, needs: Needs = NEEDS, **keys: Any) -> Csv:
        settings = Csv.Settings.model_validate({"path": str(self.path), "key": "id", **keys})
        return Csv(settings, needs, self.network)  # type: ignore[arg-type]

    def pages(self, cursor: str | None = None, **keys: Any) -> list[Page]:
        return list(self.connect(**keys).changes(cursor))

    def contacts(self, **keys: Any) -> dict[str, Contact]:
        return {it.record_id: it for page in self.pages(**keys) for it in page.contacts}

    def values(self, **keys: Any) -> dict[str, dict[str, FieldValue]]:
        return {
            key: {name: it.fields[name] for name in NEEDS.read} for key, it in self.contacts(**keys).items()
        }

    def refusals(self, content: bytes, **keys: Any) -> dict[str, str]:
        self.write(content)
        return {key: it.refusal for key, it in self.contacts(**keys).items() if it.refusal}

    def put_back(self, *record_ids: str, **keys: Any) -> list[Written]:
        values = [WriteBack(it, {"wallet": AT, "state": "imported"}) for it in record_ids]
        return [it.result for it in self.connect(**keys).write_back(values)]


@pytest.fixture
def export(tmp_path: Path, network: Still) -> Export:
    return Export(tmp_path, network)


ANN = {"1": {"email": "a@example.org", "name": 'Ännchen,\r\n;"x"'}}


@pytest.mark.parametrize(
    "content",
    [
        'id,email,name\n1,a@example.org,"Ännchen,\r\n;""x"""\n',
        'id,email,name\r\n1,a@example.org,"Ännchen,\r\n;""x"""',
        '\ufeffid;email;name\r\n1;a@example.org;"Ännchen,\r\n;""x"""\r\n',
        '\ufeff"id"\t"name"\t"email"\r\n"1"\t"Ännchen,\r\n;""x"""\t"a@example.org"\r\n',
        'sep=|\r\n\r\n id | email |name|more\r\n 1 |a@example.org|"Ännchen,\r\n;""x"""|\r\n|||\r\n\r\n',
    ],
    ids=["commas", "crlf-unended", "excel", "tabs-quoted", "sep-line-and-empty-rows"],
)
def test_every_form_of_an_export_gives_the_same_contacts(export: Export, content: str) -> None:
    export.write(content.encode())
    assert export.values() == ANN
    assert export.refusals(content.encode()) == {}


def test_export_in_windows_1252_is_read_where_that_is_said(export: Export) -> None:
    content = "id;email;name\r\n1;a@example.org;Zoë €\r\n".encode("windows-1252")
    assert "is not text in utf-8" in next(iter(export.refusals(content).values()))
    assert export.values(encoding="windows-1252")["1"]["name"] == "Zoë €"


@pytest.mark.parametrize("cursor", [True, False], ids=["poll", "sweep"])
def test_export_that_is_being_written_is_not_read(export: Export, *, cursor: bool) -> None:
    export.write(GOOD)
    before = export.pages()[-1].cursor if cursor else None
    export.write(GOOD + b"3,c@exam")
    export.network.meanwhile = lambda: export.write(GOOD + b"3,c@example.org,Cat\n4,")
    with pytest.raises(TransientError, match="being written"):
        export.pages(before)
    export.network.meanwhile = lambda: None
    assert export.network.waited[-1] == 3
    export.write(GOOD + b"3,c@example.org,Cat\n")
    assert {it.record_id for page in export.pages(before) for it in page.contacts} == {"1", "2", "3"}


@pytest.mark.parametrize("years", [-30, 30])
def test_what_the_clock_of_a_file_says_is_of_no_account(export: Export, years: int) -> None:
    at = (datetime.now(UTC) + timedelta(days=365 * years)).timestamp()
    export.write(GOOD)
    os.utime(export.path, (at, at))
    cursor = export.pages()[-1].cursor
    assert [(page.cursor, page.contacts) for page in export.pages(cursor)] == [(cursor, [])]
    export.write(GOOD.replace(b"Ann", b"Eve"))
    os.utime(export.path, (at, at))
    found = {it.record_id: it.fields["name"] for page in export.pages(cursor) for it in page.contacts}
    assert found == {"1": "Eve", "2": "Bob"}


def test_idle_poll_waits_for_nothing(export: Export) -> None:
    export.write(GOOD)
    connector = export.connect()
    cursor = list(connector.changes(None))[-1].cursor
    export.write(GOOD + b"3,c@example.org,Cat\n")
    export.network.waited.clear()
    assert all(page.whole for page in connector.changes(cursor))
    list(connector.changes(None))
    assert export.network.waited == [3.0], "the sweep that follows such a poll need not wait again"
    list(connector.changes(list(connector.changes(None))[-1].cursor))
    assert export.network.waited == [3.0]


def test_export_written_over_while_it_is_read_ends_the_reading(export: Export) -> None:
    rows = b"".join(b"%d,p%d@example.org,P\n" % (n, n) for n in range(1200))
    export.write(b"id,email,name\n" + rows)
    pages = export.connect().changes(None)
    assert [len(next(pages).contacts) for _ in range(2)] == [0, 500]
    with export.path.open("r+b") as file:
        file.write(b"id,name,email\n")
    with pytest.raises(TransientError, match="being written"):
        list(pages)


def test_service_that_stops_does_not_wait_for_the_end_of_an_export(export: Export) -> None:
    rows = b"".join(b"%d,p%d@example.org,P\n" % (n, n) for n in range(600))
    export.write(b"id,email,name\n" + rows)
    pages = export.connect().changes(export.pages()[1].cursor)  # in the midst of an export that stands still

    def stop() -> None:
        raise StoppedError("asked to stop")

    export.network.meanwhile = stop
    with pytest.raises(StoppedError):
        next(pages)
    assert export.network.waited == [3.0]


def test_export_replaced_before_the_first_rows_are_asked_for_is_the_one_that_is_read(export: Export) -> None:
    rows = [b"%d,p%d@example.org,P\n" % (n, n) for n in range(1200)]
    export.write(b"id,email,name\n" + b"".join(rows))
    pages = export.connect().changes(None)
    assert next(pages).contacts == []
    export.write(b"id,email,name\n" + b"".join(rows[1:]))
    rest = list(pages)
    assert {it.record_id for page in rest for it in page.contacts} == {str(n) for n in range(1, 1200)}
    assert [page.contacts for page in export.pages(rest[-1].cursor)] == [[]], "nothing of the other was read"


def test_reading_that_went_on_in_another_export_is_not_polled_from(export: Export) -> None:
    rows = [b"%d,p%d@example.org,P\n" % (n, n) for n in range(1200)]
    export.write(b"id,email,name\n" + b"".join(rows))
    first = export.pages()[1]
    export.write(b"id,email,name\n" + b"".join(rows[1:]))
    second = export.pages(first.cursor)
    assert {it.record_id for page in second for it in page.contacts} == {str(n) for n in range(1, 1200)}
    again = export.pages(second[-1].cursor)
    assert all(page.whole for page in again), "what the other export held besides is found by nobody else"
    assert [page.contacts for page in export.pages(again[-1].cursor)] == [[]]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"9,c@example.org\n", "line 3 of members.csv has 2 cells, and the header has 3"),
        (b"9,c@example.org,Cat,\n", "line 3 of members.csv has 4 cells, and the header has 3"),
        (b'9,c@example.org,"Cat" x\n', "line 3 of members.csv has a quote inside a cell"),
        (b"9,c@example.org,\xff\xfe\n", "line 3 of members.csv is not text in utf-8"),
        (b"9,c@example.org,C\rat\n", "line 3 of members.csv ends with a carriage return alone"),
        (b" ,c@example.org,Cat\n", "line 3 of members.csv has nothing in the key column"),
        (b"c@example.org,c@example.org,Cat\n", "line 3 of members.csv has an email in the key column"),
        (b"%s,c@example.org,Cat\n" % (b"9" * 256), "line 3 of members.csv has a key of more than 255"),
        (b'"9\n9",c@example.org,Cat\n', "line 3 of members.csv has a key with line breaks"),
        (
            b'9,c@example.org,"%s"\n' % (b"x" * 140_000),
            "line 3 of members.csv has a cell of more than 131,072",
        ),
    ],
)
def test_row_that_cannot_be_read_is_refused_by_its_line_and_the_rest_flows(
    export: Export, line: bytes, problem: str
) -> None:
    good = GOOD.splitlines(keepends=True)
    refusals = export.refusals(b"".join([*good[:2], line, good[2]]))
    ((record_id, refusal),) = refusals.items()
    assert refusal.startswith(problem)
    assert "correct the line" in refusal
    assert "example" not in record_id + refusal
    assert export.contacts().keys() == {"1", "2", record_id}
    assert export.pages()[-1].partial, "who stands in that row is not known"
    moved = export.refusals(b"".join([good[0], good[2], b"7,g@example.org,G\n", good[1], line]))
    assert list(moved) == [record_id], "the row stays the same wherever it stands"
    export.write(GOOD)
    assert not export.pages()[-1].partial


def test_quote_that_is_never_closed_swallows_nobody_unseen(export: Export) -> None:
    refusals = export.refusals(GOOD + b'3,c@example.org,"Cat\n4,d@example.org,Dan\n')
    assert [it.split(";")[0] for it in refusals.values()] == [
        "line 4 of members.csv opens a quote that is never closed"
    ]
    assert export.pages()[-1].partial


def test_key_on_two_lines_is_refused_with_both(export: Export) -> None:
    refusals = export.refusals(GOOD + b'3,c@example.org,"Cat\nC"\n1,x@example.org,Xa\n1,y@example.org,Ya\n')
    told = "its key stands on line 2 of members.csv and again on line 6 of members.csv"
    assert refusals == {"1": f"{told}; let each row have a key of its own"}
    assert [len(page.contacts) for page in export.pages()] == [0, 3]
    assert not export.pages()[-1].partial


def test_column_that_is_no_key_is_said_so(export: Export) -> None:
    rows = b"".join(b"%d,p%d@example.org,P\n" % (n % 1001, n) for n in range(2002))
    export.write(b"id,email,name\n" + rows)
    with pytest.raises(OperatorError, match="1,001 keys stand on more than one line: name a column"):
        export.pages()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty, without even a header"),
        (b"\xef\xbb\xbf\r\n", "is empty, without even a header"),
        (b"Id,email,nome\n", "has no column id: did you mean Id.* its columns are Id, email, nome"),
        (b"id;email;nome\n", "has no column name: did you mean nome.* .separated by semicolons"),
        (b"id,email,name,name\n", "has more than one column name"),
        (b"1,a@example.org,Ann\n", "has no column id: its first line is a contact's, and no header"),
        ("id,email,name\n".encode("utf-16"), 'is UTF-16, .*save it as "CSV UTF-8"'),
        (b"PK\x03\x04\x14\x00\x06\x00", "has no column id"),
    ],
)
def test_export_without_its_columns_is_refused_whole(export: Export, content: bytes, problem: str) -> None:
    export.write(content)
    with pytest.raises(SchemaError, match=problem) as caught:
        export.pages()
    assert "example" not in str(caught.value)
    (told,) = export.connect().check()
    assert told.where == "path"
    assert told.remedy


def test_missing_export_is_told_and_nobody_is_gone(export: Export) -> None:
    export.write(GOOD)
    cursor = export.pages()[-1].cursor
    export.path.unlink()
    for asked in (cursor, None):
        with pytest.raises(OperatorError, match=r"there is no file .*members\.csv: let it be exported"):
            export.pages(asked)
    with pytest.raises(OperatorError):
        export.put_back("1")
    assert [it.where for it in export.connect().check()] == ["path"]


def test_check_tells_a_key_that_is_an_email(export: Export) -> None:
    export.write(GOOD)
    (told,) = export.connect(key="email").check()
    assert (
        "not one of the first 2 rows can be read: line 2 of members.csv has an email in the key"
        in told.message
    )


class TestFolder:
    """A folder of exports."""

    @pytest.fixture
    def folder(self, export: Export) -> Path:
        export.path = folder = export.path.parent / "exports"
        folder.mkdir()
        (folder / "2026-11-01.csv").write_bytes(GOOD)
        (folder / "2026-11-02.csv").write_bytes(b"name;id;email\nCat;3;c@example.org\n")
        (folder / "notes.txt").write_bytes(b"no export")
        (folder / "x.results.csv").write_bytes(b"id,wallet\n9,\n")
        (folder / ".hidden.csv").write_bytes(b"no export")
        os.utime(folder / "2026-11-01.csv", (0, 0))
        return folder

    def test_its_newest_file_is_the_export(self, export: Export, folder: Path) -> None:
        assert export.contacts(files="newest").keys() == {"3"}
        cursor = export.pages(files="newest")[-1].cursor
        (folder / "2026-11-03.csv").write_bytes(GOOD)
        found = export.pages(cursor, files="newest")
        assert {it.record_id for page in found for it in page.contacts} == {"1", "2"}

    def test_all_its_files_are_parts_of_the_export(self, export: Export, folder: Path) -> None:
        assert export.values(files="all").keys() == {"1", "2", "3"}
        (folder / "2026-11-03.csv").write_bytes(b"id,email,name\n1,e@example.org,Eve\n")
        (refusal,) = (it.refusal for it in export.contacts(files="all").values() if it.refusal)
        assert "line 2 of 2026-11-01.csv and again on line 2 of 2026-11-03.csv" in refusal

    def test_it_must_say_which_files_are_meant(self, export: Export, folder: Path) -> None:
        assert folder.is_dir()
        with pytest.raises(OperatorError, match='is a folder: say with files = "newest"'):
            export.pages()
        with pytest.raises(OperatorError, match=r"no file in .* is named \*.xlsx"):
            export.pages(files="newest", pattern="*.xlsx")

    def test_its_results_stand_beside_it(self, export: Export, folder: Path) -> None:
        assert export.put_back("1", "3", "9", files="all") == [Written.WRITTEN, Written.WRITTEN, Written.GONE]
        assert folder.with_name("exports.results.csv").read_bytes().splitlines() == [
            b"id,state,wallet",
            b"1,imported,2026-11-01T23:30:05Z",
            b"3,imported,2026-11-01T23:30:05Z",
        ]


class TestResults:
    """What is written back."""

    def test_they_are_replaced_as_a_whole_and_keep_what_people_add(self, export: Export) -> None:
        export.write(GOOD)
        assert export.put_back("1") == [Written.WRITTEN]
        export.results.write_bytes(b'id,wallet,remark\r\n7,,gone\r\n1,,"called, twice"\r\n')
        before = export.results.open("rb")
        assert export.put_back("2", "1") == [Written.WRITTEN, Written.WRITTEN]
        with before:
            assert before.read().endswith(b'"called, twice"\r\n'), (
                "who reads them sees the old ones to the end"
            )
        assert export.results.read_bytes().splitlines() == [
            b"id,wallet,remark,state",
            b"7,,gone,",
            b'1,2026-11-01T23:30:05Z,"called, twice",imported',
            b"2,2026-11-01T23:30:05Z,,imported",
        ]
        assert sorted(it.name for it in export.path.parent.iterdir()) == [
            "members.csv",
            "members.results.csv",
        ]

    def test_row_that_somebody_wrote_twice_is_written_once_again(self, export: Export) -> None:
        export.write(GOOD)
        export.results.write_bytes(b"id,state,wallet\n1,held,\n2,held,\n1,old,\n")
        export.put_back("1")
        assert export.results.read_bytes().splitlines()[1:] == [
            b"1,imported,2026-11-01T23:30:05Z",
            b"2,held,",
        ]
        assert export.contacts()["1"].fields["state"] == "imported"

    def test_they_look_like_the_export(self, export: Export) -> None:
        export.write(b"\xef\xbb\xbf" + GOOD.replace(b",", b";"))
        export.path.chmod(0o640)
        export.put_back("1")
        assert export.results.read_bytes().startswith(b"\xef\xbb\xbfid;state;wallet\r\n")
        assert export.results.stat().st_mode & 0o777 == 0o640

    def test_file_of_somebody_else_is_left_alone(self, export: Export) -> None:
        export.write(GOOD)
        export.results.write_bytes(b"name,phone\nAnn,1\n")
        with pytest.raises(OperatorError, match="has no column id, so it is left alone"):
            export.put_back("1")
        assert export.results.read_bytes() == b"name,phone\nAnn,1\n"
        (told,) = export.connect().check()
        assert (told.where, told.remedy) == ("results", "move it away, or name another file with results")

    def test_who_lost_the_lease_while_writing_them_leaves_the_old_ones(self, export: Export) -> None:
        export.write(GOOD)
        export.put_back("1")
        before = export.results.read_bytes()
        asked = iter([0.0])
        export.network = export.network.leased(left=lambda: next(asked), clock=lambda: AT)  # type: ignore[assignment]
        with pytest.raises(NotSentError, match="the lease of this organization is over"):
            export.put_back("2")
        assert list(asked) == []
        assert export.results.read_bytes() == before
        assert len(list(export.path.parent.iterdir())) == 2

    def test_where_they_cannot_be_written_the_old_ones_stay(self, export: Export) -> None:
        export.write(GOOD)
        (export.results.parent / ".members.results.csv.part").mkdir()
        with pytest.raises(OperatorError, match="cannot be written"):
            export.put_back("1")
        assert not export.results.exists()
        (told,) = export.connect(results=str(export.path.parent / "absent" / "r.csv")).check()
        assert told.where == "results"

    def test_row_that_is_not_there_yet_is_not_told_as_gone(self, export: Export) -> None:
        export.write(GOOD[:-30])
        export.network.meanwhile = lambda: export.write(GOOD)
        with pytest.raises(TransientError, match="being written"):
            export.put_back("2")
        export.network.meanwhile = lambda: None
        assert export.put_back("2") == [Written.WRITTEN]

    def test_refused_row_has_its_status_under_its_id(self, export: Export) -> None:
        ((record_id, refusal),) = export.refusals(GOOD + b",c@example.org,Cat\n").items()
        assert refusal.startswith("line 4")
        assert export.put_back(record_id) == [Written.WRITTEN]
        assert export.contacts()[record_id].fields["state"] == "imported"


def test_other_key_or_encoding_reads_everything_again(export: Export) -> None:
    export.write(b"id,other,email,name\n1,x,a@example.org,Ann\n")
    cursor = export.pages()[-1].cursor
    assert {it.record_id for page in export.pages(cursor, key="other") for it in page.contacts} == {"x"}
