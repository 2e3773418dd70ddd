"""Processes of every kind on one file, killed at random, and what they saw, judged.

`python -m tests.faults.histories --seconds 3600 --kills 1000 --file /tmp/histories.db` runs rounds
until both are reached. In each round the processes (tasks of a store, threads of the sync facade,
the LangGraph adapter, the command line, and SQLite's own tools) append to lists and read them, and
are killed and started again. What they write down before and after each call must be strictly
serializable (see `list_append`), and nothing acknowledged may be missing at the end of the round.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kvstore
from kvstore.errors import StoreBusyError
from kvstore.flow import KeyValueStore
from tests.faults.list_append import Transaction, faults_of

__all__ = ["WORKERS", "Outcome", "run_round"]

ROOT = Path(__file__).parents[2]
NAMESPACE = ("flow", "project")  # where the sync facade keeps its keys
SHARED = 4  # lists that all append to
EXPECTED = (StoreBusyError, kvstore.ConflictError)  # a call that fails so has changed nothing


def _elements(value: Any) -> list[int]:
    """Return the list in a value: plain, or in an object, as LangGraph has it."""
    found: list[int] = value["elements"] if isinstance(value, dict) else value or []
    return found


KINDS = ("tasks", "doors", "threads", "langgraph", "commands", "outside")  # of a round


class Worker:
    """What a process does until its time is over, and what it writes down about it.

    Args:
        path: the store's file.
        log: where it writes.
        number: tells it from all others of a round.
        prefix: of the round's keys.
        until: the end, on `time.monotonic`, a clock that all processes share.
    """

    def __init__(self, path: str, log: str, number: int, prefix: str, until: float) -> None:
        self.path = path
        self.chance = random.Random(number)
        self.keys = [f"{prefix}{each}" for each in range(SHARED)]
        self.own_key = f"{prefix}own-{number}"  # written by this process alone
        self.number = number
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._counter = itertools.count()
        self._until = until

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._until

    def new(self) -> int:
        """Return an element that was never used before."""
        return self.number * 1_000_000 + next(self._counter)

    def some_keys(self) -> list[str]:
        return self.chance.sample(self.keys, self.chance.randrange(1, 4))

    @contextmanager
    def call(self, name: str, *appends: tuple[str, int]) -> Iterator[dict[str, list[int]]]:
        """Write down that a call begins, and how it ends; gives where to put what it reads."""
        identity = self.new()
        began = {"id": identity, "name": name, "began": time.monotonic(), "appends": appends}
        os.write(self._log, json.dumps(began).encode() + b"\n")
        reads: dict[str, list[int]] = {}
        has_failed = False
        try:
            yield reads
        except EXPECTED:
            has_failed = True
        ended = {
            "id": identity,
            "ended": time.monotonic(),
            "failed": has_failed,
            "reads": {} if has_failed else reads,
        }
        os.write(self._log, json.dumps(ended).encode() + b"\n")


async def tasks(worker: Worker) -> None:
    """Tasks of one store."""

    async def work(store: kvstore.Store) -> None:
        while not worker.is_over:
            keys = worker.some_keys()
            appends = [(key, worker.new()) for key in keys]
            kind = worker.chance.choice(("append", "append", "transact", "get", "get_many"))
            if kind == "append":
                with worker.call("append", appends[0]):
                    await store.append(NAMESPACE, *appends[0])
            elif kind == "transact":
                with worker.call("transact", *appends) as reads:
                    reads.update(await store.transact(lambda tx, a=appends: _append_all(tx, a)))  # type: ignore[misc]
            elif kind == "get":
                with worker.call("get") as reads:
                    item = await store.get(NAMESPACE, keys[0])
                    reads[keys[0]] = _elements(item and item.value)
            else:
                with worker.call("get_many") as reads:
                    items = await store.get_many(NAMESPACE, keys)
                    reads.update(
                        {key: _elements(key in items and items[key].value) for key in keys}
                    )
            await asyncio.sleep(worker.chance.choice((0, 0.001, 0.01)))

    durability: Any = worker.chance.choice(("normal", "full"))
    async with kvstore.SQLiteStore(worker.path, durability=durability, busy_timeout=30) as store:
        await asyncio.gather(*(work(store) for _ in range(4)))


async def doors(worker: Worker) -> None:
    """The same, while this process opens the file by other doors, and closes them again."""
    await _beside(_open_by_facade, worker)


async def strangers(worker: Worker) -> None:
    """The same, while another SQLite library in this process opens the file, and closes it."""
    await _beside(_open_by_stock_driver, worker)


async def _beside(door: Callable[[Worker], None], worker: Worker) -> None:
    async with asyncio.TaskGroup() as group:
        working = group.create_task(tasks(worker))
        while not working.done():
            await asyncio.to_thread(door, worker)
            await asyncio.sleep(worker.chance.uniform(0, 0.05))


def _open_by_facade(worker: Worker) -> None:
    with KeyValueStore(kvstore.SQLiteStore(worker.path, busy_timeout=30)) as facade:
        facade.retrieve("missing")


def _open_by_stock_driver(worker: Worker) -> None:
    connection = sqlite3.connect(worker.path, timeout=30)
    with suppress(sqlite3.OperationalError):  # locked
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    connection.close()


async def _append_all(tx: Any, appends: list[tuple[str, int]]) -> dict[str, list[int]]:
    seen = {}
    for key, element in appends:
        item = await tx.get(NAMESPACE, key)
        seen[key] = _elements(item and item.value)
        tx.put(NAMESPACE, key, [*seen[key], element])
    return seen


def threads(worker: Worker) -> None:
    """Threads of one sync facade."""

    def work() -> None:
        while not worker.is_over:
            key = worker.some_keys()[0]
            element = worker.new()
            kind = worker.chance.choice(("append", "append", "update", "retrieve"))
            if kind == "append":
                with worker.call("facade append", (key, element)):
                    facade.append(key, element)
            elif kind == "update":
                with worker.call("facade update", (key, element)) as reads:

                    def add(value: Any, key: str = key, element: int = element) -> Any:
                        reads[key] = _elements(value)
                        return [*reads[key], element]

                    facade.update(key, add)
            else:
                with worker.call("retrieve") as reads:
                    reads[key] = _elements(facade.retrieve(key))
            time.sleep(worker.chance.choice((0, 0.001, 0.01)))

    facade = KeyValueStore(kvstore.SQLiteStore(worker.path, busy_timeout=30))
    crowd = [threading.Thread(target=work) for _ in range(3)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    facade.close()


async def langgraph(worker: Worker) -> None:
    """The LangGraph adapter: it reads all lists, and writes one of its own whole."""
    from kvstore.integrations.langgraph import LangGraphStore

    elements: list[int] = []
    async with LangGraphStore(kvstore.SQLiteStore(worker.path, busy_timeout=30)) as store:
        while not worker.is_over:
            if worker.chance.random() < 0.5:
                element = worker.new()
                with worker.call("aput", (worker.own_key, element)):
                    await store.aput(NAMESPACE, worker.own_key, {"elements": [*elements, element]})
                    elements.append(element)
            else:
                key = worker.chance.choice([*worker.keys, worker.own_key])
                with worker.call("aget") as reads:
                    item = await store.aget(NAMESPACE, key)
                    reads[key] = _elements(item and item.value)
            await asyncio.sleep(worker.chance.choice((0, 0.001, 0.01)))


def commands(worker: Worker) -> None:
    """The command line's functions, each of which opens the file and closes it again."""
    elements: list[int] = []
    while not worker.is_over:
        if worker.chance.random() < 0.3:
            element = worker.new()
            with worker.call("put", (worker.own_key, element)):
                value = json.dumps([*elements, element])
                _command("put", worker.path, "/".join(NAMESPACE), worker.own_key, value)
                elements.append(element)
        else:
            key = worker.chance.choice([*worker.keys, worker.own_key])
            with worker.call("command get") as reads:
                said = _command("get", worker.path, "/".join(NAMESPACE), key, "--json")
                reads[key] = _elements(json.loads(said)["value"]) if said else []
        time.sleep(worker.chance.choice((0, 0.01, 0.05)))


def _command(*words: str) -> str:
    """Run a command in this process; return what it prints."""
    from kvstore.cli.commands import run

    output, error = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    sys.argv[1:] = words
    sys.stdout, sys.stderr = output, error
    try:
        code = run()
    finally:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    for stream in (output, error):
        stream.seek(0)
    said = error.read()
    if code == 3 and "locked" in said:
        raise StoreBusyError(said)
    if code not in (0, 1):
        raise RuntimeError(f"{words[0]}: {code} {said}")
    return output.read() if code == 0 else ""


def outside(worker: Worker) -> None:
    """SQLite's own tools, in the shape of Python's `sqlite3`: they read, check and checkpoint."""
    while not worker.is_over:
        connection = sqlite3.connect(worker.path, timeout=30)
        try:
            with suppress(sqlite3.OperationalError):  # locked
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                if worker.chance.random() < 0.3:
                    mode = worker.chance.choice(("PASSIVE", "RESTART", "TRUNCATE"))
                    connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
                if worker.chance.random() < 0.1:
                    assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        finally:
            connection.close()
        time.sleep(worker.chance.uniform(0, 0.1))


WORKERS: dict[str, Callable[[Worker], Any]] = {
    worker.__name__: worker
    for worker in (tasks, doors, strangers, threads, langgraph, commands, outside)
}


@dataclass
class Outcome:
    """What rounds have shown."""

    rounds: int = 0
    calls: int = 0
    acknowledged: int = 0
    kills: int = 0
    faults: list[str] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.faults = self.faults or []

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.calls:,} calls, {self.acknowledged:,} acknowledged, "
            f"{self.kills} kills, {len(self.faults)} faults"
        )


@dataclass
class _Running:
    kind: str
    process: subprocess.Popen[bytes]


class Round:
    """A round: its processes, and their logs.

    Args:
        path: the store's file, which may hold what earlier rounds left.
        directory: for logs.
        seed: decides who is killed when, but not how the processes meet.
        seconds: how long it takes.
        pause: seconds between two kills, on average.
    """

    def __init__(
        self, path: Path, directory: Path, seed: int, seconds: float, pause: float
    ) -> None:
        self._path = path
        self._directory = directory
        self._chance = random.Random(seed)
        self._prefix = f"round-{seed}-"
        self._seconds = seconds
        self._pause = pause
        self._numbers = itertools.count(1)
        self.kills = 0

    def run(self, kinds: tuple[str, ...]) -> list[str]:
        """Run it; return what went wrong with the processes themselves."""
        until = time.monotonic() + self._seconds
        running = [self._start(kind, until) for kind in kinds]
        wrong = []
        while time.monotonic() < until:
            time.sleep(min(self._chance.expovariate(1 / self._pause), self._seconds / 3))
            victim = self._chance.choice(running)
            if victim.process.poll() is None and time.monotonic() < until - 1:
                victim.process.send_signal(signal.SIGKILL)
                victim.process.wait()
                self.kills += 1
                running.remove(victim)
                running.append(self._start(victim.kind, until))
        for each in running:
            try:
                code = each.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                each.process.kill()
                code = "it hangs"  # type: ignore[assignment]
            if code != 0:
                wrong.append(f"a process of {each.kind} ended with {code}")
        return wrong

    def _start(self, kind: str, until: float) -> _Running:
        number = next(self._numbers)
        log = self._directory / f"{number}.log"
        command = [sys.executable, "-m", "tests.faults.histories", "--work", kind]
        command += [str(self._path), str(log), str(number), self._prefix, str(until)]
        return _Running(kind, subprocess.Popen(command, cwd=ROOT))

    def transactions(self) -> list[Transaction]:
        """Return what the logs say."""
        found: list[Transaction] = []
        for log in sorted(self._directory.glob("*.log")):
            calls: dict[int, Transaction] = {}
            for line in log.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    continue  # the kill came here
                said = json.loads(line)
                if "name" in said:
                    appends = [(key, element) for key, element in said["appends"]]
                    name = f"{log.stem}:{said['name']}"
                    calls[said["id"]] = Transaction(name, said["began"], appends=appends)
                else:
                    call = calls[said["id"]]
                    call.ended = said["ended"]
                    call.has_failed = said["failed"]
                    call.reads = [(key, tuple(seen)) for key, seen in said["reads"].items()]
            found += calls.values()
        return found

    async def final(self) -> tuple[dict[str, tuple[int, ...]], list[str]]:
        """Return what the lists hold, and what `check` has against the file."""
        try:
            async with kvstore.open(self._path) as store:
                report = await store.check()
                keys = await store.keys(NAMESPACE, f"{self._prefix}*")
                items = await store.get_many(NAMESPACE, keys)
        except kvstore.StoreError as exc:
            return {}, [f"the file cannot be read: {exc}"]
        lists = {key: tuple(_elements(item.value)) for key, item in items.items()}
        return lists, [f"check: {problem}" for problem in report.problems]


def run_round(
    path: Path,
    seed: int,
    *,
    seconds: float,
    pause: float,
    kinds: tuple[str, ...] = KINDS,
) -> Outcome:
    """Run a round, and judge it."""
    with tempfile.TemporaryDirectory(prefix="kvstore-histories-") as directory:
        this = Round(path, Path(directory), seed, seconds, pause)
        faults = this.run(kinds)
        transactions = this.transactions()
        final, problems = asyncio.run(this.final())
        faults += problems or itertools.islice(faults_of(transactions, final), 20)
    return Outcome(
        rounds=1,
        calls=len(transactions),
        acknowledged=sum(each.ended < math.inf for each in transactions),
        kills=this.kills,
        faults=faults,
    )


def main() -> int:
    """Run rounds, or be one of a round's processes."""
    if sys.argv[1:2] == ["--work"]:
        kind, path, log, number, prefix, until = sys.argv[2:]
        work = WORKERS[kind](Worker(path, log, int(number), prefix, float(until)))
        if asyncio.iscoroutine(work):
            asyncio.run(work)
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="at least")
    parser.add_argument("--kills", type=int, default=0, help="at least")
    parser.add_argument("--file", type=Path, required=True, help="made if it is missing")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--kinds", nargs="+", choices=WORKERS, default=KINDS, help="of a round")
    asked = parser.parse_args()
    total, path = Outcome(), asked.file
    began = time.monotonic()
    for seed in itertools.count(asked.seed):
        spent = time.monotonic() - began
        if spent > asked.seconds and total.kills >= asked.kills:
            break
        one = run_round(path, seed, seconds=10, pause=1.5, kinds=tuple(asked.kinds))
        if one.faults:  # it stays, to be looked into
            path = asked.file.with_name(f"{asked.file.stem}-after-{seed}{asked.file.suffix}")
        total = Outcome(
            total.rounds + 1,
            total.calls + one.calls,
            total.acknowledged + one.acknowledged,
            total.kills + one.kills,
            total.faults + [f"round {seed}: {fault}" for fault in one.faults],
        )
        for fault in one.faults:
            print(f"round {seed}: {fault}", flush=True)
        print(f"{time.monotonic() - began:.0f} s: {total}", flush=True)
    return min(len(total.faults), 1)


if __name__ == "__main__":
    sys.exit(main())
