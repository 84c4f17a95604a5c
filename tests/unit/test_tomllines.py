from __future__ import annotations

import tomllib

from syncsvc.tomllines import lines_of


def test_every_key_is_found_on_its_line() -> None:
    text = '''\
# comment = 1
top = "a # b" # c = 2
"quoted.key" = [
  "x = 1", # [not.a.table]
  { inner = 1 },
]
dotted.deep . key = 1
multi = """
fake = 1
[fake]
"""
literal = \'\'\'
also = 'fake\' \'\'\'
inline = { a = { b = 1 }, c = [ 1, 2 ] }

[table]
one = 1
  [table."sub.one"]
  two = 1979-05-27T07:32:00Z

[[list]]
a = 1
[list.under]
b = 1
[[list.inner]]
c = 1
[[list.inner]]
c = 2
[[list]]
a = 2
'''
    tomllib.loads(text)
    assert lines_of(text) == {
        ("top",): 2,
        ("quoted.key",): 3,
        ("dotted",): 7,
        ("dotted", "deep"): 7,
        ("dotted", "deep", "key"): 7,
        ("multi",): 8,
        ("literal",): 12,
        ("inline",): 14,
        ("table",): 16,
        ("table", "one"): 17,
        ("table", "sub.one"): 18,
        ("table", "sub.one", "two"): 19,
        ("list",): 21,
        ("list", 0): 21,
        ("list", 0, "a"): 22,
        ("list", 0, "under"): 23,
        ("list", 0, "under", "b"): 24,
        ("list", 0, "inner"): 25,
        ("list", 0, "inner", 0): 25,
        ("list", 0, "inner", 0, "c"): 26,
        ("list", 0, "inner", 1): 27,
        ("list", 0, "inner", 1, "c"): 28,
        ("list", 1): 29,
        ("list", 1, "a"): 30,
    }


def test_a_text_without_keys_has_no_lines() -> None:
    assert lines_of("") == {}
    assert lines_of("# nothing = 1\n\n") == {}
