"""Tells in what a table that was written does not have the form of its model, and what to write instead.

No message repeats a value: it may be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from syncsvc.tomllines import Place


def problems_of(
    error: ValidationError, model: type[BaseModel], data: Any, *, beside: frozenset[str]
) -> Iterator[tuple[Place, str]]:
    """Yield each problem, a phrase that follows its key, with the key's place within `data`.

    `beside` are keys that the table may have and that are not the model's.
    """
    for item in error.errors(include_url=False, include_input=False):
        place = _present(item["loc"], data)
        yield place, _told(item, _known(model, place[:-1]) | beside)


def _present(place: Place, data: Any) -> Place:
    """Return the place without what pydantic adds to it: tags of unions and the like."""
    present: list[str | int] = []
    for number, key in enumerate(place, start=1):
        if isinstance(data, dict) and (key in data or number == len(place)) and key != "[key]":
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int):
            data = data[key]
        else:
            continue
        present.append(key)
    return tuple(present)


def _told(item: Any, known: frozenset[str]) -> str:
    context = item.get("ctx", {})
    match item["type"]:
        case "missing":
            return "is missing; add it"
        case "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
            return f"is not known; {advice}"
        case "enum" | "literal_error":
            return f"is not accepted; write {context['expected']}"
        case "union_tag_invalid" | "union_tag_not_found":
            known_tags = context.get("expected_tags", "the kind that is meant")
            return f"is not accepted; as {context['discriminator']} write {known_tags}"
        case "value_error":
            return str(context["error"])
        case _:
            return f"is not accepted; {item['msg'][:1].lower()}{item['msg'][1:]}"


def _known(model: type[BaseModel], place: Place) -> frozenset[str]:
    models = {model}
    for key in place:
        inner = [item.model_fields[str(key)].annotation for item in models if str(key) in item.model_fields]
        # What is no field here is the name of a table in a table of tables, or a number in a list.
        models = {found for annotation in inner for found in _models(annotation)} or models
    return frozenset(name for item in models for name in item.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
