"""The stopwatch: one loop for throughput and latency, one for how late the event loop gets."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from benchmarks.contenders import Contender, Raw
from benchmarks.workloads import Call, Work

__all__ = [
    "Lateness",
    "Timing",
    "drive",
    "drop_page_cache",
    "fill_page_cache",
    "lateness",
    "percentile",
]

TICK_S = 0.001  # how often the loop is asked whether it is on time


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender at one row in one round. Latencies run from the call to its return."""

    calls: int
    us: float  # per call: the whole time by the number of calls
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late a timer of 1 ms fired while the load ran, in milliseconds."""

    p50: float
    p999: float
    max: float
    ticks: int
    calls: int


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of the ordered values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _settle() -> None:
    """Let no contender pay for what others left: objects to walk over, writes on their way."""
    gc.collect()
    gc.freeze()
    os.sync()


async def drive(contender: Contender, work: Work, plan: Sequence[Call], seconds: float) -> Timing:
    """Work through the plan for about so many seconds, `work.tasks` calls at a time.

    With one task, call follows call. With more, they come in waves: all calls of a wave are made
    at once, each in a task of its own, and the next wave starts when the last has returned. A
    latency counts from the start of the wave, since that is when its caller began to wait.
    """
    methods = {method: getattr(contender, method) for method, _ in plan}
    calls = itertools.cycle([(methods[method], args) for method, args in plan])
    latencies = array("q")
    _settle()
    if isinstance(contender, Raw):
        writes = work.tasks > 1 and work.op in ("put", "mixed", "increment")
        total = _drive_raw(contender, work, calls, latencies, seconds, writes=writes)
    elif work.tasks == 1:
        total = await _drive_sequential(work, calls, latencies, seconds)
    else:
        total = await _drive_waves(work, calls, latencies, seconds)
    ordered = sorted(latencies)
    return Timing(
        calls=len(ordered),
        us=total / len(ordered) / 1e3,
        p50=percentile(ordered, 0.5) / 1e3,
        p90=percentile(ordered, 0.9) / 1e3,
        p99=percentile(ordered, 0.99) / 1e3,
        max=ordered[-1] / 1e3,
    )


async def _drive_sequential(
    work: Work, calls: Iterator[Any], latencies: array[int], seconds: float
) -> int:
    total = 0
    begun = now = perf_counter_ns()
    while now - begun < seconds * 1e9:
        if work.prepare:
            method, args = next(calls)
            await method(*args)
        method, args = next(calls)
        start = perf_counter_ns()
        await method(*args)
        now = perf_counter_ns()
        latencies.append(now - start)
        total += now - start
    return total if work.prepare else now - begun


async def _drive_waves(
    work: Work, calls: Iterator[Any], latencies: array[int], seconds: float
) -> int:
    async def one(method: Any, args: Any) -> None:
        await method(*args)
        latencies.append(perf_counter_ns() - start)

    begun = start = perf_counter_ns()
    while start - begun < seconds * 1e9:
        wave = itertools.islice(calls, work.tasks)
        await asyncio.gather(*[one(method, args) for method, args in wave])
        start = perf_counter_ns()
    return start - begun


def _drive_raw(
    raw: Raw, work: Work, calls: Iterator[Any], latencies: array[int], seconds: float, writes: bool
) -> int:
    total = 0
    begun = now = perf_counter_ns()
    while now - begun < seconds * 1e9:
        if work.prepare:
            method, args = next(calls)
            method(*args)
        wave = itertools.islice(calls, work.tasks)
        start = perf_counter_ns()
        if writes:
            raw.begin()
        for method, args in wave:
            method(*args)
            now = perf_counter_ns()
            latencies.append(now - start)
        if writes:
            raw.commit()
            now = perf_counter_ns()
            latencies[-work.tasks :] = array("q", [now - start]) * work.tasks
        total += now - start
    return total if work.prepare else now - begun


async def lateness(
    contender: Contender, plan: Sequence[Call], *, tasks: int, seconds: float, pause: float
) -> Lateness:
    """Let tasks work through the plan, and see how late a timer on the same loop fires.

    Each task pauses `pause` seconds on average after a call (0: it makes the next one at once).
    """
    methods = {method: getattr(contender, method) for method, _ in plan}
    late: list[float] = []
    done = 0
    _settle()
    deadline = perf_counter_ns() + int(seconds * 1e9)

    async def tick() -> None:
        while (start := perf_counter_ns()) < deadline:
            await asyncio.sleep(TICK_S)
            late.append((perf_counter_ns() - start) / 1e6 - TICK_S * 1e3)

    async def work(number: int) -> None:
        nonlocal done
        rng = random.Random(number)
        for position in itertools.count(rng.randrange(len(plan))):
            if perf_counter_ns() >= deadline:
                return
            method, args = plan[position % len(plan)]
            await methods[method](*args)
            done += 1
            if pause:
                await asyncio.sleep(rng.expovariate(1 / pause))

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*[work(number) for number in range(tasks)])
    await ticking
    late.sort()
    return Lateness(
        p50=percentile(late, 0.5),
        p999=percentile(late, 0.999),
        max=late[-1],
        ticks=len(late),
        calls=done,
    )


def fill_page_cache(folder: Path) -> None:
    """Have the kernel hold the folder's files: it may have let go of what lay there for long."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(2**20):
                    pass


def drop_page_cache(folder: Path) -> None:
    """Make the kernel forget the folder's files, so that the next reads go to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # only clean pages can be dropped
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
