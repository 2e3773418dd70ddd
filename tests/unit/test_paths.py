"""Paths: how they are written, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.paths import EACH, MISSING, PathError, parse_path, resolve, resolve_all


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("a b.ü", ("a b", "ü")),
        ("user.tags[0]", ("user", "tags", 0)),
        ("a[-1][2].b", ("a", -1, 2, "b")),
        ("[0].a", (0, "a")),
        ('"a.b".c', ("a.b", "c")),
        ('a."b[0]"', ("a", "b[0]")),
        ('""', ("",)),
        (r'"\"\\\u0000\n"', ('"\\\x00\n',)),
        ("a]", ("a]",)),
        ("$", ("$",)),
        ("$.user.tags[0]", ("user", "tags", 0)),
        ("$[0].$", (0, "$")),
        ("$a.b", ("$a", "b")),
        ('"$".a', ("$", "a")),
        ("0", ("0",)),
        ("chunks[*].text", ("chunks", EACH, "text")),
    ],
)
def test_what_a_path_says(text: str, segments: tuple[Any, ...]) -> None:
    assert parse_path(text) == segments


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a.", ".a", "a..b", "a.[0]", "a[", "a[]", "a[x]", "a[1", "a[1]b", "a[+1]"),
        *(
            "$.",
            "$..a",
            "$[",
            "$[0]a",
            "a[1.0]",
            "a[9999999999]",
            '"a',
            '"a"b',
            r'"\x"',
            '"\n"',
            "[0]a",
            "\ud800",
            "a.\udfff",
        ),
    ],
    ids=ascii,
)
def test_what_is_no_path_is_refused_and_shown(text: str) -> None:
    with pytest.raises(PathError) as refusal:
        parse_path(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", {"b": [1, None]}),
        ("a.b[0]", 1),
        ("a.b[1]", None),
        ("a.b[-2]", 1),
        ("a.b[2]", MISSING),
        ("a.b[-3]", MISSING),
        ("a.b.c", MISSING),
        ("a[0]", MISSING),
        ("a.b[1].c", MISSING),
        ('"a.b"', "dotted"),
        ("text[0]", MISSING),
        ("text.upper", MISSING),
        ("bytes[0]", MISSING),
    ],
)
def test_where_a_path_leads(path: str, found: Any) -> None:
    value = {"a": {"b": [1, None]}, "a.b": "dotted", "text": "abc", "bytes": b"abc"}
    assert resolve(value, parse_path(path)) == found


def test_each_goes_through_lists_alone() -> None:
    value = {"rows": [{"x": 1}, {"y": 2}, {"x": [3, 4]}, 5], "object": {"x": 6}}
    assert list(resolve_all(value, parse_path("rows[*].x"))) == [1, [3, 4]]
    assert list(resolve_all(value, parse_path("rows[*].x[*]"))) == [3, 4]
    assert list(resolve_all(value, parse_path("object[*]"))) == []
    assert list(resolve_all(value, parse_path("rows[*]"))) == value["rows"]
    assert list(resolve_all(value, ())) == [value]
