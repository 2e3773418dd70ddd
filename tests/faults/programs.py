"""Child processes of the fault tests: `python -m tests.faults.programs NAME ARGS...`.

A child says on its standard output what was acknowledged, a line each, flushed, so that its
parent knows what must be there however the child ends.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import resource
import signal
import sys
import threading
import time
from typing import Any

import kvstore

NAMESPACE = ("faults",)


def say(*words: object) -> None:
    """Tell the parent, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write_for_ever(path: str, run: str) -> None:
    """Put, increment and append from several tasks until killed; say each acknowledgement."""

    async def work(store: kvstore.Store, task: int) -> None:
        number = 0
        while True:
            number += 1
            key = f"{run}-{task}-{number}"
            if number % 5 == 0:
                many = {f"{key}-{part}": number for part in range(20)}
                await store.put_many(NAMESPACE, many)
                for each in many:
                    say("put", each)
            else:
                value = {"number": number, "text": "x" * (number * 97 % 3000)}
                await store.put(NAMESPACE, key, value)
                say("put", key)
            total = await store.increment(NAMESPACE, f"count-{task}")
            say("count", task, total)

    async with kvstore.open(path) as store:
        say("open")
        await asyncio.gather(*(work(store, task) for task in range(8)))


async def work(path: str, seed: str) -> None:
    """Take jobs until killed.

    What an odd one does and its end are one transaction; that an even one is done is noted
    afterwards, unless the worker is killed before.
    """
    dice = random.Random(int(seed))
    async with kvstore.open(path) as store:
        async for job in store.queue(("jobs",), lease=0.4, attempts=1_000, backoff=0).jobs():
            async with job:
                await asyncio.sleep(dice.expovariate(1 / 0.03))
                if job.value % 2 == 0:
                    await job.done()
                    await store.log(("noted",)).append(job.value)
                    continue

                def finish(tx: kvstore.Transaction, job: kvstore.Job = job) -> None:
                    tx.log(("finished",)).append(job.value)
                    tx.done(job)

                await store.transact(finish)


async def keep_writing(path: str) -> None:
    """Put until killed, with all that moves the log about; say what was put, and when."""
    async with kvstore.SQLiteStore(path, busy_timeout=0.5) as store:
        for number in itertools.count():
            key = f"key-{number}"
            await store.put(("litestream",), key, "x" * 5_000)
            say(key, time.time())
            if number % 300 == 100:  # longer than a log is let be
                body = "x" * 100_000
                await store.put_many(("large",), {str(part): body for part in range(200)})
            if number % 300 == 200:
                await store.vacuum()
            await asyncio.sleep(0.005)


async def count(path: str, tasks: str, times: str) -> None:
    """Increment one counter from several tasks."""

    async def work(store: kvstore.Store) -> None:
        for _ in range(int(times)):
            await store.increment(NAMESPACE, "shared")

    async with kvstore.SQLiteStore(path, busy_timeout=60) as store:
        await asyncio.gather(*(work(store) for _ in range(int(tasks))))
    say("done")


async def fill(path: str, limit: str) -> None:
    """Write until the file may not grow, then go on when it may."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with kvstore.open(path) as store:
        await store.put(NAMESPACE, "first", 1)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
        acknowledged = 0
        try:
            while True:
                await store.put(NAMESPACE, f"filler-{acknowledged}", "x" * 20_000)
                acknowledged += 1
        except kvstore.StoreFullError as exc:
            say("full", acknowledged, exc)
        assert await store.count(NAMESPACE, "filler-*") == acknowledged
        outcomes = await asyncio.gather(
            *(store.put(NAMESPACE, f"more-{n}", "x" * 20_000) for n in range(30)),
            return_exceptions=True,
        )
        kinds = {type(outcome) for outcome in outcomes}
        assert kinds <= {kvstore.StoreFullError, kvstore.Item}, kinds
        stored = sum(isinstance(outcome, kvstore.Item) for outcome in outcomes)
        assert await store.count(NAMESPACE, "more-*") == stored
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await store.put(NAMESPACE, "after", "x" * 20_000)
        say("after", acknowledged + stored)


async def produce(path: str) -> None:
    """Put 500 MB faster than the disk takes it; say by how many bytes the process grew."""

    async def put(store: kvstore.Store, number: int) -> None:
        await store.put(NAMESPACE, str(number), body)

    body = "x" * 100_000
    async with kvstore.open(path) as store:
        await put(store, 0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await asyncio.gather(*(put(store, number) for number in range(5_000)))
        say((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


async def fork(path: str) -> None:
    """Fork with the store open; let the child write anew, the parent close, the child go on."""
    opened, closed = os.pipe(), os.pipe()
    store = await kvstore.open(path).open()
    await store.put(NAMESPACE, "parent", 1)
    child = os.fork()
    if child == 0:
        # The child has the parent's running loop; a loop of its own needs a thread of its own.
        threading.Thread(
            target=lambda: asyncio.run(_write_in_child(os.path.realpath(path), opened, closed))
        ).start()
        threading.Event().wait()
    os.read(opened[0], 1)
    await store.close()
    os.write(closed[1], b"x")
    assert os.waitpid(child, 0)[1] == 0


async def _write_in_child(path: str, opened: tuple[int, int], closed: tuple[int, int]) -> None:
    async with kvstore.open(path) as store:
        await store.put(NAMESPACE, "before", 1)
        os.write(opened[1], b"x")
        os.read(closed[0], 1)
        for number in range(50):
            await store.put(NAMESPACE, f"after-{number}", number)
        os._exit(0)  # as if it was killed


async def leave_open(path: str) -> None:
    """End without closing the store, with a write under way."""
    store = await kvstore.open(path).open()
    for number in range(100):
        await store.put(NAMESPACE, f"key-{number}", number)
        say("put", f"key-{number}")
    pending = [asyncio.ensure_future(store.put(NAMESPACE, f"late-{n}", n)) for n in range(100)]
    await asyncio.sleep(0)
    say("left", len(pending))


async def hold_lock(path: str) -> None:
    """Hold the write lock until the standard input closes."""
    from kvstore.sqlite import driver

    connection = driver.connect(f"file:{path}?mode=rw")
    connection.execute("BEGIN IMMEDIATE")
    say("locked")
    await asyncio.to_thread(sys.stdin.read)
    connection.execute("ROLLBACK")
    connection.close()


PROGRAMS: dict[str, Any] = {
    program.__name__: program
    for program in (
        write_for_ever,
        keep_writing,
        fork,
        count,
        fill,
        produce,
        leave_open,
        hold_lock,
        work,
    )
}

if __name__ == "__main__":
    asyncio.run(PROGRAMS[sys.argv[1]](*sys.argv[2:]))
