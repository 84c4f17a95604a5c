from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import pytest
from pydantic import Field, ValidationError

from syncsvc.config import BrakesConfig, WalletConfig
from syncsvc.errors import ConfigurationError
from syncsvc.maps import MemberMap
from syncsvc.schema import json_schema
from syncsvc.service import ServiceConfig
from syncsvc.settings import Duration, Secret, Settings, Url


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


@pytest.mark.parametrize(
    "state",
    [
        "sqlite:///syncsvc.db",
        "sqlite:////var/lib/s.db",
        "postgresql://u@h/d",
        "postgresql+psycopg://u@h:5432/d?sslmode=verify-full&passfile=/run/secrets/pgpass",
        "postgresql+psycopg://u@/d?host=/run/postgresql",
    ],
)
def test_a_state_is_a_file_or_a_database(state: str) -> None:
    assert ServiceConfig(state=state).state_url == state


def test_a_state_with_a_password_is_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "state"
    service = ServiceConfig.model_validate({"state": {"file": str(file)}})
    with pytest.raises(ConfigurationError, match=r"service\.state: file .* cannot be read"):
        _ = service.state_url
    file.write_text("postgresql+psycopg://u:pw@h/d\n", encoding="utf-8")
    assert service.state_url == "postgresql+psycopg://u:pw@h/d"
    assert "pw" not in repr(service)


@pytest.mark.parametrize(
    "state",
    [
        "",
        "syncsvc.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "postgresql://u@h",
        "postgresql+psycopg2://u@h/d",
        "mysql://h/d",
        "postgresql+psycopg://u:pw@h/d",
        "postgresql+psycopg://u@h/d?password=pw",
    ],
)
def test_no_other_state_is_taken_and_none_with_a_password(state: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ServiceConfig(state=state)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("listen", ["", "127.0.0.1:9464", "[::1]:0", "localhost:65535"])
def test_an_address_to_listen_on(listen: str) -> None:
    assert ServiceConfig(listen=listen).listen == listen


@pytest.mark.parametrize("listen", ["9464", ":9464", "host:", "host:65536", "host:x", "host:-1"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ValidationError, match="is not an address"):
        ServiceConfig(listen=listen)


def test_durations_shares_and_zones_are_values() -> None:
    wallet = WalletConfig(
        token={"env": "X"}, timezone="Europe/Amsterdam", settle_after="90s", give_up_after="1h30m"
    )
    assert wallet.zone == ZoneInfo("Europe/Amsterdam")
    assert (wallet.settle_after, wallet.give_up_after) == (timedelta(seconds=90), timedelta(minutes=90))
    assert BrakesConfig(max_share="12.5%").max_share == 0.125
    assert BrakesConfig(max_share="100 %").max_share == 1.0
    with pytest.raises(ValidationError):
        BrakesConfig(max_share="5")


@pytest.mark.parametrize(
    ("changes", "key", "problem"),
    [
        ({"batch_size": 2001}, "batch_size", "less than or equal to 2000"),
        ({"batch_size": 0}, "batch_size", "greater than or equal to 1"),
        ({"batch_size": "100"}, "batch_size", "valid integer"),
        ({"base_url": "http://example.org"}, "base_url", "use https"),
        ({"timeout": "0s"}, "timeout", "is zero"),
        ({"timeout": 120}, "timeout", "write a duration as text"),
        ({"import_path": "v2/import"}, "import_path", "is not a path"),
        ({"log_path": "/log?x=1"}, "log_path", "is not a path"),
        ({"timezone": "Mars/Base"}, "timezone", "is not a known time zone"),
        ({"timezone": "../etc"}, "timezone", "is not a known time zone"),
        ({"settle_after": "2h"}, "give_up_after", "is shorter than settle_after"),
        ({"give_up_after": "1m"}, "give_up_after", "is shorter than settle_after"),
        ({"evidence": "sworn"}, "evidence", "Input should be 'window', 'unanimous' or 'witness'"),
        ({"evidence": "witness"}, "witness", "is missing"),
        ({"witness": "nobody"}, "witness", "is not an email"),
    ],
)
def test_a_wallet_that_cannot_work_is_refused(changes: dict[str, Any], key: str, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        WalletConfig.model_validate({"token": {"env": "X"}} | changes)
    (error,) = caught.value.errors()
    assert error["loc"] == (key,)
    assert problem in error["msg"]


@pytest.mark.parametrize("share", ["5", "101%", "-1%", "%", 0.3, 30, None])
def test_a_share_is_text_with_a_percent_sign(share: object) -> None:
    with pytest.raises(ValidationError, match="is not a share"):
        BrakesConfig.model_validate({"max_gone_share": share})


def test_limits_of_points_are_not_negative() -> None:
    assert BrakesConfig(max_points_per_cycle=0).max_points_per_cycle == 0
    with pytest.raises(ValidationError):
        BrakesConfig(max_points_per_member=-1)


def test_the_schema_knows_both_kinds_of_file_and_every_type() -> None:
    schema = json_schema(TYPES)
    definitions = schema["$defs"]
    assert schema["additionalProperties"] is False
    assert schema["anyOf"] == [
        {"required": ["organization_id", "first_run", "wallet", "connectors"]},
        {"required": ["service"], "maxProperties": 1},
    ]
    (names,) = schema["properties"]["connectors"]["patternProperties"].values()
    assert [item["$ref"] for item in names["oneOf"]] == ["#/$defs/connector.plain", "#/$defs/connector.toy"]
    toy = definitions["connector.toy"]
    assert toy["properties"]["type"]["const"] == "toy"
    assert toy["properties"].keys() == {
        "type",
        "where",
        "member",
        "write_back",
        "tests",
        "url",
        "auth",
        "overlap",
    }
    assert toy["required"] == ["type", "member", "url", "auth"]
    assert toy["additionalProperties"] is False
    assert definitions["MemberMap"]["properties"].keys() == MemberMap.model_fields.keys()
    assert [form.get("type") for form in definitions["FieldRule"]["anyOf"]] == ["string", "object"]


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    schema = json_schema(TYPES)

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [item for value in node.values() for item in references(value)]
        return [item for value in node for item in references(value)] if isinstance(node, list) else []

    found = references(schema)
    assert "#/$defs/connector.toy.KeyAuth" in found
    assert {reference.removeprefix("#/$defs/") for reference in found} == schema["$defs"].keys()
