"""Measure PostgresStore: `python -m benchmarks.postgres [--quick]`, writes `results/postgres.json`.

Against LangGraph's `AsyncPostgresStore`, and for single reads against a prepared statement of plain
asyncpg. All work on one server, which keeps its promises (fsync, synchronous_commit): one that is
started for the purpose, or that of `--url`. Rounds alternate between the contenders, and a ratio
is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import math
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.facades import Row, each, one, row, timed
from benchmarks.run import circumstances
from benchmarks.search import DIMENSIONS, K, Lookup, paragraphs, sheet
from benchmarks.workloads import SEED, value
from kvstore import IndexConfig
from kvstore.namespace import encode_namespace
from kvstore.postgres import PostgresStore
from kvstore.postgres.statements import GET
from tests.postgres.server import Database, Server

ITEMS = 10_000  # in each store before the first round
VALUE_BYTES = 150
ROUNDS = 5
CALLS = 2_000  # in a round, on either side
TASKS = 100
VECTORS = 100_000
GROUPS = 100  # of the vectors' items; a filter asks for one: 1 %
QUERIES = 50

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "1GB",
}
NO_BAR = math.inf
LANGGRAPH = "AsyncPostgresStore"

Call = Callable[..., Awaitable[Any]]


# Puts and gets


@dataclass
class Bench:
    """The contenders over one server, each with a schema of its own."""

    ours: PostgresStore
    theirs: Any
    raw: Any
    calls: int
    rounds: int
    rows: list[Row] = field(default_factory=list)

    async def run(self) -> list[Row]:
        """Measure puts and gets."""
        for namespaces in (one, each):
            for index in range(0, ITEMS, TASKS):
                given = [
                    (namespaces(task), f"k{task}-{index // TASKS}", value(index, VALUE_BYTES))
                    for task in range(TASKS)
                ]
                await asyncio.gather(*(self.ours.put(*each) for each in given))
                await asyncio.gather(*(self.theirs.aput(*each) for each in given))
        put, get = (self.ours.put, self.theirs.aput), (self.ours.get, self.theirs.aget)
        await self._compare(f"put, {TASKS} tasks, one namespace", put, TASKS, one, 1 / 3)
        await self._compare(f"put, {TASKS} tasks, a namespace each", put, TASKS, each, 1 / 3)
        await self._compare("put, one after another", put, 1, one, NO_BAR)
        await self._compare(f"get, {TASKS} tasks", get, TASKS, one, NO_BAR)
        await self._compare("get, one after another", get, 1, one, NO_BAR)
        await self._compare_raw()
        return self.rows

    async def _compare(
        self,
        what: str,
        methods: tuple[Call, Call],
        tasks: int,
        namespaces: Callable[[int], tuple[str, ...]],
        bar: float,
    ) -> None:
        taken = []
        calls = self.calls if tasks > 1 else self.calls // 3
        for number in range(self.rounds):
            given = self._given(what.startswith("put"), tasks, namespaces, calls, number)
            mine = await _drive(methods[0], given)
            taken.append((mine, await _drive(methods[1], given)))
        name = methods[0].__name__
        self._add(row(what, (f"PostgresStore.{name}", f"{LANGGRAPH}.a{name}"), taken, bar))

    def _given(
        self,
        is_put: bool,
        tasks: int,
        namespaces: Callable[[int], tuple[str, ...]],
        calls: int,
        revision: int,
    ) -> list[list[tuple[Any, ...]]]:
        numbers = random.Random(SEED + revision)
        return [
            [
                (namespaces(task), f"k{task}-{numbers.randrange(ITEMS // TASKS)}")
                + ((value(index, VALUE_BYTES, revision=revision + 1),) if is_put else ())
                for index in range(calls // tasks)
            ]
            for task in range(tasks)
        ]

    async def _compare_raw(self) -> None:
        """Compare single reads with a prepared statement that fetches the same columns."""
        statement = await self.raw.prepare(GET)
        taken = []
        for number in range(self.rounds):
            (given,) = self._given(False, 1, one, self.calls, number)
            mine = await _drive(self.ours.get, [given])
            now = time.time_ns() // 1000
            places = [
                (encode_namespace(labels[:1]), encode_namespace(labels), key, now)
                for labels, key in given
            ]
            taken.append((mine, await _drive(statement.fetchrow, [places])))
        names = ("PostgresStore.get", "asyncpg, prepared fetch")
        self._add(row("get, one after another", names, taken, 1.3))

    def _add(self, made: Row) -> None:
        print(line(made), flush=True)
        self.rows.append(made)


async def _drive(method: Call, given: Sequence[Sequence[tuple[Any, ...]]]) -> float:
    async def work(mine: Sequence[tuple[Any, ...]]) -> None:
        for arguments in mine:
            await method(*arguments)

    with timed(sum(map(len, given))) as taken:
        await asyncio.gather(*map(work, given))
    return taken[0]


# Search


class SearchBench:
    """One namespace of many vectors, in both stores.

    Both are filled without their HNSW index, which is made afterwards: what a careful operator
    does, and it spares an hour. What a put costs with it is measured.
    """

    def __init__(self, count: int, url: str, their_url: str, raw: Any) -> None:
        self.count, self.url, self.their_url, self.raw = count, url, their_url, raw
        # The other one takes no NUL.
        self.texts = [text.replace("\0", " ") for text in paragraphs(count)]
        self.vectors = sheet(count, 1)
        self.queries = sheet(QUERIES, 2)
        self.model = Lookup(self.texts, self.vectors, self.queries)
        self.ranks = np.random.default_rng(3).permutation(count)  # filters by it are random
        self.rows: list[Row] = []
        self.figures: dict[str, float] = {}

    def value(self, at: int) -> dict[str, Any]:
        """Return the value of an item."""
        rank = int(self.ranks[at])
        return {"text": self.texts[at], "rank": rank, "group": rank % GROUPS, "kind": "note"}

    def key(self, at: int) -> str:
        """Return the key of an item."""
        return f"k{at:06}"

    async def run(self) -> None:
        """Measure searches by meaning, with and without a filter."""
        from langgraph.store.postgres.aio import AsyncPostgresStore

        known = {text: vector.tolist() for text, vector in self.model.vectors.items()}
        asked = {text: vector.tolist() for text, vector in self.model.queries.items()}

        def embed(texts: Sequence[str]) -> list[list[float]]:
            return [known.get(text) or asked[text] for text in texts]

        gc.collect()
        gc.freeze()  # the collector need not walk all this in a contender's time
        index: Any = {"dims": DIMENSIONS, "embed": embed, "fields": ["text"]}
        async with AsyncExitStack() as stack:
            ours = PostgresStore(self.url, index=IndexConfig(self.model, fields=["text"]))
            await stack.enter_async_context(ours)
            theirs = await stack.enter_async_context(
                AsyncPostgresStore.from_conn_string(
                    self.their_url, index=index, pool_config={"min_size": 1, "max_size": 10}
                )
            )
            await theirs.setup()
            await self._fill(ours, theirs)
            await self._search(ours, theirs)
            await self._put(ours, theirs)

    async def _fill(self, ours: PostgresStore, theirs: Any) -> None:
        from langgraph.store.base import PutOp

        await ours.put(("big",), self.key(0), self.value(0))
        execute = self.raw.execute
        await execute("DROP INDEX kvstore_vectors_1_hnsw")
        began = time.perf_counter()
        for begin in range(0, self.count, 1000):
            some = range(begin, min(begin + 1000, self.count))
            await ours.put_many(("big",), {self.key(at): self.value(at) for at in some})
        self._note("fill, ours, items/s", self.count / (time.perf_counter() - began))
        began = time.perf_counter()
        await execute(
            "CREATE INDEX kvstore_vectors_1_hnsw ON kvstore_vectors_1 "
            "USING hnsw (embedding vector_ip_ops)"
        )
        self._note("HNSW index, ours, s", time.perf_counter() - began)
        await execute("DROP INDEX store_vectors_embedding_idx")
        began = time.perf_counter()
        for begin in range(0, self.count, 1000):
            some = range(begin, min(begin + 1000, self.count))
            await theirs.abatch([PutOp(("big",), self.key(at), self.value(at)) for at in some])
        self._note(f"fill, {LANGGRAPH}, items/s", self.count / (time.perf_counter() - began))
        began = time.perf_counter()
        await execute(
            "CREATE INDEX store_vectors_embedding_idx ON store_vectors "
            "USING hnsw (embedding vector_cosine_ops)"
        )
        self._note(f"HNSW index, {LANGGRAPH}, s", time.perf_counter() - began)
        await execute("VACUUM ANALYZE")

    async def _search(self, ours: PostgresStore, theirs: Any) -> None:
        bare: dict[str, Any] = {}
        group: dict[str, Any] = {"filter": {"group": 7}}
        await self._compare(ours, theirs, "search, no filter", bare, None, NO_BAR)
        await self._compare(
            ours, theirs, "search, a filter that 1 % pass", group, self.ranks % GROUPS == 7, 1.0
        )
        most = self.count // 100
        for what, options, passing in (
            (
                "search, $lt that 1 % pass",
                {"filter": {"rank": {"$lt": most}}},
                self.ranks < most,
            ),
            (
                "search, $lt that 30 % pass",
                {"filter": {"rank": {"$lt": 30 * most}}},
                self.ranks < 30 * most,
            ),
        ):
            taken, recall, short = await self._alone(ours.search, options, passing)
            self._note(f"{what}, ms", 1000 * statistics.median(taken))
            self._note(f"{what}, recall@{K}", recall)
            assert not short, what
        words = [" ".join(self.texts[at * 911 % self.count].split()[2:8]) for at in range(QUERIES)]
        for at, query in enumerate(words):
            self.model.queries[query] = self.queries[at]
        for mode in ("text", "hybrid"):
            times = []
            for query in words:
                began = time.perf_counter()
                await ours.search(("big",), query, mode=mode)
                times.append(time.perf_counter() - began)
            self._note(f"search, mode={mode}, ms", 1000 * statistics.median(times))

    async def _compare(
        self,
        ours: PostgresStore,
        theirs: Any,
        what: str,
        options: dict[str, Any],
        passing: Any,
        bar: float,
    ) -> None:
        rounds = []
        for _ in range(3):
            mine, recall, short = await self._alone(ours.search, options, passing)
            other, their_recall, their_short = await self._alone(
                lambda space, query, **more: theirs.asearch(space, query=query, **more),
                options,
                passing,
            )
            rounds.append((1e6 * statistics.median(mine), 1e6 * statistics.median(other)))
        made = row(what, ("PostgresStore.search", f"{LANGGRAPH}.asearch"), rounds, bar)
        print(line(made), flush=True)
        self.rows.append(made)
        self._note(f"{what}: recall@{K}, ours", recall)
        self._note(f"{what}: recall@{K}, {LANGGRAPH}", their_recall)
        self._note(f"{what}: short pages, ours", short)
        self._note(f"{what}: short pages, {LANGGRAPH}", their_short)

    async def _alone(
        self, search: Call, options: dict[str, Any], passing: Any
    ) -> tuple[list[float], float, int]:
        """Return the seconds of each search, the recall, and how many pages were short."""
        times, found, short = [], 0, 0
        for at in range(QUERIES):
            began = time.perf_counter()
            items = await search(("big",), f"query {at}", limit=K, **options)
            times.append(time.perf_counter() - began)
            found += len(self._exact(self.queries[at], passing) & {item.key for item in items})
            short += len(items) < K
        return times, found / (K * QUERIES), short

    def _exact(self, query: Any, passing: Any) -> set[str]:
        scores = self.vectors @ query
        if passing is not None:
            scores = np.where(passing, scores, -9.0)
        return {self.key(at) for at in np.argpartition(-scores, K)[:K]}

    async def _put(self, ours: PostgresStore, theirs: Any) -> None:
        """Compare puts of new texts into the full index."""
        rounds = []
        fresh = itertools.count()
        for _ in range(3):
            for_us: list[float] = []
            for_them: list[float] = []
            for taken, put in ((for_us, ours.put), (for_them, theirs.aput)):
                for _ in range(QUERIES):
                    at = next(fresh) % self.count
                    began = time.perf_counter()
                    await put(("big",), f"new {at}", self.value(at))
                    taken.append(time.perf_counter() - began)
            rounds.append((1e6 * statistics.median(for_us), 1e6 * statistics.median(for_them)))
        names = ("PostgresStore.put", f"{LANGGRAPH}.aput")
        made = row("put of a text with its vector", names, rounds, NO_BAR)
        print(line(made), flush=True)
        self.rows.append(made)

    def _note(self, what: str, figure: float) -> None:
        print(f"  {what}: {figure:,.3f}", flush=True)
        self.figures[what] = figure


# Together


async def measure(url: str | None, *, is_quick: bool) -> dict[str, Any]:
    """Measure everything."""
    import asyncpg
    from langgraph.store.postgres.aio import AsyncPostgresStore

    with ExitStack() as server, tempfile.TemporaryDirectory() as scratch:
        where = circumstances(Path(scratch))
        url = url or server.enter_context(Server(SETTINGS)).url
        database = server.enter_context(closing(Database(url)))
        urls = [server.enter_context(database.schema()) for _ in "ab"]
        async with AsyncExitStack() as stack:
            ours = await stack.enter_async_context(PostgresStore(urls[0]))
            theirs = await stack.enter_async_context(
                AsyncPostgresStore.from_conn_string(
                    urls[0], pool_config={"min_size": 1, "max_size": 10}
                )
            )
            await theirs.setup()
            raw = await asyncpg.connect(urls[0])
            stack.push_async_callback(raw.close)
            rounds, calls = (3, 600) if is_quick else (ROUNDS, CALLS)
            rows = await Bench(ours, theirs, raw, calls, rounds).run()
        raw = await asyncpg.connect(urls[1])
        count = 5_000 if is_quick else VECTORS
        search = SearchBench(count, urls[1], urls[1], raw)
        try:
            server_version = await raw.fetchval("SHOW server_version")
            extension = await raw.fetchval(
                "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
            )
            await search.run()
        finally:
            await raw.close()
    where["versions"] = {
        "python": platform.python_version(),
        "postgresql": server_version,
        "pgvector": extension,
        **{
            name: version(name)
            for name in ("asyncpg", "langgraph-checkpoint-postgres", "psycopg", "orjson")
        },
    }
    workload = {
        "items": ITEMS,
        "value_bytes": VALUE_BYTES,
        "rounds": rounds,
        "calls_a_round": calls,
        "vectors": count,
        "dimensions": DIMENSIONS,
        "settings": SETTINGS,
    }
    return {
        **where,
        "workload": workload,
        "rows": [{**asdict(made), "is_met": made.is_met} for made in rows + search.rows],
        "figures": search.figures,
    }


def line(made: Row) -> str:
    """Return a row as one of a Markdown table."""
    bar, verdict = "", ""
    if made.bar != NO_BAR:
        bar, verdict = f"{made.bar:.2f}", "met" if made.is_met else "missed"
    return (
        f"| {made.what}: `{made.ours}` against `{made.theirs}` | {made.ours_us:,.0f} | "
        f"{made.theirs_us:,.0f} | {made.ratio:.2f} | {bar} | {verdict} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data; writes nothing")
    parser.add_argument("--url", help="of a server where schemas can be made")
    given = parser.parse_args(arguments)
    result = asyncio.run(measure(given.url, is_quick=given.quick))
    if not given.quick:
        path = Path(__file__).parent / "results" / "postgres.json"
        path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
