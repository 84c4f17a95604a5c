"""A long list is read as the JSON says, wherever its bytes are cut."""

from __future__ import annotations

from typing import Any

import ijson
import orjson
import pytest

from syncsvc.remote.listing import Listing


def fed(body: bytes, size: int) -> tuple[list[Any], Listing]:
    listing = Listing()
    entries = [
        entry for begin in range(0, len(body), size) for entry in listing.feed(body[begin : begin + size])
    ]
    return entries + listing.close(), listing


GOOD: list[list[Any]] = [
    [],
    [{"a": 1}],
    [{"a": number} for number in range(9)],
    [{"a": "}, {"}, {"a": '},{"b":2},'}, {"a": "\\"}, {"a": '"},"'}, {"a": 3}],
    ['},{"a":1},', "x},", {"a": 1}, '{"a":1},', {"a": 2}, "},", {"a": 3}],
    [{"a": {"b": [{"c": 1}, {"c": 2}]}, "d": 1}, {"e": {}}, {"f": [{}, {}]}, {"g": 1}],
    [[{"a": 1}, {"a": 2}], [{"a": 3}], {"a": 4}, None, 5, "six", {"a": 7}, {"a": 8}],
    [{"a": "ünï"}, {"a": "\U0001f600"}, {"é": None}, {"a": 1.5}],
]


@pytest.mark.parametrize("data", GOOD)
@pytest.mark.parametrize("spaces", [0, orjson.OPT_INDENT_2])
def test_every_entry_is_read_once_wherever_the_bytes_are_cut(data: list[Any], spaces: int) -> None:
    body = orjson.dumps(
        {"x": [{"data": [1]}, {}], "data": data, "y": [{"z": {}}, {}], "success": True}, option=spaces
    )
    for size in range(1, len(body) + 1):
        entries, listing = fed(body, size)
        assert entries == data
        assert (listing.began, listing.success) == ("start_array", [True])


def test_what_the_fast_parser_refuses_is_read_all_the_same() -> None:
    halves = b",".join(b'{"a":"\\ud800","b":%d}' % number for number in range(9))
    body = b'{"data":[{"b":8},{"b":9},' + halves + b',{"b":9},{"b":10},{"b":11}],"success":true}'
    for size in range(1, len(body) + 1):
        entries, listing = fed(body, size)
        assert [entry["b"] for entry in entries] == [8, 9, *range(9), 9, 10, 11]
        assert listing.success == [True]


ENTRIES = b'{"a":1},{"a":2},{"a":3}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[' + ENTRIES + b',],"success":true}',
        b'{"data":[' + ENTRIES + b',,{"a":4}],"success":true}',
        b'{"data":[' + ENTRIES + b'{"a":4},{"a":5}],"success":true}',
        b'{"data":[' + ENTRIES + b'},{"a":5}],"success":true}',
        b'{"data":[' + ENTRIES + b',{"a":4],{"a":5}],"success":true}',
        b'{"data":[' + ENTRIES + b',{"a":4}],{"a":5},{"a":6}],"success":true}',
        b'{"data":[' + ENTRIES + b']],"success":true}',
        b'{"data":[' + ENTRIES + b',{"a":NaN},{"a":5}],"success":true}',
        b'{"data":[' + ENTRIES + b',{"a":1e999},{"a":5}],"success":true}',
        b'{"data":[' + ENTRIES + b',{"a":"\xff"},{"a":5}],"success":true}',
        b'{"data":[' + ENTRIES + b'],"success":true},{"a":1},',
        b'{"data":[' + ENTRIES + b",",
        b'{"data":[' + ENTRIES,
        b'{"data":[' + ENTRIES + b"]",
        b'{"data":[' + ENTRIES + b'],"success":true',
    ],
)
def test_what_is_no_json_is_found_wherever_the_bytes_are_cut(body: bytes) -> None:
    for size in range(1, len(body) + 1):
        with pytest.raises(ijson.JSONError):
            fed(body, size)


def test_a_text_without_an_end_is_not_kept_whole() -> None:
    listing = Listing()
    listing.feed(b'{"data":[{"a":1},{"a":"')
    for _ in range(40):
        listing.feed(b"x" * 100_000)
        assert len(listing._held) < 2_000_000
    assert listing.feed(b'"},{"b":1},') == [{"a": "x" * 4_000_000}, {"b": 1}]
    assert listing.feed(b'{"b":2},{"b":3},{"b":4}],"success":true}') == [{"b": 2}, {"b": 3}]
    assert listing.close() == [{"b": 4}]
