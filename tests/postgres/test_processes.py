"""Several processes over one database: they start at once, and write at once."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

import pytest

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore

PROCESSES = 4
PROGRAM = """
import asyncio, sys
import kvstore

async def main(url, me):
    async with kvstore.open(url, pool_size=2) as store:
        async def move(tx):
            taken = await tx.get(("queue",), "n")
            tx.put(("queue",), "n", taken.value + 1 if taken else 1)

        async def work(number):
            await store.put((me,), str(number), number)
            await store.put(("shared",), str(number), me)
            await store.increment(("counts",), "n")
            await store.append(("lists",), str(number % 5), me)

        await asyncio.gather(*(work(number) for number in range(50)))
        for _ in range(10):
            await store.transact(move, attempts=1_000)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_processes_share_a_database(empty_schema: str) -> None:
    programs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, empty_schema, f"process {number}"
        )
        for number in range(PROCESSES)
    ]
    assert [await program.wait() for program in programs] == [0] * PROCESSES
    async with PostgresStore(empty_schema) as store:
        assert await store.increment(("counts",), "n", 0) == PROCESSES * 50
        assert await store.increment(("queue",), "n", 0) == PROCESSES * 10
        assert await store.count(("shared",)) == 50
        for number in range(PROCESSES):
            assert await store.count((f"process {number}",)) == 50
        lists = [item.value async for item in store.scan(("lists",))]
        assert [len(each) for each in lists] == [PROCESSES * 10] * 5
        for root in await store.list_namespaces():
            versions = [item.version async for item in store.scan(root)]
            assert len(set(versions)) == len(versions)
        assert (await store.check()).ok


@pytest.mark.slow
async def test_a_process_that_is_killed_holds_nobody_up(empty_schema: str) -> None:
    endless = "while True: await store.increment(('counts',), 'n')"
    program = PROGRAM.replace("await asyncio.gather", f"{endless}\n        await asyncio.gather")
    numbers = count()
    async with PostgresStore(empty_schema, busy_timeout=10) as store:
        for _ in range(3):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, empty_schema, f"process {next(numbers)}"
            )
            before = await store.increment(("counts",), "n", 0)
            async with store.watch(("counts",)) as changes, asyncio.timeout(30):
                for _ in range(20):
                    await anext(changes)
            process.kill()
            await process.wait()
            assert await store.increment(("counts",), "n", 0) >= before + 20
