"""The atomic changes of one value, as pure functions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kvstore import ValueEncodingError, ValueTypeError
from kvstore.paths import MISSING, parse_path
from kvstore.value_changes import append, increment, pop

WHERE = "('ns',) / 'k'"


@pytest.mark.parametrize(
    ("value", "amount", "field", "initial", "new", "answer"),
    [
        (MISSING, 1, None, 0, 1, 1),
        (MISSING, 1, None, 10, 11, 11),
        (5, -2, None, 10, 3, 3),
        (5, 0.5, None, 0, 5.5, 5.5),
        (MISSING, 1, "a", 0, {"a": 1}, 1),
        (MISSING, 1, "a.b.c", 2, {"a": {"b": {"c": 3}}}, 3),
        ({"a": {"x": 1}}, 1, "a.b", 0, {"a": {"x": 1, "b": 1}}, 1),
        ({"a": [1, 2]}, 1, "a[-1]", 0, {"a": [1, 3]}, 3),
        ([{"n": 1}], 1, "[0].n", 0, [{"n": 2}], 2),
        ([{}], 1, "[0].n.m", 0, [{"n": {"m": 1}}], 1),
    ],
)
def test_increment(
    value: Any, amount: float, field: str | None, initial: float, new: Any, answer: Any
) -> None:
    path = None if field is None else parse_path(field)
    result = increment(WHERE, amount, path, initial)(value)
    assert result == (new, answer)
    assert type(result[1]) is type(answer)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        *(("text", None), (True, None), (None, None), ([1], None), ({}, None), (b"1", None)),
        *(({"a": "1"}, "a"), ({"a": None}, "a"), ([True], "[0]")),
        *((5, "a"), ([1], "a"), ([1], "[1]"), ({}, "[0]"), ({"a": 1}, "a.b"), ({}, "a[0]")),
        *((MISSING, "[0]"), ({"a": []}, "a[0].b"), ({"a": None}, "a.b.c")),
    ],
    ids=repr,
)
def test_increment_where_no_number_is_or_can_be(value: Any, field: str | None) -> None:
    path = None if field is None else parse_path(field)
    with pytest.raises(ValueTypeError, match=r"\('ns',\) / 'k'"):
        increment(WHERE, 1, path, 0)(value)


def test_a_sum_beyond_every_number_is_named() -> None:
    with pytest.raises(ValueEncodingError):
        increment(WHERE, 10**400, None, 0)(0.5)
    with pytest.raises(ValueEncodingError):
        increment(WHERE, 0.5, parse_path("a"), 0)({"a": 10**400})
    assert math.isinf(increment(WHERE, 1.7e308, None, 0)(1.7e308)[1])  # the codec refuses it


def test_append() -> None:
    assert append(WHERE, [1, 2], None)(MISSING) == ([1, 2], 2)
    assert append(WHERE, [], None)(MISSING) == ([], 0)
    assert append(WHERE, [3], None)([1, 2]) == ([1, 2, 3], 3)
    assert append(WHERE, [3, 4], 3)([1, 2]) == ([2, 3, 4], 3)
    assert append(WHERE, [1, 2, 3], 1)([]) == ([3], 1)
    assert append(WHERE, [1], 0)([1]) == ([], 0)


def test_pop() -> None:
    assert pop(WHERE, 0, None)([1, 2, 3]) == ([2, 3], 1)
    assert pop(WHERE, -1, None)([1, 2, 3]) == ([1, 2], 3)
    assert pop(WHERE, 1, None)([1, None, 3]) == ([1, 3], None)
    for value, index in (([1], 1), ([1], -2), ([], 0), ([], -1), (MISSING, 0)):
        assert pop(WHERE, index, "default")(value) == (MISSING, "default")


@pytest.mark.parametrize("value", [None, 0, "text", b"bytes", {}, True], ids=repr)
def test_lists_alone_are_appended_to_and_popped_from(value: Any) -> None:
    with pytest.raises(ValueTypeError, match=r"append needs a list, and \('ns',\) / 'k' is of"):
        append(WHERE, [1], None)(value)
    with pytest.raises(ValueTypeError, match="pop needs a list"):
        pop(WHERE, 0, None)(value)
