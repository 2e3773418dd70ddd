"""Ranked search against its bars: `python -m benchmarks.search [--quick]`.

One run measures everything, and whoever is compared takes turns, so that ratios are of one machine
in one state. Texts are paragraphs of the Python files of this installation. Vectors are synthetic
but shaped like those of sentence models: topics on a low-dimensional sheet, with noise; or real
ones, with `--vectors file.npz` (`texts`, `vectors`). The model only looks them up, so that it is
the store that is measured. How well hybrid search ranks is another matter: `benchmarks.ranking`.

What is not installed (LangGraph's store, chromadb) is left out, and said so.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import gc
import json
import os
import platform
import statistics
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kvstore import IndexConfig, SQLiteStore

RESULTS = Path(__file__).parent / "results"
DIMENSIONS = 384
K = 10
SEED = 7
PERCENTS = (1, 10, 50)
ROUNDS = 10  # in which contenders take turns
PARAGRAPHS = 20_000  # that are read; to read more takes longer than to measure
PARTS = ("main", "mixed", "sizes", "million", "chroma")

Vectors = Any  # (n, DIMENSIONS) float32, unit length
Call = Callable[[int], Awaitable[Any]]


def paragraphs(count: int) -> list[str]:
    """Return texts of 60 to 400 characters; when there are no more, they come again, numbered."""
    texts: list[str] = []
    for text in _paragraphs():
        texts.append(text)
        if len(texts) == min(count, PARAGRAPHS):
            break
    return [texts[at % len(texts)] + f" ({at})" * (at >= len(texts)) for at in range(count)]


def _paragraphs() -> Iterator[str]:
    """Yield the distinct paragraphs of the docstrings of this installation."""
    found: set[str] = set()
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for file in sorted(Path(root).rglob("*.py")):
            for text in _docstrings(file):
                for part in text.split("\n\n"):
                    plain = " ".join(part.split())
                    if 60 <= len(plain) <= 400 and plain not in found:
                        found.add(plain)
                        yield plain


def _docstrings(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_text("utf-8"))
    except (SyntaxError, ValueError, UnicodeDecodeError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text


def sheet(count: int, seed: int) -> Vectors:
    """Return vectors that lie as sentence embeddings do: topics, few directions, some noise."""
    numbers = np.random.default_rng(seed)
    shape = np.random.default_rng(SEED)
    basis = shape.normal(size=(64, DIMENSIONS)).astype(np.float32)
    topics = shape.normal(size=(500, 64)).astype(np.float32)
    vectors = np.empty((count, DIMENSIONS), dtype=np.float32)
    for at in range(0, count, 50_000):  # so that a million take no more memory than they must
        some = vectors[at : at + 50_000]
        inner = topics[numbers.integers(0, 500, len(some))]
        inner = inner + 0.9 * numbers.normal(size=(len(some), 64)).astype(np.float32)
        some[:] = inner @ basis / 8
        some += 0.5 * numbers.standard_normal(size=some.shape, dtype=np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return vectors


def follow(steps: Sequence[int], what: str) -> Iterator[int]:
    """Yield steps, and draw how far they are: a bar on a terminal, a line for each tenth elsewhere.

    What is drawn costs nothing that is measured: callers measure inside a step.
    """
    began = time.perf_counter()
    on_terminal = sys.stderr.isatty()
    for done, step in enumerate(steps, 1):
        yield step
        tenths = 10 * done // len(steps)
        if not on_terminal and tenths == 10 * (done - 1) // len(steps):
            continue
        left = (time.perf_counter() - began) / done * (len(steps) - done)
        bar = "#" * tenths + "." * (10 - tenths)
        text = f"{what} [{bar}] {100 * done // len(steps)} %, {left:.0f} s left"
        ending = "\n" if not on_terminal or done == len(steps) else ""
        print(f"\r\033[K{text}" if on_terminal else text, end=ending, file=sys.stderr, flush=True)


class Lookup:
    """A model that knows its answers."""

    model_id = "lookup"

    def __init__(self, texts: list[str], vectors: Vectors, queries: Vectors) -> None:
        self.vectors = dict(zip(texts, vectors, strict=True))
        self.queries = {f"query {at}": query for at, query in enumerate(queries)}

    async def embed_documents(self, texts: list[str]) -> list[Any]:
        """Return the vectors."""
        return [self.vectors[text] for text in texts]

    async def embed_query(self, text: str) -> Any:
        """Return the vector."""
        return self.queries[text]

    def embed(self, texts: Any) -> list[list[float]]:
        """Return vectors as lists, for the others."""
        return [
            (self.vectors[text] if text in self.vectors else self.queries[text]).tolist()
            for text in texts
        ]


class Bench:
    """One data set: big is one namespace, tiny are many of five."""

    def __init__(
        self,
        count: int,
        tiny: int,
        calls: int,
        given: Path | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.count, self.tiny, self.calls, self.clock = count, tiny, calls, clock
        if given is None:
            self.texts, self.vectors = paragraphs(count), sheet(count, 1)
            self.queries = sheet(50, 2)
        else:
            held = np.load(given)
            self.texts = [str(text) for text in held["texts"][:count]]
            self.vectors = held["vectors"][: len(self.texts)].astype(np.float32)
            self.queries = held["vectors"][-50:].astype(np.float32)
            self.count = len(self.texts)
        self.model = Lookup(self.texts, self.vectors, self.queries)
        self.ranks = np.random.default_rng(3).permutation(self.count)  # filters by it are random
        self.far = np.empty(self.count, dtype=np.int64)  # the more, the farther from query 0
        self.far[np.argsort(-(self.vectors @ self.queries[0]))] = np.arange(self.count)
        self.results: dict[str, dict[str, float]] = {}

    async def take_turns(
        self, contenders: Mapping[str, Call], calls: int, warm: int = 5
    ) -> dict[str, float]:
        """Return the median time of each call, in milliseconds; the contenders take turns.

        What of the heap is the harness's own is not walked by the garbage collector in their time.
        """
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for call in contenders.values():
            for at in range(warm):
                await call(at)
        gc.collect()
        gc.freeze()
        each = max(1, calls // ROUNDS)
        for turn in range(ROUNDS):
            for name, call in contenders.items():
                await call(turn)  # its data and its code come back into the processor's caches
                for at in range(turn * each, (turn + 1) * each):
                    times[name].append(await self.once(call(at)))
        return {name: statistics.median(some) for name, some in times.items()}

    async def once(self, call: Awaitable[Any]) -> float:
        """Return the time of one call, in milliseconds."""
        began = self.clock()
        await call
        return 1000 * (self.clock() - began)

    def index(self) -> IndexConfig:
        return IndexConfig(self.model, fields=["text"])

    def value(self, at: int) -> dict[str, Any]:
        at %= self.count
        return {"text": self.texts[at], "rank": int(self.ranks[at]), "far": int(self.far[at])}

    def tiny_namespace(self, at: int) -> tuple[str, str]:
        return ("users", f"u{at % self.tiny:05}")

    async def load_big(self, store: SQLiteStore) -> float:
        """Fill the big namespace; return items a second."""
        spent = 0.0
        gc.collect()
        gc.freeze()
        for at in follow(range(0, self.count, 1000), f"loading {self.count:,} items"):
            some = {
                f"k{each:07}": self.value(each) for each in range(at, min(at + 1000, self.count))
            }
            began = self.clock()
            await store.put_many(("big",), some)
            spent += self.clock() - began
        return self.count / spent

    async def load_tiny(self, store: SQLiteStore) -> float:
        """Fill the tiny namespaces; return items a second."""
        began = self.clock()
        for at in range(0, self.tiny, 500):
            await asyncio.gather(
                *(
                    store.put_many(
                        self.tiny_namespace(each),
                        {f"k{n}": self.value(each * 5 + n) for n in range(5)},
                    )
                    for each in range(at, min(at + 500, self.tiny))
                )
            )
        return 5 * self.tiny / (self.clock() - began)

    def exact(self, query: Vectors, passing: Any = None) -> set[str]:
        """Return the keys of the best in the big namespace, by a scan in doubles."""
        scores = np.concatenate(
            [
                self.vectors[at : at + 50_000].astype(np.float64) @ query.astype(np.float64)
                for at in range(0, self.count, 50_000)
            ]
        )
        if passing is not None:
            scores[~passing] = -9
        return {f"k{at:07}" for at in np.argsort(-scores)[:K]}

    async def recall(
        self, store: SQLiteStore, filter: Any = None, passing: Any = None, step: int = 5
    ) -> float:
        """Return the share of the exact best that searches give, and require full pages."""
        found = asked = 0
        for at in range(0, 50, step):
            items = await store.search(("big",), f"query {at}", filter=filter, limit=K)
            assert len(items) == K, f"{len(items)} items with {filter}"
            best = self.exact(self.queries[at], passing)
            found += len(best & {item.key for item in items})
            asked += K
        return found / asked

    def scan(self) -> Call:
        """Return the limit: an exact scan by numpy."""
        matrix = self.vectors

        async def scan(at: int) -> None:
            scores = matrix @ self.queries[at % 50]
            best = np.argpartition(scores, len(scores) - K)[-K:]
            best[np.argsort(-scores[best])]

        return scan

    def searching(self, store: SQLiteStore, namespace: Any, **options: Any) -> Call:
        async def search(at: int) -> None:
            await store.search(namespace, f"query {at % 50}", limit=K, **options)

        return search

    def searching_tiny(self, store: SQLiteStore) -> Call:
        async def search(at: int) -> None:
            await store.search(self.tiny_namespace(at * 37), f"query {at % 50}", limit=K)

        return search

    def say(self, name: str, row: dict[str, float]) -> None:
        """Keep a row of figures, and print it."""
        self.results.setdefault(name, {}).update(row)
        print(f"{name}: " + ", ".join(f"{what}: {number:,.3f}" for what, number in row.items()),
              flush=True)  # fmt: skip

    async def run(self, part: str, folder: Path) -> None:
        """Measure one part."""
        match part:
            case "main":
                await self.measure_main(folder)
                await self.measure_size(folder)
            case "mixed":
                await self.measure_mixed(folder)
            case "sizes":
                for count in (self.count // 100, self.count // 10):
                    await measure_size_of(self, folder, count)
            case "million":
                await measure_size_of(self, folder, 10 * self.count)
            case "chroma":
                await self.measure_chroma(folder)

    async def measure_main(self, folder: Path) -> None:
        """Measure what the bars are about, in one file of the big and the tiny namespaces."""
        path = folder / "store.db"
        async with AsyncExitStack() as stack:
            cached = await stack.enter_async_context(SQLiteStore(path, index=self.index()))
            big = await self.load_big(cached)
            self.say("items a second", {"big": big, "tiny": await self.load_tiny(cached)})
            alone = await stack.enter_async_context(
                SQLiteStore(path, index=self.index(), vector_cache_bytes=0)
            )
            lonely = await stack.enter_async_context(
                SQLiteStore(folder / "lonely.db", index=self.index())
            )
            await lonely.put_many(
                self.tiny_namespace(0), {f"k{n}": self.value(n) for n in range(5)}
            )
            ours = {"kvstore[fast]": cached, "kvstore": alone}
            big_calls: dict[str, Call] = {"numpy scan": self.scan()}
            tiny_calls: dict[str, Call] = {}
            for name, store in ours.items():
                big_calls[name] = self.searching(store, ("big",))
                tiny_calls[name] = self.searching_tiny(store)
            tiny_calls["kvstore, alone in its store"] = lambda at: lonely.search(
                self.tiny_namespace(0), f"query {at % 50}", limit=K
            )
            async with AsyncExitStack() as others:
                await self.add_langgraph(folder, others, big_calls, tiny_calls)
                self.say("big, ms", await self.take_turns(big_calls, self.calls))
                # All have been to the namespaces before: how long the disk takes is no one's merit.
                calls = 20 * self.calls
                self.say("tiny, ms", await self.take_turns(tiny_calls, calls, warm=calls))
            for name, store in ours.items():
                await self.measure_filters(store, name)
                await self.measure_scopes(store, name)
            await self.measure_words(cached)
            await self.measure_writes(ours)

    async def measure_filters(self, store: SQLiteStore, name: str) -> None:
        """Measure filters that take a part, at random or what lies farthest from the query."""
        calls = {"none": self.searching(store, ("big",))}
        recalls = [await self.recall(store)]
        first: dict[str, float] = {}
        for percent in PERCENTS:
            most = self.count * percent // 100
            times, far_times = [], []
            for turn in range(5):  # another bound each time: these were never asked for
                filter = {"rank": {"$lt": most - 1 - turn}}
                times.append(await self.once(store.search(("big",), "query 0", filter=filter)))
                filter = {"far": {"$gte": self.count - most + 1 + turn}}
                far_times.append(await self.once(store.search(("big",), "query 0", filter=filter)))
            first[f"{percent} %, first"] = statistics.median(times)
            first[f"{percent} % farthest, first"] = statistics.median(far_times)
            filter = {"rank": {"$lt": most}}
            calls[f"{percent} %"] = self.searching(store, ("big",), filter=filter)
            recalls.append(await self.recall(store, filter, self.ranks < most))
            filter = {"far": {"$gte": self.count - most}}
            calls[f"{percent} % farthest"] = lambda _, filter=filter: store.search(  # type: ignore[misc]
                ("big",), "query 0", filter=filter, limit=K
            )
            recalls.append(await self.recall(store, filter, self.far >= self.count - most, step=50))
        row = await self.take_turns(calls, self.calls)
        self.say(f"filters, ms, {name}", row | first)
        self.say("recall", {name: min(recalls)})

    async def measure_scopes(self, store: SQLiteStore, name: str) -> None:
        """Measure wider scopes."""
        calls = {
            "subtree of all tiny": self.searching(store, ("users",), subtree=True),
            "everything": self.searching(store, (), subtree=True),
        }
        self.say(f"scopes, ms, {name}", await self.take_turns(calls, self.calls))

    async def measure_words(self, store: SQLiteStore) -> None:
        """Measure text and hybrid search, with words of the texts as queries."""
        queries = [" ".join(self.texts[at * 911 % self.count].split()[2:8]) for at in range(50)]
        for at, query in enumerate(queries):
            self.model.queries[query] = self.queries[at]
        calls: dict[str, Call] = {}
        for mode in ("text", "hybrid", "semantic"):
            calls[f"{mode}, big"] = lambda at, mode=mode: store.search(  # type: ignore[misc]
                ("big",), queries[at % 50], mode=mode
            )
        calls["text, everything"] = lambda at: store.search(
            (), queries[at % 50], mode="text", subtree=True
        )
        calls["text, tiny"] = lambda at: store.search(
            self.tiny_namespace(at * 37), queries[at % 50], mode="text"
        )
        self.say("words, ms", await self.take_turns(calls, self.calls))

    async def measure_writes(self, stores: Mapping[str, SQLiteStore]) -> None:
        """Measure a put into the big namespace, and a search right after one."""
        for name, store in stores.items():

            async def put(at: int, store: SQLiteStore = store) -> None:
                await store.put(("big",), "own", self.value(at + 300))

            async def put_and_search(at: int, store: SQLiteStore = store) -> None:
                await store.put(("big",), "own", self.value(at + 100))
                await store.search(("big",), f"query {at % 50}", limit=K)

            calls = {
                "search": self.searching(store, ("big",)),
                "put": put,
                "put then search": put_and_search,
            }
            self.say(f"writes, ms, {name}", await self.take_turns(calls, self.calls))
            await store.delete(("big",), "own")

    async def measure_size(self, folder: Path) -> None:
        """Measure the file of the tiny namespaces alone."""
        path = folder / "size.db"
        async with SQLiteStore(path, index=self.index()) as store:
            await self.load_tiny(store)
        raw = 5 * self.tiny * DIMENSIONS * 4
        self.say("file / raw float32", {"tiny": path.stat().st_size / raw})

    async def measure_mixed(self, folder: Path) -> None:
        """Measure a few large namespaces and many small ones, written in random order."""
        path = folder / "mixed.db"
        large = self.count // 20
        places = [(("large", f"l{at % 5}"), f"k{at}", at) for at in range(5 * large)]
        places += [(self.tiny_namespace(at // 5), f"k{at}", at) for at in range(5 * self.tiny)]
        np.random.default_rng(4).shuffle(places)
        gathered = [places[at : at + 1000] for at in range(0, len(places), 1000)]
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(SQLiteStore(path, index=self.index()))
            began = self.clock()
            for some in gathered:
                await asyncio.gather(
                    *(store.put(space, key, self.value(at)) for space, key, at in some)
                )
            self.say("items a second", {"mixed": len(places) / (self.clock() - began)})
            alone = await stack.enter_async_context(
                SQLiteStore(path, index=self.index(), vector_cache_bytes=0)
            )
            calls: dict[str, Call] = {}
            for name, each in (("kvstore[fast]", store), ("kvstore", alone)):
                calls[f"one of 5 large, {name}"] = self.searching(each, ("large", "l1"))
                calls[f"tiny, {name}"] = self.searching_tiny(each)
                calls[f"subtree of 5 large, {name}"] = self.searching(
                    each, ("large",), subtree=True
                )
            self.say("mixed, ms", await self.take_turns(calls, self.calls))
            for name, each in (("kvstore[fast]", store), ("kvstore", alone)):
                rows = np.arange(5 * large) % self.count
                scores = self.vectors[rows].astype(np.float64) @ self.queries[0].astype(np.float64)
                best = set(np.argsort(-scores)[:K].tolist())
                items = await each.search(("large",), "query 0", subtree=True, limit=K)
                found = len(best & {int(item.key[1:]) for item in items})
                self.say("recall", {f"mixed, {name}": found / K})
        raw = len(places) * DIMENSIONS * 4
        self.say("file / raw float32", {"mixed": path.stat().st_size / raw})

    # Others

    async def add_langgraph(
        self,
        folder: Path,
        stack: AsyncExitStack,
        big_calls: dict[str, Call],
        tiny_calls: dict[str, Call],
    ) -> None:
        """Fill LangGraph's sqlite store, and add its searches; WAL by hand."""
        try:
            import aiosqlite.core
            import pysqlite3

            sys.modules["sqlite3"] = pysqlite3  # one that loads extensions
            aiosqlite.core.sqlite3 = pysqlite3  # type: ignore[attr-defined]
            from langgraph.store.base import PutOp
            from langgraph.store.sqlite import SqliteStore
            from langgraph.store.sqlite.aio import AsyncSqliteStore
        except ImportError:
            print("langgraph-checkpoint-sqlite is not installed: left out", flush=True)
            return
        index: Any = {"dims": DIMENSIONS, "embed": self.model.embed, "text_fields": ["text"]}
        path = str(folder / "langgraph.db")
        store = stack.enter_context(SqliteStore.from_conn_string(path, index=index))
        store.conn.execute("PRAGMA journal_mode = WAL")
        store.conn.execute("PRAGMA synchronous = NORMAL")
        store.setup()
        places: list[tuple[tuple[str, ...], str, int]]
        places = [(("big",), f"k{at:07}", at) for at in range(self.count)]
        places += [(self.tiny_namespace(at // 5), f"k{at % 5}", at) for at in range(5 * self.tiny)]
        began = self.clock()
        for at in range(0, len(places), 1000):
            store.batch(
                [PutOp(space, key, self.value(n)) for space, key, n in places[at : at + 1000]]
            )
        self.say("items a second", {"LangGraph": len(places) / (self.clock() - began)})
        other = await stack.enter_async_context(
            AsyncSqliteStore.from_conn_string(path, index=index)
        )

        async def big_sync(at: int) -> None:
            store.search(("big",), query=f"query {at % 50}", limit=K)

        async def tiny_sync(at: int) -> None:
            store.search(self.tiny_namespace(at * 37), query=f"query {at % 50}", limit=K)

        big_calls["LangGraph, async"] = lambda at: other.asearch(
            ("big",), query=f"query {at % 50}", limit=K
        )
        tiny_calls["LangGraph, async"] = lambda at: other.asearch(
            self.tiny_namespace(at * 37), query=f"query {at % 50}", limit=K
        )
        big_calls["LangGraph, sync"] = big_sync
        tiny_calls["LangGraph, sync"] = tiny_sync

    async def measure_chroma(self, folder: Path) -> None:
        """Measure chromadb's persistent store, whose search (HNSW) is not exact.

        The big namespace is a collection; the tiny ones share one, and are told by metadata. It is
        the last, because it goes on working on threads of its own.
        """
        try:
            import chromadb
            from chromadb.config import Settings
        except ImportError:
            print("chromadb is not installed: left out", flush=True)
            return
        client = chromadb.PersistentClient(
            str(folder / "chroma"), Settings(anonymized_telemetry=False)
        )
        kind: Any = {"hnsw": {"space": "cosine"}}
        big = client.create_collection("big", configuration=kind, embedding_function=None)
        tiny = client.create_collection("tiny", configuration=kind, embedding_function=None)
        began = self.clock()
        for collection, count in ((big, self.count), (tiny, 5 * self.tiny)):
            for at in range(0, count, 1000):
                some = range(at, min(at + 1000, count))
                collection.add(
                    ids=[f"k{each:07}" for each in some],
                    embeddings=[self.vectors[each % self.count] for each in some],
                    documents=[self.texts[each % self.count] for each in some],
                    metadatas=[
                        {"rank": int(self.ranks[each % self.count]), "user": each // 5}
                        for each in some
                    ],
                )
        self.say(
            "items a second",
            {"chromadb": (self.count + 5 * self.tiny) / (self.clock() - began)},
        )

        async def search_big(at: int) -> Any:
            return big.query(query_embeddings=[self.queries[at % 50]], n_results=K)

        async def search_tiny(at: int) -> None:
            tiny.query(
                query_embeddings=[self.queries[at % 50]],
                n_results=5,
                where={"user": at * 37 % self.tiny},
            )

        found = 0
        for at in range(0, 50, 5):
            answer = await search_big(at)
            found += len(self.exact(self.queries[at]) & set(answer["ids"][0]))
        self.say("recall", {"chromadb": found / (10 * K)})
        self.say("big, ms", await self.take_turns({"chromadb": search_big}, self.calls))
        self.say("tiny, ms", await self.take_turns({"chromadb": search_tiny}, self.calls))


async def measure_size_of(main: Bench, folder: Path, count: int) -> None:
    """Measure one namespace of another size; its cache gets the memory it needs."""
    bench = Bench(count, 1, main.calls, clock=main.clock)
    path = folder / f"{count}.db"
    async with AsyncExitStack() as stack:
        cached = await stack.enter_async_context(
            SQLiteStore(path, index=bench.index(), vector_cache_bytes=2**32)
        )
        speed = await bench.load_big(cached)
        alone = await stack.enter_async_context(
            SQLiteStore(path, index=bench.index(), vector_cache_bytes=0)
        )
        ours = {"kvstore[fast]": cached, "kvstore": alone}
        calls = {"numpy scan": bench.scan()}
        for name, store in ours.items():
            calls[name] = bench.searching(store, ("big",))
        row = await bench.take_turns(calls, min(main.calls, 20 if count > 500_000 else 50), warm=3)
        row |= {f"recall, {name}": await bench.recall(store) for name, store in ours.items()}
        row["items a second"] = speed
    row["file / raw float32"] = path.stat().st_size / (count * DIMENSIONS * 4)
    main.say(f"{count:,} items", row)
    path.unlink()


def bars(results: dict[str, dict[str, float]]) -> list[tuple[str, float, str, bool]]:
    """Hold the figures against the bars: what, the figure, the bar, whether it holds."""
    rows: list[tuple[str, float, str, bool]] = []

    def most(what: str, figure: float, bar: float) -> None:
        rows.append((what, figure, f"<= {bar:g}", figure <= bar))

    def least(what: str, figure: float, bar: float) -> None:
        rows.append((what, figure, f">= {bar:g}", figure >= bar))

    big, tiny, words = results["big, ms"], results["tiny, ms"], results["words, ms"]
    exact = [figure for name, figure in results["recall"].items() if "kvstore" in name]
    exact += [row[what] for row in results.values() for what in row if what.startswith("recall, ")]
    least("recall, all of ours", min(exact), 1)
    if "LangGraph, async" in tiny:
        least(
            "tiny: LangGraph async / kvstore", tiny["LangGraph, async"] / tiny["kvstore[fast]"], 3
        )
        least("big: LangGraph async / kvstore", big["LangGraph, async"] / big["kvstore"], 3)
        least("big: LangGraph sync / kvstore", big["LangGraph, sync"] / big["kvstore"], 3)
    alone = tiny["kvstore, alone in its store"]
    most("tiny: among many / alone", tiny["kvstore[fast]"] / alone, 2)
    most("tiny: file / raw float32", results["file / raw float32"]["tiny"], 2)
    most("big: kvstore[fast] / numpy scan", big["kvstore[fast]"] / big["numpy scan"], 1.5)
    for name in ("kvstore[fast]", "kvstore"):
        row = results[f"writes, ms, {name}"]
        most(f"big: put then search / search, {name}", row["put then search"] / row["search"], 1.3)
    for name in ("kvstore[fast]", "kvstore"):
        row = results[f"filters, ms, {name}"]
        for what, figure in row.items():
            if what != "none":
                most(f"filter of {what} / none, {name}", figure / row["none"], 2.5)
    least("bulk load, items a second", results["items a second"]["big"], 20_000)
    most("text: tiny / everything", words["text, tiny"] / words["text, everything"], 0.1)
    both = words["text, big"] + words["semantic, big"]
    most("hybrid / (text + semantic)", words["hybrid, big"] / both, 1.2)
    return rows


def draw(results: dict[str, dict[str, float]], count: int, path: Path) -> None:
    """Draw the latencies of the big and the tiny namespaces, if matplotlib is installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("matplotlib is not installed: no chart", flush=True)
        return
    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3))
    for panel, shape in zip(panels, ("big", "tiny"), strict=True):
        rows = results[f"{shape}, ms"]
        bars_ = panel.barh(list(rows), list(rows.values()), color="#4a7ab5")
        panel.bar_label(bars_, fmt="%.2f ms", padding=3)
        panel.invert_yaxis()
        panel.margins(x=0.25)
        size = f"{count:,} items" if shape == "big" else "5 items, of many namespaces"
        panel.set_title(f"a namespace of {size}, k = {K}", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def describe(bench: Bench) -> dict[str, Any]:
    """Say what was measured, and with what."""
    ours = ("kvstore", "sqlite-vec", "pysqlite3", "numpy")
    names = (*ours, "langgraph-checkpoint-sqlite", "chromadb")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "load": os.getloadavg()[0],
        "BLAS threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        "time": "of the wall" if bench.clock is time.perf_counter else "of the processor",
        "versions": versions,
        "big": bench.count,
        "tiny": bench.tiny,
        "dimensions": DIMENSIONS,
    }


def main() -> None:
    """Run, print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--count", type=int, default=100_000, help="items in the big namespace")
    parser.add_argument("--tiny", type=int, default=10_000, help="namespaces of five")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="the others keep their results"
    )
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="measure the processor's time, of all threads, where the machine has other work",
    )
    parser.add_argument("--vectors", type=Path, help="real texts and vectors, as .npz")
    given = parser.parse_args()
    scale = 10 if given.quick else 1
    bench = Bench(
        given.count // scale,
        given.tiny // scale,
        20 if given.quick else 50,
        given.vectors,
        time.process_time if given.cpu else time.perf_counter,
    )
    target = RESULTS / "quick" if given.quick else RESULTS
    target.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {}
    if set(given.parts) != set(PARTS) and (target / "search.json").exists():
        kept = json.loads((target / "search.json").read_text("utf-8"))
    bench.results = kept.get("results", {})
    circumstances = kept.get("circumstances", {})
    for part in given.parts:
        with TemporaryDirectory() as folder:
            asyncio.run(bench.run(part, Path(folder)))
        circumstances[part] = describe(bench)
        verdicts = bars(bench.results) if "words, ms" in bench.results else []
        written = {"circumstances": circumstances, "results": bench.results, "bars": verdicts}
        (target / "search.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    for what, figure, bar, holds in verdicts:
        print(f"{'holds ' if holds else 'MISSED'}  {what}: {figure:,.3g} ({bar})")
    if verdicts:
        draw(bench.results, bench.count, target / "search.svg")


if __name__ == "__main__":
    main()
