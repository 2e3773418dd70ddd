"""What data that grows costs: logs, queues, and the past.

    python -m benchmarks.growing [--quick]

Each figure is held against a plain `put` or `get` of the same process, in rounds that take turns; a
ratio is the median of the rounds' ratios. Writes `results/growing.json` and prints the table.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

import kvstore
from benchmarks.run import circumstances
from benchmarks.workloads import SEED, value

RESULTS = Path(__file__).parent / "results" / "growing.json"
VALUE = value(0, 150)
ITEMS, ENTRIES, REWOUND, JOBS, WORKERS = 10_000, 100_000, 10_000, 6_000, 4
DAY_S = 86_400.0
WHERE = ("users", "memories")
QUEUE = ("jobs",)

Calls = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """One figure, what it is held against, and what is asked of it."""

    what: str
    figure: float
    unit: str  # of the figure
    base: float | None  # in the same unit
    result: float  # the ratio of both; without a base the figure
    bar: float
    is_met: bool


def at_most(what: str, pairs: Sequence[tuple[float, float]], bar: float) -> Row:
    """Make a row of rounds, each the microseconds of a call and of what it is held against."""
    ours, base = zip(*pairs, strict=True)
    ratio = statistics.median(mine / other for mine, other in pairs)
    figures = statistics.median(ours), "µs", statistics.median(base)
    return Row(what, *figures, ratio, bar, ratio <= bar)


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


async def measure_queue(folder: Path, rounds: int, calls: int) -> Row:
    """A job's whole life against a put."""
    async with kvstore.open(folder / "queue.db") as store:
        queue = store.queue(QUEUE)

        async def live(_: int) -> None:
            await queue.put(VALUE)
            job = await queue.take()
            assert job is not None
            await job.done()

        async def put(number: int) -> None:
            await store.put(WHERE, f"k{number}", VALUE)

        pairs = await in_turns(rounds, calls, live, put)
    return at_most("queue: put, take and done, against a put", pairs, 4.0)


async def measure_workers(folder: Path, jobs: int) -> Row:
    """Jobs a second that worker processes take and finish."""
    path = folder / "workers.db"
    async with kvstore.open(path) as store:
        queue = store.queue(QUEUE)
        await asyncio.gather(*(queue.put(VALUE) for _ in range(jobs)))
    command = [sys.executable, "-m", "benchmarks.growing", "--work", str(path)]
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
    return Row(what, rate, "a second", None, rate, 2_000, rate >= 2_000)


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


async def measure_log(folder: Path, rounds: int, calls: int) -> list[Row]:
    """A long log against an empty one."""
    async with kvstore.open(folder / "log.db") as store:
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
    return [
        at_most(f"log: append to {ENTRIES:,} entries, against an empty one", pairs, 1.5),
        Row(f"log: the last ten of {ENTRIES:,}", tail, "ms", None, tail, 1.0, tail <= 1.0),
    ]


async def measure_history(folder: Path, rounds: int, calls: int) -> list[Row]:
    """Puts of a store that keeps its history, against one that does not; the past."""
    dice = random.Random(SEED)
    keys = [f"k{dice.randrange(ITEMS)}" for _ in range((rounds + 1) * calls)]
    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(kvstore.open(folder / "h.db", history=DAY_S))
        plain = await stack.enter_async_context(kvstore.open(folder / "p.db"))
        for store in (kept, plain):
            await store.put_many(WHERE, {f"k{n}": value(n, 150) for n in range(ITEMS)})

        def over(store: kvstore.Store) -> Calls:
            return lambda n: store.put(WHERE, keys[n], value(n, 150, revision=1))

        def new(store: kvstore.Store) -> Calls:
            return lambda n: store.put(("new",), f"n{n}", VALUE)

        added = await in_turns(rounds, calls, new(kept), new(plain))
        replaced = await in_turns(rounds, calls, over(kept), over(plain))
        past = kept.at((await kept.stats()).version - calls)
        read = await in_turns(
            *(rounds, calls),
            lambda n: past.get(WHERE, keys[n]),
            lambda n: kept.get(WHERE, keys[n]),
        )
        version = (await kept.stats()).version
        await kept.put_many(("rewound",), {f"k{n}": value(n, 150) for n in range(REWOUND)})
        later = (await kept.stats()).version
        fresh = {f"k{n}": value(n, 150, revision=1) for n in range(REWOUND)}
        await kept.put_many(("rewound",), fresh)
        seconds = []
        for moment in (later, version):
            began = time.perf_counter()
            assert await kept.rewind(moment, namespace=("rewound",)) == REWOUND
            seconds.append(time.perf_counter() - began)
    longest = max(seconds)
    return [
        at_most("history: a new put, against one without", added, 1.5),
        at_most("history: a put over an item, against one without", replaced, 1.5),
        at_most("history: get of the past, against a get", read, 2.0),
        Row(f"history: rewind of {REWOUND:,} items", longest, "s", None, longest, 2, longest <= 2),
    ]


async def measure(folder: Path, rounds: int, calls: int, jobs: int) -> list[Row]:
    """Measure everything."""
    rows = [await measure_queue(folder, rounds, calls), await measure_workers(folder, jobs)]
    rows += await measure_log(folder, rounds, calls)
    return rows + await measure_history(folder, rounds, calls)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| | here | held against | result | bar | |", "|---|---|---|---|---|---|"]
    for row in rows:
        base = "" if row.base is None else f"{row.base:,.1f} {row.unit}"
        lines.append(
            f"| {row.what} | {row.figure:,.2f} {row.unit} | {base} | {row.result:,.2f} | "
            f"{row.bar:,g} | {'met' if row.is_met else 'missed'} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds; writes nothing")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        asyncio.run(work(given.work))
        return
    rounds, calls, jobs = (3, 300, 2_000) if given.quick else (11, 1_000, JOBS)
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name:
        rows = asyncio.run(measure(Path(name), rounds, calls, jobs))
        print(table(rows))
        if not given.quick:
            workload = {"rounds": rounds, "calls_a_round": calls, "items": ITEMS, "jobs": jobs}
            figures = {"workload": workload, "rows": [asdict(row) for row in rows]}
            content = orjson.dumps(circumstances(Path(name)) | figures, option=orjson.OPT_INDENT_2)
            RESULTS.write_bytes(content + b"\n")


if __name__ == "__main__":
    main()
