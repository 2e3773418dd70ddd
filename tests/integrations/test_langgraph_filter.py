"""LangGraph's filters in kvstore's language, compared with a plain reading of their rules."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvstore
from kvstore.filters import matches, parse_filter
from kvstore.integrations.langgraph_shapes import translate

COMPARISONS = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
MISSING = object()


def kind(value: Any) -> type:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return type(value)
    return float


def same(left: Any, right: Any) -> bool:
    if kind(left) is not kind(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def walk(value: Any, names: list[str]) -> Any:
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def holds(found: Any, spec: Any) -> bool:
    if isinstance(spec, dict):
        if any(name.startswith("$") for name in spec):
            return all(operate(found, name, operand) for name, operand in spec.items())
        return all(holds(walk(found, [name]), part) for name, part in spec.items())
    return operate(found, "$eq", spec)


def operate(found: Any, name: str, operand: Any) -> bool:
    if name == "$eq":
        return same(None if found is MISSING else found, operand)
    if found is MISSING:
        return False
    if name == "$ne":
        return not same(found, operand)
    is_ordered = kind(found) is kind(operand) and kind(found) in (float, str, bool)
    return is_ordered and bool(COMPARISONS[name](found, operand))


def passes(filter: dict[str, Any], value: Any) -> bool:
    def field(name: str, spec: Any) -> bool:
        nested = walk(value, name.split("."))
        return holds(walk(value, [name]) if nested is MISSING else nested, spec)

    return all(field(name, spec) for name, spec in filter.items())


leaves = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "", "a", "b", "1"])
)
names = st.sampled_from(["a", "b", "a.b", "ü", "x y", "0"])
values = st.dictionaries(
    names,
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)
operands = leaves | st.lists(leaves, max_size=2)
conditions = st.dictionaries(st.sampled_from(["$eq", "$ne", *COMPARISONS]), operands, min_size=1)
specs = st.recursive(
    operands | conditions, lambda inner: st.dictionaries(names, inner, max_size=2), max_leaves=3
)


@given(st.dictionaries(names, specs, max_size=2), values)
def test_a_filter_means_what_its_rules_say(filter: dict[str, Any], value: Any) -> None:
    assert matches(parse_filter(translate(filter)), value) == passes(filter, value)


@pytest.mark.parametrize(
    ("spec", "found", "expected"),
    [
        ({"$lt": float("inf")}, 3, True),
        ({"$lte": float("inf")}, -1e308, True),
        ({"$gt": float("-inf")}, 3, True),
        ({"$gt": float("inf")}, 3, False),
        ({"$lt": float("inf")}, "text", False),
        ({"$lt": 10**100}, 3, True),
        ({"$gt": -(10**400)}, 3, True),
        ({"$gt": 10**100}, 3, False),
        ({"$eq": 10**100}, 1e100, True),
        ({"$ne": 10**400}, 3, True),
        ({"$eq": float("nan")}, 3, False),
        ({"$ne": float("nan")}, 3, True),
        ({"$lt": float("nan")}, 3, False),
        ({"$eq": {"a": 1}}, {"a": 1}, True),
        ({"$eq": {"a": 1}}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({}, "anything", True),
        ([], [], True),
        ((1, 2), [1, 2], True),
        ({"a": {"$gt": 1}}, {"a": 2}, True),
    ],
)
def test_corners(spec: Any, found: Any, expected: bool) -> None:
    assert matches(parse_filter(translate({"f": spec})), {"f": found}) is expected


@pytest.mark.parametrize(
    "filter",
    [
        {"a'": 1},
        {'a"b': 1},
        {"a[0]": 1},
        {"a\n": 1},
        {"f(x)": 1},
        {"$and": []},
        {"": 1},
        {5: 1},
        {"a": {"$in": [1]}},
        {"a": {"$gt": 1, "b": 2}},
        {"a": {"$gt": 1, "$where": "x"}},
        {"a": {"b": {"$exists": True}}},
        {"a": {"$eq": {1, 2}}},
    ],
)
def test_what_is_no_filter_is_refused(filter: Any) -> None:
    with pytest.raises(kvstore.InvalidFilterError):
        parse_filter(translate(filter))


def test_no_filter_lets_everything_pass() -> None:
    assert translate(None) is None
    assert translate({}) is None
