"""Measure PostgresStore: `python -m benchmarks.postgres`, writes `results/postgres.json`.

    python -m benchmarks.postgres [--parts main filter replica] [--quick] [--url URL]

- `main`: puts and gets, against LangGraph's `AsyncPostgresStore`, and for single reads against a
  prepared statement of plain asyncpg; and where the processor time of a put goes.
- `filter`: search by meaning, with and without a filter, against the same.
- `replica`: processes that read and write, over one server and over one with a streaming replica.

All work on a server that keeps its promises (fsync, synchronous_commit): one that is started for
the purpose, or that of `--url` (not for `replica`, which needs two of its own). Rounds alternate
between the contenders, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import math
import multiprocessing
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, suppress
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
from kvstore.postgres.statements import GET, PUT, SEPARATOR
from tests.postgres.server import Database, Server

ITEMS = 10_000  # in each store before the first round
VALUE_BYTES = 150
ROUNDS = 5
CALLS = 2_000  # in a round, on either side
TASKS = 100
VECTORS = 100_000
VECTORS_TABLE = f"kvstore_vectors_of_{DIMENSIONS}"
GROUPS = 100  # of the vectors' items; a filter asks for one: 1 %
QUERIES = 50
PROCESSES = 4  # that read and write at once
READERS = 8  # tasks in each of them
SECONDS = 3.0  # of a round of theirs
WRITES = (0.01, 0.1)  # shares of their calls

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
    pid: int | None
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

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
        await self._take_apart()
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

    async def _take_apart(self) -> None:
        """Find out what of a put is whose, for 100 tasks: client, server, and what is the least."""

        async def nothing(*_: Any) -> None:
            await asyncio.sleep(0)

        batches = iter(
            [
                (
                    encode_namespace(one(0)[:1]),
                    SEPARATOR + SEPARATOR.join([encode_namespace(one(0))] * TASKS),
                    SEPARATOR + SEPARATOR.join(f"k{task}-{at % 100}" for task in range(TASKS)),
                    SEPARATOR
                    + SEPARATOR.join([orjson.dumps(value(at, VALUE_BYTES)).decode()] * TASKS),
                    *(None, None, None, TASKS, time.time_ns() // 1000, 0, None, None, None),
                )
                for at in range(self.rounds * self.calls // TASKS)
            ]
        )
        statement = await self.raw.prepare(PUT)

        async def bare() -> None:
            await statement.fetch(*next(batches))

        found: dict[str, list[tuple[float, float, float]]] = {}
        for number in range(self.rounds):
            given = self._given(True, TASKS, one, self.calls, number)
            for name, method, calls in (
                ("PostgresStore.put", self.ours.put, given),
                (f"{LANGGRAPH}.aput", self.theirs.aput, given),
                ("a task that waits for nothing", nothing, given),
                ("asyncpg, one upsert of 100 rows", bare, [[()] * (self.calls // TASKS)]),
            ):
                server = self._server_us()
                with timed(self.calls) as taken:
                    client = time.process_time()
                    await _all(method, calls)
                    client = time.process_time() - client
                server = self._server_us() - server
                spent = taken[0], 1e6 * client / self.calls, server / self.calls
                found.setdefault(name, []).append(spent)
        for name, rounds in found.items():
            figures = [statistics.median(each) for each in zip(*rounds, strict=True)]
            for what, figure in zip(("wall", "client", "server"), figures, strict=True):
                self.figures[f"put, {TASKS} tasks, {name}: {what}, us"] = figure
            print("  {}: wall {:.1f}, client {:.1f}, server {:.1f} us".format(name, *figures))

    def _server_us(self) -> float:
        """Return the processor time of the server's processes; 0 if they cannot be seen."""
        import psutil

        if self.pid is None:
            return 0.0
        parent = psutil.Process(self.pid)
        total = 0
        for process in (parent, *parent.children()):
            with suppress(OSError):
                total += int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
        return total / 1000

    def _add(self, made: Row) -> None:
        print(line(made), flush=True)
        self.rows.append(made)


async def _drive(method: Call, given: Sequence[Sequence[tuple[Any, ...]]]) -> float:
    with timed(sum(map(len, given))) as taken:
        await _all(method, given)
    return taken[0]


async def _all(method: Call, given: Sequence[Sequence[tuple[Any, ...]]]) -> None:
    async def work(mine: Sequence[tuple[Any, ...]]) -> None:
        for arguments in mine:
            await method(*arguments)

    await asyncio.gather(*map(work, given))


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
        await execute(f"DROP INDEX {VECTORS_TABLE}_hnsw")
        began = time.perf_counter()
        for begin in range(0, self.count, 1000):
            some = range(begin, min(begin + 1000, self.count))
            await ours.put_many(("big",), {self.key(at): self.value(at) for at in some})
        self._note("fill, ours, items/s", self.count / (time.perf_counter() - began))
        began = time.perf_counter()
        await execute(
            f"CREATE INDEX {VECTORS_TABLE}_hnsw ON {VECTORS_TABLE} "
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


# A replica


@dataclass(frozen=True)
class Load:
    """What one process does."""

    url: str
    read_url: str | None
    number: int
    seconds: float
    writes: float


@dataclass
class Done:
    """What one process has done."""

    reads: int = 0
    writes: int = 0
    stale: int = 0  # reads of what the process had just written that did not see it


async def _work(load: Load, start: Any) -> Done:
    """Read what all share, write what is one's own, and look whether that is there."""
    done = Done()
    async with PostgresStore(load.url, read_url=load.read_url) as store:
        await store.get(one(0), "k0-0")
        start.wait()
        end = time.perf_counter() + load.seconds

        async def read_and_write(task: int) -> None:
            numbers = random.Random(f"{load.number} {task}")
            mine, written = ("own", f"{load.number}"), itertools.count()
            while time.perf_counter() < end:
                if numbers.random() < load.writes:
                    number = next(written)
                    await store.put(mine, f"{task}", {**value(number, VALUE_BYTES), "n": number})
                    done.writes += 1
                    item = await store.get(mine, f"{task}")
                    done.stale += item is None or item.value["n"] != number
                else:
                    key = f"k{numbers.randrange(TASKS)}-{numbers.randrange(ITEMS // TASKS)}"
                    assert await store.get(one(0), key) is not None
                done.reads += 1

        await asyncio.gather(*map(read_and_write, range(READERS)))
    return done


def _process(load: Load, start: Any, results: Any) -> None:
    results.put(asyncio.run(_work(load, start)))


def run_processes(url: str, read_url: str | None, seconds: float, writes: float) -> Done:
    """Have several processes read and write at once; return what they did together."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(
            target=_process,
            args=(Load(url, read_url, number, seconds, writes), start, results),
            daemon=True,
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    parts = [results.get(timeout=60 + seconds) for _ in processes]
    for process in processes:
        process.join()
    return Done(*(sum(each) for each in zip(*(vars(part).values() for part in parts), strict=True)))


def measure_replica(*, is_quick: bool) -> dict[str, float]:
    """Compare one server with a primary and its streaming replica, under processes that work.

    Raises:
        AssertionError: a read did not see what its store had written.
    """
    rounds, seconds = (1, 1.0) if is_quick else (3, SECONDS)
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        primary = stack.enter_context(Server(SETTINGS))
        replica = stack.enter_context(Server(SETTINGS, primary=primary))
        asyncio.run(_fill_shared(primary.url))
        databases = [
            stack.enter_context(closing(Database(server.url))) for server in (primary, replica)
        ]
        for writes in WRITES:
            found: dict[str, list[tuple[float, ...]]] = {}
            for _ in range(rounds):
                for what, read_url in (("one server", None), ("with a replica", replica.url)):
                    before = [_transactions(database) for database in databases]
                    done = run_processes(primary.url, read_url, seconds, writes)
                    primary_did, replica_did = (
                        _transactions(database) - first
                        for database, first in zip(databases, before, strict=True)
                    )
                    assert not done.stale, f"{done.stale} reads missed their own store's write"
                    share = replica_did / (primary_did + replica_did)
                    found.setdefault(what, []).append(
                        (done.reads / seconds, done.writes / seconds, share)
                    )
            for what, each in found.items():
                reads, written, share = (statistics.median(one) for one in zip(*each, strict=True))
                name = f"{PROCESSES} processes, {writes:.0%} writes, {what}"
                figures[f"{name}: reads/s"] = reads
                figures[f"{name}: writes/s"] = written
                figures[f"{name}: share of the replica in all transactions"] = share
                print(
                    f"| {name} | {reads:,.0f} reads/s | {written:,.0f} writes/s | "
                    f"{share:.0%} at the replica |",
                    flush=True,
                )
    return figures


async def _fill_shared(url: str) -> None:
    async with PostgresStore(url) as store:
        for task in range(TASKS):
            keys = (f"k{task}-{at}" for at in range(ITEMS // TASKS))
            await store.put_many(one(0), {key: value(task, VALUE_BYTES) for key in keys})


def _transactions(database: Database) -> int:
    """Return how many transactions a server has had; a session counts those at its end."""
    sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'"
    return int(database.execute(sql))


# Together


PARTS = ("main", "filter", "replica")


async def measure_calls(url: str, pid: int | None, *, is_quick: bool) -> Bench:
    """Compare puts and gets."""
    import asyncpg
    from langgraph.store.postgres.aio import AsyncPostgresStore

    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(PostgresStore(url))
        theirs = await stack.enter_async_context(
            AsyncPostgresStore.from_conn_string(url, pool_config={"min_size": 1, "max_size": 10})
        )
        await theirs.setup()
        raw = await asyncpg.connect(url)
        stack.push_async_callback(raw.close)
        rounds, calls = (3, 600) if is_quick else (ROUNDS, CALLS)
        bench = Bench(ours, theirs, raw, calls, rounds, pid)
        await bench.run()
        return bench


async def measure_search(url: str, *, is_quick: bool) -> SearchBench:
    """Compare searches."""
    import asyncpg

    raw = await asyncpg.connect(url)
    search = SearchBench(5_000 if is_quick else VECTORS, url, url, raw)
    try:
        await search.run()
    finally:
        await raw.close()
    return search


def measure(parts: Sequence[str], url: str | None, *, is_quick: bool) -> dict[str, Any]:
    """Measure some parts; return what each gave, under its name."""
    results: dict[str, Any] = {}
    for part in parts:
        print(f"{part} ...", flush=True)
        with ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            where = circumstances(Path(scratch))
            rows: list[Row] = []
            if part == "replica":
                workload: dict[str, Any] = {
                    "processes": PROCESSES,
                    "tasks_each": READERS,
                    "seconds": SECONDS,
                }
                figures = measure_replica(is_quick=is_quick)
            else:
                server = None if url else stack.enter_context(Server(SETTINGS))
                database = stack.enter_context(closing(Database(url or server.url)))  # type: ignore[union-attr]
                schema = stack.enter_context(database.schema())
                where["server"] = database.execute("SELECT version()")
                where["pgvector"] = database.execute(
                    "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
                )
                made: Bench | SearchBench
                if part == "main":
                    pid = None if server is None else server.pid
                    made = asyncio.run(measure_calls(schema, pid, is_quick=is_quick))
                    workload = {
                        "items": ITEMS,
                        "value_bytes": VALUE_BYTES,
                        "rounds": made.rounds,
                        "calls_a_round": made.calls,
                    }
                else:
                    made = asyncio.run(measure_search(schema, is_quick=is_quick))
                    workload = {"vectors": made.count, "dimensions": DIMENSIONS}
                rows, figures = made.rows, made.figures
        where["versions"] = {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("asyncpg", "langgraph-checkpoint-postgres", "psycopg", "orjson")
            },
        }
        results[part] = {
            **where,
            "workload": workload,
            "settings": SETTINGS,
            "rows": [{**asdict(row), "is_met": row.is_met} for row in rows],
            "figures": figures,
        }
    return results


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
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="little data; writes nothing")
    parser.add_argument("--url", help="of a server where schemas can be made")
    given = parser.parse_args(arguments)
    result = measure(given.parts, given.url, is_quick=given.quick)
    if not given.quick:
        path = Path(__file__).parent / "results" / "postgres.json"
        kept = orjson.loads(path.read_bytes()) if path.exists() else {}
        path.write_bytes(orjson.dumps(kept | result, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
