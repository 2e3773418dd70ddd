"""Programs that share one file in ways that cost locks, run as `python -m tests.faults.crowds`.

Each increments a counter of its own for some seconds, and says at the end how often that was
acknowledged. What is missing from the counter then was lost.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import kvstore
from tests.faults.programs import NAMESPACE


def open_again(path: str) -> None:
    """Open and close the file by a second store of this process."""
    kvstore.KeyValueStore(path).close()


def look_with_stock_sqlite(path: str) -> None:
    """Open and close the file by another SQLite library, as any tool would."""
    connection = sqlite3.connect(path, timeout=30)
    try:
        connection.execute("SELECT count(*) FROM items").fetchone()
    except sqlite3.DatabaseError:  # the locks of its reads are lost to ours, and nothing else is
        pass
    finally:
        connection.close()


async def keep_open(path: str, disturb: Callable[[str], None], seconds: float) -> None:
    """Increment in a store that stays open, while another thread disturbs."""
    is_over = threading.Event()
    errors: list[BaseException] = []

    def disturb_often() -> None:
        try:
            while not is_over.wait(0.002):
                disturb(path)
        except Exception as exc:  # noqa: BLE001 - to be told
            errors.append(exc)

    thread = threading.Thread(target=disturb_often)
    ends = time.monotonic() + seconds
    async with kvstore.SQLiteStore(path, busy_timeout=30) as store:
        thread.start()
        acknowledged = 0
        try:
            while time.monotonic() < ends:
                await store.increment(NAMESPACE, "kept open")
                acknowledged += 1
        finally:
            is_over.set()
            await asyncio.to_thread(thread.join)
        problems = (await store.check()).problems
    print("kept open", acknowledged, *errors, *problems, sep="|", flush=True)


async def open_often(path: str, seconds: float) -> None:
    """Increment in stores that are open for a moment, and close as if they were the last."""
    ends = time.monotonic() + seconds
    acknowledged = 0
    while time.monotonic() < ends:
        async with kvstore.SQLiteStore(path, busy_timeout=30) as store:
            for _ in range(20):
                await store.increment(NAMESPACE, "opened often")
                acknowledged += 1
    print("opened often", acknowledged, sep="|", flush=True)


def main(what: str, path: Path, seconds: float) -> None:
    if what == "open_often":
        asyncio.run(open_often(str(path), seconds))
    else:
        disturb = {"second_store": open_again, "stock_sqlite": look_with_stock_sqlite}[what]
        asyncio.run(keep_open(str(path), disturb, seconds))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
