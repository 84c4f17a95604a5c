"""The JSON Schema of the configuration, for editors that complete and check its keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from syncsvc.config import OrganizationConfig
from syncsvc.configfile import Types
from syncsvc.service import ServiceConfig


def json_schema(types: Types) -> dict[str, Any]:
    """Return the JSON Schema of an organization file, of `service.toml`, and of both in one file."""
    schema = OrganizationConfig.model_json_schema()
    definitions = schema["$defs"]
    definitions["FieldRule"] = {"anyOf": [{"type": "string", "minLength": 1}, definitions["FieldRule"]]}
    definitions.update(_definitions(ServiceConfig, "ServiceConfig", "ServiceConfig"))
    common = definitions.pop("ConnectorConfig")
    del common["properties"]["settings"]
    definitions.pop("Settings", None)
    variants = []
    for name, settings in sorted(types.items()):
        own = _definitions(settings, f"connector.{name}", f"connector.{name}.{{model}}")
        table = own[f"connector.{name}"]
        table["properties"] = {
            **common["properties"],
            "type": {"const": name, "description": "the connector's type"},
            **table.get("properties", {}),
        }
        table["required"] = [*common["required"], *table.get("required", [])]
        definitions.update(own)
        variants.append({"$ref": f"#/$defs/connector.{name}"})
    connectors = schema["properties"]["connectors"]
    names = {pattern: {"oneOf": variants} for pattern in connectors["patternProperties"]}
    connectors.update(minProperties=1, additionalProperties=False, patternProperties=names)
    schema["properties"]["service"] = {"$ref": "#/$defs/ServiceConfig"}
    required = [name for name in schema.pop("required") if name != "name"]
    schema["anyOf"] = [{"required": required}, {"required": ["service"], "maxProperties": 1}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "syncsvc configuration",
    }


def _definitions(model: type[BaseModel], name: str, template: str) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=f"#/$defs/{template}")
    inner = schema.pop("$defs", {})
    return {template.format(model=key): value for key, value in inner.items()} | {name: schema}
