"""Every statement takes the index that it was written for, and costs by what it finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstore import codec
from kvstore.backend import NamespaceQuery, Span
from kvstore.filters import parse_filter
from kvstore.namespace import encode_namespace
from kvstore.operations import Put, Remove
from kvstore.patterns import Pattern, compile_pattern
from kvstore.plan import Address
from kvstore.sql import Sql
from kvstore.sqlite import driver, past_statements, reading, statements
from kvstore.sqlite.connection import connect, transaction
from kvstore.sqlite.filters import compile_filter
from kvstore.sqlite.migrate import migrate
from kvstore.sqlite.rows import NotInlineError
from kvstore.sqlite.writing import Batch

NOW = 1_750_000_000_000_000
NS = ("users", "alice")
PATH = encode_namespace(NS)

POINT = "SEARCH items USING INDEX sqlite_autoindex_items_1 (path=? AND key=?)"
BY_ID = "SEARCH items USING INTEGER PRIMARY KEY (rowid=?)"


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[driver.Connection]:
    """A file of the newest schema, with few rows and no statistics, as most files are."""
    connection = connect(tmp_path / "store.db", "rwc")
    migrate(connection, tmp_path / "store.db", 1.0)
    fill(connection, NS, ["a", "b", "temp_1"])
    fill(connection, ("users",), ["a"])
    yield connection
    connection.close()


def fill(connection: driver.Connection, namespace: tuple[str, ...], keys: list[str]) -> None:
    """Put items, every other one with a lifetime."""
    path = encode_namespace(namespace)
    puts = [
        Put(namespace, path, key, codec.encode({"n": at}), ttl=10**9 if at % 2 else None)
        for at, key in enumerate(keys)
    ]
    with transaction(connection, 1.0):
        batch = Batch(connection.cursor(), NOW)
        batch.apply([puts])
        batch.finish()


def plan(connection: driver.Connection, statement: Sql | str) -> list[str]:
    if isinstance(statement, str):
        statement = Sql(statement, (None,) * statement.count("?"))
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement.text}", statement.params)
    return [row[3] for row in rows]


def scans_items(line: str) -> bool:
    """Whether a line of a plan reads the table of items, and no other, from end to end."""
    return re.match(r"SCAN items\b(?!_)", line) is not None


# The statements of every day, and all that they do.
EXPIRED = "SEARCH items USING INDEX items_expiry (expires_at<?)"

HOT: dict[str, list[str]] = {
    "GET": [POINT],
    "GET_SMALL": [POINT],
    "GET_MANY": ["SCAN wanted VIRTUAL TABLE INDEX 1:", POINT],
    "GET_STATE": [POINT],
    "UPSERT": [],
    "INSERT_NEW": [],
    "UPDATE_VALUE": [BY_ID],
    "PUT_OVER": [POINT],
    "DELETE": [BY_ID],
    "RENEW": [BY_ID],
    "SET_VERSION": ["SEARCH meta USING PRIMARY KEY (name=?)"],
}

# Upkeep that goes through all items, as is its purpose.
WHOLE_TABLE = {"CHECK_ROWS", "COUNT_ROWS"}
# Of the FTS5 table that the first index makes, and has no other way than its own; of vec0's tables
# that the first vector makes: see tests/search.
MADE_ON_DEMAND = {"COUNT_HOLDING", "FIND_WORDS", "GET_FTS5_TOTALS", "RANK_WORDS", "SURVEY"}

_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\b")
WRITTEN = {
    name
    for name, text in vars(statements).items()
    if name.isupper()
    and not name.startswith("_")
    and isinstance(text, str)
    and _STATEMENT.match(text)
}


def test_the_statements_of_every_day_are_there() -> None:
    assert HOT.keys() <= WRITTEN


@pytest.mark.parametrize("name", HOT)
def test_the_statements_of_every_day_do_this_and_no_more(
    sqlite: driver.Connection, name: str
) -> None:
    assert plan(sqlite, getattr(statements, name)) == HOT[name]


@pytest.mark.parametrize("name", sorted(WRITTEN - WHOLE_TABLE - MADE_ON_DEMAND))
def test_no_statement_scans_the_table(sqlite: driver.Connection, name: str) -> None:
    details = plan(sqlite, getattr(statements, name))
    assert not [line for line in details if scans_items(line)]


@pytest.mark.parametrize("rows", [1, 32])
def test_an_upsert_of_many_searches_nothing_but_the_unique_index(
    sqlite: driver.Connection, rows: int
) -> None:
    details = plan(sqlite, Sql(statements.upsert_plain(rows), (None,) * (2 + 5 * rows)))
    assert not [line for line in details if "items" in line]


@pytest.mark.parametrize("points", [1, 16])
def test_reads_that_share_a_statement_each_search_the_unique_index(
    sqlite: driver.Connection, points: int
) -> None:
    details = plan(sqlite, statements.get_small_points(points))
    assert [line for line in details if "items" in line] == [POINT]


PATTERNS = ["*", "temp_1", "temp_*", "temp_*x", "*x", "t?[ab]", "a\x00*b", ""]
FILTERS: list[dict[str, Any] | None] = [
    None,
    {"n": 1},
    {"$or": [{"n": {"$gt": 1}}, {"n": {"$contains": "x"}}], '"a\\"b"': None},
]
AFTER = [None, (PATH, "b")]
BOUNDS = [(after, before) for after in AFTER for before in (None, (PATH, "c"))]


def spans(path: str, pattern: Pattern, subtree: bool) -> list[Span]:
    return [
        Span(path, pattern, subtree, *bounds, reverse)
        for bounds in BOUNDS
        for reverse in (False, True)
    ]


def remove(path: str, subtree: bool, pattern: Pattern, now: int) -> Sql:
    return Sql("DELETE") + statements.matching(path, subtree, pattern, now)


def built(subtree: bool, path: str = PATH) -> Iterator[tuple[str, Sql]]:
    """Yield each kind of statement that is built, over all kinds of arguments."""
    for text in PATTERNS:
        pattern = compile_pattern(text)
        for span in spans(path, pattern, subtree):
            yield f"keys {span}", statements.select_keys(span, NOW, 5)
            yield f"weigh {span}", statements.weigh_first(span, NOW, 5)
        yield f"count {text!r}", statements.count(path, subtree, pattern, NOW)
        yield f"remove {text!r}", remove(path, subtree, pattern, NOW)
        if not subtree:
            yield f"weigh {text!r}", statements.weigh(path, pattern)
        for spec in FILTERS:
            condition = compile_filter(parse_filter(spec))
            for span in spans(path, pattern, subtree):
                yield f"page {span} {spec}", statements.select_page(span, condition, NOW, 5)
    for spec in FILTERS:
        condition = compile_filter(parse_filter(spec))
        for more in ([], [Sql("kvstore_contains(?, CAST(key AS BLOB), value)", ("x",))]):
            whole = (
                condition if not more else Sql(f"{condition.text} AND", condition.params) + more[0]
            )
            yield f"search {spec}", statements.select_latest(path, subtree, whole, NOW, 5, 0)


def test_a_sweep_searches_the_index_of_expiries(sqlite: driver.Connection) -> None:
    for what in ("DELETE", "SELECT path, key, id"):
        assert plan(sqlite, Sql(f"{what} {statements.EXPIRED}", (NOW, 10))) == [
            BY_ID,
            "LIST SUBQUERY 1",
            "SEARCH items USING COVERING INDEX items_expiry (expires_at<?)",
        ]


@pytest.mark.parametrize(
    "name", ["GET_AT", "GET_ENTRY_AT", "GET_PAST_OF", "GET_PUT", "IS_FORGOTTEN"]
)
def test_the_past_is_looked_up_by_its_index(sqlite: driver.Connection, name: str) -> None:
    text: str = getattr(past_statements, name)
    numbered = [int(number) for number in re.findall(r"\?(\d)", text)]
    details = plan(sqlite, Sql(text, (None,) * max(numbered, default=text.count("?"))))
    searched = [line for line in details if re.match(r"(SCAN|SEARCH) (items|changes|later)", line)]
    assert searched
    for line in searched:
        assert re.search(
            r"USING INDEX (changes_was|sqlite_auto.*) \(path=\? AND key=\?|rowid", line
        )


@pytest.mark.parametrize("subtree", [False, True])
@pytest.mark.parametrize("after", AFTER)
def test_a_page_of_the_past_merges_two_indexes(
    sqlite: driver.Connection, subtree: bool, after: Address | None
) -> None:
    span = Span(PATH, compile_pattern("*"), subtree, after)
    statement = past_statements.select_past_page(span, 5, NOW, 10)
    details = plan(sqlite, statement)
    assert details[0] == "MERGE (UNION ALL)"
    assert not [line for line in details if line.startswith("SCAN") or "TEMP B-TREE" in line]


def test_in_a_namespace_no_statement_scans_the_table(sqlite: driver.Connection) -> None:
    for name, statement in built(subtree=False):
        details = plan(sqlite, statement)
        assert not [line for line in details if scans_items(line)], (name, details)
        searches = [line for line in details if line.startswith("SEARCH items")]
        assert searches, (name, details)
        for line in searches:
            assert line in (BY_ID, EXPIRED) or re.match(r".* \(path=\?", line), (name, line)


def test_in_a_subtree_no_statement_scans_the_table(sqlite: driver.Connection) -> None:
    for path in (PATH, encode_namespace(("users",))):
        for name, statement in built(subtree=True, path=path):
            details = plan(sqlite, statement)
            assert not [line for line in details if scans_items(line)], (name, details)
            for line in details:
                if line.startswith("SEARCH items") and line not in (BY_ID, EXPIRED):
                    assert re.search(r"\((path[=>]|\(path,key\)>)", line), (name, line)


def test_a_literal_key_and_a_literal_head_are_part_of_the_search(
    sqlite: driver.Connection,
) -> None:
    for build in (statements.count, remove):
        literal = build(PATH, False, compile_pattern("temp_1"), NOW)
        assert plan(sqlite, literal) == [POINT]
        headed = build(PATH, False, compile_pattern("temp_*x"), NOW)
        (line,) = plan(sqlite, headed)
        assert line.endswith("(path=? AND key>? AND key<?)")


def test_what_the_index_orders_is_not_sorted_again(sqlite: driver.Connection) -> None:
    for name, statement in built(subtree=False):
        if name.startswith(("keys", "page")):
            assert not [line for line in plan(sqlite, statement) if "TEMP B-TREE" in line], name


def test_a_scan_of_everything_goes_along_the_index(sqlite: driver.Connection) -> None:
    pattern, condition = compile_pattern("*"), compile_filter(parse_filter(None))
    for span in spans("", pattern, subtree=True):
        statement = statements.select_page(span, condition, NOW, 500)
        details = plan(sqlite, statement)
        assert not [line for line in details if "TEMP B-TREE" in line]
        assert all("sqlite_autoindex_items_1" in line for line in details)


def test_namespaces_are_listed_by_jumps(sqlite: driver.Connection) -> None:
    for path in ("", encode_namespace(("users",))):
        details = plan(sqlite, statements.list_paths(path, NOW))
        assert not [line for line in details if scans_items(line)]
        jumps = [line for line in details if line.startswith("SEARCH items")]
        assert len(jumps) == 2  # the first, and the next that is live
    low, high = "a\t", "a\n"
    (line,) = plan(sqlite, statements.first_live_path(low, high, NOW))
    assert line.startswith("SEARCH items USING INDEX sqlite_autoindex_items_1 (path>? AND path<?)")


# What the plans promise, counted: the steps of SQLite's virtual machine, which depend on nothing
# but the statement and the rows.


def steps(connection: driver.Connection, work: Callable[[], Any]) -> int:
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    work()  # reads the schema, and prepares what is kept prepared
    connection.set_progress_handler(step, 1)
    try:
        work()
    finally:
        connection.set_progress_handler(None, 1)
    return taken


def test_listing_namespaces_costs_by_their_number_and_not_by_the_items(
    sqlite: driver.Connection,
) -> None:
    asked = NamespaceQuery((), (), None, ())
    cut = NamespaceQuery((), (), 1, ())

    def both() -> tuple[int, int]:
        whole = steps(sqlite, lambda: reading.list_namespaces(sqlite, asked, None, 0, NOW))
        shallow = steps(sqlite, lambda: reading.list_namespaces(sqlite, cut, None, 0, NOW))
        return whole, shallow

    before = both()
    fill(sqlite, NS, [f"more {n}" for n in range(2_000)])
    assert both() == before
    for n in range(100):
        fill(sqlite, ("users", f"{n}"), ["k"])
    whole, shallow = both()
    assert whole > 20 * before[0]
    assert shallow == before[1]


@pytest.mark.parametrize("subtree", [False, True])
@pytest.mark.parametrize("pattern", ["temp_*", "temp_1", "temp_*1"])
def test_a_wildcard_costs_by_what_begins_like_it(
    sqlite: driver.Connection, pattern: str, subtree: bool
) -> None:
    compiled = compile_pattern(pattern)

    def cost() -> list[int]:
        def remove() -> None:
            sqlite.execute("BEGIN IMMEDIATE")
            Batch(sqlite.cursor(), NOW).apply([[Remove(NS, PATH, compiled, subtree)]])
            sqlite.execute("ROLLBACK")

        return [
            steps(sqlite, lambda: reading.keys(sqlite, Span(PATH, compiled, subtree), None, NOW)),
            steps(sqlite, lambda: reading.count(sqlite, PATH, compiled, subtree, NOW)),
            steps(sqlite, remove),
        ]

    def fill_others(number: int) -> None:
        for namespace, head in ((NS, "other"), (NS, "zero"), (("users", "bob"), "temp_")):
            fill(sqlite, namespace, [f"{head}{n}" for n in range(number)])

    fill_others(3)
    before = cost()
    fill_others(1_000)
    assert cost() == before


@pytest.mark.parametrize("pattern", ["temp_*", "temp_*0", "*"])
def test_a_removal_on_the_event_loop_looks_at_few_rows(
    sqlite: driver.Connection, pattern: str
) -> None:
    def try_to_remove() -> None:
        op = Remove(NS, PATH, compile_pattern(pattern), subtree=False)
        sqlite.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotInlineError):
            Batch(sqlite.cursor(), NOW, 65_536).apply([[op]])
        sqlite.execute("ROLLBACK")

    fill(sqlite, NS, [f"temp_{n}" for n in range(500)])
    before = steps(sqlite, try_to_remove)
    fill(sqlite, NS, [f"temp_{n}" for n in range(500, 5_000)])
    assert steps(sqlite, try_to_remove) == before


def test_a_removal_on_the_event_loop_takes_short_values_alone(sqlite: driver.Connection) -> None:
    def remove(pattern: str) -> list[Any]:
        with transaction(sqlite, 1.0):
            batch = Batch(sqlite.cursor(), NOW, 65_536)
            answers = batch.apply([[Remove(NS, PATH, compile_pattern(pattern), subtree=False)]])
            batch.finish()
            return answers

    fill(sqlite, NS, [f"many_{n:03}" for n in range(128)])
    assert remove("many_*") == [[128]]
    long = Put(NS, PATH, "long_1", codec.encode("x" * 65_536))
    with transaction(sqlite, 1.0):
        batch = Batch(sqlite.cursor(), NOW)
        batch.apply([[long]])
        batch.finish()
    with pytest.raises(NotInlineError):
        remove("long_*")
    assert remove("none_*") == [[0]]
    fill(sqlite, NS, [f"big_{n}" for n in range(500)])
    assert remove("big_1") == [[1]]


def test_a_page_of_a_scan_costs_by_its_rows(sqlite: driver.Connection) -> None:
    fill(sqlite, NS, [f"{n:05}" for n in range(2_000)])
    pattern, everything = compile_pattern("*"), parse_filter(None)

    def cost(path: str, subtree: bool, after: Address | None, reverse: bool = False) -> int:
        span = Span(path, pattern, subtree, None if reverse else after, after if reverse else None)
        there = replace(span, reverse=reverse)
        return steps(sqlite, lambda: reading.page(sqlite, there, everything, 10, NOW))

    first = cost("", True, None)
    for path, subtree, after in [
        *(("", True, (PATH, "01000")), (PATH, True, (PATH, "01900")), (PATH, False, None)),
        (PATH, False, (PATH, "01900")),
    ]:
        assert cost(path, subtree, after) < 2 * first
        assert cost(path, subtree, after, reverse=True) < 2 * first


def test_the_first_and_the_last_keys_cost_by_their_number(sqlite: driver.Connection) -> None:
    fill(sqlite, NS, [f"{n:05}" for n in range(2_000)])
    every = compile_pattern("*")
    for subtree in (False, True):
        costs = [
            steps(sqlite, lambda span=span: reading.keys(sqlite, span, 3, NOW))  # type: ignore[misc]
            for after, before in ((None, None), ((PATH, "00900"), None), (None, (PATH, "01100")))
            for reverse in (False, True)
            for span in (Span(PATH, every, subtree, after, before, reverse),)
        ]
        assert max(costs) < 2 * min(costs)
