"""Paths: what is written is what is parsed, and it leads where plain Python goes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from kvstore.paths import MISSING, PathError, parse_path, resolve, resolve_all

from .strategies import any_text, json_values, path_segments, texts, write_path

any_segments = st.lists(texts | st.integers(-(10**9) + 1, 10**9 - 1), min_size=1, max_size=5)


@given(path_segments | any_segments)
def test_a_written_path_is_parsed_back(segments: list[str | int]) -> None:
    assert parse_path(write_path(segments)) == tuple(segments)


@given(any_text)
def test_any_text_is_a_path_or_a_named_error(text: str) -> None:
    with suppress(PathError):
        assert parse_path(text)


@given(texts.filter(lambda name: name not in ("", "$") and not set(name) & set('."[')))
def test_a_name_without_marks_needs_no_quotes(name: str) -> None:
    assert parse_path(name) == (name,)
    assert parse_path(f"{name}.{name}[0]") == (name, name, 0)
    assert parse_path(orjson.dumps(name).decode()) == (name,)


@given(json_values, path_segments)
def test_a_path_leads_where_plain_python_goes(value: Any, segments: list[str | int]) -> None:
    expected: Any = value
    for segment in segments:
        of_its_kind: type[Any] = dict if isinstance(segment, str) else list
        try:
            expected = expected[segment] if isinstance(expected, of_its_kind) else MISSING
        except (KeyError, IndexError):
            expected = MISSING
    path = parse_path(write_path(segments))
    assert resolve(value, path) is expected
    assert list(resolve_all(value, path)) == ([] if expected is MISSING else [expected])


@given(st.lists(json_values, max_size=4))
def test_each_leads_to_every_element(elements: list[Any]) -> None:
    assert list(resolve_all({"a": elements}, parse_path("a[*]"))) == elements
    below = [element["b"] for element in elements if isinstance(element, dict) and "b" in element]
    assert list(resolve_all({"a": elements}, parse_path("a[*].b"))) == below
