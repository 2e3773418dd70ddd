"""Ranked search against its bars: `python -m benchmarks.search [--quick]`.

One run measures everything, so that ratios are of one machine in one state. Texts are paragraphs
of the Python files of this installation. Vectors are synthetic but shaped like those of sentence
models: topics on a low-dimensional sheet, with noise; or real ones, with `--vectors file.npz`
(`texts`, `vectors`). The model only looks them up, so that it is the store that is measured.

What is not installed (LangGraph's store, chromadb) is left out, and said so.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import os
import platform
import statistics
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Iterator
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

Vectors = Any  # (n, DIMENSIONS) float32, unit length


def paragraphs(count: int) -> list[str]:
    """Return distinct texts of 60 to 400 characters; numbered ones when files run out."""
    found: dict[str, None] = {}
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for file in sorted(Path(root).rglob("*.py")):
            for text in _docstrings(file):
                for part in text.split("\n\n"):
                    plain = " ".join(part.split())
                    if 60 <= len(plain) <= 400:
                        found[plain] = None
            if len(found) >= count:
                return list(found)[:count]
    texts = list(found)
    return [texts[at % len(texts)] + f" ({at})" * (at >= len(texts)) for at in range(count)]


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
    inner = topics[numbers.integers(0, 500, count)]
    inner = inner + 0.9 * numbers.normal(size=(count, 64)).astype(np.float32)
    vectors = inner @ basis / 8
    vectors += 0.5 * numbers.normal(size=vectors.shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


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


async def median_ms(call: Callable[[int], Awaitable[Any]], calls: int, warm: int = 5) -> float:
    """Return the median time of a call, in milliseconds."""
    for at in range(warm):
        await call(at)
    times = []
    for at in range(calls):
        began = time.perf_counter()
        await call(at)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


class Bench:
    """One data set: big is one namespace, tiny are many of five."""

    def __init__(self, count: int, tiny: int, calls: int, given: Path | None) -> None:
        self.count, self.tiny, self.calls = count, tiny, calls
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
        self.results: dict[str, Any] = {}

    def index(self) -> IndexConfig:
        return IndexConfig(self.model, fields=["text"])

    def value(self, at: int) -> dict[str, Any]:
        text = self.texts[at % self.count]
        return {"text": text, "rank": int(self.ranks[at % self.count]), "kind": "note"}

    def tiny_namespace(self, at: int) -> tuple[str, str]:
        return ("users", f"u{at:05}")

    async def load(self, store: SQLiteStore) -> tuple[float, float]:
        """Fill a store; return items a second of the big namespace and of the tiny ones."""
        began = time.perf_counter()
        for at in range(0, self.count, 1000):
            some = range(at, min(at + 1000, self.count))
            await store.put_many(("big",), {f"k{each:06}": self.value(each) for each in some})
        big = self.count / (time.perf_counter() - began)
        began = time.perf_counter()
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
        return big, 5 * self.tiny / (time.perf_counter() - began)

    def exact(self, query: Vectors, passing: Any = None) -> set[str]:
        """Return the keys of the best in the big namespace, by a scan in doubles."""
        scores = self.vectors.astype(np.float64) @ query.astype(np.float64)
        if passing is not None:
            scores[~passing] = -9
        return {f"k{at:06}" for at in np.argsort(-scores)[:K]}

    async def recall(self, store: SQLiteStore, filter: Any, passing: Any) -> float:
        """Return the share of the exact best that searches give, and require full pages."""
        found = 0
        for at in range(0, 50, 5):
            items = await store.search(("big",), f"query {at}", filter=filter, limit=K)
            assert len(items) == K, f"{len(items)} items with {filter}"
            best = self.exact(self.queries[at], passing)
            found += len(best & {item.key for item in items})
        return found / (10 * K)

    async def run(self, folder: Path) -> dict[str, Any]:
        """Measure everything."""
        results = self.results
        path = folder / "store.db"
        async with SQLiteStore(path, index=self.index()) as store:
            big, tiny = await self.load(store)
            results["bulk"] = {"big items/s": big, "tiny items/s": tiny}
            say(results, "bulk")
            await self.measure(store, "with cache")
            await self.measure_words(store)
        async with SQLiteStore(path, index=self.index(), vector_cache_bytes=0) as store:
            await self.measure(store, "sqlite-vec alone")
        matrix = self.vectors

        async def scan(at: int) -> None:
            scores = matrix @ self.queries[at % 50]
            best = np.argpartition(scores, len(scores) - K)[-K:]
            best[np.argsort(-scores[best])]

        results["numpy scan"] = {"big": await median_ms(scan, self.calls)}
        say(results, "numpy scan")
        await self.measure_alone(folder)
        await self.measure_size(folder)
        await self.measure_langgraph(folder)
        return results

    async def measure(self, store: SQLiteStore, name: str) -> None:
        """Measure semantic search in every shape, and with filters."""
        row: dict[str, float] = {}
        self.results[name] = row
        calls = self.calls

        def searching(namespace: Any, **options: Any) -> Callable[[int], Awaitable[Any]]:
            async def search(at: int) -> None:
                await store.search(namespace, f"query {at % 50}", limit=K, **options)

            return search

        row["big"] = await median_ms(searching(("big",)), calls)
        row["big recall"] = await self.recall(store, None, None)
        for percent in (1, 10, 50):
            most = self.count * percent // 100
            filter = {"rank": {"$lt": most}}
            row[f"filter {percent} %"] = await median_ms(searching(("big",), filter=filter), calls)
            row[f"filter {percent} % recall"] = await self.recall(store, filter, self.ranks < most)
        row["tiny"] = await median_ms(
            lambda at: store.search(self.tiny_namespace(at * 37 % self.tiny), f"query {at % 50}"),
            5 * calls,
        )
        row["subtree of all tiny"] = await median_ms(searching(("users",), subtree=True), calls)
        row["everything"] = await median_ms(searching((), subtree=True), calls)

        async def put_and_search(at: int) -> None:
            await store.put(("big",), "own", self.value(at + 100))
            await store.search(("big",), f"query {at % 50}", limit=K)

        async def put(at: int) -> None:
            await store.put(("big",), "own", self.value(at + 300))

        row["put then search"] = await median_ms(put_and_search, calls)
        row["put"] = await median_ms(put, 2 * calls)
        await store.delete(("big",), "own")
        say(self.results, name)

    async def measure_words(self, store: SQLiteStore) -> None:
        """Measure text and hybrid search, with words of the texts as queries."""
        row: dict[str, float] = {}
        self.results["words"] = row
        queries = [" ".join(self.texts[at * 911 % self.count].split()[2:8]) for at in range(50)]
        for at, query in enumerate(queries):
            self.model.queries[query] = self.queries[at]
        for mode in ("text", "hybrid", "semantic"):

            async def search(at: int, mode: str = mode) -> None:
                await store.search(("big",), queries[at % 50], mode=mode)

            row[f"{mode}, big"] = await median_ms(search, self.calls)
        row["text, everything"] = await median_ms(
            lambda at: store.search((), queries[at % 50], mode="text", subtree=True), self.calls
        )
        row["text, tiny"] = await median_ms(
            lambda at: store.search(
                self.tiny_namespace(at * 37 % self.tiny), queries[at % 50], mode="text"
            ),
            5 * self.calls,
        )
        say(self.results, "words")

    async def measure_alone(self, folder: Path) -> None:
        """Measure a namespace of five that is alone in its store."""
        async with SQLiteStore(folder / "alone.db", index=self.index()) as store:
            await store.put_many(self.tiny_namespace(0), {f"k{n}": self.value(n) for n in range(5)})
            self.results["alone"] = {
                "tiny": await median_ms(
                    lambda at: store.search(self.tiny_namespace(0), f"query {at % 50}"),
                    5 * self.calls,
                )
            }
        say(self.results, "alone")

    async def measure_size(self, folder: Path) -> None:
        """Measure the file of the tiny namespaces alone."""
        path = folder / "size.db"
        async with SQLiteStore(path, index=self.index()) as store:
            for at in range(self.tiny):
                await store.put_many(
                    self.tiny_namespace(at), {f"k{n}": self.value(at * 5 + n) for n in range(5)}
                )
        raw = 5 * self.tiny * DIMENSIONS * 4
        self.results["size"] = {"tiny, file / raw float32": path.stat().st_size / raw}
        say(self.results, "size")

    async def measure_langgraph(self, folder: Path) -> None:
        """Measure the same searches in LangGraph's sqlite stores."""
        try:
            import aiosqlite.core
            import pysqlite3

            sys.modules["sqlite3"] = pysqlite3  # one that loads extensions
            aiosqlite.core.sqlite3 = pysqlite3  # type: ignore[attr-defined]
            from langgraph.store.sqlite import SqliteStore
            from langgraph.store.sqlite.aio import AsyncSqliteStore
        except ImportError:
            print("langgraph-checkpoint-sqlite is not installed: left out", flush=True)
            return
        model = self.model

        def embed(texts: Any) -> list[list[float]]:
            return [
                (model.vectors[text] if text in model.vectors else model.queries[text]).tolist()
                for text in texts
            ]

        index: Any = {"dims": DIMENSIONS, "embed": embed, "text_fields": ["text"]}
        path = str(folder / "langgraph.db")
        row: dict[str, float] = {}
        with SqliteStore.from_conn_string(path, index=index) as store:
            store.conn.execute("PRAGMA journal_mode = WAL")
            store.conn.execute("PRAGMA synchronous = NORMAL")
            store.setup()
            from langgraph.store.base import PutOp

            places: list[tuple[tuple[str, ...], str, int]]
            places = [(("big",), f"k{at:06}", at) for at in range(self.count)]
            places += [
                (self.tiny_namespace(at), f"k{n}", at * 5 + n)
                for at in range(self.tiny)
                for n in range(5)
            ]
            began = time.perf_counter()
            for at in range(0, len(places), 1000):
                store.batch(
                    [PutOp(space, key, self.value(n)) for space, key, n in places[at : at + 1000]]
                )
            row["items/s"] = len(places) / (time.perf_counter() - began)

            async def big_sync(at: int) -> None:
                store.search(("big",), query=f"query {at % 50}", limit=K)

            async def tiny_sync(at: int) -> None:
                store.search(self.tiny_namespace(at * 37 % self.tiny), query=f"query {at % 50}")

            row["big, sync"] = await median_ms(big_sync, self.calls)
            row["tiny, sync"] = await median_ms(tiny_sync, 5 * self.calls)
        async with AsyncSqliteStore.from_conn_string(path, index=index) as other:
            row["big"] = await median_ms(
                lambda at: other.asearch(("big",), query=f"query {at % 50}", limit=K), self.calls
            )
            row["tiny"] = await median_ms(
                lambda at: other.asearch(
                    self.tiny_namespace(at * 37 % self.tiny), query=f"query {at % 50}"
                ),
                5 * self.calls,
            )
        self.results["langgraph"] = row
        say(self.results, "langgraph")


def say(results: dict[str, Any], name: str) -> None:
    """Print a row as it is measured."""
    row = ", ".join(f"{what}: {number:,.3f}" for what, number in results[name].items())
    print(f"{name}: {row}", flush=True)


def bars(results: dict[str, Any]) -> list[tuple[str, float, str, bool]]:
    """Hold the figures against the bars: what, the figure, the bar, whether it holds."""
    cached, alone, numpy = results["with cache"], results["sqlite-vec alone"], results["numpy scan"]
    rows: list[tuple[str, float, str, bool]] = []

    def most(what: str, figure: float, bar: float) -> None:
        rows.append((what, figure, f"<= {bar:g}", figure <= bar))

    def least(what: str, figure: float, bar: float) -> None:
        rows.append((what, figure, f">= {bar:g}", figure >= bar))

    for name in ("with cache", "sqlite-vec alone"):
        row = results[name]
        least(f"recall, {name}", min(row[what] for what in row if "recall" in what), 1.0)
        for percent in (1, 10, 50):
            most(f"filter {percent} % / none, {name}", row[f"filter {percent} %"] / row["big"], 2.5)
    if "langgraph" in results:
        other = results["langgraph"]
        least("tiny: LangGraph async / ours", other["tiny"] / cached["tiny"], 3)
        least("tiny: LangGraph sync / ours", other["tiny, sync"] / cached["tiny"], 3)
        least("big: LangGraph async / sqlite-vec alone", other["big"] / alone["big"], 3)
        least("big: LangGraph sync / sqlite-vec alone", other["big, sync"] / alone["big"], 3)
    most("tiny: among many / alone", cached["tiny"] / results["alone"]["tiny"], 2)
    most("tiny: file / raw float32", results["size"]["tiny, file / raw float32"], 2)
    most("big: with cache / numpy scan", cached["big"] / numpy["big"], 1.5)
    most("big: put then search / search", cached["put then search"] / cached["big"], 1.3)
    least("bulk load, items/s", results["bulk"]["big items/s"], 20_000)
    words = results["words"]
    most("text: tiny / everything", words["text, tiny"] / words["text, everything"], 0.1)
    both = words["text, big"] + words["semantic, big"]
    most("hybrid / (text + semantic)", words["hybrid, big"] / both, 1.2)
    return rows


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the latencies of the big and the tiny namespaces, if matplotlib is installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("matplotlib is not installed: no chart", flush=True)
        return
    mpl.use("svg")
    from matplotlib import pyplot as plt

    shown = {"numpy scan": "numpy, exact", "with cache": "kvstore[fast]"}
    shown |= {"sqlite-vec alone": "kvstore", "langgraph": "LangGraph, async"}
    figure, panels = plt.subplots(1, 2, figsize=(9, 2.8))
    for panel, shape in zip(panels, ("big", "tiny"), strict=True):
        rows = {label: results[name][shape] for name, label in shown.items()
                if shape in results.get(name, {})}  # fmt: skip
        bars_ = panel.barh(list(rows), list(rows.values()), color="#4a7ab5")
        panel.bar_label(bars_, fmt="%.2f ms", padding=3)
        panel.invert_yaxis()
        panel.margins(x=0.25)
        panel.set_title(f"{shape} namespace, k = {K}", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def circumstances(bench: Bench) -> dict[str, Any]:
    """Say what was measured, and with what."""
    names = ("kvstore", "sqlite-vec", "pysqlite3", "numpy", "langgraph-checkpoint-sqlite")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
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
    parser.add_argument("--vectors", type=Path, help="real texts and vectors, as .npz")
    given = parser.parse_args()
    scale = 10 if given.quick else 1
    bench = Bench(
        given.count // scale, given.tiny // scale, 20 if given.quick else 50, given.vectors
    )
    with TemporaryDirectory() as folder:
        results = asyncio.run(bench.run(Path(folder)))
    verdicts = bars(results)
    for what, figure, bar, holds in verdicts:
        print(f"{'holds ' if holds else 'MISSED'}  {what}: {figure:,.3g} ({bar})")
    folder_ = RESULTS / "quick" if given.quick else RESULTS
    folder_.mkdir(parents=True, exist_ok=True)
    written = {"circumstances": circumstances(bench), "milliseconds": results,
               "bars": [list(row) for row in verdicts]}  # fmt: skip
    (folder_ / "search.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    draw(results, folder_ / "search.svg")
    sys.exit(0)


if __name__ == "__main__":
    main()
