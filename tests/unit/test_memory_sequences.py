"""Logs and queues in memory cost by what is done, and not by how long they are."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

import kvstore
from kvstore import InMemoryStore, Store, Transaction
from kvstore.namespace import encode_namespace
from kvstore.sequences import key_of

LONG, CALLS = 100_000, 60


async def cost(call: Callable[[], Awaitable[object]]) -> float:
    """Return the processor time of a call, at best."""
    best = 1.0
    for _ in range(CALLS):
        began = time.process_time()
        await call()
        best = min(best, time.process_time() - began)
    return best


async def pop(store: Store, name: str) -> None:
    log = store.log((name,))
    await log.append(0)
    await log.pop()


async def read_on(store: Store, name: str) -> None:
    log = store.log((name,))
    last = await log.append(0)
    assert [entry.position async for entry in log.read(after=last - 1)] == [last]


async def finish(store: Store, name: str) -> None:
    queue = store.queue((name, "jobs"))
    await queue.put(0)
    job = await queue.take(timeout=0)
    assert job is not None
    await job.done()


@pytest.mark.parametrize("call", [pop, read_on, finish])
async def test_a_call_costs_the_same_in_a_long_one(
    call: Callable[[Store, str], Awaitable[None]],
) -> None:
    async with kvstore.open("memory://") as store:
        await store.log(("long",)).append(*range(LONG))
        await store.transact(put_many)
        costs = [await cost(lambda name=name: call(store, name)) for name in ("short", "long")]  # type: ignore[misc]
        assert costs[1] < 5 * costs[0]


async def put_many(tx: Transaction) -> None:
    queue = tx.queue(("long", "jobs"))
    for number in range(LONG):
        await queue.put(number)


async def test_check_holds_logs_and_queues_against_their_items() -> None:
    async with InMemoryStore() as store:
        queue, log = store.queue(("jobs",)), store.log(("log",))
        await log.append(1, 2, 3)
        await queue.put(1)
        await queue.put(2, delay=60)
        await queue.take()
        assert (await store.check()).ok
        inside = vars(store.backend)  # beside its rules
        del inside["_rows"][encode_namespace(("log",)), key_of(2)]
        del inside["_rows"][encode_namespace(("jobs",)), key_of(1)]
        inside["_is_sorted"] = False
        inside["_sequences"][encode_namespace(("jobs",))].delayed = 5
        problems = "\n".join((await store.check()).problems)
        assert "log: ('log',): 2 are there, and its size is 3" in problems
        assert "queue: ('jobs',): 2 jobs are known, and 1 are there" in problems
        assert "queue: ('jobs',): 1 jobs of state 1, 5 counted" in problems
