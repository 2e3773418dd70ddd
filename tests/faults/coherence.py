"""Reads from the cache against writers in other processes: none is older than what was told before.

    python -m tests.faults.coherence --reads 10000000

Writers count keys up, each by one transaction, and tell each number in shared memory once it is
acknowledged. Readers take the number that was told, then read: what they find must not be less. In
between, writers roll back, checkpoint in every way, vacuum, delete and put again, and are killed.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kvstore

NS = ("counters",)
KEYS = 8
_MODULE = "tests.faults.coherence"
_NUMBER = struct.Struct("=q")


class Told:
    """Numbers in shared memory, one for each key."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(KEYS * _NUMBER.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), KEYS * _NUMBER.size)

    def get(self, key: int) -> int:
        return int(_NUMBER.unpack_from(self._memory, key * _NUMBER.size)[0])

    def set(self, key: int, number: int) -> None:
        _NUMBER.pack_into(self._memory, key * _NUMBER.size, number)


async def write(folder: Path, seed: int, keys: range) -> None:
    """Count up those keys that are this writer's own, until killed."""
    chance, told = random.Random(seed), Told(folder / "told")
    numbers = {key: told.get(key) + 1 for key in keys}  # a kill may have come before the telling
    async with kvstore.open(folder / "a.db", sweep_interval=None) as store:
        while True:
            key = chance.choice(keys)
            numbers[key] += 1
            draw = chance.random()
            if draw < 0.02:
                await store.delete(NS, str(key))
            if draw < 0.5:
                await store.put(NS, str(key), numbers[key])
            elif draw < 0.9:
                await store.put_many(NS, {str(key): numbers[key], f"other{seed}": 1})
            else:
                await store.transact(lambda tx, key=key: tx.put(NS, str(key), numbers[key]))  # type: ignore[misc]
            told.set(key, numbers[key])
            if draw > 0.999:
                await store.vacuum()
            await asyncio.sleep(chance.random() / 500)


def disturb(folder: Path, seed: int) -> None:
    """Roll back and checkpoint as another program would, until killed."""
    import sqlite3

    chance = random.Random(seed)
    connection = sqlite3.connect(folder / "a.db", isolation_level=None, timeout=5)
    while True:
        try:
            if chance.random() < 0.5:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("UPDATE items SET value = '-1'")
                connection.execute("ROLLBACK")
            else:
                mode = chance.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))
                connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        except sqlite3.OperationalError:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        time.sleep(chance.random() / 50)


def start(folder: Path, role: str, seed: int) -> subprocess.Popen[bytes]:
    """Start a process of ours."""
    return subprocess.Popen([sys.executable, "-m", _MODULE, "--role", role, "--seed", str(seed),
                             "--folder", str(folder)])  # fmt: skip


async def judge(folder: Path, reads: int, seed: int = 1) -> tuple[int, int, list[str]]:
    """Read beside writers and disturbers; return the reads, the hits, and what was wrong."""
    chance, told = random.Random(seed), Told(folder / "told")
    wrong: list[str] = []
    async with kvstore.open(folder / "a.db", sweep_interval=None) as store:
        for key in range(KEYS):
            await store.put(NS, str(key), 0)
        roles = ["writer0", "writer1", "disturb"]
        others = [start(folder, role, seed + at) for at, role in enumerate(roles)]
        done = 0
        try:
            while sum(map(told.get, range(KEYS))) < 50:  # noqa: ASYNC110 - other processes begin
                await asyncio.sleep(0.05)
            while done < reads and not wrong:
                for _ in range(1_000):
                    key = chance.randrange(KEYS)
                    least = told.get(key)
                    item = await store.get(NS, str(key))
                    if item is not None and item.value < least:
                        wrong.append(f"read {item.value} of {key} after {least} was told")
                done += 1_000
                await asyncio.sleep(0)
                if chance.random() < 0.002:
                    at = chance.randrange(len(others))
                    others[at].send_signal(signal.SIGKILL)
                    others[at].wait()
                    others[at] = start(folder, roles[at], chance.randrange(10**6))
        finally:
            for other in others:
                other.kill()
                other.wait()
        return done, store.metrics().cache_hits if hasattr(store, "metrics") else -1, wrong


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--role", default="judge")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.role == "disturb":
        disturb(options.folder, options.seed)
    if options.role.startswith("writer"):
        half = KEYS // 2
        keys = range(half) if options.role == "writer0" else range(half, KEYS)
        asyncio.run(write(options.folder, options.seed, keys))
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        reads, hits, wrong = asyncio.run(judge(Path(folder), options.reads, options.seed))
        told = sum(Told(Path(folder, "told")).get(key) for key in range(KEYS))
    sys.stdout.write(
        f"{reads:,} reads beside {told:,} acknowledged writes in {time.monotonic() - began:.0f} s; "
        f"{hits:,} hits; wrong: {wrong or 'none'}\n"
    )
    return bool(wrong)


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[2])
    sys.exit(main())
