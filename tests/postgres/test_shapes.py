"""Every statement has a shape that an engine which hashes rows by root sends to one machine.

What goes over all roots is listed here, and asks every shard. What a statement must not have, such
engines were seen to refuse, or to carry out by many commands and a two-phase commit.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kvstore.sql import TRUE, Sql

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import kvstore.postgres
from kvstore.backend import Span
from kvstore.patterns import compile_pattern
from kvstore.postgres import (
    filter_statements,
    index_statements,
    past_statements,
    sequence_statements,
    statements,
)
from kvstore.postgres.migrate import migrations, statements_of

MODULES = {
    "": statements,
    "filter.": filter_statements,
    "index.": index_statements,
    "past.": past_statements,
    "sequence.": sequence_statements,
}

# Over all roots, on purpose: when a store opens, is looked over, or is asked about all of it
OF_ALL_ROOTS = {
    *("GET_NEWEST", "LIST_ROOTS", "LIST_ROOTS_BY_WORDS", "LIST_RECORDED", "LIST_FEEDS"),
    *("FIND_EXPIRED", "IS_ANY_EXPIRED", "FIND_FEEDS_AHEAD"),
    *("COUNT_ROWS", "MEASURE", "COUNT_REST", "GET_SIZE"),
    *("index.FIND_WAITING", "index.COUNT_PENDING", "index.FIND_PENDING"),
    *("index.LIST_DESCRIPTIONS", "index.GET_CHECKED", "index.COUNT_ORPHANS"),
    *("index.FIND_MISCOUNTED", "index.DESCRIBE_ALL", "index.GET_TERMS_OF_ALL"),
    *("past.GET_NEWEST", "past.GET_INSTANT_OF_ALL", "past.LIST_ROOTS_FROM"),
    *("past.LIST_ROOTS_BELOW", "past.LIST_UNKEPT"),
    *("past.LIST_PASTS", "past.FIND_AHEAD", "past.MEASURE"),
    *("sequence.MEASURE", "sequence.CHECK_SEQUENCES", "sequence.ITEMS_NO_JOBS"),
}
# For several roots at once; where rows are distributed, each root has one of its own instead
ACROSS = {"GET_POINTS", "GET_BEFORE", "DELETE_PRESENT", "PUT_ROOTS"}
# Of one small table that every machine has a copy of; a root begins with what it says
OF_THE_STORE = {
    *("GET_STATE", "LOCK_STATE", "SET_INDEX", "SET_WATCHED_UNTIL"),
    *("past.GET_STORE_KEPT", "past.KEEP_STORE", "past.IS_KEPT", "past.IS_HISTORY_OVER"),
    "past.END_HISTORY_OF_STORE",
}
# Of no table of rows, or pieces of others
OF_THE_SERVER = {
    *("HAS_SCHEMA_RECORD", "CREATE_SCHEMA_RECORD", "GET_APPLIED", "NOTE_STEP", "NOTE_NEEDS"),
    *("WANTED", "WANTED_UNDER"),
    *("BEGIN", "NOTIFY", "SEPARATOR", "LIVE", "ADDRESS", "ROW", "DONE_BEFORE", "NOT_PLAIN"),
    *("AWAIT_ROOTS", "AWAIT_ROOTS_OF_ALL", "HAS_ROW_SECURITY"),
    *("index.GET_EXTENSION", "index.CREATE_EXTENSION", "index.HAS_TABLE"),
    *("LOCK_TABLES", "MAY_LOOK_AFTER_ALL", "index.USE_HNSW", "index.GUESS_VECTORS"),
    *("index.CREATE_VECTORS", "index.CREATE_HNSW", "index.CREATE_HALF_HNSW"),
    *("sequence.LAST_KEY", "sequence.IS_ENTRY"),
    *("filter.MAY_LOOK", "filter.MAY_BUILD", "filter.LIST_BUILT", "filter.UNSURE"),
}
# Of declared filters, which have no entries where rows are distributed
NEVER_SPREAD = {
    *("filter.HAS_MORE", "filter.LOCK_ITEMS", "filter.ADD_FILTER", "filter.SET_BUILT"),
    *("filter.HAS_TRIGGERS", "filter.CREATE_TRIGGERS", "filter.BUILD", "filter.COUNT_WRONG"),
    "filter.FORGET_FILTERS",
}
NEVER_CALLED_SPREAD = {
    *("kvstore_scalars_of", "kvstore_add_scalars", "kvstore_take_scalars"),
    *("kvstore_change_scalars", "kvstore_put_roots"),
}
# Functions of these modules that make pieces of what others make
OF_PIECES = {
    *("filter.between", "between", "in_range", "key_matches", "live", "distinct_paths"),
}
REFUSED = [
    r"pg_notify",
    r"pg_current_xact_id|txid_",
    r"clock_timestamp",
    r"json_build_object",
    r"WITH[^;]*\bAS (MATERIALIZED )?\(\s*INSERT",  # planned apart: many commands
    r"INSERT INTO [^;]*?\)\s*SELECT ((?!FROM)[^;])*FROM unnest",  # a colocated table goes first
]
_TABLE = re.compile(
    r"(?:FROM|JOIN|UPDATE|INTO|USING) (kvstore_\w+\b|\{table\})(?!\()(?: AS (\w+))?"
)
PATH = "users\tu1\t"
ROOT = "users\t"
ALL_KEYS, SOME_KEYS = compile_pattern("*"), compile_pattern("k*")
VECTORS = "kvstore_vectors_of_8"
ITEMS_HERE = Sql("items.root = ?", (ROOT,))


def join_items(ranking: Sql) -> Sql:
    return index_statements.join_items(ranking, ITEMS_HERE, with_values=True)


def built() -> dict[str, Sql]:
    """Put together what is not constant, of one root, by the name of what makes it."""
    facts = index_statements.passing_scalars(statements.in_range(PATH, True), [[1]])
    facts = Sql(facts.text.replace("items.", "facts."), facts.params)
    of_vectors = Sql("vectors.root = ? AND vectors.path = ?", (ROOT, PATH))
    words = index_statements.by_words([(1, 1.0)], 2, 3.0, Sql("entries.root = ?", (ROOT,)))
    query = VECTORS, "public", [1.0]
    among = filter_statements.entries_that(PATH, filter_statements.between("00", "01"))
    compared = index_statements.comparing(*query, facts, of_vectors)
    made: dict[str, Sql | None] = {
        "select_page": statements.select_page(
            Span(PATH, ALL_KEYS, True, (PATH, "k")), TRUE, TRUE, 1, 9
        ),
        "select_records": statements.select_records(ROOT, 1, (PATH, "k"), 10),
        "select_addresses": statements.select_addresses(
            Span(ROOT, SOME_KEYS, True), 1, None, is_distributed=True
        )[0],
        "count": statements.count(ROOT, True, SOME_KEYS, 1, is_distributed=True),
        "delete_range": statements.delete_range(ROOT, True, ALL_KEYS, 1),
        "list_paths": statements.list_paths(ROOT, 1),
        "first_live_path": statements.first_live_path("users\tu5\n", ROOT, 1),
        "select_latest": statements.select_latest(PATH, False, TRUE, 1),
        "index.join_items": join_items(index_statements.page_of(words, 9, 0)),
        "index.by_words": words,
        "index.nearest": join_items(
            index_statements.nearest(*query, of_vectors, ITEMS_HERE, 9, None)
        ),
        "index.comparing": join_items(index_statements.page_of(compared, 9, 0)),
        "index.page_of": index_statements.page_of(
            index_statements.comparing(*query, None, of_vectors), 9, 0
        ),
        "index.passing_scalars": facts,
        "index.passing_items": index_statements.passing_items(ITEMS_HERE, TRUE),
        "index.count_of": index_statements.count_of(facts, 9),
        "index.share_of": index_statements.share_of(ITEMS_HERE, TRUE, 9),
        "index.count_vectors": index_statements.count_vectors(VECTORS, PATH),
        "index.sample_vectors": index_statements.sample_vectors(VECTORS, "public", PATH, 3, 9),
        "index.vectors_at": Sql(index_statements.vectors_at(VECTORS, "public")[1]),
        "filter.entries_that": among,
        "filter.first_entries": filter_statements.first_entries("00", PATH, True, 9),
        "filter.items_among": filter_statements.items_among(PATH, among, TRUE, 9),
        "past.changed_since": past_statements.changed_since(ROOT, True, 1),
        "past.forget": past_statements.forget(ROOT, ALL_KEYS, True),
        "past.past_keys": past_statements.past_keys(ROOT, SOME_KEYS, True),
        "past.select_page": past_statements.select_page(
            Span(ROOT, SOME_KEYS, True, (PATH, "k")), 1, 1, 9
        ),
    }
    return {name: sql for name, sql in made.items() if sql is not None}


BUILT = built()
# Over all roots, on purpose
BUILT_OF_ALL = {"check_rows", "scan_paths"}
CALLS = [
    statements.one_call(keeps_past=keeps_past, has_sequences=has_sequences, patience=patience)
    for keeps_past in (False, True)
    for has_sequences in (False, True)
    for patience in (None, 5_000)
]


def constants(prefix: str, module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        if name.isupper() and not name.startswith("_"):
            if module is not statements and vars(statements).get(name) is value:
                continue  # it is from there
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str):
                    yield prefix + name, text


ALL = [each for prefix, module in MODULES.items() for each in constants(prefix, module)]
LISTED = OF_ALL_ROOTS | ACROSS | OF_THE_STORE | OF_THE_SERVER | NEVER_SPREAD
OF_ONE_ROOT = [(name, text) for name, text in ALL if name not in LISTED]
FUNCTIONS = [
    (match[1], statement)
    for step in migrations()
    for text in statements_of(step.text)
    if (match := re.search(r"CREATE (?:OR REPLACE )?FUNCTION (kvstore_\w+)", text))
    if match[1] not in NEVER_CALLED_SPREAD
    for statement in text.partition("BEGIN\n")[2].split(";")
]


def test_the_lists_name_what_is_there() -> None:
    assert {name for name, _ in ALL} >= LISTED
    makers = {
        prefix + name
        for prefix, module in MODULES.items()
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
        if not name.startswith("_")
    }
    assert makers == {*BUILT, *BUILT_OF_ALL, *OF_PIECES}


def test_no_statement_about_rows_is_anywhere_else() -> None:
    elsewhere = set()
    for file in Path(next(iter(kvstore.postgres.__path__))).glob("*.py"):
        if file.stem.endswith("statements"):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                elsewhere |= {(file.stem, table) for table, _ in _TABLE.findall(node.value)}
    assert not elsewhere


@pytest.mark.parametrize("call", [statements.PUT, statements.PUT_SOON, statements.WRITE, *CALLS])
def test_a_write_is_nothing_but_a_call(call: str) -> None:
    """Such a statement is sent on as it is, and planned and carried out on the other machine."""
    assert re.fullmatch(r"\s*SELECT \* FROM kvstore_\w+\(\$1(, (\$?\d+|NULL))+\)\s*", call)


@pytest.mark.parametrize(
    ("name", "text"),
    [*OF_ONE_ROOT, *FUNCTIONS, *((name, sql.text) for name, sql in BUILT.items())],
)
def test_a_statement_is_sent_to_one_machine(name: str, text: str) -> None:
    root = r"(\$1|\?|the_root|roots\.root)"
    for table, alias in _TABLE.findall(text):
        if table == "kvstore_state":
            continue
        named = rf"\b{alias or table}\.root = {root}|\b{alias}\.root, {root}"
        plain = rf"\broot = {root}|\(root, path\)|VALUES \({root}|VALUES \(\s*the_root"
        joined = r"USING \(root"
        assert re.search(f"{named}|{plain}|{joined}", text) or "SELECT roots.root" in text, table


@pytest.mark.parametrize(
    ("name", "text"),
    [*((n, t) for n, t in ALL if n not in OF_THE_SERVER | NEVER_SPREAD), *FUNCTIONS],
)
def test_a_statement_has_nothing_that_is_refused(name: str, text: str) -> None:
    for refused in REFUSED:
        assert not re.search(refused, text), refused


@pytest.mark.parametrize(("name", "text"), ALL)
def test_what_reads_a_table_calls_no_function_that_does(name: str, text: str) -> None:
    """A function that is called on the machine of a row may ask for none of another's."""
    tables = {table for table, _ in _TABLE.findall(text)}
    for function in {made for made, _ in FUNCTIONS}:
        if f"{function}(" in text:
            assert tables <= {function}, function
