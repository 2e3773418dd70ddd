"""Workers on one queue are killed at random: every job is done, and none is finished by two."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

import pytest

import kvstore

from .killing import FINISHED, QUEUE, kill_workers

ROUNDS = int(os.environ.get("KVSTORE_WORKER_ROUNDS", "20"))  # in each, a worker is killed


@pytest.mark.slow
async def test_every_job_is_finished_once_whoever_is_killed(tmp_path: Path) -> None:
    await kill_workers(str(tmp_path / "store.db"), ROUNDS)


async def test_another_process_wakes_a_taker_and_a_follower_in_time(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as here, kvstore.open(path) as there:
        waits = []
        for _ in range(5):
            taking = asyncio.create_task(here.queue(QUEUE).take(timeout=10))
            await asyncio.sleep(0.07)
            began = time.perf_counter()
            await there.queue(QUEUE).put(1)
            job = await taking
            waits.append(time.perf_counter() - began)
            assert job is not None
            await job.done()
        assert statistics.median(waits) < 0.25
        waits.clear()
        entries = here.log(FINISHED).follow()
        for number in range(5):
            following = asyncio.ensure_future(anext(entries))
            await asyncio.sleep(0.07)
            began = time.perf_counter()
            await there.log(FINISHED).append(number)
            assert (await following).value == number
            waits.append(time.perf_counter() - began)
        assert statistics.median(waits) < 0.25
