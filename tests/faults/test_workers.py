"""Workers on one queue are killed at random: every job is done, and none is finished by two."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import kvstore

ROOT = Path(kvstore.__file__).parents[1]
ROUNDS = int(os.environ.get("KVSTORE_WORKER_ROUNDS", "20"))  # in each, a worker is killed
WAITING = 24  # jobs, at the beginning of a round
WORKERS = 3
LONGEST_S = 60.0  # that the rest may take, once nobody is killed any more

QUEUE = ("jobs",)
FINISHED, NOTED = ("finished",), ("noted",)


def worker(path: Path, seed: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.programs", "work", str(path), str(seed)], cwd=ROOT
    )


@pytest.mark.slow
async def test_every_job_is_finished_once_whoever_is_killed(tmp_path: Path) -> None:
    path, dice = tmp_path / "store.db", random.Random(ROUNDS)
    number = 0
    workers: list[subprocess.Popen[bytes]] = []
    try:
        async with kvstore.open(path) as store:
            queue = store.queue(QUEUE)
            workers += [worker(path, dice.randrange(10**9)) for _ in range(WORKERS)]
            for _ in range(ROUNDS):
                while (await queue.size()).ready < WAITING:
                    options: list[dict[str, Any]] = [
                        {},
                        {},
                        {"delay": 0.1},
                        {"unique": f"{number}"},
                    ]
                    await queue.put(number, **dice.choice(options))
                    number += 1
                await asyncio.sleep(dice.uniform(0.1, 0.9))
                each = dice.randrange(WORKERS)
                workers[each].kill()
                workers[each].wait()
                workers[each] = worker(path, dice.randrange(10**9))
            until = time.monotonic() + LONGEST_S
            while sum(vars_of(await queue.size())):
                assert time.monotonic() < until, await queue.size()
                await asyncio.sleep(0.1)
            entries = [entry async for entry in store.log(FINISHED).read()]
            assert sorted(entry.value for entry in entries) == list(range(1, number, 2))
            assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
            noted = [entry.value async for entry in store.log(NOTED).read()]
            assert len(set(noted)) == len(noted)
            assert all(value % 2 == 0 for value in noted)
            assert int(await queue.put("another")) == number + 1
            assert (await store.check()).ok
    finally:
        for process in workers:
            process.kill()
            process.wait()


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
