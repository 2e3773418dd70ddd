"""Workers on one queue are killed at random, while jobs are put: what must be true in the end."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvstore

ROOT = Path(kvstore.__file__).parents[1]
WAITING = 24  # jobs, at the beginning of a round
WORKERS = 3
LONGEST_S = 60.0  # that the rest may take, once nobody is killed any more

QUEUE = ("jobs",)
FINISHED, NOTED = ("finished",), ("noted",)


def worker(target: str, seed: int) -> subprocess.Popen[bytes]:
    """Start a worker on the queue of a store, a path or a URL."""
    arguments = "-m", "tests.faults.programs", "work", target, str(seed)
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT)


async def kill_workers(
    target: str, rounds: int, disturb: Callable[[int], None] = lambda _: None
) -> None:
    """Have workers work and be killed, and see that every job is done, and none by two.

    Args:
        target: the path or the URL of a new store.
        rounds: in each a worker is killed.
        disturb: called with the number of each round, on a thread.
    """
    dice = random.Random(rounds)
    number = 0
    workers: list[subprocess.Popen[bytes]] = []
    try:
        async with kvstore.open(target) as store:
            queue = store.queue(QUEUE)
            workers += [worker(target, dice.randrange(10**9)) for _ in range(WORKERS)]
            for each_round in range(rounds):
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
                await asyncio.to_thread(disturb, each_round)
                killed = dice.randrange(WORKERS)
                for at, process in enumerate(workers):
                    if at == killed or process.poll() is not None:
                        process.kill()
                        process.wait()
                        workers[at] = worker(target, dice.randrange(10**9))
            until = time.monotonic() + LONGEST_S
            while await queue.size() != kvstore.QueueSize(0, 0, 0, 0):
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
