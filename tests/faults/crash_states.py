"""Every state that a crash of the machine could leave of a store, built and opened.

A child process works on a store with `recorder.c` preloaded, which writes down what reaches the
file system, and between that, what was acknowledged. At each point of such a trace, any of the
writes that were not synced may be on the disk or not, whole or in part; so may files that were made
or removed while their directory was not synced. Each state that follows must open and be sound.
With `durability="full"` it holds all that was acknowledged, and with `"normal"` all up to a point.

`KVSTORE_CRASH_TRACES=200` has the tests look into that many traces. Of all states, they open one of
each class of those that are alike (see `crash_classes`).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import random
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import kvstore
from kvstore.flow import KeyValueStore
from kvstore.sqlite.engine import writer

__all__ = [
    "SECTOR",
    "Event",
    "States",
    "compile_preloaded",
    "compile_recorder",
    "look_through",
    "record",
]

ROOT = Path(__file__).parents[2]
NAMESPACE = ("flow", "project")  # where the sync facade keeps its keys
SECTOR = 512  # bytes that a disk writes whole
_REMEMBERED = 2_000  # states, with what was found in them
_HEAD = struct.Struct("=cBQQ")


# What a child does


def options_of(seed: int) -> dict[str, Any]:
    """Return the options of a seed's store."""
    return {"index": kvstore.IndexConfig() if seed % 3 == 0 else None}


class Program:
    """A store's life of a few calls, with acknowledgements in the trace."""

    def __init__(self, path: str, seed: int, durability: str, trace: str) -> None:
        self._chance = random.Random(seed)
        self._options = {"durability": durability, **options_of(seed)}
        self._path = path
        self._number = 0
        self._trace = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _say(self, letter: bytes, what: object) -> None:
        data = json.dumps(what).encode()
        os.write(self._trace, _HEAD.pack(letter, 0, 0, len(data)) + data)

    def _store(self) -> kvstore.SQLiteStore:
        return kvstore.SQLiteStore(self._path, **self._options)

    async def run(self) -> None:
        setattr(writer, "CHECKPOINT_PAGES", self._chance.choice((5, 20, 60)))  # noqa: B010
        for _ in range(self._chance.randrange(1, 4)):
            if self._options["index"] is None and self._chance.random() < 0.3:
                self._use_facade()
                continue
            async with self._store() as store:
                for _ in range(self._chance.randrange(3, 12)):
                    await self._call(store)

    def _use_facade(self) -> None:
        with KeyValueStore(self._store()) as facade:
            for _ in range(self._chance.randrange(1, 6)):
                self._number += 1
                key = f"facade-{self._number}"
                self._say(b"B", {"puts": {key: self._number}})
                facade.insert(key, [self._number, "x" * self._chance.randrange(5_000)])
                self._say(b"A", {"puts": {key: None}})

    async def _call(self, store: kvstore.Store) -> None:
        self._number += 1
        kind = self._chance.choice(("put", "put", "many", "crowd", "delete", "count", "vacuum"))
        if kind == "put":
            await self._put(store, self._chance.choice(("a", "b", f"new-{self._number}")))
        elif kind == "crowd":
            keys = [f"crowd-{self._number}-{each}" for each in range(5)]
            await asyncio.gather(*(self._put(store, key) for key in keys))
        elif kind == "many":
            keys = [f"many-{self._number}-{each}" for each in range(4)]
            self._say(b"B", {"puts": dict.fromkeys(keys, self._number), "batch": keys})
            items = await store.put_many(NAMESPACE, {key: self._value() for key in keys})
            self._say(b"A", {"puts": {item.key: item.version for item in items}})
        elif kind == "delete":
            key = f"deleted-{self._number}"
            await store.put(NAMESPACE, key, self._value())
            await store.delete(NAMESPACE, key)
            self._say(b"A", {"deleted": key})
        elif kind == "count":
            self._say(b"B", {"count": 1})
            total = await store.increment(NAMESPACE, "count")
            self._say(b"A", {"count": total})
        elif self._chance.random() < 0.3:
            await store.vacuum()

    async def _put(self, store: kvstore.Store, key: str) -> None:
        self._say(b"B", {"puts": {key: self._number}})
        item = await store.put(NAMESPACE, key, self._value())
        self._say(b"A", {"puts": {key: item.version}})

    def _value(self) -> list[Any]:
        return [self._number, "word " * self._chance.choice((1, 10, 400, 2_000))]


# Traces


@dataclass(frozen=True, slots=True)
class Event:
    """What happened: W, T, U, S (see `recorder.c`), or B and A: a call began, was acknowledged."""

    kind: str
    name: str
    offset: int  # of a write; of a truncation, the length
    data: bytes


def compile_recorder(directory: Path) -> Path:
    """Return the recorder as a library."""
    return compile_preloaded(Path(__file__).with_name("recorder.c"), directory)


def compile_preloaded(source: Path, directory: Path) -> Path:
    """Return a library that can be preloaded into a process."""
    library = directory / f"{source.stem}.so"
    options = ("-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread")
    subprocess.run(["cc", *options], check=True)
    return library


def record(recorder: Path, directory: Path, seed: int, durability: str) -> list[Event]:
    """Run a seed's program, and return its trace."""
    stored, trace = directory / "stored", directory / "trace"
    stored.mkdir()
    command: list[str] = [
        sys.executable,
        "-m",
        "tests.faults.crash_states",
        str(stored / "store.db"),
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "RECORDED_DIRECTORY": str(stored),
        "RECORDED_TRACE": str(trace),
    }
    command += [str(seed), durability, str(trace)]
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
    return list(read_trace(trace.read_bytes()))


def read_trace(trace: bytes) -> Iterator[Event]:
    at = 0
    while at < len(trace):
        kind, name_size, offset, size = _HEAD.unpack_from(trace, at)
        at += _HEAD.size
        name = trace[at : at + name_size].decode()
        at += name_size
        data = trace[at : at + size] if kind in b"WAB" else b""
        at += len(data)
        yield Event(kind.decode(), name, offset, data)


# States


@dataclass
class File:
    """A file of a trace: what of it is on the disk for certain, and what may be."""

    certain: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)

    def sync(self) -> None:
        self.certain = bytearray(self.after(self.pending))
        self.pending.clear()

    def after(self, events: Iterable[Event]) -> bytes:
        """Return the content with some of the pending events on the disk."""
        content = bytearray(self.certain)
        for event in events:
            _apply(content, event.offset, event.data, event.kind == "T")
        return bytes(content)


def _apply(content: bytearray, offset: int, data: bytes, is_truncation: bool) -> None:
    if is_truncation:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class States:
    """The states of a directory that a crash could leave, at each point of a trace.

    Args:
        seed: chooses among them where there are too many.
        most: how many at each point. Up to so many, it is all of them, torn writes aside.
    """

    def __init__(self, seed: int, most: int) -> None:
        self._chance = random.Random(seed)
        self._most = most
        self.names: dict[str, File] = {}
        self._certain_names: dict[str, File] = {}
        self._pending_names: list[tuple[str, File | None]] = []
        self._seen: set[bytes] = set()

    def after(self, event: Event) -> Iterator[tuple[bytes, dict[str, bytes]]]:
        """Yield the states after the next event of the trace, each with its digest.

        Those that were there before come again with an acknowledgement, by which more is known.
        """
        self.take(event)
        if event.kind == "B":
            return
        here: set[bytes] = set()
        for state in self.possible():
            digest = self.digest(state)
            if digest not in here and (event.kind == "A" or digest not in self._seen):
                here.add(digest)
                yield digest, state
        self._seen |= here

    def digest(self, state: dict[str, bytes]) -> bytes:
        """Return what tells a state from others."""
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(state):
            digest.update(b"%s\0%d\0" % (name.encode(), len(state[name])) + state[name])
        return digest.digest()

    def take(self, event: Event) -> None:
        """Follow the trace."""
        match event.kind:
            case "W" | "T":
                if event.name not in self.names:
                    self.names[event.name] = File()
                    self._pending_names.append((event.name, self.names[event.name]))
                self.names[event.name].pending.append(event)
            case "U":
                self.names.pop(event.name, None)
                self._pending_names.append((event.name, None))
            case "S" if event.name:
                if event.name in self.names:
                    self.names[event.name].sync()
            case "S":
                self._certain_names = dict(self.names)
                self._pending_names.clear()

    def possible(self) -> Iterator[dict[str, bytes]]:
        """Yield states that a crash could leave now."""
        pending = sum(len(file.pending) for file in self.names.values())
        if 2**pending * (len(self._pending_names) + 1) <= self._most:
            for names in self.possible_names():
                events = [(name, event) for name, file in names.items() for event in file.pending]
                for kept in itertools.product((False, True), repeat=len(events)):
                    chosen = itertools.compress(events, kept)
                    yield _contents(names, [(name, event) for name, event in chosen])
            return
        for number in range(self._most):
            names = self._after_names(self._chance.randrange(len(self._pending_names) + 1))
            if number < 2:  # what a kill of the process leaves, and the least that there is
                names = self.names if number == 0 else self._certain_names
            yield _contents(
                names,
                [
                    (name, event)
                    for name, file in names.items()
                    for event in (file.pending if number == 0 else self.some(file.pending, number))
                ],
            )

    def possible_names(self) -> Iterator[dict[str, File]]:
        """Yield what may be in the directory: all that was done to it up to some point."""
        for count in range(len(self._pending_names) + 1):
            yield self._after_names(count)

    def _after_names(self, count: int) -> dict[str, File]:
        names = dict(self._certain_names)
        for name, file in self._pending_names[:count]:
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
        return names

    def some(self, pending: list[Event], number: int) -> list[Event]:
        """Choose among unsynced writes."""
        if number == 1:
            return []
        match self._chance.randrange(4):
            case 0:  # up to a point, and that one torn
                count = self._chance.randrange(len(pending) + 1)
                return [*pending[:count], *map(self._torn, pending[count : count + 1])]
            case 1:  # the latest ones alone
                return pending[self._chance.randrange(len(pending) + 1) :]
            case 2:  # all but one
                without = self._chance.randrange(len(pending) + 1)
                return [event for index, event in enumerate(pending) if index != without]
        share = self._chance.random()
        return [
            self._torn(event) if self._chance.random() < 0.2 else event
            for event in pending
            if self._chance.random() < share
        ]

    def _torn(self, event: Event) -> Event:
        """Return a part of a write, up to or from the border of a sector."""
        first = event.offset // SECTOR + 1
        borders = range(first * SECTOR, event.offset + len(event.data), SECTOR)
        if event.kind == "T" or not borders:
            return event
        border = self._chance.choice(borders) - event.offset
        if self._chance.random() < 0.5:
            return Event("W", event.name, event.offset, event.data[:border])
        return Event("W", event.name, event.offset + border, event.data[border:])


def _contents(names: dict[str, File], events: list[tuple[str, Event]]) -> dict[str, bytes]:
    """Return what files hold of which some unsynced events are on the disk."""
    contents = {name: bytearray(file.certain) for name, file in names.items()}
    for name, event in events:
        _apply(contents[name], event.offset, event.data, event.kind == "T")
    return {name: bytes(content) for name, content in contents.items()}


# What a state must hold


class Knowledge:
    """What was begun and acknowledged, up to a point of a trace and in the whole of it."""

    def __init__(self, events: list[Event]) -> None:
        self.versions: dict[str, list[int]] = {}  # of every put in the trace, by key
        self.batches: list[list[str]] = []
        for event in events:
            said = json.loads(event.data) if event.kind in "AB" else {}
            if event.kind == "A":
                for key, version in said.get("puts", {}).items():
                    if version is not None:
                        self.versions.setdefault(key, []).append(version)
            elif "batch" in said:
                self.batches.append(said["batch"])
        self.begun: set[str] = set()
        self.acknowledged: dict[str, int] = {}  # the latest version of a key; 0: unknown
        self.deleted: set[str] = set()
        self.counted = 0  # increments that were acknowledged
        self.counts = 0  # that were begun

    def learn(self, event: Event) -> None:
        """Take note of the next event."""
        if event.kind not in "AB":
            return
        said = json.loads(event.data)
        if event.kind == "B":
            self.begun |= said.get("puts", {}).keys()
            self.counts += said.get("count", 0)
            return
        self.counted = max(self.counted, said.get("count", 0))
        if "deleted" in said:
            self.deleted.add(said["deleted"])
        for key, version in said.get("puts", {}).items():
            self.acknowledged[key] = max(self.acknowledged.get(key, 0), version or 0)

    def faults(self, items: dict[str, Seen], durability: str) -> Iterator[str]:
        """Yield what is wrong with what a state holds."""
        count = items["count"].value if "count" in items else 0
        if count > self.counts:
            yield f"count is {count} after {self.counts} increments"
        for key in items:
            if key not in self.begun and key != "count" and not key.startswith("deleted-"):
                yield f"{key} is there, which nobody had begun to put"
        for batch in self.batches:
            if 0 < sum(key in items for key in batch) < len(batch):
                yield f"a part of {batch} is there"
        if durability == "full":
            if count < self.counted:
                yield f"count is {count}, and {self.counted} was acknowledged"
            for key in self.deleted & items.keys():
                yield f"{key} is there, and its deletion was acknowledged"
            for key, version in self.acknowledged.items():
                if key not in items or items[key].version < version:
                    yield f"{key} of version {version} was acknowledged, and is not there"
        latest = max((item.version for item in items.values()), default=0)
        for key, versions in self.versions.items():
            past = max((version for version in versions if version <= latest), default=0)
            if past and (key not in items or items[key].version < past):
                yield f"{key} of version {past} is missing, and version {latest} is there"


class Seen(NamedTuple):
    """What is looked at of an item."""

    version: int
    value: Any = None  # of a count


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found in a state that was opened."""

    problems: list[str]
    items: dict[str, Seen] | None  # `None`: it did not open


class Opener:
    """Opens states in a directory, those of equal content but once.

    An acknowledgement changes nothing on the disk, so that what may be there has mostly been seen.
    """

    def __init__(self, directory: Path, options: dict[str, Any]) -> None:
        self._directory = directory
        self._options = options
        self._latest: OrderedDict[bytes, Opened] = OrderedDict()

    async def open(self, digest: bytes, state: dict[str, bytes]) -> Opened:
        found = self._latest.pop(digest, None) or await self._open(state)
        self._latest[digest] = found
        if len(self._latest) > _REMEMBERED:
            self._latest.popitem(last=False)
        return found

    async def _open(self, state: dict[str, bytes]) -> Opened:
        for old in self._directory.iterdir():
            old.unlink()
        for name, content in state.items():
            (self._directory / name).write_bytes(content)
        try:
            path = self._directory / "store.db"
            async with kvstore.SQLiteStore(path, **self._options) as store:
                report = await store.check()
                items = {
                    item.key: Seen(item.version, item.value if item.key == "count" else None)
                    async for item in store.scan()
                }
                return Opened(list(report.problems), items)
        except kvstore.StoreError as exc:
            return Opened([f"it does not open: {exc}"], None)


async def look_through(
    events: list[Event], directory: Path, seed: int, durability: str, states: States
) -> tuple[int, list[str]]:
    """Judge the states of a trace; return how many there were, and what is wrong with them.

    Args:
        events: the trace.
        directory: an empty one, to build the states in.
        seed: that of the trace.
        durability: that of the store.
        states: gives them.
    """
    knowledge = Knowledge(events)
    opener = Opener(directory, options_of(seed))
    count = 0
    faults: list[str] = []
    for number, event in enumerate(events):
        knowledge.learn(event)
        for digest, state in states.after(event):
            count += 1
            opened = await opener.open(digest, state)
            found = list(opened.problems)
            if opened.items is not None:
                found += knowledge.faults(opened.items, durability)
            faults += [
                f"seed {seed}, {durability}, after event {number}: {fault}" for fault in found
            ]
        if len(faults) > 20:
            break
    return count, faults


if __name__ == "__main__":
    asyncio.run(Program(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]).run())
