"""Seeded schedules of concurrent calls on a store: `python -m tests.simulation.schedules --help`.

Several tasks call one store. With a file, threads of the sync facade and other "processes" work on
it, too; calls are cancelled, statements fail, and at some instant a copy is taken of what a kill
would leave. The calls and their answers make a history, which must be linearizable; so must what
the copy holds, with what was acknowledged before it was taken. A seed that fails, fails again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import kvstore
from kvstore.memory import InMemoryBackend
from kvstore.sqlite.direct import DirectBackend, run_directly
from kvstore.sqlite.engine import writer
from kvstore.sqlite.file import Durability, FileOptions
from tests.disks import memory_directory
from tests.simulation.history import Call, History, explain, is_linearizable
from tests.simulation.scheduler import Scheduler, SimulatedLoop
from tests.simulation.simulated import backend_class, direct_backend_class, simulation

__all__ = ["KINDS", "Schedule", "ScheduleError", "empty_file", "run"]

NAMESPACE = ("simulated",)
REGISTERS = ("r0", "r1")
KEYS = (*REGISTERS, "count", "list")
_LAST = "z"  # put when all else is over
KINDS = ("memory", "file", "threads")
MOST_CANCELLED = 8  # calls of a schedule: each doubles the work of judging it
EXPECTED = (kvstore.StoreBusyError, kvstore.StoreFullError, kvstore.StoreAccessError)

StoreType = TypeVar("StoreType", bound=kvstore.Store)


class ScheduleError(AssertionError):
    """What a seed has shown."""


async def perform(  # noqa: C901 - a case for each kind of call
    store: kvstore.Store, call: Call, chance: random.Random
) -> tuple[Any, int]:
    """Make a call of a history; return the answer and the version of what it wrote, or 0."""
    match call.name, call.args:
        case "put", (key, value):
            return None, (await store.put(NAMESPACE, key, value)).version
        case "get", (key,):
            item = await store.get(NAMESPACE, key)
            return None if item is None else item.value, 0
        case "delete", (key,):
            return await store.delete(NAMESPACE, key), 0
        case "create", (key, value):
            return await _put_over(store, key, value, 0)
        case "replace", (key, old, new):
            item = await store.get(NAMESPACE, key)
            if item is None or item.value != old:
                return False, 0
            return await _put_over(store, key, new, item.version)
        case "increment", (key, amount) if chance.random() < 0.7:
            return await store.increment(NAMESPACE, key, amount), 0
        case "increment", (key, amount):
            item = await store.update(NAMESPACE, key, lambda total: total + amount, default=0)
            return item.value, item.version
        case "append", (key, *values):
            return await store.append(NAMESPACE, key, *values), 0
        case "pop", (key,):
            return await store.pop(NAMESPACE, key), 0
        case "put_many", (pairs,):
            items = await store.put_many(NAMESPACE, dict(pairs))
            return None, items[-1].version
        case "get_many", keys:
            items_by_key = await store.get_many(NAMESPACE, keys)
            return {key: item.value for key, item in items_by_key.items()}, 0
        case "delete_many", keys:
            return await store.delete_many(NAMESPACE, keys), 0
        case "keys", (head,):
            return await store.keys(NAMESPACE, f"{head}*"), 0
        case "swap", (one, other):
            return await store.transact(lambda tx: _swap(tx, one, other)), 0
    raise AssertionError(call)


async def _put_over(store: kvstore.Store, key: str, value: Any, version: int) -> tuple[bool, int]:
    try:
        return True, (await store.put(NAMESPACE, key, value, if_version=version)).version
    except kvstore.ConflictError:
        return False, 0


async def _swap(tx: Any, one: str, other: str) -> Any:
    items = [await tx.get(NAMESPACE, key) for key in (one, other)]
    if None in items:
        return None
    await tx.put(NAMESPACE, one, items[1].value)
    await tx.put(NAMESPACE, other, items[0].value)
    return items[1].value, items[0].value


class Schedule:
    """One run: who calls what when, all by a seed."""

    def broken(self, store_class: type[StoreType]) -> type[StoreType]:
        """Return a store's class; a test of the simulation itself gives a faulty one."""
        return store_class

    def __init__(self, seed: int, directory: Path) -> None:
        self.scheduler = Scheduler(seed)
        self.chance = self.scheduler.random
        self.path = directory / "store.db"
        self.history = History()
        self._last_value = 0
        self._versions: list[tuple[int, float, int]] = []  # of writes: began, ended, version
        self._feed: list[kvstore.Change] | None = None  # what a watch saw, if there was one
        self._snapshot: tuple[int, Path] | None = None
        self._cancel_share = self.chance.choice((0.0, 0.1, 0.3))
        self._cancelled = 0
        self._fault_share = self.chance.choice((0.0, 0.0, 0.005, 0.03))

    simulation = staticmethod(simulation)

    # What there is to call

    def _value(self) -> int:
        self._last_value += 1
        return self._last_value

    def _seen(self, key: str) -> Any:
        """Return a value that a register may have."""
        values = [
            call.args[1] for call in self.history.calls if call.name in {"put", "create"}
            and call.args[0] == key
        ]  # fmt: skip
        return self.chance.choice(values[-3:]) if values else 0

    def _call(self) -> Call:
        chance = self.chance
        key = chance.choice(REGISTERS)
        name = chance.choice(
            ("put", "put", "get", "get", "delete", "create", "replace", "increment", "increment",
             "append", "append", "pop", "put_many", "get_many", "get_many", "delete_many", "keys",
             "swap")
        )  # fmt: skip
        arguments: tuple[Any, ...]
        match name:
            case "put" | "create":
                arguments = (key, self._value())
            case "get":
                arguments = (chance.choice(KEYS),)
            case "replace":
                arguments = (key, self._seen(key), self._value())
            case "increment":
                arguments = ("count", chance.randrange(1, 4))
            case "append":
                arguments = ("list", *(self._value() for _ in range(chance.randrange(1, 3))))
            case "pop":
                arguments = ("list",)
            case "put_many":
                arguments = (tuple((each, self._value()) for each in REGISTERS),)
            case "get_many":
                arguments = KEYS
            case "delete_many" | "swap":
                arguments = REGISTERS
            case "keys":
                arguments = ("r",)
            case _:
                arguments = (key,)
        return self.history.begin(name, *arguments)

    async def _perform(self, store: kvstore.Store) -> None:
        call = self._call()
        try:
            answer, version = await perform(store, call, self.chance)
        except (kvstore.ConflictError, *EXPECTED):
            self.history.failed(call)
        else:
            self.history.answered(call, answer)
            if version:
                self._versions.append((call.began, call.ended, version))

    # Who calls

    async def _task(self, store: kvstore.Store, calls: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(calls):
            task = loop.create_task(self._perform(store))
            is_cancelled = self.chance.random() < self._cancel_share
            if is_cancelled and self._cancelled < MOST_CANCELLED:
                self._cancelled += 1
                after = self.chance.choice((0.0, 0.00001, 0.0001, 0.001))
                loop.call_later(self.chance.uniform(0, after), task.cancel)
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
            pause = self.chance.choice((None, None, 0, 0.0001, 0.01))
            if pause is not None:
                await asyncio.sleep(pause)

    def _thread(self, store: kvstore.Store, calls: int) -> None:
        for _ in range(calls):
            run_directly(self._perform(store))
            if self.chance.random() < 0.5:
                self.scheduler.sleep(self.chance.choice((0.0001, 0.01)))

    def _photograph(self) -> None:
        """Copy the file as a kill would leave it."""
        self.scheduler.sleep(self.chance.uniform(0, 0.02))
        copy = self.path.with_name("killed.db")
        for suffix in ("", "-wal"):
            file = self.path.with_name(self.path.name + suffix)
            if file.exists():
                shutil.copyfile(file, copy.with_name(copy.name + suffix))
        self._snapshot = (self.history.instant, copy)

    # The runs

    async def _on_a_loop(
        self, store: kvstore.Store, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        async with store:
            watch = None
            if self.chance.random() < 0.5:
                changes = await store.watch(NAMESPACE).__aenter__()
                watch = asyncio.create_task(self._watch(changes))
            begin()
            count = self.chance.choice((1, 2, 4, 8, 12))
            tasks = [self._task(store, max(2, 24 // count)) for _ in range(count)]
            await asyncio.gather(*tasks)
            end()
            if watch is not None:
                await store.put(NAMESPACE, _LAST, 0)
                await watch

    async def _watch(self, changes: AsyncIterator[kvstore.Change]) -> None:
        """Take note of every change, up to the last one."""
        self._feed = []
        try:
            async for change in changes:
                self._feed.append(change)
                if change.key == _LAST:
                    return
        except EXPECTED:  # a statement of its own failed
            self._feed = None

    def run_memory(self) -> None:
        store = self.broken(kvstore.Store)(InMemoryBackend(), clock=self.scheduler.time)
        with self.simulation(self.scheduler):
            loop = SimulatedLoop(self.scheduler, is_shuffled=self.chance.random() < 0.5)
            loop.finish(self._on_a_loop(store, lambda: None, lambda: None))
        self._judge(self.history)

    def run_file(self) -> None:
        """Tasks on a loop, and other processes on the same file."""
        scheduler = self.scheduler
        pages = mock.patch.object(writer, "CHECKPOINT_PAGES", self.chance.choice((9, 99, 2_000)))
        with pages, self.simulation(scheduler) as faults:
            options = self._options()
            durability: Durability = self.chance.choice(
                ("normal", "full")
            )  # inline writes, or none
            backend = backend_class(scheduler)(replace(options, durability=durability))
            store = self.broken(kvstore.Store)(backend, clock=scheduler.time)
            others = [self._direct() for _ in range(self.chance.choice((0, 1, 2)))]

            def begin() -> None:
                faults.share = self._fault_share
                scheduler.spawn("camera", self._photograph)
                for number, other in enumerate(others):
                    scheduler.spawn(f"other {number}", lambda o=other: self._thread(o, 6))  # type: ignore[misc]

            def end() -> None:
                scheduler.run_threads()
                faults.share = 0.0
                for other in others:  # one whose ROLLBACK has failed keeps the lock until then
                    run_directly(other.close())

            loop = SimulatedLoop(scheduler, is_shuffled=self.chance.random() < 0.3)
            loop.finish(self._on_a_loop(store, begin, end))
        self._judge_file()

    def run_threads(self) -> None:
        """Threads of one sync facade, and another process."""
        scheduler = self.scheduler
        with self.simulation(scheduler) as faults:
            stores = [self._direct() for _ in range(2)]
            faults.share = self._fault_share
            scheduler.spawn("camera", self._photograph)
            for number in range(self.chance.choice((2, 4))):
                scheduler.spawn(f"thread {number}", lambda: self._thread(stores[0], 6))
            scheduler.spawn("other", lambda: self._thread(stores[1], 6))
            try:
                scheduler.run_threads()
            finally:
                scheduler.kill_threads()
            faults.share = 0.0
            for store in stores:
                scheduler.spawn("close", lambda s=store: run_directly(s.close()))  # type: ignore[misc]
            scheduler.run_threads()
        self._judge_file()

    def _options(self) -> FileOptions:
        return FileOptions(self.path, busy_timeout=self.chance.choice((0.0, 0.01, 5.0)))

    def _direct(self) -> kvstore.Store:
        backend = direct_backend_class(self.scheduler)(self._options())
        twin = self.broken(kvstore.Store)(backend, clock=self.scheduler.time)
        run_directly(twin.open())
        return twin

    # Whether it is right

    def _judge_file(self) -> None:
        self._look_into(self.history, self.path)
        if self._snapshot is not None:
            instant, copy = self._snapshot
            self._look_into(self.history.until(instant), copy)

    def _look_into(self, history: History, path: Path) -> None:
        """Judge a history with what is in a file at its end."""
        store = kvstore.Store(DirectBackend(FileOptions(path)))
        run_directly(store.open())
        call = history.begin("get_many", *KEYS)
        try:
            answer, _ = run_directly(perform(store, call, self.chance))
        finally:
            run_directly(store.close())
        history.answered(call, answer)
        self._judge(history)

    def _judge(self, history: History) -> None:
        if not is_linearizable(history):
            raise ScheduleError(f"not linearizable:\n{explain(history)}")
        by_version = sorted(self._versions, key=lambda write: write[2])
        latest_begin = 0
        for began, ended, version in by_version:
            if ended < latest_begin:
                raise ScheduleError(
                    f"version {version} was given after a later one:\n{explain(history)}"
                )
            latest_begin = max(latest_begin, began)
        if self._feed is not None:
            told = [change.version for change in self._feed]
            if told != sorted(set(told)):
                raise ScheduleError(f"changes out of order: {told}")
            if lost := {version for _, _, version in self._versions} - set(told):
                raise ScheduleError(f"changes that the watch lost: {sorted(lost)} of {told}")


def run(
    seed: int, kind: str, template: Path | None = None, schedule_class: type[Schedule] = Schedule
) -> Schedule:
    """Run a seed's schedule.

    Args:
        seed: which.
        kind: one of `KINDS`.
        template: the file of an empty store to begin with; `None`: each makes its own.
        schedule_class: another one to test the simulation itself.

    Raises:
        ScheduleError: it showed a fault; its message says how to see it again.
    """
    with memory_directory() as directory:
        schedule = schedule_class(seed, directory)
        if template is not None:
            shutil.copyfile(template, schedule.path)
        try:
            getattr(schedule, f"run_{kind}")()
        except Exception as exc:
            again = f"python -m tests.simulation.schedules --kind {kind} --first {seed} --seeds 1"
            raise ScheduleError(f"seed {seed} of {kind}: {exc}\n{again}") from exc
        return schedule


def empty_file(directory: Path) -> Path:
    """Make an empty store's file, to begin with: making one takes longer than a schedule."""
    path = directory / "empty.db"
    store = kvstore.Store(DirectBackend(FileOptions(path)))
    run_directly(store.open())
    run_directly(store.close())
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--kind", choices=KINDS, help="of schedule; all of them in turn")
    asked = parser.parse_args()
    failed = 0
    with memory_directory() as directory:
        template = empty_file(directory)
        for seed in range(asked.first, asked.first + asked.seeds):
            kind = asked.kind or KINDS[seed % len(KINDS)]
            try:
                run(seed, kind, template)
            except ScheduleError:
                failed += 1
                traceback.print_exc()
            if seed % 1_000 == 999:
                print(f"{seed + 1 - asked.first} schedules, {failed} failed", flush=True)
    print(f"{asked.seeds} schedules, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
