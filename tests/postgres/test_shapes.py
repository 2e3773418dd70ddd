"""Every statement has a shape that an engine which hashes rows by root sends to one machine.

What goes over all roots is listed here, and asks every shard. What a statement must not have, such
engines were seen to refuse, or to carry out by many commands and a two-phase commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

import pytest

from kvstore.sql import TRUE, Sql

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.backend import Span
from kvstore.patterns import compile_pattern
from kvstore.postgres import index_statements, statements
from kvstore.postgres.migrate import migrations, statements_of

# Over all roots, on purpose: when a store opens, is looked over, or is asked about all of it
OF_ALL_ROOTS = {
    *("GET_NEWEST", "LIST_ROOTS", "LIST_ROOTS_BY_WORDS", "LIST_RECORDED", "LIST_FEEDS"),
    *("FIND_EXPIRED", "IS_ANY_EXPIRED", "FIND_FEEDS_AHEAD"),
    *("COUNT_ROWS", "MEASURE", "COUNT_REST", "GET_SIZE"),
    *("FIND_WAITING", "COUNT_PENDING", "FIND_PENDING", "LIST_DESCRIPTIONS", "GET_CHECKED"),
    *("COUNT_ORPHANS", "FIND_MISCOUNTED", "DESCRIBE_ALL", "GET_TERMS_OF_ALL"),
}
# For several roots at once; where rows are distributed, each root has one of its own instead
ACROSS = {"GET_POINTS", "GET_BY_ADDRESS", "GET_BEFORE"}
# Of one small table that every machine has a copy of; a root begins with what it says
OF_THE_STORE = {
    "ADD_ROOT",
    "SHARE_STATE",
    "GET_STATE",
    "LOCK_STATE",
    "SET_INDEX",
    "SET_WATCHED_UNTIL",
}
# Of no table of rows
OF_THE_SERVER = {
    *("BEGIN", "NOTIFY", "SEPARATOR", "LIVE", "ADDRESS", "ROW", "NO_ROOT", "DONE_BEFORE"),
    *("NOT_PLAIN", "GET_EXTENSION", "CREATE_EXTENSION", "HAS_TABLE", "LOCK_TABLES", "USE_HNSW"),
    *("CREATE_VECTORS", "CREATE_HNSW", "CREATE_HALF_HNSW", "GUESS_VECTORS", "PROPAGATE"),
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
BUILT = {
    "page": statements.select_page(
        Span(PATH, compile_pattern("*"), True, (PATH, "k")), TRUE, TRUE, 1, 9
    ),
    "records": statements.select_records("users\t", 1, (PATH, "k"), 10),
    "keys": statements.select_addresses(
        Span("users\t", compile_pattern("k*"), True), 1, None, is_distributed=True
    )[0],
    "paths": statements.list_paths("users\t", 1, is_distributed=True),
    "the first path": statements.first_live_path("users\tu5\n", "users\t", 1),
    "latest": statements.select_latest(PATH, False, TRUE, 1),
    "words": index_statements.join_items(
        index_statements.by_words([(1, 1.0)], 2, 3.0, 10, 0, Sql("entries.root = ?", ("users\t",))),
        TRUE,
        with_values=True,
        root="users\t",
    ),
    "neighbours": index_statements.join_items(
        index_statements.nearest(
            "kvstore_vectors_of_8", "public", [1.0], statements.in_range(PATH, True), None, 9, None
        ),
        TRUE,
        with_values=True,
        root="users\t",
    ),
}


def constants(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        if name.isupper() and not name.startswith("_"):
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str):
                    yield name, text


ALL = [*constants(statements), *constants(index_statements)]
LISTED = OF_ALL_ROOTS | ACROSS | OF_THE_STORE | OF_THE_SERVER
OF_ONE_ROOT = [(name, text) for name, text in ALL if name not in LISTED]
FUNCTIONS = [
    (match[1], statement)
    for step in migrations()
    for text in statements_of(step.text)
    if (match := re.search(r"CREATE FUNCTION (kvstore_\w+)", text))
    for statement in text.partition("BEGIN\n")[2].split(";")
]


def test_the_lists_name_what_is_there() -> None:
    assert {name for name, _ in ALL} >= LISTED


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
    [*((n, t) for n, t in ALL if n not in OF_THE_SERVER), *FUNCTIONS],
)
def test_a_statement_has_nothing_that_is_refused(name: str, text: str) -> None:
    for refused in REFUSED:
        assert not re.search(refused, text), refused
