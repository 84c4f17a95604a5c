from __future__ import annotations

import re
from datetime import UTC, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from syncsvc.check import of_files
from syncsvc.config import (
    BrakesConfig,
    Evidence,
    FirstRun,
    OnDoubt,
    OnEmailChange,
    OnGone,
    OrganizationConfig,
    Points,
    PolicyConfig,
    ScheduleConfig,
)
from syncsvc.configfile import Installation, load, load_organization, load_service, survey
from syncsvc.errors import ConfigurationError
from syncsvc.service import ServiceConfig
from syncsvc.settings import Duration, Secret, Settings, Url

LITERAL = "sekrit-literal-value"


class KeyAuth(Settings):
    flow: Literal["key"]
    key: Secret


class UserAuth(Settings):
    flow: Literal["user"]
    user: str
    password: Secret


class ToySettings(Settings):
    url: Url
    auth: Annotated[KeyAuth | UserAuth, Field(discriminator="flow")]
    overlap: Duration = timedelta(minutes=10)


class PlainSettings(Settings):
    path: str = "contacts.csv"


TYPES: dict[str, type[Settings]] = {"toy": ToySettings, "plain": PlainSettings}

GOOD = """\
organization_id = "01JC"
first_run = "import"

[wallet]
token = { env = "WALLET_TOKEN" }
brand_id = "b1"
storecard = "c1"

[connectors.crm]
type = "toy"
url = "https://crm.example"
auth = { flow = "key", key = { env = "CRM_KEY" } }
where = "Email != ''"

[connectors.crm.member]
email = "{Email}"
name = "{Name}"
points = { field = "Points" }

[connectors.crm.write_back]
last_updated = "Stamp"

[connectors.a]
type = "plain"

[connectors.a.member]
email = "{Email}"
name = "{Name}"
"""


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALLET_TOKEN", "w")
    monkeypatch.setenv("CRM_KEY", "k")
    monkeypatch.delenv("UNSET", raising=False)


def write(folder: Path, text: str = GOOD, name: str = "acme.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, **options: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path, TYPES, **options)
    folder = path if path.is_dir() else path.parent
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


def problem_of(folder: Path, old: str, new: str, text: str = GOOD) -> str:
    assert text.count(old) >= 1
    found = problems(write(folder, text.replace(old, new, 1)))
    assert len(found) == 1, found
    return found[0]


def test_a_small_file_has_every_default(tmp_path: Path) -> None:
    path = write(tmp_path)
    installation = load(path, TYPES)
    assert installation.service == ServiceConfig()
    assert installation.service.model_dump() == {
        "state": "sqlite:///syncsvc.db",
        "listen": "127.0.0.1:9464",
        "page_token": None,
        "log_format": "auto",
        "log_level": "info",
        "ca_file": "",
        "lease": "30s",
    }
    assert installation.files == {"acme": path}
    (acme,) = installation.organizations
    assert (acme.name, acme.organization_id, acme.first_run) == ("acme", "01JC", FirstRun.IMPORT)
    assert acme.schedule == ScheduleConfig()
    assert acme.schedule.model_dump() == {
        "every": "60s",
        "sweep_every": "86400s",
        "log_every": "300s",
        "stuck_after": "900s",
    }
    assert acme.policy == PolicyConfig(on_gone=OnGone.KEEP, on_email_change=OnEmailChange.HOLD)
    assert acme.brakes == BrakesConfig(max_share="30%", max_gone_share="5%")
    assert (acme.brakes.max_share, acme.brakes.max_gone_share) == (0.30, 0.05)
    assert (acme.brakes.max_points_per_member, acme.brakes.max_points_per_cycle) == (None, None)
    wallet = acme.wallet
    assert (wallet.base_url, wallet.log_token) == ("https://api.walletapp.co", None)
    assert (wallet.points, wallet.on_doubt, wallet.evidence) == (Points.ADD, OnDoubt.HOLD, Evidence.WINDOW)
    assert (wallet.batch_size, wallet.timeout) == (2000, timedelta(seconds=120))
    assert (wallet.settle_after, wallet.give_up_after) == (timedelta(minutes=5), timedelta(hours=1))
    assert (wallet.import_path, wallet.log_path) == ("/v2/import", "/import/log")
    assert (wallet.log_brand_in, wallet.welcome_flag) == ("query", "welcome_email")
    assert (wallet.timezone, wallet.zone) == ("UTC", UTC)


def test_connectors_keep_the_order_of_the_file_and_their_own_settings(tmp_path: Path) -> None:
    (acme,) = load(write(tmp_path), TYPES).organizations
    assert list(acme.connectors) == ["crm", "a"]
    crm = acme.connectors["crm"]
    assert isinstance(crm.settings, ToySettings)
    assert crm.settings.url == "https://crm.example"
    assert isinstance(crm.settings.auth, KeyAuth)
    assert (crm.type, crm.where) == ("toy", "Email != ''")
    assert (crm.write_back.last_updated, crm.write_back.status) == ("Stamp", None)
    assert [(name, rule.field, rule.template) for name, rule in crm.member.rules()] == [
        ("email", None, "{Email}"),
        ("name", None, "{Name}"),
        ("points", "Points", None),
    ]
    assert acme.connectors["a"].settings == PlainSettings()


def test_a_directory_holds_organizations_and_one_service(tmp_path: Path) -> None:
    write(tmp_path, '[service]\nstate = "sqlite:///x.db"\nlisten = ""\nlog_level = "debug"\n', "service.toml")
    other = GOOD.replace("01JC", "01JD").replace('first_run = "import"', 'first_run = "adopt"\nname = "b.V2"')
    files = [write(tmp_path), write(tmp_path, other, "beta.toml")]
    write(tmp_path, "nonsense", ".hidden.toml")
    write(tmp_path, "nonsense", "notes.txt")
    installation = load(tmp_path, TYPES)
    assert isinstance(installation, Installation)
    assert (installation.service.listen, installation.service.log_level) == ("", "debug")
    assert [item.name for item in installation.organizations] == ["acme", "b.V2"]
    assert dict(installation.files) == {"acme": files[0], "b.V2": files[1]}
    assert installation.path == tmp_path


def test_one_file_may_carry_the_service_and_a_file_of_a_directory_may_not(tmp_path: Path) -> None:
    path = write(tmp_path, f'{GOOD}\n[service]\nlog_format = "json"\n')
    assert load(path, TYPES).service.log_format == "json"
    line = len(GOOD.splitlines()) + 2
    told = f"acme.toml:{line}: service: belongs in service.toml of the same directory; move it there"
    assert problems(tmp_path) == [told]
    with pytest.raises(ConfigurationError, match="belongs in service"):
        load_organization(path, TYPES)


def test_one_file_of_a_directory_shares_its_service_unless_it_has_its_own(tmp_path: Path) -> None:
    path = write(tmp_path)
    write(tmp_path, '[service]\nlog_level = "debug"\n', "service.toml")
    assert (load(path, TYPES).service.log_level, load_service(path).log_level) == ("debug", "debug")
    own = write(tmp_path, GOOD + '\n[service]\nlog_level = "error"\n', "own.toml")
    assert (load(own, TYPES).service.log_level, load_service(own).log_level) == ("error", "error")
    write(tmp_path, '[service]\nlog_level = "loud"\n', "service.toml")
    (problem,) = problems(path)
    assert problem.startswith("service.toml:2: service.log_level: is not accepted")


def test_one_file_of_a_directory_is_loaded_alone(tmp_path: Path) -> None:
    organization = load_organization(write(tmp_path), TYPES)
    assert isinstance(organization, OrganizationConfig)
    assert organization.name == "acme"
    for broken, line in (("x = ]", 1), ("x = 1\n\ny = [\n\n", 3)):
        with pytest.raises(ConfigurationError, match=rf"bad\.toml:{line}: .*TOML syntax"):
            load_organization(write(tmp_path, broken, "bad.toml"), TYPES)


def test_a_broken_file_leaves_the_others_to_be_looked_at_unless_it_is_the_service_s(tmp_path: Path) -> None:
    write(tmp_path)
    bad = write(tmp_path, "x = ]", "bad.toml")
    found = survey(tmp_path, TYPES)
    assert [it.name for it in found.usable.organizations] == ["acme"]
    assert [path for path, problems in found.broken.items() if "TOML syntax" in problems[0]] == [bad]
    (problem,) = of_files(found.broken)["bad"].problems
    assert (problem.where, problem.remedy) == ("configuration", "correct the TOML syntax")
    assert problem.message.startswith(f"{bad}:1: ")
    service = write(tmp_path, '[service]\nlog_level = "loud"\n', "service.toml")
    with pytest.raises(ConfigurationError, match=r"(?s)bad\.toml:1: .*service\.toml:2: "):
        survey(tmp_path, TYPES)
    service.unlink()
    bad.rename(tmp_path / "acme.toml")
    with pytest.raises(ConfigurationError, match=r"acme\.toml:1: "):
        survey(tmp_path, TYPES)


def test_all_problems_of_all_files_are_told_at_once_in_order(tmp_path: Path) -> None:
    broken = GOOD.replace('"import"', '"inport"').replace(
        "[wallet]", '[walet]\nx = 1\n[wallet]\npoints = "many"'
    )
    broken = broken.replace("where = \"Email != ''\"", 'where = "Email !="\noverlp = "1m"')
    write(tmp_path, broken)
    write(tmp_path, "x = [1,\n2\n", "b.toml")
    (tmp_path / "c.toml").write_bytes(b'x = "\xff"')
    write(tmp_path, '[service]\nlog_level = "loud"\ncafile = ""\n', "service.toml")
    found = [problem.partition(";")[0] for problem in problems(tmp_path)]
    assert [problem.partition(": line 1, column")[0] for problem in found] == [
        "acme.toml:2: first_run: is not accepted",
        "acme.toml:4: walet: is not known",
        "acme.toml:7: wallet.points: is not accepted",
        "acme.toml:16: connectors.crm.where",
        "acme.toml:17: connectors.crm.overlp: is not known",
        "b.toml:2: Unclosed array",
        "c.toml: is not text in UTF-8",
        "service.toml:2: service.log_level: is not accepted",
        "service.toml:3: service.cafile: is not known",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('organization_id = "01JC"\n', "", "acme.toml: organization_id: is missing; add it"),
        ('first_run = "import"\n', "", "acme.toml: first_run: is missing; add it"),
        ("first_run", "frist_run = 1\nfirst_run", "2: frist_run: is not known; did you mean first_run?"),
        ('"import"', '"all"', "first_run: is not accepted; write 'import', 'adopt_points' or 'adopt'"),
        ("first_run", 'name = "a b"\nfirst_run', "2: name: is not a name; use"),
        (
            "[wallet]",
            '[policy]\non_email_change = "mov"\n[wallet]',
            "5: policy.on_email_change: is not accepted; write",
        ),
        (
            "[wallet]",
            "[schedule]\nevery = 60\n[wallet]",
            '5: schedule.every: write a duration as text, such as "90s"',
        ),
        ("[wallet]", '[wallet]\nsettle_after = "2h"', "wallet.give_up_after: is shorter than settle_after"),
        (
            "[wallet]",
            '[wallet]\npoints = "set"',
            "27: connectors.a.member.points: is missing; wallet.points",
        ),
        (
            '{ env = "WALLET_TOKEN" }',
            '{ env = "UNSET" }',
            "5: wallet.token: environment variable UNSET is not set; set",
        ),
        (
            '{ env = "CRM_KEY" }',
            '{ env = "UNSET" }',
            "12: connectors.crm.auth.key: environment variable UNSET is not",
        ),
        (
            '{ env = "CRM_KEY" }',
            '{ file = "/no/file" }',
            "connectors.crm.auth.key: file /no/file cannot be read: No",
        ),
        (
            'type = "toy"',
            'type = "tay"',
            "10: connectors.crm.type: is no type of connector that is installed; known ",
        ),
        (
            'type = "plain"',
            'type = "plain"\npaht = 1',
            "25: connectors.a.paht: is not known; did you mean path?",
        ),
        (
            'type = "plain"',
            'type = "plain"\nwhree = ""',
            "25: connectors.a.whree: is not known; did you mean where?",
        ),
        (
            'name = "{Name}"\npoints',
            "points",
            "connectors.crm.member.name: is missing; the wallet takes no member",
        ),
        ('email = "{Email}"\n', "", "15: connectors.crm.member.email: is missing; add it"),
        ("points = {", "emial = {", "18: connectors.crm.member.emial: is not known; did you mean email?"),
        ('{ field = "Points" }', "7", "18: connectors.crm.member.points: is neither text nor a table"),
        (
            'field = "Points"',
            'field = "P", cel = "P"',
            "member.points: needs exactly one of field, template, cel and value",
        ),
        (
            'field = "Points"',
            "default = 0",
            "member.points: needs exactly one of field, template, cel and value, has none",
        ),
        (
            'field = "Points"',
            'feild = "P", value = 1',
            "member.points.feild: is not known; did you mean field?",
        ),
        (
            'field = "Points"',
            'cel = "P +"',
            "18: connectors.crm.member.points: line 1, column 4: Syntax error",
        ),
        (
            '"{Name}"\npoints',
            '"{Name"\npoints',
            "17: connectors.crm.member.name: has a brace without its partner",
        ),
        ("\"Email != ''\"", '"nope("', "13: connectors.crm.where: line 1, column 6: Syntax error"),
        (
            "\"Email != ''\"",
            "\"Stamp != ''\"",
            "13: connectors.crm.where: reads Stamp, which write_back.last_updated writes",
        ),
        (
            'field = "Points"',
            'field = "Stamp"',
            "18: connectors.crm.member.points: reads Stamp, which write_back",
        ),
        (
            '"Stamp"',
            '"Stamp"\nstatus = "Stamp"',
            "22: connectors.crm.write_back.status: is the field of last_updated",
        ),
    ],
)
def test_a_problem_is_told_with_file_line_key_and_remedy(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert told in problem_of(tmp_path, old, new)


@pytest.mark.parametrize("field", ["brand_id", "storecard"])
def test_brand_and_storecard_come_from_the_wallet_or_from_every_map(tmp_path: Path, field: str) -> None:
    without = re.sub(f"{field} = .*\n", "", GOOD)
    assert problems(write(tmp_path, without)) == [
        f"acme.toml:{line}: connectors.{name}.member.{field}: comes from nowhere; "
        f"set wallet.{field}, or map it here"
        for name, line in (("crm", 14), ("a", 25))
    ]
    mapped = without.replace('email = "{Email}"', f'email = "{{Email}}"\n{field} = "{{X}}"')
    assert len(load(write(tmp_path, mapped), TYPES).organizations) == 1


def test_names_and_organizations_are_their_own_even_where_another_problem_stands(tmp_path: Path) -> None:
    write(tmp_path, name="a.toml")
    write(tmp_path, f'name = "a"\n{GOOD}x = 1\n', name="b.toml")
    found = problems(tmp_path)
    assert found[0] == f"b.toml:1: name: is that of {tmp_path}/a.toml too; give each organization its own"
    assert found[1].startswith(
        f"b.toml:2: organization_id: is that of {tmp_path}/a.toml too; one organization"
    )
    assert "member.x: is not known" in found[2]


@pytest.mark.parametrize("name", ["a b.toml", "\u00e9.toml", ("a" * 65) + ".toml"])
def test_the_name_of_a_file_must_do_as_a_name(tmp_path: Path, name: str) -> None:
    (found,) = problems(write(tmp_path, name=name))
    assert found.startswith(f"{name}: name: is not a name; use")


def test_a_connector_needs_a_name_of_plain_letters(tmp_path: Path) -> None:
    found = problems(write(tmp_path, GOOD.replace("[connectors.a", "[connectors.'a b'")))
    assert found[0].startswith("acme.toml:23: connectors.a b: is not a name; use")


def test_a_directory_without_organizations_and_a_file_that_is_not_there_are_problems(tmp_path: Path) -> None:
    assert "no organization is configured" in problems(tmp_path)[0]
    write(tmp_path, "[service]", "service.toml")
    assert "no organization is configured" in problems(tmp_path)[0]
    assert problems(tmp_path / "none.toml") == [
        "none.toml: cannot be read: No such file or directory; correct path or permissions"
    ]


def test_an_organization_needs_a_connector(tmp_path: Path) -> None:
    head = GOOD[: GOOD.index("[connectors.crm]")]
    assert problems(write(tmp_path, head)) == ["acme.toml: connectors: is missing; add it"]
    assert "add a table [connectors.NAME]" in problems(write(tmp_path, f"{head}[connectors]"))[0]


def test_the_service_file_holds_nothing_but_the_service(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "first_run = 'import'\n", "service.toml")
    assert problems(tmp_path)[0].startswith("service.toml:1: first_run: is not known in service.toml")


def test_no_message_repeats_a_secret_that_is_written_where_it_should_not_be(tmp_path: Path) -> None:
    for old, new in (
        ('{ env = "WALLET_TOKEN" }', f'"{LITERAL}"'),
        ('{ env = "WALLET_TOKEN" }', f'{{ env = "A", file = "{LITERAL}" }}'),
        ('{ env = "WALLET_TOKEN" }', f'["{LITERAL}"]'),
        ('{ env = "CRM_KEY" }', f'"{LITERAL}"'),
        ('flow = "key"', f'flow = "{LITERAL}"'),
        ("[wallet]", f'[wallet]\nbatch_size = "{LITERAL}"'),
        ("[wallet]", f'[wallet]\npoints = "{LITERAL}"'),
        ("[wallet]", f'[wallet]\nbase_url = "https://user:{LITERAL}@h"'),
        ("[wallet]", f'[service]\nstate = "postgresql+psycopg://u:{LITERAL}@h/d"\n[wallet]'),
        ('"import"', f'"{LITERAL}"'),
        ('"import"', f"{LITERAL}"),
    ):
        found = "".join(problems(write(tmp_path, GOOD.replace(old, new, 1))))
        assert LITERAL not in found


def test_secrets_are_looked_at_beside_other_problems_and_not_at_all_offline(tmp_path: Path) -> None:
    text = GOOD.replace("WALLET_TOKEN", "UNSET").replace("CRM_KEY", "UNSET")
    assert len(load(write(tmp_path, text), TYPES, read_secrets=False).organizations) == 1
    assert load_organization(write(tmp_path, text), TYPES, read_secrets=False).name == "acme"
    found = problems(write(tmp_path, text.replace('"https://crm.example"', '"crm"')))
    assert [line.split(": ")[1] for line in found] == [
        "wallet.token",
        "connectors.crm.url",
        "connectors.crm.auth.key",
    ]


def test_the_url_of_a_state_in_a_secret_is_checked_as_a_written_one_is(tmp_path: Path) -> None:
    secret = tmp_path / "state"
    secret.write_text(f"postgresql+psycopg://u:{LITERAL}@{LITERAL}@h/d", encoding="utf-8")
    text = GOOD.replace("[wallet]", f'[service]\nstate = {{ file = "{secret}" }}\n[wallet]')
    (found,) = problems(write(tmp_path, text))
    assert f"service.state: what {secret} holds cannot be read" in found
    assert LITERAL not in found


def test_a_secret_in_a_file_is_checked_too(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    text = GOOD.replace('{ env = "WALLET_TOKEN" }', f'{{ file = "{secret}" }}')
    secret.write_text("abc\n", encoding="utf-8")
    assert load(write(tmp_path, text), TYPES).organizations[0].wallet.token.read() == "abc"
    secret.write_text(" \n", encoding="utf-8")
    assert problems(write(tmp_path, text))[0].endswith("is empty; set it, or name another")
    secret.write_bytes(b"\xff\xfe")
    assert problems(write(tmp_path, text))[0].endswith("is not text in UTF-8; set it, or name another")


def test_points_may_be_mapped_while_they_are_off(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("[wallet]", '[wallet]\npoints = "off"'))
    assert load(path, TYPES).organizations[0].wallet.points is Points.OFF


def test_the_authorities_must_be_a_file(tmp_path: Path) -> None:
    text = f'{GOOD}[service]\nca_file = "{tmp_path}/ca.pem"\n'
    assert "service.ca_file: names no file" in problems(write(tmp_path, text))[0]
    (tmp_path / "ca.pem").touch()
    assert load(write(tmp_path, text), TYPES).service.ca_file == f"{tmp_path}/ca.pem"


def test_a_file_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "acme.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path, TYPES).organizations[0].name == "acme"
    path.write_bytes(
        b"\xef\xbb\xbf" + GOOD.replace("[wallet]", "[wallet]\nx = 1").replace("\n", "\r\n").encode()
    )
    assert problems(path)[0].startswith("acme.toml:5: wallet.x: is not known")


def test_a_sample_needs_exactly_one_outcome_and_knows_the_wallet_fields(tmp_path: Path) -> None:
    head = f'{GOOD}[[connectors.a.tests]]\nrecord = {{ A = "x", B = 1.5, C = true }}\n'
    for outcome in (
        "member = { points = 120 }",
        'refused = "where"',
        'refused = "points"',
        "excluded = true",
    ):
        (acme,) = load(write(tmp_path, head + outcome), TYPES).organizations
        assert acme.connectors["a"].tests[0].record == {"A": "x", "B": 1.5, "C": True}
    for outcome, key in (
        ("", ""),
        ("excluded = false", ""),
        ('excluded = true\nrefused = "name"', ""),
        ('refused = "nmae"', ".refused"),
        ("member = { emial = 1 }", ".member.emial"),
        ("member = { name = [1] }", ".member.name"),
        ("member = { birthday = 2000-01-01 }", ".member.birthday"),
    ):
        (found,) = problems(write(tmp_path, head + outcome))
        assert found.split(": ")[1] == f"connectors.a.tests.0{key}"
