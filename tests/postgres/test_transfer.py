"""Items move between files and servers with nothing changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import kvstore
from kvstore import InMemoryStore, SQLiteStore
from kvstore.bulk import all_records
from kvstore.testing import ManualClock


async def test_a_file_moves_to_a_server_and_back_with_nothing_changed(
    postgres_url: str, tmp_path: Path
) -> None:
    clock = ManualClock()
    options: dict[str, Any] = {"clock": clock, "sweep_interval": None}
    first = SQLiteStore(tmp_path / "first.db", **options)
    second = SQLiteStore(tmp_path / "second.db", **options)
    server = kvstore.open(postgres_url, **options)
    memory = InMemoryStore(**options)
    async with first, second, server, memory:
        for namespace in [(), ("a",), ("a", "b\t\n\x00"), ("\U0010ffff",), ("A",)]:
            values = {
                "": None,
                "\x00": "\x00",
                "bytes": {"$bytes": b"\x00\xff", "n": [2**64 - 1, -0.0, 5e-324]},
                "order": {"z": 1, "a": 1.0, "\x00": "é🙂"},
            }
            await first.put_many(namespace, values)
            await first.put(namespace, "short", 1, ttl=50, index=["title"])
            clock.advance(1)
            await first.put(namespace, "order", {"b": 1, "a": 2}, index=False)
        await kvstore.copy(first, server)
        await kvstore.copy(server, second)
        await kvstore.copy(second, memory)
        pieces = [
            [record async for records in all_records(store, "") for record in records]
            for store in (first, server, second, memory)
        ]
    plain = [
        [
            (each.path, each.key, each.data, each.created_at, each.updated_at, each.expires_at,
             each.ttl, each.indexing)
            for each in records
        ]
        for records in pieces
    ]  # fmt: skip
    assert plain[0] == plain[1] == plain[2] == plain[3]
    assert len(plain[0]) == 25
    orders = [sorted(records, key=lambda each: each.version) for records in pieces]
    assert len({tuple((each.path, each.key) for each in order) for order in orders}) == 1


async def test_a_backup_is_an_export_of_one_instant(postgres_url: str, tmp_path: Path) -> None:
    """Pairs of items are always written together; a backup has both or neither."""
    file = tmp_path / "backup.jsonl"
    file.write_text("older")
    seen: list[tuple[int, int | None]] = []
    async with kvstore.open(postgres_url) as store, InMemoryStore() as restored:
        for root in "abc":
            await store.put_many((root,), {f"{number:04}": 0 for number in range(1_000)})
        await store.log(("log",)).append("a", "b", "c")
        await store.log(("log",)).pop()
        held = await store.queue(("jobs",)).put("later", delay=3_600, unique="u")
        number, is_over = 0, asyncio.Event()

        async def write() -> None:
            nonlocal number
            while not is_over.is_set():
                number += 1
                async with asyncio.timeout(30):
                    await store.put_many(("a",), {"0000": number, "0999": number})
                await store.put(("a",), f"new{number}", 1)

        writing = asyncio.create_task(write())
        await store.backup(file, progress=lambda *each: seen.append(each))
        is_over.set()
        await writing
        assert number > 0
        assert seen[-1] == (seen[-1][1], seen[-1][1])
        await restored.import_items(file)
        found = await restored.get_many(("a",), ["0000", "0999"])
        assert found["0000"].value == found["0999"].value
        assert await restored.count(("b",)) == 1_000
        assert await restored.log(("log",)).append("d") == 4
        assert await restored.queue(("jobs",)).put("again", unique="u") == held
