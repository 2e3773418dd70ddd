"""Each hot statement goes by the indexes that it says, whatever its parameters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from kvstore import IndexConfig
from kvstore.backend import Span
from kvstore.filters import parse_filter
from kvstore.patterns import compile_pattern

from .server import Database, reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import asyncpg

from kvstore.postgres import PostgresStore, past_statements, sequence_statements, statements
from kvstore.postgres.filters import compile_filter
from kvstore.sql import TRUE, Sql
from tests.waiting import until

PATH = "users\tu1\t"
NOW = 10**15
HEAD, ALL = compile_pattern("k1*"), compile_pattern("*")
KEY, EXPIRY, CHANGES = "kvstore_items_pkey", "kvstore_items_expiry", "kvstore_changes_pkey"
ROOTS, TURNS = "kvstore_roots_pkey", "kvstore_turns_pkey"
COLUMNS = (["users\t"], [PATH], ["k1"])

STATEMENTS: dict[str, tuple[str, tuple[Any, ...], set[str]]] = {
    "GET": (statements.GET, ("users\t", PATH, "k1", NOW), {KEY}),
    "GET_MANY": (statements.GET_MANY, ("users\t", PATH, ["k1"], NOW), {KEY}),
    "GET_POINTS": (statements.GET_POINTS, (*COLUMNS, NOW), {KEY}),
    "GET_STATES": (statements.GET_STATES, ("users\t", [PATH], ["k1"], [True]), {KEY}),
    "LOOK": (statements.LOOK, ("users\t", [PATH], ["k1"], [True]), {KEY, ROOTS, TURNS}),
    "LOOK_INDEXED": (
        statements.LOOK_INDEXED,
        ("users\t", [PATH], ["k1"], [True]),
        {KEY, ROOTS, TURNS, "kvstore_entries_pkey", "kvstore_facts_pkey", "kvstore_pending_pkey"},
    ),
    "LOCK_ROOT": (statements.LOCK_ROOT, ("users\t",), {ROOTS}),
    "FIND_EXPIRED": (statements.FIND_EXPIRED, (NOW, 10), {EXPIRY}),
    "IS_ANY_EXPIRED": (statements.IS_ANY_EXPIRED, (NOW,), {EXPIRY}),
    "READ_CHANGES": (statements.READ_CHANGES, ("watched\t", 1, 10, 100), {KEY, ROOTS, CHANGES}),
    "GET_OLDEST_CHANGES": (statements.GET_OLDEST_CHANGES, ("watched\t", 10), {CHANGES}),
    "DELETE_CHANGES": (statements.DELETE_CHANGES, ("watched\t", 1), {CHANGES}),
    "GET_WRITERS": (statements.GET_WRITERS, ("watched\t",), {ROOTS, TURNS}),
    "GET_ROOT": (statements.GET_ROOT, ("watched\t",), {ROOTS, TURNS}),
}
SEQUENCES, JOBS, ORDER = "kvstore_sequences_pkey", "kvstore_jobs_pkey", "kvstore_jobs_order"
NAMES, PAST, VERSIONS = "kvstore_jobs_name", "kvstore_past_pkey", "kvstore_past_versions"
QUEUE, LOG, KEPT = ("queue\t", "queue\t"), ("log\t", "log\t"), ("kept\t", "kept\t")
WANTED = ("kept\t", ["kept\t"], ["k1"])
STATEMENTS |= {
    "GET_SEQUENCES": (sequence_statements.GET_STATES, ("log\t", ["log\t"]), {SEQUENCES}),
    "LAST_ENTRIES": (sequence_statements.LAST_ENTRIES, (*LOG, NOW, 9), {ROOTS, SEQUENCES, KEY}),
    "ENTRIES_AFTER": (
        sequence_statements.ENTRIES_AFTER,
        (*LOG, NOW, 9, "k"),
        {ROOTS, SEQUENCES, KEY},
    ),
    "LENGTH": (sequence_statements.LENGTH, (*LOG, NOW), {SEQUENCES, EXPIRY}),
    "FIND_OLDEST": (sequence_statements.FIND_OLDEST, (*LOG, 9), {KEY}),
    "FIND_NEWEST": (sequence_statements.FIND_NEWEST, (*LOG, NOW), {KEY}),
    "GET_JOBS": (
        sequence_statements.GET_JOBS,
        (*QUEUE, NOW, [1], ["a"], ["a"], [1], 1, 5, True, NOW),
        {JOBS, ORDER, NAMES, KEY},
    ),
    "WAKE_JOBS": (sequence_statements.WAKE_JOBS, (*QUEUE, NOW), {ORDER}),
    "IS_RIPE": (sequence_statements.IS_RIPE, (*QUEUE, NOW), {SEQUENCES, ORDER}),
    "SIZE_OF_QUEUE": (sequence_statements.SIZE_OF_QUEUE, (*QUEUE, NOW), {SEQUENCES, ORDER}),
    "DEAD_JOBS": (sequence_statements.DEAD_JOBS, (*QUEUE, NOW, 9), {ORDER, KEY}),
    "GET_AT": (past_statements.GET_AT, (*WANTED, 9, NOW), {KEY, VERSIONS}),
    "GET_KEPT": (past_statements.GET_KEPT, ("kept\t", 9), {ROOTS, TURNS, CHANGES}),
    "GET_INSTANT_OF": (past_statements.GET_INSTANT_OF, ("kept\t", 9), {CHANGES}),
    "GET_PRESENT": (past_statements.GET_PRESENT, (*KEPT, "k1"), {KEY, CHANGES}),
    "GET_PAST_OF": (
        past_statements.GET_PAST_OF,
        (*KEPT, "k1", 9),
        {VERSIONS, KEY, CHANGES},
    ),
    "DELETE_PAST": (past_statements.DELETE_PAST, ("kept\t", 9), {PAST}),
}
BUILT: dict[str, Sql] = {
    "a page": statements.select_page(Span(PATH, ALL, False, (PATH, "k1")), TRUE, TRUE, NOW, 10),
    "a page of a subtree": statements.select_page(
        Span("users\t", ALL, True, (PATH, "k")), TRUE, TRUE, NOW, 9
    ),
    "a page of all": statements.select_page(Span("", ALL, True, (PATH, "k")), TRUE, TRUE, NOW, 9),
    "a page from behind": statements.select_page(
        Span(PATH, ALL, True, None, (PATH, "k1"), True), TRUE, TRUE, NOW, 10
    ),
    "records": statements.select_records("users\t", NOW, (PATH, "k"), 10),
    "keys": statements.select_addresses(Span(PATH, HEAD, False), NOW, None, is_distributed=False)[
        0
    ],
    "keys of a subtree": statements.select_addresses(
        Span("users\t", HEAD, True), NOW, None, is_distributed=False
    )[0],
    "paths": statements.list_paths("users\t", NOW),
    "the first path": statements.first_live_path("users\tu5\n", "users\t", NOW),
    "the latest": statements.select_latest(
        PATH, False, compile_filter(parse_filter({"a": 1})), NOW
    ),
}
STATEMENTS |= {name: (sql.render(), sql.params, {KEY}) for name, sql in BUILT.items()}


# Tenants that do nothing here; in a table of a few rows no index is worth it
MORE_ROOTS = """
INSERT INTO kvstore_roots (root)
SELECT 'more' || number || E'\\t' FROM generate_series(1, 2000) AS number;
INSERT INTO kvstore_turns (root, era, turn, version, instant, recorded, entries, words)
SELECT root, 0, 0, 0, 0, 0, 0, 0 FROM kvstore_roots WHERE root LIKE 'more%';
INSERT INTO kvstore_entries SELECT root, '', '', '', '{}', '{}', 0 FROM kvstore_roots;
INSERT INTO kvstore_facts SELECT root, '', '', '{}' FROM kvstore_roots;
INSERT INTO kvstore_pending SELECT root, '', '' FROM kvstore_roots;
"""


@pytest.fixture(scope="module")
def url(postgres: Database) -> Iterator[str]:
    with postgres.schema() as url:
        yield url


async def fill(url: str) -> None:
    async with PostgresStore(url) as store:
        if await store.count(("watched",)):
            return
        for user in range(50):
            values = {f"k{number}": {"a": number} for number in range(100)}
            await store.put_many(("users", f"u{user}"), values, ttl=10 if user % 10 else None)
        async with store.watch():
            await store.put_many(("watched",), {str(number): 1 for number in range(2_000)})
        queue = store.queue(("queue",), attempts=1, backoff=0)
        jobs = [queue.put(number, delay=number % 3, unique=f"{number}") for number in range(2_000)]
        await asyncio.gather(*jobs)
        for _ in range(20):
            job = await queue.take(timeout=0)
            assert job is not None
            await job.retry()
        await asyncio.gather(*(queue.take(timeout=0) for _ in range(20)))
        await store.log(("log",)).append(*range(2_000))
        for number in range(300):
            await store.log(("log", f"of {number}")).append(1)
    async with PostgresStore(url, history=3_600) as store:
        for _ in range(5):
            await store.put_many(("kept",), {f"k{number}": number for number in range(500)})
    connection = await asyncpg.connect(url)
    await connection.execute(MORE_ROOTS)
    await connection.execute("ANALYZE")
    await connection.close()


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_uses_its_indexes(url: str, name: str) -> None:
    await fill(url)
    text, params, expected = STATEMENTS[name]
    connection = await asyncpg.connect(url)
    explain = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {text}"
    plan = json.loads(await connection.fetchval(explain, *params))[0]["Plan"]
    await connection.close()
    indexes: set[str] = set()
    whole: set[str] = set()
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Index Name" in node:
            indexes.add(node["Index Name"])
        if node["Node Type"] == "Seq Scan":
            whole.add(node["Relation Name"])
    assert not whole
    assert indexes == expected


MORE_ITEMS = """
INSERT INTO kvstore_items (root, path, key, version, created_at, updated_at, value)
SELECT root, root, 'k', 1, 1, 1, '{}' FROM kvstore_roots WHERE root LIKE 'more%';
"""
COUNT_READ = """
SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::integer FROM pg_stat_user_tables
WHERE schemaname = current_schema()
"""
COUNT_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kvstore'"


async def test_a_write_costs_by_what_it_writes_however_large_its_root_is(
    postgres: Database,
) -> None:
    """A session that writes plans once, for any root; most are small."""
    with postgres.schema() as url:
        async with PostgresStore(url, index=IndexConfig()) as store:
            await store.put_many(("large",), {f"k{n}": {"text": f"tea {n}"} for n in range(3_000)})
        connection = await asyncpg.connect(url)
        await connection.execute(MORE_ROOTS + MORE_ITEMS)
        await connection.execute("ANALYZE")

        async def are_gone() -> bool:  # a session tells of its reads when it has ended
            return not await connection.fetchval(COUNT_SESSIONS)

        await until(are_gone)
        before = await connection.fetchval(COUNT_READ)
        async with PostgresStore(url, index=IndexConfig()) as store:
            for n in range(10):
                await store.put(("large",), f"k{n}", {"text": f"coffee {n}"})
                await store.expire(("large",), f"k{n}", ttl=60)
                await store.delete(("large",), f"k{n}")
        await until(are_gone)
        read = await connection.fetchval(COUNT_READ) - before
        await connection.close()
    assert 0 < read < 3_000
