from __future__ import annotations

from pathlib import Path

import pytest

from connectors.csv import Csv
from syncsvc.errors import ConfigurationError
from syncsvc.roster import Changes, Roster
from syncsvc.timetable import rest_after
from syncsvc.watch.redaction import redacted

TYPES = {"csv": Csv.Settings}


class Folder:
    """A directory of organization files, and the roster that is kept of them."""

    def __init__(self, path: Path) -> None:
        self.path = path / "organizations"
        self.path.mkdir()
        self.secrets = path
        self.roster = Roster(self.path, TYPES)

    def write(self, name: str, **changes: str) -> Path:
        secret = self.secrets / f"{changes.get('secret', name)}.token"
        if not secret.exists():
            secret.write_text(f"first-token-of-{name}", encoding="utf-8")
        text = f"""
organization_id = "{changes.get("id", f"01JC{name}")}"
{changes.get("head", "")}
first_run = "import"
[schedule]
every = "{changes.get("every", "60s")}"
[wallet]
token = {{ file = "{secret}" }}
brand_id = "b1"
storecard = "c1"
[connectors.shop]
type = "csv"
path = "{self.path}/none.csv"
key = "id"
member = {{ email = "{{email}}", name = "{{name}}" }}
"""
        return self.put(f"{name}.toml", text)

    def put(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text, encoding="utf-8")
        return path

    @property
    def names(self) -> list[str]:
        return list(self.roster.organizations)

    def every(self, name: str) -> float:
        return self.roster.organizations[name].schedule.every.total_seconds()

    def look(self) -> Changes:
        """Look twice: a file is taken once it rests."""
        first, second = self.roster.look(), self.roster.look()
        assert first == Changes() or second == Changes()
        return second if first == Changes() else first


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.write("acme")
    folder.write("zoo")
    return folder


def test_files_come_change_and_go(folder: Folder) -> None:
    folder.roster.begin()
    assert (folder.names, folder.look()) == (["acme", "zoo"], Changes())
    folder.write("bank")
    folder.write("acme", every="5s")
    (folder.path / "zoo.toml").unlink()
    assert folder.look() == Changes()
    assert (folder.names, folder.every("acme")) == (["acme", "bank"], 5)


def test_a_file_is_not_read_while_it_is_written(folder: Folder) -> None:
    folder.roster.begin()
    whole = (folder.path / "acme.toml").read_text(encoding="utf-8").replace("60s", "7s")
    for end in (40, 80):
        folder.put("acme.toml", whole[:end])
        assert folder.roster.look() == Changes()
    folder.put("acme.toml", whole)
    assert folder.roster.look() == Changes()
    assert folder.every("acme") == 60
    assert folder.roster.look() == Changes()
    assert folder.every("acme") == 7


def test_a_broken_file_keeps_the_last_good_one_and_is_told_once_with_file_key_and_remedy(
    folder: Folder,
) -> None:
    folder.roster.begin()
    path = folder.write("acme", every="often")
    broken = folder.look().broken[path]
    assert (broken.organization, broken.kept) == ("acme", True)
    (problem,) = broken.problems
    assert problem.startswith(f"{path}:6: schedule.every: write a duration as text, such as")
    for _ in range(10):
        assert folder.roster.look() == Changes()
    assert (folder.names, folder.every("acme")) == (["acme", "zoo"], 60)
    folder.write("acme", every="often", head='nam = "x"')
    assert len(folder.look().broken[path].problems) == 2
    folder.write("acme", every="9s")
    mended = folder.look()
    assert (list(mended.mended), mended.broken, folder.every("acme")) == ([path], {}, 9)


def test_a_broken_file_at_the_start_keeps_none_but_its_own_organization_from_running(folder: Folder) -> None:
    path = folder.put("acme.toml", "x = ]")
    folder.roster.begin()
    assert folder.names == ["zoo"]
    told = folder.roster.news().broken[path]
    assert (told.organization, told.kept) == ("acme", False)
    assert "TOML syntax" in told.problems[0]
    folder.write("acme")
    assert (list(folder.look().mended), folder.names) == ([path], ["acme", "zoo"])


def test_nothing_starts_where_no_file_is_good_or_the_settings_of_the_service_are_not(folder: Folder) -> None:
    folder.put("service.toml", '[service]\nlisten = "here"\n')
    with pytest.raises(ConfigurationError, match=r"service\.listen"):
        folder.roster.begin()
    folder.put("service.toml", "[service]\n")
    for name in ("acme", "zoo"):
        folder.put(f"{name}.toml", "x = ]")
    with pytest.raises(ConfigurationError) as error:
        folder.roster.begin()
    assert len(error.value.problems) == 2


def test_the_loss_of_all_files_is_a_fault_and_changes_nothing(folder: Folder) -> None:
    folder.roster.begin()
    moved = folder.path.rename(folder.path.with_name("moved"))
    told = folder.look().broken[folder.path]
    assert told.kept
    assert "cannot be read: No such file or directory; put it back" in told.problems[0]
    folder.path.mkdir()
    assert "no organization is configured" in folder.look().broken[folder.path].problems[0]
    assert folder.names == ["acme", "zoo"]
    folder.path.rmdir()
    moved.rename(folder.path)
    assert list(folder.look().mended) == [folder.path]
    assert folder.names == ["acme", "zoo"]


def test_a_file_that_claims_what_another_has_is_broken_until_the_other_is_gone(folder: Folder) -> None:
    folder.roster.begin()
    path = folder.write("copy", id="01JCacme")
    told = folder.look().broken[path]
    other = folder.path / "acme.toml"
    assert told.problems == (
        f"{path}: organization_id: is that of {other} too; one organization is one file, so put both in one",
    )
    assert folder.names == ["acme", "zoo"]
    other.unlink()
    while not (changes := folder.roster.look()).mended:
        assert changes == Changes()
    assert folder.names == ["copy", "zoo"]


def test_two_new_files_that_claim_the_same_are_both_broken(folder: Folder) -> None:
    folder.roster.begin()
    paths = [folder.write(name, id="01JCnew") for name in ("new1", "new2")]
    assert list(folder.look().broken) == paths
    assert folder.names == ["acme", "zoo"]


def test_names_may_be_exchanged(folder: Folder) -> None:
    folder.roster.begin()
    folder.write("acme", head='name = "zoo"', id="01JCzoo")
    folder.write("zoo", head='name = "acme"', id="01JCacme", every="3s")
    assert folder.look() == Changes()
    assert (folder.every("acme"), folder.every("zoo")) == (3, 60)


def test_a_secret_that_changed_renews_its_organizations_and_is_kept_out_of_every_line(folder: Folder) -> None:
    folder.write("zoo", secret="acme")
    folder.roster.begin()
    assert redacted("a first-token-of-acme b") == "a [redacted] b"
    secret = folder.secrets / "acme.token"
    secret.write_text("second-token-of-acme", encoding="utf-8")
    assert set(folder.roster.look().renewed) == {"acme", "zoo"}
    assert redacted("a second-token-of-acme b") == "a [redacted] b"
    secret.touch()
    assert folder.look() == Changes()


def test_a_secret_that_is_gone_is_told_and_what_comes_back_is_used(folder: Folder) -> None:
    folder.roster.begin()
    secret = folder.secrets / "acme.token"
    secret.unlink()
    told = folder.look().broken[secret]
    assert (told.organization, told.kept) == ("acme", True)
    assert f"file {secret} cannot be read: No such file or directory" in told.problems[0]
    assert folder.look() == Changes()
    secret.write_text("third-token-of-acme", encoding="utf-8")
    changes = folder.look()
    assert (set(changes.renewed), list(changes.mended)) == ({"acme"}, [secret])


def test_a_secret_that_comes_late_mends_the_file_that_names_it(folder: Folder) -> None:
    secret = folder.secrets / "acme.token"
    secret.unlink()
    folder.roster.begin()
    assert folder.names == ["zoo"]
    folder.roster.news()
    secret.write_text("late-token-of-acme", encoding="utf-8")
    while not (changes := folder.roster.look()).mended:
        assert changes == Changes()
    assert folder.names == ["acme", "zoo"]


def test_a_refused_organization_goes_on_as_it_was_and_is_told_until_its_file_changes(folder: Folder) -> None:
    folder.roster.begin()
    path = folder.write("acme", head='name = "other"')
    folder.look()
    folder.roster.refuse("other", ["the state knows it as acme"])
    assert folder.names == ["acme", "zoo"]
    assert folder.roster.news().broken[path].problems == (f"{path}: the state knows it as acme",)
    for _ in range(10):
        assert folder.roster.look() == Changes()
    folder.write("acme")
    assert list(folder.look().mended) == [path]


def test_settings_of_the_service_that_change_are_told(folder: Folder) -> None:
    folder.roster.begin()
    path = folder.put("service.toml", '[service]\nlog_level = "debug"\n')
    assert folder.look() == Changes(service=True)
    folder.put("service.toml", '[service]\nlog_level = "loud"\n')
    assert list(folder.look().broken) == [path]
    path.unlink()
    assert list(folder.look().mended) == [path]


def test_one_file_alone_looks_after_the_service_that_it_shares(folder: Folder) -> None:
    shared = folder.put("service.toml", '[service]\nlog_level = "debug"\n')
    folder.roster = Roster(folder.path / "acme.toml", TYPES)
    folder.roster.begin()
    assert folder.roster.service.log_level == "debug"
    folder.put("service.toml", '[service]\nlog_level = "error"\n')
    assert folder.look() == Changes(service=True)
    folder.put("service.toml", '[service]\nlog_level = "loud"\n')
    assert list(folder.look().broken) == [shared]
    folder.put("service.toml", '[service]\nlog_level = "debug"\n')
    assert list(folder.look().mended) == [shared]
    assert folder.names == ["acme"]


def test_one_file_alone_is_looked_after_too(folder: Folder) -> None:
    path = folder.path / "acme.toml"
    folder.roster = Roster(path, TYPES)
    folder.roster.begin()
    folder.write("acme", every="4s")
    assert folder.look() == Changes()
    assert (folder.names, folder.every("acme")) == (["acme"], 4)
    folder.write("acme", every="4 s")
    assert list(folder.look().broken) == [path]
    path.unlink()
    assert "cannot be read" in folder.look().broken[path].problems[0]
    assert (folder.names, folder.every("acme")) == (["acme"], 4)
    folder.write("acme", every="3s")
    assert list(folder.look().mended) == [path]


@pytest.mark.parametrize(
    ("look", "rest"), [(0.0, 1.0), (0.05, 1.0), (0.1, 2.0), (0.176, 3.52), (0.25, 5.0), (9.0, 5.0)]
)
def test_dear_looks_are_farther_apart_and_never_far(look: float, rest: float) -> None:
    assert rest_after(look) == pytest.approx(rest)
