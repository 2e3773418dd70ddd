"""SQLite's answer to a filter is the answer of `matches`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore import InvalidFilterError, codec
from kvstore.filters import matches, parse_filter, same_json
from kvstore.sqlite import driver
from kvstore.sqlite.connection import connect
from kvstore.sqlite.filters import compile_filter

from .strategies import any_text, filters, json_values, objects, paths, stored_values


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[driver.Connection]:
    path: Path = tmp_path_factory.mktemp("filters") / "values.db"
    connection = connect(path, "rwc")
    connection.execute("CREATE TABLE items (at INTEGER PRIMARY KEY, value TEXT)")
    yield connection
    connection.close()


@given(filters, st.lists(objects | stored_values, min_size=1, max_size=5))
def test_sql_agrees_with_matches(
    sqlite: driver.Connection, spec: dict[str, Any], values: list[Any]
) -> None:
    condition = compile_filter(parse_filter(spec))
    sqlite.execute("BEGIN")
    try:
        rows = [(at, codec.encode(value).decode()) for at, value in enumerate(values)]
        sqlite.executemany("INSERT INTO items VALUES (?, ?)", rows)
        answers = sqlite.execute(
            f"SELECT {condition.text} FROM items ORDER BY at", condition.params
        ).fetchall()
    finally:
        sqlite.execute("ROLLBACK")
    node = parse_filter(spec)
    assert answers == [(int(matches(node, value)),) for value in values]


@given(paths, json_values, st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte", "$contains"]))
def test_each_operator_agrees_on_each_pair_of_types(
    sqlite: driver.Connection, path: str, operand: Any, operator: str
) -> None:
    node = parse_filter({"v": {operator: operand}})
    condition = compile_filter(node)
    others = [None, True, 1, 1.5, 2**53 + 1, 2**64 - 1, "a", "1", [], [1, "a"], {}, b"a", operand]
    for other in others:
        data = codec.encode({"v": other}).decode()
        ((answer,),) = sqlite.execute(
            f"SELECT {condition.text} FROM (SELECT ? AS value) AS items", (*condition.params, data)
        )
        assert answer == int(matches(node, {"v": other})), (operator, operand, other)


SCALARS = [
    *(0, 0.0, -0.0, 7, 7.0, -7, -7.0, 70, 75, 7.5, 7.25, 1e-7, 5e-324, 10**14, 1e14, 10**15, 1e15),
    *(10**15 + 1, 10**16, 1e16, 1e17, 10**17, 2**53, 2.0**53, 2**53 + 1, 1e23, 10**23 % 2**63),
    *(
        None,
        True,
        False,
        "",
        "7",
        "*",
        "a*b?[c",
        "a]b",
        "[",
        '"',
        "\\",
        "\n",
        "é",
        "☃",
        "\0",
        "a\0b",
    ),
    *("x" * 1_200, "x" * 1_201, "*" * 1_000 + "a", "*" * 1_000 + "b", "[" * 30_000),
]


@pytest.mark.parametrize("name", ["v", "*", "[v]", "é", "a\0b"])
def test_equality_is_seen_however_the_two_are_written(sqlite: driver.Connection, name: str) -> None:
    values: list[dict[str, Any]] = [{name: scalar} for scalar in SCALARS]
    values += [{"other": {name: 7}}, {"other": 7, name: 8}, {f"{name}\0": 7, name: 8}]
    sqlite.execute("BEGIN")
    try:
        rows = [(at, codec.encode(value).decode()) for at, value in enumerate(values)]
        sqlite.executemany("INSERT INTO items VALUES (?, ?)", rows)
        for operand in SCALARS:
            node = parse_filter({codec.encode(name).decode(): operand})
            condition = compile_filter(node)
            found = sqlite.execute(
                f"SELECT at FROM items WHERE {condition.text} ORDER BY at", condition.params
            ).fetchall()
            assert found == [(at,) for at, value in enumerate(values) if matches(node, value)]
    finally:
        sqlite.execute("ROLLBACK")


@given(st.lists(json_values | any_text, min_size=5, max_size=12), json_values)
def test_a_list_of_many_agrees_for_each_of_its_values(
    sqlite: driver.Connection, operands: list[Any], other: Any
) -> None:
    mixed = [*operands, True, 1, 1.5, "1", "a\0b"]
    for listed in (operands, mixed, [each for each in mixed if isinstance(each, (str, int))]):
        node = parse_filter({"v": {"$in": listed}})
        condition = compile_filter(node)
        for found in (*mixed, None, False, 1.0, 2**53 + 1, 2**64 - 1, "", "a", [], {}, other):
            data = codec.encode({"v": found}).decode()
            ((answer,),) = sqlite.execute(
                f"SELECT {condition.text} FROM (SELECT ? AS value) AS items",
                (*condition.params, data),
            )
            assert answer == any(same_json(found, each) for each in listed), (listed, found)
            assert answer == matches(node, {"v": found})


@given(st.lists(st.tuples(st.sampled_from(["a", "b", '"a".b']), json_values), max_size=8))
def test_any_of_some_equalities_is_what_they_say_one_by_one(pairs: list[tuple[str, Any]]) -> None:
    node = parse_filter({"$or": [{path: {"$eq": value}} for path, value in pairs]})
    for path, value in [*pairs, ("a", True), ("b", 1), ("a", "x")]:
        item = {path: value} if "." not in path else {"a": {"b": value}}
        one_by_one = (matches(parse_filter({path: {"$eq": each}}), item) for path, each in pairs)
        assert matches(node, item) is any(one_by_one)


SQL_WORDS = re.compile(
    r"NOT|AND|OR|IS|NULL|TRUE|FALSE|IN|CASE|WHEN|THEN|ELSE|END|EXISTS|SELECT|FROM|WHERE|AS|element"
    r"|GLOB|json_type|json_extract|json_each|instr|kvstore_match|items|value|type|[01]"
    r"|'(text|array|null|true|false|integer|real|\*\\u0000\*)'"
)


@given(filters)
def test_nothing_of_a_filter_is_in_the_sql(spec: dict[str, Any]) -> None:
    text = compile_filter(parse_filter(spec)).text
    for word in re.findall(r"[^\s(),.=<>?+]+", text):
        assert SQL_WORDS.fullmatch(word)


@given(st.dictionaries(any_text, json_values | st.dictionaries(any_text, json_values), max_size=3))
def test_any_mapping_is_a_filter_or_a_named_error(spec: dict[str, Any]) -> None:
    with suppress(InvalidFilterError):
        matches(parse_filter(spec), spec)


@given(filters, json_values)
def test_not_turns_every_answer_around(spec: dict[str, Any], value: Any) -> None:
    answer = matches(parse_filter(spec), value)
    assert matches(parse_filter({"$not": spec}), value) is not answer


@given(objects, paths)
def test_a_value_meets_what_was_read_from_it(value: dict[str, Any], path: str) -> None:
    present = matches(parse_filter({path: {"$exists": True}}), value)
    absent = matches(parse_filter({path: {"$nin": [], "$exists": False}}), value)
    assert present is not absent
