"""Run the benchmarks: `python -m benchmarks.run [--quick] [--only GROUP] [--items N]`.

Each group of rows becomes one file in `results/`, written when the whole group went well. A
contender that fails ends the run. At the end `report.py` makes the tables and the chart.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import inspect
import os
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from benchmarks import core, report
from benchmarks.contenders import CONTENDERS, Bare, Contender, KVStore, Raw, Tasks, driver, optional
from benchmarks.measure import (
    Lateness,
    Timing,
    drive,
    drop_page_cache,
    fill_page_cache,
    lateness,
)
from benchmarks.workloads import (
    FILTER,
    GROUPS,
    NAMESPACE_LIMIT,
    PUT_MANY,
    QUICK,
    SEARCH_LIMIT,
    SEED,
    Dataset,
    Group,
    Namespace,
    Work,
    batches,
    expected_namespaces,
    make_plan,
    namespace,
    place,
    value,
)
from kvstore.distribution import NAME

__all__ = ["main"]

LOAD_LIMIT_S = 120.0  # a contender that needs longer to load a dataset is left out of its rows
LOOP_TASKS = 100
LOOP_MODES = (("flat out", 0.0), ("paced", 0.02))  # mean pause after each call, in seconds


class LoadTooSlowError(Exception):
    """A contender did not load the dataset in time."""


@dataclass
class Bench:
    """Where the files lie, what is open, and who was too slow to load."""

    scratch: Path
    opened: AsyncExitStack
    left_out: dict[tuple[Dataset, str], str]

    def folder(self, dataset: Dataset, kind: type[Contender]) -> Path:
        return self.scratch / f"{dataset.items}x{dataset.value_bytes}" / kind.name

    async def open(
        self, dataset: Dataset, kinds: Sequence[type[Contender]]
    ) -> dict[str, Contender]:
        """Open the contenders on the dataset, which the first group to ask for it loads."""
        contenders = {}
        for kind in kinds:
            folder = self.folder(dataset, kind)
            contender = kind(folder)
            if not folder.exists():
                say(f"loading {dataset.items:,} items: {kind.title}")
                folder.mkdir(parents=True)
                await contender.open()
                try:
                    await contender.load(_within(LOAD_LIMIT_S, dataset))
                except LoadTooSlowError as exc:
                    self.left_out[dataset, kind.name] = str(exc)
                finally:
                    await contender.close()
            if (dataset, kind.name) in self.left_out:
                continue
            await contender.open()
            self.opened.push_async_callback(contender.close)
            await check(contender, dataset)
            contenders[kind.name] = contender
        return contenders

    def sizes(self, dataset: Dataset, names: Sequence[str]) -> dict[str, int]:
        root = self.folder(dataset, KVStore).parent
        return {
            name: sum(path.stat().st_size for path in (root / name).rglob("*") if path.is_file())
            for name in names
        }


def _within(seconds: float, dataset: Dataset) -> Iterator[tuple[Namespace, dict[str, Any]]]:
    begun = time.monotonic()
    for number, batch in enumerate(batches(dataset)):
        if time.monotonic() - begun > seconds:
            done = number * PUT_MANY
            raise LoadTooSlowError(
                f"loaded only {done:,} of {dataset.items:,} items in {seconds:.0f} s"
            )
        yield batch


async def check(contender: Contender, dataset: Dataset) -> None:
    """Fail unless the contender holds the dataset and answers as the others do."""

    async def call(method: str, *args: Any) -> Any:
        result = getattr(contender, method)(*args)
        return await result if inspect.isawaitable(result) else result

    def require(claim: bool, what: str) -> None:
        if not claim:
            raise AssertionError(f"{contender.title}: {what}")

    for index in random.Random(SEED).sample(range(dataset.items), 20):
        where = place(index, dataset)
        expected = value(index, dataset.value_bytes)
        found = await contender.plain(*where)
        require(found is not None, f"lost {where}")
        same = all(found[name] == expected[name] for name in ("id", "status", "score"))
        require(same and len(orjson.dumps(found)) == dataset.value_bytes, f"altered {where}")
        await call("put", *where, expected)
        require(await contender.plain(*where) == expected, f"did not put {where}")
    require(await contender.plain(namespace(0), "none") is None, "found what was never put")
    if "search" not in contender.lacks:
        found = await call("search", namespace(0), FILTER, SEARCH_LIMIT)
        require(len(found) == SEARCH_LIMIT, f"search found {len(found)} items")
    if "list_namespaces" not in contender.lacks:
        found = await call("list_namespaces", namespace(0)[:1], NAMESPACE_LIMIT)
        require(found == expected_namespaces(dataset), "listed other namespaces")
    if "remove" not in contender.lacks:
        await call("put_many", namespace(0), {"temp_1": 1, "temp_2": 2})
        require(await call("remove", namespace(0), "temp_*") == 2, "removed a wrong number")


async def run_rows(bench: Bench, group: Group) -> dict[str, Any]:
    """Measure throughput and latency: every row, every round, every contender in turn."""
    contenders = await bench.open(group.dataset, CONTENDERS)
    rows = []
    for number, work in enumerate(group.works, 1):
        say(f"{group.name} {number}/{len(group.works)}: {work.op}, {work.tasks} at once")
        takers = {n: c for n, c in contenders.items() if work.op not in c.lacks}
        timings: dict[str, list[Timing]] = {name: [] for name in takers}
        for contender in takers.values():
            fill_page_cache(contender.folder)
        for round_number in range(-1, group.rounds):
            plan = make_plan(work, group.dataset, round_number)
            for name in rotated(list(takers), round_number):
                seconds = group.warm_up if round_number < 0 else group.seconds
                with naming(takers[name], work.op):
                    timing = await drive(takers[name], work, plan, seconds)
                if round_number >= 0:
                    timings[name].append(timing)
        rows.append({**asdict(work), "contenders": summarise(timings)})
    return {
        "rows": rows,
        "left_out": {n: why for (data, n), why in bench.left_out.items() if data == group.dataset},
        "file_bytes": bench.sizes(group.dataset, list(contenders)),
    }


def summarise(timings: dict[str, list[Timing]]) -> dict[str, Any]:
    """Reduce the rounds to medians; ratios are taken round by round, against kvstore's."""
    ours = [timing.us for timing in timings[KVStore.name]]
    summary = {}
    for name, rounds in timings.items():
        ratios = sorted(theirs.us / us for theirs, us in zip(rounds, ours, strict=True))
        us = statistics.median(timing.us for timing in rounds)
        summary[name] = {
            "us": us,
            "per_second": 1e6 / us,
            "ratio": statistics.median(ratios),
            "ratio_low": ratios[0],
            "ratio_high": ratios[-1],
            "p50_us": statistics.median(timing.p50 for timing in rounds),
            "p90_us": statistics.median(timing.p90 for timing in rounds),
            "p99_us": statistics.median(timing.p99 for timing in rounds),
            "max_us": max(timing.max for timing in rounds),
            "calls": sum(timing.calls for timing in rounds),
        }
    return summary


async def run_loop(bench: Bench, group: Group) -> dict[str, Any]:
    """Measure how late the event loop gets while 100 tasks read and write a warm store."""
    contenders = {Bare.name: Bare(bench.scratch)} | await bench.open(group.dataset, _async())
    modes = {}
    for mode, pause in LOOP_MODES:
        say(f"loop: {mode}")
        rounds: dict[str, list[Lateness]] = {name: [] for name in contenders}
        for round_number in range(-1, group.rounds):
            plan = make_plan(Work("mixed", LOOP_TASKS), group.dataset, round_number)
            for name in rotated(list(contenders), round_number):
                seconds = group.warm_up if round_number < 0 else group.seconds
                with naming(contenders[name], mode):
                    late = await lateness(
                        contenders[name], plan, tasks=LOOP_TASKS, seconds=seconds, pause=pause
                    )
                if round_number >= 0:
                    rounds[name].append(late)
        modes[mode] = {"pause_s": pause, "contenders": summarise_late(rounds, group.seconds)}
    return {"tasks": LOOP_TASKS, "modes": modes}


async def run_cold(bench: Bench, group: Group) -> dict[str, Any]:
    """Measure the same, and single gets, right after the page cache has lost the files."""
    contenders = {Bare.name: Bare(bench.scratch)} | await bench.open(group.dataset, _async())
    late: dict[str, list[Lateness]] = {name: [] for name in contenders}
    gets: dict[str, list[Timing]] = {name: [] for name in contenders if name != Bare.name}

    async def reopen_cold(contender: Contender) -> None:
        await contender.close()
        drop_page_cache(contender.folder)
        await contender.open()

    for round_number in range(group.rounds):
        mixed = make_plan(Work("mixed", LOOP_TASKS), group.dataset, round_number)
        reads = make_plan(Work("get"), group.dataset, round_number)
        for name in rotated(list(contenders), round_number):
            contender = contenders[name]
            say(f"cold {round_number + 1}/{group.rounds}: {contender.title}")
            with naming(contender, "cold"):
                if name != Bare.name:
                    await reopen_cold(contender)
                    gets[name].append(
                        await drive(contender, Work("get"), reads, group.seconds / 10)
                    )
                    await reopen_cold(contender)
                late[name].append(
                    await lateness(
                        contender, mixed, tasks=LOOP_TASKS, seconds=group.seconds, pause=0
                    )
                )
    return {
        "tasks": LOOP_TASKS,
        "modes": {"cold": {"pause_s": 0, "contenders": summarise_late(late, group.seconds)}},
        "rows": [{**asdict(Work("get")), "contenders": summarise(gets)}],
    }


def summarise_late(rounds: dict[str, list[Lateness]], seconds: float) -> dict[str, Any]:
    """Reduce the rounds to medians, and to the worst of all; `beyond` is what the tasks add."""
    bare = [late.p999 for late in rounds[Bare.name]]
    return {
        name: {
            "p50_ms": statistics.median(late.p50 for late in lates),
            "p999_ms": statistics.median(late.p999 for late in lates),
            "p999_beyond_ms": statistics.median(
                late.p999 - base for late, base in zip(lates, bare, strict=True)
            ),
            "worst_ms": max(late.max for late in lates),
            "worst_each_round_ms": [late.max for late in lates],
            "ticks": sum(late.ticks for late in lates),
            "per_second": statistics.median(late.calls for late in lates) / seconds,
        }
        for name, lates in rounds.items()
    }


async def run_core(bench: Bench, group: Group) -> dict[str, Any]:
    """Measure opening, listing, wildcard removes and a full scan on the large store."""
    contenders = await bench.open(group.dataset, (KVStore, Raw))
    ours, raw = contenders[KVStore.name], contenders[Raw.name]
    assert isinstance(ours, KVStore)
    assert isinstance(raw, Raw)
    say("core")
    return await core.measure(ours, raw, group.rounds)


RUNNERS: dict[str, Callable[[Bench, Group], Any]] = {
    "small": run_rows,
    "large": run_rows,
    "million": run_rows,
    "loop": run_loop,
    "cold": run_cold,
    "core": run_core,
}


def resized(group: Group, items: int | None) -> Group:
    """Give a group of the large store so many items instead."""
    if items is None or group.dataset.namespaces == 1:
        return group
    return replace(group, dataset=replace(group.dataset, items=items))


def _async() -> list[type[Contender]]:
    return [kind for kind in CONTENDERS if kind not in (Tasks, Raw)]


def rotated(names: list[str], by: int) -> list[str]:
    """Return the names in another order each round, so that nobody always goes first."""
    by %= len(names)
    return names[by:] + names[:by]


class naming:  # noqa: N801 - reads as a statement
    """Say which contender failed, and at what."""

    def __init__(self, contender: Contender, what: str) -> None:
        self.what = f"while {contender.title} did: {what}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is not None:
            exc.add_note(self.what)


def say(text: str) -> None:
    """Write one line of progress: over the last one on a terminal, below it elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def circumstances(scratch: Path) -> dict[str, Any]:
    """Return what a reader needs to judge the figures: machine, versions, commit."""

    def output(*command: str) -> str:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
        ).stdout.strip()

    names = {NAME, "orjson"}.union(*(kind.distributions for kind in CONTENDERS))
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    commit = output("git", "rev-parse", "--short", "HEAD") or "none"
    if output("git", "status", "--porcelain", "--", "../kvstore", "../migrations"):
        commit += ", with changes"
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "memory_gib": round(optional("psutil").virtual_memory().total / 2**30),
            "system": f"{platform.system()} {platform.release()}",
            "filesystem": output("stat", "-f", "-c", "%T", str(scratch)),
        },
        "versions": {
            "python": platform.python_version(),
            "sqlite": driver().sqlite_version,
            "sqlite (standard library; diskcache and DiskStore use it)": sqlite3.sqlite_version,
            **{name: importlib.metadata.version(name) for name in sorted(names)},
        },
    }


async def run_group(
    scratch: Path, left_out: dict[tuple[Dataset, str], str], group: Group, quick: bool
) -> None:
    begun = time.monotonic()
    about = circumstances(scratch)
    async with AsyncExitStack() as opened:
        result = await RUNNERS[group.name](Bench(scratch, opened, left_out), group)
    document = {
        "group": group.name,
        "title": group.heading,
        "quick": quick,
        **about,
        "method": {
            "seed": SEED,
            "rounds": group.rounds,
            "seconds_each": group.seconds,
            "warm_up_s": group.warm_up,
            "items": group.dataset.items,
            "value_bytes": group.dataset.value_bytes,
        },
        "took_s": round(time.monotonic() - begun, 1),
        **result,
    }
    folder = report.results_folder(quick)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{group.name}.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data, under two minutes")
    parser.add_argument("--only", choices=list(GROUPS), action="append", help="these groups alone")
    parser.add_argument("--items", type=int, help="instead of a million (steps of 100)")
    parser.add_argument("--scratch", type=Path, help="folder for the stores (default: temporary)")
    options = parser.parse_args(arguments)
    groups = QUICK if options.quick else GROUPS
    chosen = [groups[name] for name in options.only or groups]
    left_out: dict[tuple[Dataset, str], str] = {}
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-", dir=options.scratch) as scratch:
        for group in chosen:
            group_run = run_group(
                Path(scratch), left_out, resized(group, options.items), options.quick
            )
            asyncio.run(group_run)
    say("")
    report.main(["--quick"] if options.quick else [])


if __name__ == "__main__":
    main()
