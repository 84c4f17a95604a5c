"""The engine with a CSV export: no CRM at all."""

from __future__ import annotations

import csv
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from enginelab import IMPORT, Lab

from connectors.csv import Csv
from connectors.csv_results import Results
from syncsvc.model import Page
from syncsvc.views.standing import Standing, show_status
from syncsvc.watch.report import Outcome

HEADER = "Customer;E-mail;Name;Points;Tier\n"


def table(path: Path, **more: Any) -> dict[str, Any]:
    return {
        "type": "csv",
        "member": {"email": "{E-mail}", "name": "{Name}", "points": "{Points}"},
        "write_back": {"last_updated": "Wallet time", "status": "Wallet status"},
        "settings": Csv.Settings.model_validate({"path": path, "key": "Customer", **more}),
    }


class Shop:
    """An export that a till writes, and a lab that reads it."""

    def __init__(self, folder: Path, open_lab: Callable[..., Lab], **tables: Any) -> None:
        self.path = folder / "members.csv"
        self.rows = {f"C{n:03}": f"m{n}@example.org;Ada;{n};gold" for n in range(120)}
        self.export()
        connector = {**table(self.path), "where": "Tier == 'gold'"}
        self.lab = open_lab(types={"csv": Csv}, connectors={"members": connector}, **tables)

    def export(self, *more: str) -> None:
        lines = [f"{key};{row}\n" for key, row in self.rows.items()]
        new = self.path.with_suffix(".part")
        new.write_text("".join([HEADER, *lines, *more]), encoding="utf-8")
        new.replace(self.path)

    def cut(self, more: int) -> None:
        """Add rows, and stop the reading in their midst."""
        self.rows |= {f"D{n:04}": f"d{n}@example.org;Ada;1;gold" for n in range(more)}
        self.export()
        pages = iter([False, False, True])
        assert self.lab.cycle(stopping=lambda: next(pages)).outcome is Outcome.STOPPED
        assert self.lab.value("SELECT count(*) FROM contact") == 1000

    def results(self) -> dict[str, dict[str, str]]:
        with self.path.with_name("members.results.csv").open(encoding="utf-8", newline="") as file:
            return {row["Customer"]: row for row in csv.DictReader(file, delimiter=";")}

    def gone(self) -> set[str]:
        return {row[0] for row in self.lab.rows("SELECT record_id FROM contact WHERE state = 3")}

    def quiet(self) -> None:
        assert [it["event"] for it in self.lab.lines if it["log_level"] in {"warning", "error"}] == []


@pytest.fixture
def open_shop(tmp_path: Path, open_lab: Callable[..., Lab]) -> Callable[..., Shop]:
    return lambda **tables: Shop(tmp_path, open_lab, **tables)


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    shop = open_shop()
    report = shop.lab.cycle()
    assert (report.outcome, report.written_back) == (Outcome.OK, 120)
    return shop


def test_an_export_is_imported_its_results_written_and_then_left_in_peace(shop: Shop) -> None:
    lab = shop.lab
    lab.balanced()
    assert lab.wallet.total_awarded() == sum(range(120))
    results = shop.results()
    assert {it["Wallet status"] for it in results.values()} == {"imported"}
    assert {it["Wallet time"] for it in results.values()} == {"2026-11-02T12:01:03Z"}
    lab.cycle()  # that there are results comes home
    before, written = lab.contents(), shop.path.with_name("members.results.csv").stat()
    report = lab.cycle()
    assert (report.outcome, report.read, lab.asks(IMPORT)) == (Outcome.OK, 0, 2)
    assert lab.contents() == before
    assert shop.path.with_name("members.results.csv").stat() == written
    shop.export()
    report = lab.cycle()
    assert (report.read, report.changed, report.written_back, lab.asks(IMPORT)) == (120, 0, 0, 2)
    shop.quiet()


def test_edits_and_new_rows_of_the_next_export_arrive_once(shop: Shop) -> None:
    shop.rows["C000"] = "m0@example.org;Eve;50;gold"
    shop.rows["C900"] = "m900@example.org;New;7;gold"
    shop.rows["C901"] = "m901@example.org;Not yet;7;basic"
    shop.export()
    report = shop.lab.cycle()
    assert (report.read, report.changed, report.excluded) == (122, 3, 1)
    assert shop.lab.profile("m0@example.org")["name"] == "Eve"
    assert shop.lab.wallet.total_awarded() == sum(range(120)) + 50 + 7
    shop.quiet()
    shop.lab.cycle()
    assert shop.results()["C900"]["Wallet status"] == "imported"
    assert "C901" not in shop.results()


def test_row_that_is_no_longer_there_is_gone_with_the_next_cycle(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(policy={"on_gone": "expire"})
    shop.lab.cycle()
    del shop.rows["C005"]
    shop.export()
    assert shop.lab.cycle().gone == 1
    assert shop.gone() == {"C005"}
    assert shop.lab.profile("m5@example.org")["expires_at"] == "2026-11-02"
    shop.quiet()
    shop.rows["C005"] = "m5@example.org;Ada;5;gold"
    shop.export()
    shop.lab.cycle()
    assert shop.lab.profile("m5@example.org")["expires_at"] == "2099-12-31"
    assert shop.lab.wallet.total_awarded() == sum(range(120))


@pytest.mark.parametrize("left", [0, 60], ids=["emptied", "cut-in-half"])
def test_export_that_suddenly_holds_far_less_is_held_and_nobody_is_gone(shop: Shop, left: int) -> None:
    whole = dict(shop.rows)
    shop.rows = dict(list(whole.items())[:left])
    shop.export()
    report = shop.lab.cycle()
    assert (report.outcome, report.gone, shop.gone()) == (Outcome.DEGRADED, 0, set())
    assert [line["brake"] for line in shop.lab.said("brake_tripped")] == ["max_gone_share:members"]
    shop.rows = whole
    shop.export()
    report = shop.lab.cycle()
    assert (report.read, report.changed, report.gone) == (120, 0, 0)
    shop.rows = dict(list(whole.items())[:left])
    shop.export()
    shop.lab.cycle()
    shop.lab.release()
    shop.lab.cycle()
    assert len(shop.gone()) == 120 - left
    assert shop.lab.wallet.total_awarded() == sum(range(120))


def test_export_without_content_pauses_and_goes_on_by_itself(shop: Shop) -> None:
    shop.path.write_bytes(b"")
    assert shop.lab.cycle().outcome is Outcome.DEGRADED
    assert len(shop.lab.said("connector_unreadable")) == 1
    shop.lab.cycle()
    assert shop.lab.said("connector_unreadable") == []
    shop.export()
    report = shop.lab.cycle()
    assert (report.outcome, report.gone, report.changed) == (Outcome.OK, 0, 0)
    assert len(shop.lab.said("connector_readable_again")) == 1


def test_row_that_cannot_be_read_is_quarantined_and_nobody_is_taken_for_gone(shop: Shop) -> None:
    del shop.rows["C005"]
    shop.export("C005;m5@example.org;Ada\n", "C006;twice@example.org;Ada;6;basic\n")
    report = shop.lab.cycle()
    ((broken, told), (twice, both)) = sorted(shop.lab.quarantine().items(), reverse=True)
    assert broken.startswith("row-")
    assert told[1:] == (
        "record",
        "line 121 of members.csv has 3 cells, and the header has 5; correct the line in the export",
    )
    assert (twice, both[2].partition(";")[0]) == (
        "C006",
        "its key stands on line 7 of members.csv and again on line 122 of members.csv",
    ), "before `where`, which leaves the second of them out"
    assert (report.gone, shop.gone()) == (0, set())
    assert shop.results()[broken]["Wallet status"].startswith("quarantined: line 121 of members.csv")
    shop.export()
    assert shop.lab.cycle().gone == 2  # the row that could not be read, and C005
    assert shop.gone() == {broken, "C005"}
    assert shop.lab.quarantine() == {}


def test_results_that_were_deleted_are_written_anew_with_the_next_cycle(shop: Shop) -> None:
    shop.lab.cycle()
    told = shop.results()
    shop.lab.cycle()
    shop.path.with_name("members.results.csv").unlink()
    report = shop.lab.cycle()
    assert (report.read, report.changed, report.rows_sent, report.written_back) == (120, 120, 0, 120)
    assert shop.results() == told
    assert [shop.lab.cycle().read for _ in range(2)] == [0, 0]


def test_status_shows_a_reading_that_could_not_tell_every_row(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> str:
        standing = {"acme": Standing.of(shop.lab.store)}
        assert standing["acme"].needs_attention is (standing["acme"].status.connectors[0].partial is not None)
        show_status(standing, as_json=False, now=shop.lab.clock.now())
        return " ".join(capsys.readouterr().out.split())

    shop.export()
    shop.lab.cycle()
    assert "read in part" not in told()
    del shop.rows["C004"], shop.rows["C005"]
    shop.export("C110;m110@example.org\n")
    assert shop.lab.cycle().gone == 0
    assert "read in part members: " in told()
    assert "2 known contacts which were not found are not taken for gone; mend those records" in told()
    shop.export()
    assert shop.lab.cycle().gone == 3
    assert "read in part" not in told()


def test_those_whom_a_person_released_are_gone_though_a_row_cannot_be_read(shop: Shop) -> None:
    shop.rows = dict(list(shop.rows.items())[:60])
    shop.export("C110;m110@example.org\n")
    shop.lab.cycle()
    assert shop.lab.release() == ["max_gone_share:members"]
    assert shop.lab.cycle().gone == 60
    del shop.rows["C059"]
    shop.export("C110;m110@example.org\n")
    assert shop.lab.cycle().gone == 0
    assert shop.lab.said("sweep_partial")
    assert shop.lab.cycle().read == 0


def test_release_ends_with_its_sweep_though_a_row_cannot_be_read(shop: Shop) -> None:
    whole = dict(shop.rows)
    shop.rows = dict(list(whole.items())[:60])
    shop.export()
    shop.lab.cycle()
    shop.lab.release()
    shop.rows = {key: row for key, row in whole.items() if key != "C005"}
    shop.export("C005;m5@example.org\n")
    assert shop.lab.cycle().gone == 0
    assert [shop.lab.cycle().read for _ in range(2)] == [0, 0]


def test_reading_that_was_cut_goes_on_where_it_was(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(first_run="adopt")
    shop.cut(1100)
    report = shop.lab.cycle()
    assert (report.read, report.changed) == (220, 220)
    assert shop.lab.value("SELECT count(*) FROM contact WHERE state = 0") == 1220
    assert shop.lab.cycle().read == 0
    shop.quiet()


def test_export_replaced_while_a_reading_was_cut_loses_nobody_and_keeps_nobody(
    open_shop: Callable[..., Shop],
) -> None:
    shop = open_shop(first_run="adopt")
    shop.cut(1100)
    del shop.rows["C005"]
    shop.rows["C000"] = "m0@example.org;Eve;0;gold"
    shop.export()
    for _ in range(2):
        shop.lab.cycle()
    assert shop.gone() == {"C005"}
    assert shop.lab.value("SELECT count(*) FROM contact WHERE state = 0") == 1219
    assert shop.lab.profile("m0@example.org")["name"] == "Eve"
    assert shop.lab.cycle().read == 0
    shop.quiet()


def open_files(folder: Path) -> int:
    """Return how many exports of a folder this process has open."""
    found = 0
    for open_file in Path("/proc/self/fd").iterdir():
        if open_file.is_symlink():  # the one that lists the folder is gone by now
            path = open_file.resolve()
            found += path.parent == folder and path.suffix == ".csv"
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
def test_no_file_is_held_open_before_its_rows_are_read(
    open_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = (tmp_path / "parts").resolve()
    folder.mkdir()
    lab = open_lab(types={"csv": Csv}, connectors={"members": table(folder, files="all", pattern="p*.csv")})
    held: list[int] = []
    changes = Csv.changes

    def counted(self: Csv, cursor: str | None) -> Iterator[Page]:
        for page in changes(self, cursor):
            held.append(open_files(folder))
            yield page

    monkeypatch.setattr(Csv, "changes", counted)
    for points in (1, 22):
        for number in range(10):
            row = f"C{number};c{number}@example.org;Ada;{points};gold\n"
            (folder / f"p{number}.csv").write_text(HEADER + row, encoding="utf-8")
        lab.cycle()
    assert [number for number, _ in itertools.groupby(held)] == [0, 10, 0, 10]
    assert open_files(folder) == 0


def test_two_connectors_of_one_export_lose_no_results(
    open_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "members.csv"
    rows = [f"C{n};m{n}@example.org;Ada;{n};{'gold' if n % 2 else 'basic'}\n" for n in range(8)]
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    merge, both, met = Results.merge, threading.Barrier(2, timeout=0.2), []

    def merged(self: Results, *given: Any) -> None:
        try:
            met.append(both.wait())
        except threading.BrokenBarrierError:
            both.reset()
        merge(self, *given)

    monkeypatch.setattr(Results, "merge", merged)
    tiers = {tier: {**table(path), "where": f"Tier == '{tier}'"} for tier in ("gold", "basic")}
    lab = open_lab(types={"csv": Csv}, connectors=tiers)
    assert lab.cycle().written_back == 8
    assert met == []
    with path.with_name("members.results.csv").open(encoding="utf-8") as file:
        assert {row["Customer"] for row in csv.DictReader(file, delimiter=";")} == {f"C{n}" for n in range(8)}


def test_an_export_of_many_pages_is_read_by_threads_in_turn(
    open_lab: Callable[..., Lab], tmp_path: Path
) -> None:
    path = tmp_path / "members.csv"
    rows = [f"C{n};m{n}@example.org;Ada;{n};gold\n" for n in range(5000)]
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    lab = open_lab(types={"csv": Csv}, connectors={"members": table(path)}, wallet={"points": "off"})
    assert lab.cycle(send=False).read == 5000


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
def test_a_first_read_that_was_cut_holds_no_file_open_while_others_are_read(
    open_lab: Callable[..., Lab], tmp_path: Path
) -> None:
    folder = (tmp_path / "parts").resolve()
    folder.mkdir()
    for part in range(10):
        rows = [f"C{part}{n:03};c{part}{n}@example.org;Ada;1;gold\n" for n in range(300)]
        (folder / f"p{part}.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    tables = {"crm": {}, "members": table(folder, files="all", pattern="p*.csv")}
    lab = open_lab(types={"csv": Csv}, connectors=tables)
    stops = iter([False] * 4 + [True])
    lab.cycle(stopping=lambda: next(stops))
    assert 0 < lab.value("SELECT count(*) FROM contact") < 3000
    held: list[int] = []
    lab.crm.before = lambda: held.append(open_files(folder))
    lab.cycle()
    assert lab.value("SELECT count(*) FROM contact") == 3000
    assert set(held) == {0}
