"""Measure the facades: `python -m benchmarks.facades [--quick]`, writes `results/facades.json`.

`KeyValueStore` against diskcache, from plain sync code; `LangGraphStore` against LangGraph's own
`AsyncSqliteStore`, awaited one after another and by 100 tasks at once. Both sides do the same calls
on the same values; rounds alternate between them, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

import kvstore
from benchmarks.contenders import DiskCache, LangGraph
from benchmarks.run import circumstances
from benchmarks.workloads import SEED, value
from kvstore import KeyValueStore
from kvstore.integrations.langgraph import LangGraphStore

ITEMS = 10_000  # in each store before the first round
VALUE_BYTES = 150
ROUNDS = 11
CALLS = 2_000  # in a round, on either side
TASKS = 100

Namespaces = Callable[[int], tuple[str, ...]]


@dataclass(frozen=True)
class Row:
    """What one comparison gave, in microseconds a call, and what is asked of it."""

    what: str
    ours: str
    theirs: str
    ours_us: float
    theirs_us: float
    ratio: float  # ours by theirs; lower is better
    bar: float  # the ratio that is asked for

    @property
    def is_met(self) -> bool:
        """Whether the bar is met."""
        return self.ratio <= self.bar


def one(task: int) -> tuple[str, ...]:
    """Return the one namespace that all tasks share."""
    return ("users", "memories")


def each(task: int) -> tuple[str, ...]:
    """Return a namespace for each task, as a memory for each user has it."""
    return ("users", f"user{task:03}", "memories")


@contextmanager
def timed(calls: int) -> Iterator[list[float]]:
    """Give a list that holds the microseconds a call when the block is done."""
    taken: list[float] = []
    gc.collect()
    gc.disable()
    began = time.perf_counter_ns()
    try:
        yield taken
    finally:
        taken.append((time.perf_counter_ns() - began) / calls / 1000)
        gc.enable()


def row(
    what: str,
    names: tuple[str, str],
    rounds: Sequence[tuple[float, float]],
    bar: float,
) -> Row:
    """Make a row of the rounds, each what a call took us and them."""
    ours, theirs = zip(*rounds, strict=True)
    ratio = statistics.median(mine / other for mine, other in rounds)
    return Row(what, *names, statistics.median(ours), statistics.median(theirs), ratio, bar)


# Sync


def measure_sync(folder: Path, calls: int, rounds: int) -> list[Row]:
    """Compare `KeyValueStore` with diskcache."""
    generator = random.Random(SEED)
    cache = DiskCache(folder)
    asyncio.run(cache.open())
    with KeyValueStore(folder / "flow.db") as flow:
        for index in range(ITEMS):
            flow.insert(f"k{index}", value(index, VALUE_BYTES))
            cache.cache.set(f"k{index}", value(index, VALUE_BYTES))
        reads: list[tuple[float, float]] = []
        writes: list[tuple[float, float]] = []
        for _ in range(rounds):
            keys = [f"k{generator.randrange(ITEMS)}" for _ in range(calls)]
            values = [value(index, VALUE_BYTES, revision=1) for index in range(calls)]
            reads.append((_calls(flow.retrieve, keys), _calls(cache.cache.get, keys)))
            writes.append(
                (_calls(flow.insert, keys, values), _calls(cache.cache.set, keys, values))
            )
    asyncio.run(cache.close())
    return [
        row("sync read", ("KeyValueStore.retrieve", "diskcache get"), reads, 3.0),
        row("sync write", ("KeyValueStore.insert", "diskcache set"), writes, 2.0),
    ]


def _calls(method: Callable[..., Any], *arguments: Sequence[Any]) -> float:
    with timed(len(arguments[0])) as taken:
        for given in zip(*arguments, strict=True):
            method(*given)
    return taken[0]


# Awaited


async def measure_awaited(folder: Path, calls: int, rounds: int) -> list[Row]:
    """Compare `LangGraphStore` with `AsyncSqliteStore`."""
    theirs = LangGraph(folder)
    await theirs.open()
    rows = []
    async with kvstore.open(folder / "langgraph-ours.db") as store:
        ours = LangGraphStore(store)
        for namespaces in (one, each):
            for task in range(TASKS):
                for index in range(ITEMS // TASKS):
                    given = namespaces(task), f"k{task}-{index}", value(index, VALUE_BYTES)
                    await asyncio.gather(ours.aput(*given), theirs.store.aput(*given))
        for tasks, namespaces, what in (
            (1, one, "one after another"),
            (TASKS, one, f"{TASKS} tasks, one namespace"),
            (TASKS, each, f"{TASKS} tasks, a namespace each"),
        ):
            for op in ("aget", "aput"):
                taken = []
                for _ in range(rounds):
                    both = (getattr(ours, op), getattr(theirs.store, op))
                    mine = await _tasks(both[0], op, tasks, namespaces, calls)
                    taken.append((mine, await _tasks(both[1], op, tasks, namespaces, calls)))
                names = (f"LangGraphStore.{op}", f"AsyncSqliteStore.{op}")
                rows.append(row(f"{op}, {what}", names, taken, 1 / 3))
    await theirs.close()
    return rows


async def _tasks(
    method: Callable[..., Awaitable[Any]], op: str, tasks: int, namespaces: Namespaces, calls: int
) -> float:
    generator = random.Random(SEED)
    given = [
        [
            (namespaces(task), f"k{task}-{generator.randrange(ITEMS // TASKS)}")
            + ((value(index, VALUE_BYTES, revision=1),) if op == "aput" else ())
            for index in range(calls // tasks)
        ]
        for task in range(tasks)
    ]

    async def work(mine: list[Any]) -> None:
        for arguments in mine:
            await method(*arguments)

    with timed(calls) as taken:
        await asyncio.gather(*map(work, given))
    return taken[0]


# Together


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.facades", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds; writes nothing")
    is_quick = parser.parse_args(arguments).quick
    rounds, calls = (3, 500) if is_quick else (ROUNDS, CALLS)
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name:
        folder = Path(name)
        rows = measure_sync(folder, calls, rounds)
        rows += asyncio.run(measure_awaited(folder, calls, rounds))
        where = circumstances(folder)
    print(table(rows))
    if not is_quick:
        workload = {
            "items": ITEMS,
            "value_bytes": VALUE_BYTES,
            "rounds": rounds,
            "calls_a_round": calls,
        }
        figures = [{**asdict(made), "is_met": made.is_met} for made in rows]
        result = {**where, "workload": workload, "rows": figures}
        path = Path(__file__).parent / "results" / "facades.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| call | ours, µs | theirs, µs | ours by theirs | bar | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {made.what}: `{made.ours}` against `{made.theirs}` | {made.ours_us:.1f} | "
        f"{made.theirs_us:.1f} | {made.ratio:.2f} | {made.bar:.2f} | "
        f"{'met' if made.is_met else 'missed'} |"
        for made in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
