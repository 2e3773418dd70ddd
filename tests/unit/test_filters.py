"""Filters: what they mean, and what is refused with which words."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from kvstore import InvalidFilterError
from kvstore.filters import ALL, json_type, matches, parse_filter, same_json
from kvstore.testing import BAD_FILTERS, FILTERED, FILTERS, stable_id


@pytest.mark.parametrize(("spec", "expected"), FILTERS, ids=stable_id)
def test_meaning(spec: dict[str, Any], expected: set[str]) -> None:
    node = parse_filter(spec)
    assert {name for name, value in FILTERED.items() if matches(node, value)} == expected


@pytest.mark.parametrize("spec", BAD_FILTERS, ids=stable_id)
def test_what_is_no_filter_is_refused(spec: Any) -> None:
    with pytest.raises(InvalidFilterError):
        parse_filter(spec)


def test_no_filter_passes_everything() -> None:
    assert parse_filter(None) == ALL
    assert matches(ALL, None)
    assert matches(parse_filter({}), 5)


def test_a_filter_is_parsed_once_and_none_is_taken_for_another() -> None:
    assert parse_filter({"a": {"$gte": 50}}) is parse_filter({"a": {"$gte": 50}})
    for value, others in ((1, [True, 1.5, "1"]), (True, [1, 1.0]), ([1], [[True], 1])):
        assert matches(parse_filter({"a": value}), {"a": value})
        for other in others:
            assert not matches(parse_filter({"a": other}), {"a": value})
    assert matches(parse_filter({"a": None}), {"a": None})
    with pytest.raises(InvalidFilterError):
        parse_filter({"a": float("nan")})  # which is written as null
    assert matches(parse_filter({"a": b"x"}), {"a": b"x"})
    assert not matches(parse_filter({"a": b"x"}), {"a": {"$bytes": "eA=="}})


def test_a_filter_may_be_any_mapping() -> None:
    node = parse_filter(MappingProxyType({"a": MappingProxyType({"$gt": 1})}))
    assert matches(node, {"a": 2})
    assert not matches(node, {"a": 1})


def test_collections_of_operands_may_be_of_any_kind() -> None:
    for operands in ([1, 2], (1, 2), {1, 2}, frozenset({1, 2})):
        assert matches(parse_filter({"a": {"$in": operands}}), {"a": 2})


def test_an_operand_is_taken_as_it_would_come_back() -> None:
    assert matches(parse_filter({"a": (1, 2)}), {"a": [1, 2]})
    assert matches(parse_filter({"a": bytearray(b"x")}), {"a": b"x"})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"$where": 1}, r"unknown operator '\$where'.*\$and, \$or, \$not"),
        ({"a": {"$regex": "x"}}, r"unknown operator '\$regex' for 'a'.*\$contains"),
        ({"$bytes": 1}, r"""quote a field that begins with a dollar: '"\$bytes"'"""),
        ({"a": {"$gt": 1, "b": 2}}, "unknown operator 'b' for 'a'"),
        ({"a..b": 1}, r"the path 'a\.\.b'"),
        ({"a[*]": 1}, r"'\[\*\]'; use \$contains"),
        ({"a": {"$in": "xy"}}, r"\$in takes a list, not str"),
        ({"a": float("nan")}, "operand for 'a' is no JSON"),
        ([("a", 1)], "a filter is a mapping"),
    ],
    ids=ascii,
)
def test_a_refusal_says_what_to_write(spec: Any, said: str) -> None:
    with pytest.raises(InvalidFilterError, match=said):
        parse_filter(spec)


def test_a_field_that_begins_with_a_dollar_is_quoted() -> None:
    assert matches(parse_filter({'"$where"': 1}), {"$where": 1})


def test_nesting_is_limited() -> None:
    for wrap in (lambda spec: {"$not": spec}, lambda spec: {"$and": [spec]}):
        spec: dict[str, Any] = {"a": 1}
        for _ in range(200):
            spec = wrap(spec)
        with pytest.raises(InvalidFilterError, match="64 levels"):
            parse_filter(spec)
    condition: dict[str, Any] = {"$gt": 1}
    for _ in range(200):
        condition = {"$not": condition}
    with pytest.raises(InvalidFilterError, match="64 levels"):
        parse_filter({"a": condition})


def test_types_are_those_of_json() -> None:
    values: list[Any] = [None, True, 1, 1.5, "a", b"a", [], {}]
    types = ["null", "bool", "number", "number", "string", "bytes", "list", "object"]
    assert [json_type(value) for value in values] == types


def test_sameness_is_that_of_json() -> None:
    assert same_json({"a": [1, {"b": 2.0}]}, {"a": [1.0, {"b": 2}]})
    assert same_json({"a": 1, "b": 2}, {"b": 2, "a": 1})
    for left, right in [
        *((1, True), (0, False), (0, None), ("1", 1), (b"a", "a"), ([], {}), ([1], [True])),
        *(({"a": 1}, {"a": 1, "b": 1}), ([1, 2], [1]), (2**53, 2**53 + 1), ({"a": 1}, {"b": 1})),
    ]:
        assert not same_json(left, right)
        assert not same_json(right, left)
