"""What data that grows costs: logs, queues, and the past; in memory, in a file, on a server.

    python -m benchmarks.growing [--quick] [--on memory file server]

Each figure is held against a plain `put` or `get` of the same process, in rounds that take turns; a
ratio is the median of the rounds' ratios. The server is one of one's own, or that of
`KVSTORE_TEST_POSTGRES_URL`. Prints the table, and writes its rows to `results/growing.json`, beside
those of other places that are there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import orjson

import kvstore
from benchmarks.run import circumstances
from benchmarks.workloads import SEED, value
from tests.postgres.server import ENVIRONMENT, Database, Server

RESULTS = Path(__file__).parent / "results" / "growing.json"
VALUE = value(0, 150)
ITEMS, ENTRIES, REWOUND, JOBS, WORKERS = 10_000, 100_000, 10_000, 6_000, 4
DAY_S = 86_400.0
WHERE = ("users", "memories")
QUEUE = ("jobs",)

PLACES = ("memory", "file", "server")

Calls = Callable[[int], Awaitable[object]]
Place = Callable[[], str]
"""Makes room for a new store; returns its path or address, or `memory://`."""


@dataclass(frozen=True)
class Row:
    """One figure, what it is held against, and what is asked of it."""

    place: str
    what: str
    figure: float
    unit: str  # of the figure
    base: float | None  # in the same unit
    result: float  # the ratio of both; without a base the figure
    bar: float
    is_met: bool


class Table:
    """The rows of one place, in the order in which they are measured."""

    def __init__(self, place: str) -> None:
        self._place = place
        self.rows: list[Row] = []

    def at_most(self, what: str, pairs: Sequence[tuple[float, float]], bar: float) -> None:
        """Add a row of rounds, each the microseconds of a call and of what it is held against."""
        ours, base = zip(*pairs, strict=True)
        ratio = statistics.median(mine / other for mine, other in pairs)
        figures = statistics.median(ours), "µs", statistics.median(base)
        self.rows.append(Row(self._place, what, *figures, ratio, bar, ratio <= bar))

    def add(self, what: str, figure: float, unit: str, bar: float, *, is_met: bool) -> None:
        """Add a row of a figure that is held against nothing but its bar."""
        self.rows.append(Row(self._place, what, figure, unit, None, figure, bar, is_met))


async def timed(call: Calls, calls: int) -> float:
    """Return the microseconds of a call, which is given numbers from 0 on."""
    gc.collect()
    gc.disable()
    began = time.perf_counter_ns()
    for number in range(calls):
        await call(number)
    taken = time.perf_counter_ns() - began
    gc.enable()
    return taken / calls / 1_000


async def in_turns(rounds: int, calls: int, ours: Calls, base: Calls) -> list[tuple[float, float]]:
    """Time two calls in rounds that take turns."""
    found = []
    for number in range(rounds + 1):
        begin = number * calls
        mine = await timed(lambda at, begin=begin: ours(begin + at), calls)  # type: ignore[misc]
        other = await timed(lambda at, begin=begin: base(begin + at), calls)  # type: ignore[misc]
        found.append((mine, other))
    return found[1:]  # the first one warms up


async def measure_queue(table: Table, place: Place, rounds: int, calls: int) -> None:
    """A job's whole life against a put."""
    async with kvstore.open(place()) as store:
        queue = store.queue(QUEUE)

        async def live(_: int) -> None:
            await queue.put(VALUE)
            job = await queue.take()
            assert job is not None
            await job.done()

        async def put(number: int) -> None:
            await store.put(WHERE, f"k{number}", VALUE)

        pairs = await in_turns(rounds, calls, live, put)
    table.at_most("queue: put, take and done, against a put", pairs, 4.0)


async def measure_workers(table: Table, place: Place, jobs: int) -> None:
    """Jobs a second that worker processes take and finish."""
    target = place()
    if target.startswith("memory:"):  # no other process sees it
        return
    async with kvstore.open(target) as store:
        queue = store.queue(QUEUE)
        await asyncio.gather(*(queue.put(VALUE) for _ in range(jobs)))
    command = [sys.executable, "-m", "benchmarks.growing", "--work", target]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(WORKERS)
    ]
    try:
        for each in workers:
            assert each.stdout is not None
            each.stdout.readline()  # it is ready
        began = time.perf_counter()
        done = sum(int(each.communicate()[0]) for each in _all_told("go\n", workers))
        seconds = time.perf_counter() - began
    finally:
        for each in workers:
            each.kill()
            each.wait()
    assert done == jobs
    rate = jobs / seconds
    what = f"queue: jobs that {WORKERS} processes take and finish"
    table.add(what, rate, "a second", 2_000, is_met=rate >= 2_000)


def _all_told(word: str, workers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for each in workers:
        assert each.stdin is not None
        each.stdin.write(word)
        each.stdin.flush()
    return workers


async def work(path: str) -> None:
    """Take and finish jobs until there are none, as a worker process."""
    async with kvstore.open(path) as store:
        queue, number = store.queue(QUEUE), 0
        print("ready", flush=True)
        sys.stdin.readline()
        while (job := await queue.take(timeout=0)) is not None:
            async with job:
                number += 1
        print(number, flush=True)


async def measure_log(table: Table, place: Place, rounds: int, calls: int) -> None:
    """A long log against an empty one."""
    async with kvstore.open(place()) as store:
        long, tails = store.log(("long",)), []
        for _ in range(ENTRIES // 1_000):
            await long.append(*[VALUE] * 1_000)
        for number in range(calls):
            began = time.perf_counter_ns()
            assert len(await long.tail(10)) == 10
            tails.append((time.perf_counter_ns() - began) / 1e6 if number else 0.0)

        async def append(_: int) -> None:
            await long.append(VALUE)

        async def append_to_empty(number: int) -> None:
            await store.log(("short", f"{number // calls}")).append(VALUE)

        pairs = await in_turns(rounds, calls, append, append_to_empty)
    tail = statistics.median(tails)
    table.at_most(f"log: append to {ENTRIES:,} entries, against an empty one", pairs, 1.5)
    table.add(f"log: the last ten of {ENTRIES:,}", tail, "ms", 1.0, is_met=tail <= 1.0)


async def measure_history(table: Table, place: Place, rounds: int, calls: int) -> None:
    """Puts of a store that keeps its history, against one that does not."""
    dice = random.Random(SEED)
    keys = [f"k{dice.randrange(ITEMS)}" for _ in range((rounds + 1) * calls)]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        kept = await enter(kvstore.open(place(), history=DAY_S))
        plain = await enter(kvstore.open(place()))
        for store in (kept, plain):
            await store.put_many(WHERE, {f"k{n}": value(n, 150) for n in range(ITEMS)})

        def over(store: kvstore.Store) -> Calls:
            return lambda n: store.put(WHERE, keys[n], value(n, 150, revision=1))

        def new(store: kvstore.Store) -> Calls:
            return lambda n: store.put(("new",), f"n{n}", VALUE)

        added = await in_turns(rounds, calls, new(kept), new(plain))
        replaced = await in_turns(rounds, calls, over(kept), over(plain))
    table.at_most("history: a new put, against one without", added, 1.5)
    table.at_most("history: a put over an item, against one without", replaced, 1.5)


async def measure_past(table: Table, place: Place, rounds: int, calls: int) -> None:
    """Reads of what was replaced since, against reads of what is there."""
    target, number = place(), (rounds + 1) * calls
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(kvstore.open(target, history=DAY_S))
        await store.put_many(WHERE, {f"k{n}": value(n, 150) for n in range(number)})
        version = (await store.stats()).version
        await store.put_many(WHERE, {f"k{n}": value(n, 150, revision=1) for n in range(number)})
        if not target.startswith("memory:"):  # no read is answered from memory, but of another
            await store.close()
            store = await stack.enter_async_context(kvstore.open(target, history=DAY_S))
        keys = [f"k{n}" for n in range(number)]
        random.Random(SEED).shuffle(keys)
        past = store.at(version)

        def get(n: int) -> Awaitable[object]:
            return store.get(WHERE, keys[n])

        def get_past(n: int) -> Awaitable[object]:
            return past.get(WHERE, keys[n])

        first: list[tuple[float, float]] = []
        again: list[tuple[float, float]] = []
        for begin in range(0, number, calls):
            for pairs in (first, again):
                mine = await timed(lambda n, begin=begin: get_past(begin + n), calls)  # type: ignore[misc]
                other = await timed(lambda n, begin=begin: get(begin + n), calls)  # type: ignore[misc]
                pairs.append((mine, other))
    what = "history: get of what was replaced since, against a get"
    table.at_most(f"{what}; read for the first time", first[1:], 2.0)
    table.at_most(f"{what}; read again", again[1:], 2.0)


async def measure_rewind(table: Table, place: Place) -> None:
    """What bringing many items back takes, once by their values and once by taking them away."""
    async with kvstore.open(place(), history=DAY_S) as store:
        version = (await store.put(WHERE, "other", VALUE)).version
        await store.put_many(("rewound",), {f"k{n}": value(n, 150) for n in range(REWOUND)})
        later = (await store.stats()).version
        fresh = {f"k{n}": value(n, 150, revision=1) for n in range(REWOUND)}
        await store.put_many(("rewound",), fresh)
        seconds = []
        for moment in (later, version):
            began = time.perf_counter()
            assert await store.rewind(moment, namespace=("rewound",)) == REWOUND
            seconds.append(time.perf_counter() - began)
    longest = max(seconds)
    table.add(f"history: rewind of {REWOUND:,} items", longest, "s", 2, is_met=longest <= 2)


async def measure(table: Table, place: Place, rounds: int, calls: int, jobs: int) -> None:
    """Measure everything in one place."""
    await measure_queue(table, place, rounds, calls)
    await measure_workers(table, place, jobs)
    for part in (measure_log, measure_history, measure_past):
        await part(table, place, rounds, calls)
    await measure_rewind(table, place)


def places(names: Sequence[str], folder: Path, stack: ExitStack) -> dict[str, Place]:
    """Return by name what makes room for stores."""
    found: dict[str, Place] = {}
    numbers = count()
    for name in names:
        if name == "memory":
            found[name] = lambda: "memory://"
        elif name == "file":
            found[name] = lambda: str(folder / f"{next(numbers)}.db")
        else:
            url = os.environ.get(ENVIRONMENT) or stack.enter_context(Server()).url
            database = stack.enter_context(closing(Database(url)))
            found[name] = lambda it=database: stack.enter_context(it.schema())  # type: ignore[misc]
    return found


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| | | here | held against | result | bar | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        base = "" if row.base is None else f"{row.base:,.1f} {row.unit}"
        lines.append(
            f"| {row.place} | {row.what} | {row.figure:,.2f} {row.unit} | {base} | "
            f"{row.result:,.2f} | {row.bar:,g} | {'met' if row.is_met else 'missed'} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds; writes nothing")
    parser.add_argument("--on", nargs="+", choices=PLACES, default=PLACES, help="where")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        asyncio.run(work(given.work))
        return
    rounds, calls, jobs = (3, 300, 2_000) if given.quick else (7, 500, JOBS)
    rows: list[Row] = []
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="kvstore-bench-"))
        for where, place in places(given.on, Path(name), stack).items():
            table = Table(where)
            asyncio.run(measure(table, place, rounds, calls, jobs))
            rows += table.rows
        print(shown(rows))
        if not given.quick:
            workload = {"rounds": rounds, "calls_a_round": calls, "items": ITEMS, "jobs": jobs}
            known = orjson.loads(RESULTS.read_bytes())["rows"] if RESULTS.exists() else []
            others = [row for row in known if row["place"] not in given.on]
            figures = {"workload": workload, "rows": [*others, *map(asdict, rows)]}
            content = orjson.dumps(circumstances(Path(name)) | figures, option=orjson.OPT_INDENT_2)
            RESULTS.write_bytes(content + b"\n")


if __name__ == "__main__":
    main()
