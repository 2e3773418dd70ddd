"""Stored files of earlier schemas, as SQL text: `python -m tests.sqlite.stored_files` adds today's.

Each is what `fill` leaves in a file. A test opens them all, and finds everything in its place.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path

import kvstore
from kvstore.sqlite.migrate import steps
from kvstore.testing import ManualClock

FOLDER = Path(__file__).parent / "stored"
NEWEST = len(steps())

ANN, CHAT, JOBS, OTHERS, EMPTY = ("users", "ann"), ("chats", "s1"), ("jobs",), ("others",), ("e",)
HISTORY_S = 10 * 366 * 86_400.0
YEAR_S = 366 * 86_400.0


async def fill(path: Path) -> None:
    """Make a file with something of everything that a store keeps."""
    clock = ManualClock()
    async with kvstore.open(
        path, clock=clock, history=HISTORY_S, sweep_interval=None, read_cache_bytes=0
    ) as store:
        await store.put(ANN, "name", {"first": "Ann", "photo": b"\x00\xff"})
        await store.put(ANN, "name", {"first": "Anna", "photo": b"\x00\xff"})
        await store.put((), "root", [1, 2.5, None, True, "\u00e9"])
        await store.put(ANN, "old", "expired", ttl=5)
        await store.put(ANN, "long", "lasting", ttl=100 * YEAR_S)
        await store.put(("users", "bob"), "gone", 1)
        clock.advance(10)
        await store.delete(("users", "bob"), "gone")
        log = store.log(CHAT)
        await log.append("a", "b", "c", "d")
        await log.trim(keep=3)
        await log.pop()
        await store.log(EMPTY).append("x")
        await store.log(EMPTY).trim(keep=0)
        queue = store.queue(JOBS, attempts=2, backoff=0)
        await queue.put("dead")
        for _ in range(2):
            await (await taken(queue)).retry(error="why")
        await queue.put("tried")
        await (await taken(queue)).retry(delay=0, error="once")
        await queue.put("named", unique="n")
        await queue.put("delayed", delay=3_600)
        await queue.put("new 1")
        await queue.put("new 2")
        await store.queue(OTHERS).put("held")
        await taken(store.queue(OTHERS, lease=600))


async def taken(queue: kvstore.Queue) -> kvstore.Job:
    job = await queue.take(timeout=0)
    assert job is not None
    return job


def store_text(path: Path, number: int) -> Path:
    """Write a file down as SQL text."""
    connection = sqlite3.connect(path)
    marks = [
        f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
        for name in ("application_id", "user_version")
    ]
    text = FOLDER / f"schema_{number}.sql"
    text.write_text("\n".join([*marks, *connection.iterdump()]) + "\n", "utf-8")
    connection.close()
    return text


def restore(text: Path, path: Path) -> None:
    """Make the file that a text tells of."""
    connection = sqlite3.connect(path)
    connection.executescript(text.read_text("utf-8"))
    connection.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(fill(Path(folder) / "store.db"))
        print(store_text(Path(folder) / "store.db", NEWEST))
