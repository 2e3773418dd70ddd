"""A quota that is reached under an open store: its own error, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest

import kvstore
from tests.faults.crash_states import compile_preloaded

ROOT = Path(__file__).parents[2]
NS = ("a",)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None,
        reason="the quota is a preloaded library: it needs Linux and a C compiler",
    ),
]


async def answer(call: Awaitable[object]) -> str:
    """Return what becomes of a call that needs room."""
    try:
        return f"done: {await call}"
    except kvstore.StoreFullError as exc:
        return "its message holds a value" if "xxxx" in str(exc) else "full"


async def live(path: Path, reached: Path) -> None:
    """Write before, under and after a quota, and print how it went."""
    many = {str(number): "x" * 1_000 for number in range(100)}
    async with kvstore.SQLiteStore(path, durability="full") as store:
        await store.put_many(NS, many)
        reached.touch()
        for call in (
            store.put(("b",), "k", "x" * 50_000),
            store.put_many(("b",), many),
            store.transact(lambda tx: tx.put(("b",), "k", "x" * 50_000)),
            store.backup(path.with_name("backup.db")),
            store.export_items(path.with_name("export.jsonl")),
        ):
            print(await answer(call))
        print(len(await store.get_many(NS, list(many))), await store.count(("b",)))
        reached.unlink()
        await store.put(("b",), "k", 1)
    async with kvstore.SQLiteStore(path) as store:
        reached.touch()
        print(await store.count(NS), await store.count(("b",)), (await store.check()).ok)
    print(sorted(file.name for file in path.parent.iterdir()))


def test_a_quota_that_is_reached_is_told_as_what_it_is(tmp_path: Path) -> None:
    library = compile_preloaded(Path(__file__).with_name("quota.c"), tmp_path)
    folder, reached = tmp_path / "stored", tmp_path / "reached"
    folder.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "QUOTA_DIRECTORY": str(folder),
        "QUOTA_REACHED": str(reached),
    }
    command = [sys.executable, "-m", "tests.faults.test_quota", folder / "store.db", reached]
    done = subprocess.run(
        list(map(str, command)),
        check=True,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.splitlines() == [*5 * ["full"], "100 0", "100 1 True", "['store.db']"]


if __name__ == "__main__":
    asyncio.run(live(*map(Path, sys.argv[1:])))
