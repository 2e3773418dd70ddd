"""What must not cost by what the store holds, and what may hold up the loop for but a moment.

    python -m benchmarks.flat [--quick]

Each figure is the least of many calls, in namespaces of 1,000, 10,000 and 100,000 items; the bulk
calls are timed by the processor, so that other work on the machine counts for less. Writes
`results/flat.json` and prints the tables.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import orjson

import kvstore
from benchmarks.contenders import driver
from benchmarks.run import circumstances
from kvstore import IndexConfig, SQLiteStore

SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (1_000, 10_000)
CALLS = 40
BULK = 100_000
STALL_TICK_S = 0.001
_STALLS = ("stall_ms", "own_ms")
DECLARED = IndexConfig(fields=(), filters=("score", "status"))
NS = ("memories",)

Call = Callable[[], Awaitable[object]]


def value(number: int) -> dict[str, Any]:
    """Return a value of some 150 bytes."""
    status = ("open", "closed", "new")[number % 3]
    return {"score": number * 7919 % 100_003, "status": status, "text": "x" * 90, "n": number}


def looks(store: SQLiteStore, size: int) -> dict[str, Call]:
    """Return what is asked of a namespace, by name."""
    last = f"k{size - 1:06}"
    return {
        "get": lambda: store.get(NS, last),
        "the latest ten": lambda: store.search(NS),
        "the first ten by a declared path": lambda: store.search(NS, order_by="-$.score"),
        "one by a declared equality": lambda: store.search(NS, filter={"score": 7919}),
        "ten of a third, by a declared equality": lambda: store.search(
            NS, filter={"status": "new"}
        ),
        "count": lambda: store.count(NS),
        "the last key": lambda: store.keys(NS, reverse=True, limit=1),
        "the ten keys after one in the middle": lambda: store.keys(
            NS, after=f"k{size // 2:06}", limit=10
        ),
        "one by an equality that is not declared": lambda: store.search(NS, filter={"n": 5}),
    }


async def least(call: Call, calls: int) -> float:
    """Return the least time of a call, in milliseconds."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return min(times) * 1e3


async def measure_looks(folder: Path, sizes: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Return the least times by what is asked, and by the size of the namespace."""
    found: dict[str, dict[str, float]] = {}
    for size in sizes:
        async with SQLiteStore(folder / f"{size}.db", index=DECLARED) as store:
            for begin in range(0, size, 5_000):
                some = range(begin, min(size, begin + 5_000))
                await store.put_many(NS, {f"k{at:06}": value(at) for at in some})
            for name, call in looks(store, size).items():
                found.setdefault(name, {})[str(size)] = await least(call, CALLS)
    return found


async def measure_puts(folder: Path) -> dict[str, float]:
    """Return the processor time of a put in a namespace of which more is kept, by a plain one's."""
    asked = {
        "plain": None,
        "two declared filters, whose scalars stay": DECLARED,
        "two declared filters, whose scalars change": DECLARED,
        "its latest were asked for": None,
    }
    times: dict[str, list[float]] = {name: [] for name in asked}
    stores = {
        name: SQLiteStore(folder / f"put {at}.db", index=index)
        for at, (name, index) in enumerate(asked.items())
    }
    for name, store in stores.items():
        await store.open()
        await store.put_many(NS, {f"k{at:06}": value(at) for at in range(10_000)})
        if name.startswith("its"):
            for _ in range(4):
                await store.search(NS)
    for turn in range(60):
        for name, store in stores.items():
            began = time.process_time()
            for at in range(100):
                number = (turn * 7919 + at * 101) % 10_000
                changed = {"n": turn} if name.endswith("stay") else value(turn + at)
                await store.put(NS, f"k{number:06}", value(number) | changed)
            times[name].append(time.process_time() - began)
    for store in stores.values():
        await store.close()
    return {name: min(each) / min(times["plain"]) for name, each in times.items()}


def measure_indexes(folder: Path) -> dict[str, float]:
    """Return what SQLite's own indexes cost a put whose two scalars change: the floor of ours.

    The same rows and transactions in bare SQLite, with the scalars in columns, by one without.
    """
    columns = "version, created_at, updated_at, checksum, score, status, value"
    best: dict[int, float] = {}
    opened = {}
    for number in (0, 1, 2):
        raw = opened[number] = driver().connect(folder / f"raw {number}.db", isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
            raw.execute(f"PRAGMA {pragma}")
        raw.execute(
            f"CREATE TABLE items (id INTEGER PRIMARY KEY, path, key, {columns}, UNIQUE (path, key))"
        )
        raw.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
        raw.execute("INSERT INTO meta VALUES ('version', 0)")
        for name in ("score", "status")[:number]:
            raw.execute(f"CREATE INDEX by_{name} ON items (path, {name})")
        raw.execute("BEGIN")
        for at in range(10_000):
            raw.execute(
                f"INSERT INTO items (path, key, {columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ("memories\t", f"k{at:06}", at, 1, 1, 1, *_scalars(value(at))),
            )
        raw.execute("COMMIT")
    update = (
        "UPDATE items SET version = ?, updated_at = ?, checksum = ?, score = ?, status = ?, "
        "value = ? WHERE path = ? AND key = ?"
    )
    for turn in range(60):
        for number, raw in opened.items():
            began = time.process_time()
            for at in range(100):
                key = f"k{(turn * 7919 + at * 101) % 10_000:06}"
                scalars = _scalars(value(turn + at))
                raw.execute("BEGIN IMMEDIATE")
                raw.execute(update, (turn, 1, 1, *scalars, "memories\t", key))
                raw.execute("UPDATE meta SET value = ? WHERE name = 'version'", (turn * 100 + at,))
                raw.execute("COMMIT")
            best[number] = min(best.get(number, 1e9), time.process_time() - began)
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return {
        f"bare SQLite, {number} of its own indexes that change": best[number] / best[0]
        for number in (1, 2)
    }


def _scalars(value: dict[str, Any]) -> tuple[int, str, str]:
    return value["score"], value["status"], orjson.dumps(value).decode()


class Stall:
    """How late the loop was at worst while a block ran, in milliseconds.

    Attributes:
        worst: by the wall's clock, in which other processes and threads have their part.
        own: the processor time that the loop's thread spent on end, at most.
    """

    async def __aenter__(self) -> Self:
        self.worst = self.own = 0.0
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(5 * STALL_TICK_S)
        self.worst = self.own = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(5 * STALL_TICK_S)
        self._task.cancel()

    async def _tick(self) -> None:
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(STALL_TICK_S)
            self.own = max(self.own, (time.thread_time() - worked) * 1e3)
            self.worst = max(self.worst, (time.perf_counter() - began - STALL_TICK_S) * 1e3)


async def measure_bulk(folder: Path, number: int) -> dict[str, dict[str, float]]:
    """Return the items a second of processor time of each bulk call, and the worst stall."""
    found: dict[str, dict[str, float]] = {}
    items = {f"k{at:06}": value(at) for at in range(number)}
    export = folder / "items.jsonl"
    async with (
        SQLiteStore(folder / "one.db") as one,
        SQLiteStore(folder / "two.db") as two,
        SQLiteStore(folder / "three.db") as three,
    ):
        calls: dict[str, Call] = {
            "put_many": lambda: one.put_many(NS, items),
            "get_many": lambda: one.get_many(NS, items),
            "export": lambda: one.export_items(export),
            "import": lambda: two.import_items(export),
            "import over as many": lambda: two.import_items(export),
            "copy": lambda: kvstore.copy(one, three),
        }
        for name, call in calls.items():
            async with Stall() as stall:
                began = time.process_time()
                await call()
                spent = time.process_time() - began
            found[name] = {
                "per_second": number / spent,
                "stall_ms": stall.worst,
                "own_ms": stall.own,
            }
    return found


def show(result: dict[str, Any]) -> str:
    """Return the tables."""
    sizes = list(next(iter(result["looks"].values())))
    head = ["", *(f"{int(size):,} items" for size in sizes)]
    lines = [head, ["---"] + ["--:"] * len(sizes)]
    lines += [
        [name, *(f"{times[size]:.2f} ms" for size in sizes)]
        for name, times in result["looks"].items()
    ]
    lines += [[""], ["put over an item", "by a plain put's"], ["---", "--:"]]
    lines += [[name, f"{ratio:.2f}"] for name, ratio in result["puts"].items()]
    heads = "items a second of processor time", "worst stall", "longest work of the loop"
    lines += [[""], ["", *heads], ["---", "--:", "--:", "--:"]]
    lines += [
        [name, f"{each['per_second']:,.0f}", *(f"{each[ms]:.0f} ms" for ms in _STALLS)]
        for name, each in result["bulk"].items()
    ]
    return "\n".join("| " + " | ".join(line) + " |" if line != [""] else "" for line in lines)


async def measure(quick: bool) -> dict[str, Any]:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name:
        folder = Path(name)
        return {
            **circumstances(folder),
            "looks": await measure_looks(folder, QUICK_SIZES if quick else SIZES),
            "puts": await measure_puts(folder) | measure_indexes(folder),
            "bulk": await measure_bulk(folder, BULK // 10 if quick else BULK),
        }


def main() -> None:
    """Run everything, write the results and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flat", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data")
    quick = parser.parse_args().quick
    result = asyncio.run(measure(quick))
    print(show(result))
    if not quick:
        path = Path(__file__).parent / "results" / "flat.json"
        path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
