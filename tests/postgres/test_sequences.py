"""Logs and queues on a server: other processes, long snapshots, broken connections."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, closing
from typing import Any

import pytest

from kvstore import InvalidKeyError, QueueSize
from kvstore.testing import ManualClock
from tests.faults.killing import kill_workers
from tests.waiting import until

from .server import Database, Server, reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import asyncpg

from kvstore.postgres import PostgresStore

JOBS, LOG = ("jobs",), ("log",)
WORKERS, NUMBER = 3, 60
ROUNDS = int(os.environ.get("KVSTORE_WORKER_ROUNDS", "20"))  # in each, a worker is killed
PROGRAM = """
import asyncio, sys
import kvstore

async def main(url):
    async with kvstore.open(url, pool_size=2) as store:
        queue, log = store.queue(("jobs",), lease=20), store.log(("log",))
        while (job := await queue.take(timeout=1)) is not None:
            def finish(tx):
                tx.log(("log",)).append(job.value)
                tx.done(job)
            async with job:
                await store.transact(finish)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_workers_in_several_processes_share_the_jobs(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        queue = store.queue(JOBS)
        await asyncio.gather(*(queue.put(number) for number in range(NUMBER)))
        workers = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, postgres_url)
            for _ in range(WORKERS)
        ]
        assert [await worker.wait() for worker in workers] == [0] * WORKERS
        assert await queue.size() == QueueSize(0, 0, 0, 0)
        entries = [entry async for entry in store.log(LOG).read()]
        assert [entry.position for entry in entries] == list(range(1, NUMBER + 1))
        assert sorted(entry.value for entry in entries) == list(range(NUMBER))
        assert (await store.check()).ok


@pytest.mark.slow
async def test_every_job_is_finished_once_whoever_is_killed() -> None:
    """Workers at random, and the server, too: now and then it crashes, and recovers."""
    with Server() as server, closing(Database(server.url)) as database:

        def crash(each_round: int) -> None:
            if each_round % 10 == 4:
                server.stop("immediate")
                server.start()

        with database.schema() as url:
            await kill_workers(url, ROUNDS, crash)


async def test_a_check_tells_what_is_not_true_of_a_queue(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, history=60) as store:
        await store.log(LOG).append(1, 2)
        await store.queue(JOBS).put("a", delay=5)
        await store.queue(JOBS).put("b")
        await store.put(("a",), "k", 1)
        await store.put(("a",), "k", 2)
        assert (await store.check()).ok
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute("UPDATE kvstore_sequences SET size = size + 1")
            await connection.execute("DELETE FROM kvstore_jobs WHERE state = 1")
            await connection.execute("UPDATE kvstore_items SET key = 'x' WHERE key LIKE '%2'")
            await connection.execute("UPDATE kvstore_past SET ended = 1000")
        finally:
            await connection.close()
        problems = "\n".join((await store.check()).problems)
    told = "log: ('log',): 1 are there", "0 jobs are delayed", "'x' is no job", "the past of ('a',)"
    for each in told:
        assert each in problems


async def test_another_store_wakes_a_taker_and_a_follower(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PostgresStore(postgres_url) as here, PostgresStore(postgres_url) as there:
        entries = here.log(LOG).follow()
        for number in range(4):  # the first time, nobody listens yet
            taking = asyncio.create_task(here.queue(JOBS).take(timeout=10))
            following = asyncio.ensure_future(anext(entries))
            await asyncio.sleep(0.01 * number)
            await there.queue(JOBS).put(number)
            job = await taking
            await there.log(LOG).append(number)
            assert (await following).value == number
            assert job is not None
            await job.done()
            await until(lambda: here.backend._news._connection is not None)
            monkeypatch.setattr("kvstore.postgres.changes.HEARD_POLL_S", 3_600.0)


async def test_what_was_done_costs_no_take_under_a_long_snapshot(postgres_url: str) -> None:
    """The rows of finished jobs stay as long as somebody may see them; no take looks at them."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(postgres_url))
        old, new = [await asyncpg.connect(postgres_url) for _ in range(2)]
        for connection in (old, new):
            stack.push_async_callback(connection.close)
        queue = store.queue(JOBS)
        await asyncio.gather(*(queue.put(number) for number in range(1_000)))
        await old.execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM kvstore_jobs"
        )

        async def work() -> None:
            while (job := await queue.take(timeout=0)) is not None:
                await job.done()

        await asyncio.gather(*(work() for _ in range(20)))
        await queue.put("one")

        async def pages(position: int) -> int:
            """How many pages it takes to find the first job that is ready, from a position on."""
            plan = await new.fetchval(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT position FROM kvstore_jobs "
                r"WHERE root = E'jobs\t' AND path = E'jobs\t' AND state = 0 AND due = 0 "
                f"AND position >= {position} ORDER BY position LIMIT 1"
            )
            node = json.loads(plan)[0]["Plan"]
            return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])

        head = await new.fetchval("SELECT head FROM kvstore_sequences")
        assert head == 1_001
        assert await pages(head) < 10
        assert await pages(0) > 2 * await pages(head)


async def test_puts_beside_a_queue_stay_plain_and_into_it_are_refused(
    postgres: Database, postgres_url: str
) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.put(("jobs", "other"), "k", 1)
        await store.queue(JOBS).put("a")
        await store.put(("jobs", "other"), "k", 2)
        await store.put_many(("jobs", "other"), {f"k{number}": number for number in range(50)})
        for call in (
            lambda: store.put(JOBS, "k", 1),
            lambda: store.put_many(JOBS, {"a": 1, "b": 2}),
            lambda: asyncio.gather(store.put(("jobs", "more"), "k", 1), store.put(JOBS, "k", 1)),
        ):
            with pytest.raises(InvalidKeyError, match="queue"):
                await call()
        assert await store.count(JOBS) == 1
        assert await store.count(("jobs", "more")) == 1


async def test_names_and_errors_of_any_text(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        queue = store.queue(JOBS, attempts=1, backoff=0)
        names = ["", "\0", "x" * 20_000, "x" * 20_001, "naïve\n", "x" * 15 + "\0", "x" * 16]
        ids = [await queue.put(name, unique=name) for name in names]
        assert len(set(ids)) == len(names)
        assert [await queue.put("again", unique=name) for name in names] == ids
        job = await queue.take(timeout=0)
        assert job is not None
        await job.retry(error="a\0b\nc")
        assert [dead.error for dead in await queue.dead()] == ["a\0b\nc"]


async def test_many_delayed_jobs_become_ready_at_once(postgres_url: str) -> None:
    clock = ManualClock()
    async with PostgresStore(postgres_url, clock=clock, sweep_interval=None) as store:
        queue = store.queue(JOBS)
        await asyncio.gather(*(queue.put(number, delay=60) for number in range(3_000)))
        await queue.put("now")
        assert await queue.size() == QueueSize(1, 3_000, 0, 0)
        clock.advance(60)
        jobs: list[Any] = await asyncio.gather(*(queue.take(timeout=0) for _ in range(20)))
        assert len({job.id for job in jobs}) == 20
        assert await queue.size() == QueueSize(2_981, 0, 20, 0)


async def test_a_take_whose_connection_breaks_leaves_no_job_behind(
    postgres: Database, postgres_url: str
) -> None:
    async with PostgresStore(postgres_url) as store:
        queue = store.queue(JOBS)
        for number in range(30):
            await queue.put(number)
        name = "application_name = 'kvstore' AND pid <> pg_backend_pid()"
        seen: list[int] = []

        async def work() -> None:
            while (job := await queue.take(timeout=0)) is not None:
                async with job:
                    seen.append(job.value)

        async def breaking() -> None:
            for _ in range(3):
                await asyncio.sleep(0.1)
                await asyncio.to_thread(
                    postgres.execute, f"SELECT count(pg_terminate_backend(pid)) FROM "
                    f"pg_stat_activity WHERE {name}",
                )  # fmt: skip

        await asyncio.gather(breaking(), *(work() for _ in range(4)))
        assert sorted(seen) == list(range(30))
        assert await queue.size() == QueueSize(0, 0, 0, 0)
