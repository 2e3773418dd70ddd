"""Workers on one queue are killed at random: every job is done, and none is finished by two."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kvstore

ROOT = Path(kvstore.__file__).parents[1]
ROUNDS = int(os.environ.get("KVSTORE_WORKER_ROUNDS", "2"))
JOBS = 40
WORKERS = 3
LEASE_S = 0.4
LONGEST_S = 60.0

QUEUE = ("jobs",)
FINISHED = ("finished",)


def worker(path: Path, seed: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.programs", "work", str(path), str(seed)], cwd=ROOT
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_every_job_is_finished_once_whoever_is_killed(tmp_path: Path, seed: int) -> None:
    path, dice = tmp_path / "store.db", random.Random(seed)
    workers = []
    try:
        async with kvstore.open(path) as store:
            queue = store.queue(QUEUE)
            for number in range(JOBS):
                await queue.put({"n": number}, unique=f"job {number}")
            workers += [worker(path, dice.randrange(10**9)) for _ in range(WORKERS)]
            until = time.monotonic() + LONGEST_S
            while sum(vars_of(await queue.size())):
                assert time.monotonic() < until, await queue.size()
                await asyncio.sleep(dice.uniform(0.4, 1.2))
                number = dice.randrange(WORKERS)
                workers[number].kill()
                workers[number].wait()
                workers[number] = worker(path, dice.randrange(10**9))
            entries = [entry async for entry in store.log(FINISHED).read()]
            assert sorted(entry.value for entry in entries) == list(range(JOBS))
            assert [entry.position for entry in entries] == list(range(1, JOBS + 1))
            assert await store.log(FINISHED).length() == JOBS
            assert (await store.check()).ok
    finally:
        for each in workers:
            each.kill()
            each.wait()


def vars_of(size: kvstore.QueueSize) -> list[int]:
    return [size.ready, size.delayed, size.leased, size.dead]


async def test_another_process_wakes_a_taker_and_a_follower_in_time(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as here, kvstore.open(path) as there:
        for _ in range(5):
            taking = asyncio.create_task(here.queue(QUEUE).take(timeout=10))
            await asyncio.sleep(0.07)
            began = time.perf_counter()
            await there.queue(QUEUE).put(1)
            job = await taking
            assert job is not None
            assert time.perf_counter() - began < 0.25
            await job.done()
        entries = here.log(FINISHED).follow()
        for number in range(5):
            following = asyncio.ensure_future(anext(entries))
            await asyncio.sleep(0.07)
            began = time.perf_counter()
            await there.log(FINISHED).append(number)
            assert (await following).value == number
            assert time.perf_counter() - began < 0.25
