"""Queues in a file: what their calls cost, and what `check` says of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import QueueSize, SQLiteStore
from kvstore.namespace import encode_namespace
from kvstore.operations import FinishJob, PutJob, TakeJob
from kvstore.sqlite import driver
from kvstore.sqlite.connection import connect
from kvstore.sqlite.writing import Batch

from .stored_files import taken

JOBS = ("jobs",)
PATH = encode_namespace(JOBS)
LEASE = 30_000_000


def cost(connection: driver.Connection, now: int, number: int = 40) -> list[int]:
    """Return the sums of the steps of SQLite's machine of puts, takes and dones."""
    counted = 0

    def step() -> int:
        nonlocal counted
        counted += 1
        return 0

    def steps(op: PutJob | TakeJob | FinishJob) -> tuple[int, Any]:
        nonlocal counted
        connection.execute("BEGIN IMMEDIATE")
        counted = 0
        connection.set_progress_handler(step, 1)
        batch = Batch(connection.cursor(), now)
        (answers,) = batch.apply([[op]])
        batch.finish()
        connection.set_progress_handler(None, 1)
        connection.execute("COMMIT")
        assert isinstance(answers, list), answers
        return counted, answers[0]

    found: list[list[int]] = []
    for token in range(1, number):
        put, key = steps(PutJob(JOBS, PATH, b"1"))
        take, answer = steps(TakeJob(JOBS, PATH, token, LEASE, 5))
        assert answer[0].key == key
        done, _ = steps(FinishJob(JOBS, PATH, key, token))
        found.append([put, take, done])
    return [sum(each) for each in zip(*found[5:], strict=True)]


async def empty(store: SQLiteStore, number: int) -> None:
    """Nothing beside."""


async def delayed(store: SQLiteStore, number: int) -> None:
    async def work(tx: kvstore.Transaction) -> None:
        for _ in range(number):
            tx.queue(JOBS).put(1, delay=86_400)

    await store.transact(work)


async def dead(store: SQLiteStore, number: int) -> None:
    queue = store.queue(JOBS, attempts=1)

    async def work(tx: kvstore.Transaction) -> None:
        for _ in range(number):
            tx.queue(JOBS).put(1)

    await store.transact(work)
    for _ in range(number):
        await (await taken(queue)).retry()


async def leased(store: SQLiteStore, number: int) -> None:
    queue = store.queue(JOBS, lease=86_400)
    for _ in range(number):
        await queue.put(1)
        await taken(queue)


@pytest.mark.parametrize("beside", [delayed, dead, leased])
async def test_a_job_costs_the_same_beside_many_that_are_not_ready(
    tmp_path: Path, beside: Callable[[SQLiteStore, int], Awaitable[None]]
) -> None:
    costs = []
    for number in (10, 500):
        path = tmp_path / f"{number}.db"
        async with SQLiteStore(path, sweep_interval=None) as store:
            await beside(store, number)
            await store.queue(JOBS).put("first")
            await (await taken(store.queue(JOBS))).done()
        connection = connect(path, "rw")
        costs.append(cost(connection, int(time.time() * 1e6)))
        connection.close()
    few, many = costs
    assert many == pytest.approx(few, rel=0.25)


async def fill(store: kvstore.Store) -> None:
    """Make a log, and a queue with jobs that are ready, dead and delayed."""
    await store.log(("log",)).append(1, 2, 3)
    queue = store.queue(JOBS, attempts=1)
    for value in range(12):
        await queue.put(value)
    await (await taken(queue)).retry()
    await queue.put("later", delay=60)


async def test_check_counts_logs_and_queues(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await fill(store)
        await taken(store.queue(JOBS, attempts=1))
        report, stats = await store.check(), await store.stats()
        assert report.problems == ()
        assert (stats.logs, stats.queues, stats.dead_jobs) == (1, 1, 1)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE sequences SET size = 7 WHERE kind = 'log'", "3 are there, and its size is 7"),
        ("UPDATE sequences SET last = 2 WHERE kind = 'log'", "ahead of the last position"),
        ("UPDATE sequences SET dead = 0", "1 jobs are dead, and 0 are counted"),
        ("UPDATE sequences SET delayed = 9", "1 jobs are delayed, and 9 are counted"),
        ("UPDATE sequences SET noted = 12", "nothing is known of the job 12"),
        ("UPDATE sequences SET seen = 'x'", "its numbers are none"),
        ("DELETE FROM items WHERE path GLOB 'jobs*' AND key GLOB '*1'", "the job 1 has no item"),
        (
            "UPDATE items SET key = 'x' WHERE path GLOB 'jobs*' AND key GLOB '*02'",
            "'x' is no job, and nobody will take it",
        ),
        ("DELETE FROM sequences WHERE kind = 'queue'", "it has jobs, and is none"),
    ],
)
async def test_check_tells_what_is_wrong_with_them(tmp_path: Path, damage: str, told: str) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await fill(store)
    connection = connect(path, "rw")
    connection.execute(damage)
    connection.close()
    async with kvstore.open(path) as store:
        problems = (await store.check()).problems
    assert any(told in problem for problem in problems), problems


async def test_a_long_value_is_taken_and_finished(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "store.db") as store:
        queue = store.queue(JOBS)
        await queue.put("short")
        await queue.put("x" * 300_000)
        await queue.put("short")
        for length in (5, 300_000, 5):
            job = await taken(queue)
            assert len(job.value) == length
            await job.done()
        assert await queue.size() == QueueSize(0, 0, 0, 0)
        assert (await store.check()).ok


async def test_calls_that_share_a_transaction_see_each_other(tmp_path: Path) -> None:
    """Whether each goes the short way or the long one."""
    async with kvstore.open(tmp_path / "store.db") as store:
        queue = store.queue(JOBS)
        await queue.put(0)
        ids = await asyncio.gather(
            *(
                queue.put(number, unique=None if number % 3 else f"{number}")
                for number in range(1, 40)
            )
        )
        assert [int(each) for each in ids] == list(range(2, 41))
        jobs = await asyncio.gather(*(queue.take(timeout=0) for _ in range(41)))
        assert [job.value for job in jobs if job is not None] == list(range(40))
        again = jobs[7], jobs[11]
        await asyncio.gather(
            *(
                job.retry(delay=0) if job in again else job.done()
                for job in jobs
                if job is not None
            ),
            *(queue.put(f"more {number}") for number in range(5)),
        )
        values = [(await taken(queue)).value for _ in range(7)]
        assert values == [7, 11, *(f"more {number}" for number in range(5))]
        assert await queue.size() == QueueSize(0, 0, 7, 0)
        assert (await store.check()).ok
