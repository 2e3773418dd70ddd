"""What is asked wrongly of logs, queues and the past is told, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import (
    HistoryExpiredError,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidNamespaceError,
    LeaseLostError,
    Store,
)
from kvstore.testing import ManualClock

JOBS, LOG, ITEMS = ("jobs",), ("log",), ("items",)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "file"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Store]:
    url = "memory://" if request.param == "memory" else str(tmp_path / "a.db")
    async with kvstore.open(url, clock=clock, sweep_interval=None, history=60) as store:
        yield store


@pytest.mark.parametrize("lease", [0, -1, 0.0001, float("nan"), float("inf"), "30", None, True])
async def test_a_lease_that_is_none(store: Store, lease: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="lease"):
        store.queue(JOBS, lease=lease)


async def test_a_lease_of_a_day_is_one(store: Store, clock: ManualClock) -> None:
    queue = store.queue(JOBS, lease=86_400)
    await queue.put(1)
    job = await queue.take(timeout=0)
    assert job is not None
    clock.advance(86_399)
    await job.done()


async def test_done_twice_and_done_too_late(store: Store, clock: ManualClock) -> None:
    queue = store.queue(JOBS)
    await queue.put(1)
    await queue.put(2)
    first, second = await queue.take(timeout=0), await queue.take(timeout=0)
    assert first is not None
    assert second is not None
    await first.done()
    for call in (first.done, lambda: first.retry(delay=0), lambda: first.extend(1)):
        with pytest.raises(LeaseLostError, match="not yours any more"):
            await call()
    clock.advance(30)
    with pytest.raises(LeaseLostError, match=second.id):
        await second.done()
    assert (await queue.size()).ready == 1


async def test_a_queue_where_other_items_are(store: Store) -> None:
    await store.put(ITEMS, "k", 1)
    with pytest.raises(InvalidNamespaceError, match="name another namespace"):
        await store.queue(ITEMS).put(1)
    assert await store.queue(ITEMS).take(timeout=0) is None
    assert await store.keys(ITEMS) == ["k"]
    await store.queue(JOBS).put(1)
    with pytest.raises(InvalidKeyError, match="queue"):
        await store.put(JOBS, "k", 1)
    with pytest.raises(InvalidNamespaceError, match="is a queue"):
        await store.log(JOBS).append(1)


@pytest.mark.parametrize("keep", [-1, 1.5, None, "1", True])
async def test_a_trim_that_is_none(store: Store, keep: Any) -> None:
    await store.log(LOG).append(1, 2)
    with pytest.raises(InvalidArgumentError, match="keep"):
        await store.log(LOG).trim(keep)
    assert await store.log(LOG).length() == 2


async def _read(store: Store, moment: Any) -> None:
    await store.at(moment).get(ITEMS, "k")


async def _rewind(store: Store, moment: Any) -> None:
    await store.rewind(moment)


@pytest.mark.parametrize("call", [_read, _rewind])
async def test_moments_that_are_none(
    store: Store, clock: ManualClock, call: Callable[[Store, Any], Awaitable[None]]
) -> None:
    await store.put(ITEMS, "k", 1)
    clock.advance(100)
    await store.put(ITEMS, "k", 2)
    for wrong, told in (
        (clock.now + timedelta(seconds=1), "future"),
        (99, "future"),
        (clock.now.replace(tzinfo=None), "aware"),
        ("yesterday", "moment"),
        (1.5, "moment"),
        (True, "moment"),
        (-1, "version"),
    ):
        with pytest.raises(InvalidArgumentError, match=told):
            await call(store, wrong)
    clock.advance(61)
    for old in (1, clock.now - timedelta(seconds=62), datetime(1990, 1, 1, tzinfo=UTC)):
        with pytest.raises(HistoryExpiredError, match="older than what is kept"):
            await call(store, old)
    item = await store.get(ITEMS, "k")
    assert item is not None
    assert item.value == 2


async def test_a_rewind_while_others_write_is_one_change(store: Store) -> None:
    await store.put_many(ITEMS, {f"k{n}": 0 for n in range(100)})
    then = (await store.stats()).version
    await store.put_many(ITEMS, {f"k{n}": 1 for n in range(100)})
    going = True

    async def write(task: int) -> list[int]:
        versions: list[int] = []
        while going:
            item = await store.put(ITEMS, f"others {task}", len(versions))
            versions.append(item.version)
            await asyncio.sleep(0)
        return versions

    writers = [asyncio.create_task(write(task)) for task in range(4)]
    await asyncio.sleep(0)
    found = await asyncio.gather(*(store.rewind(then, namespace=ITEMS) for _ in range(3)))
    going = False
    written = {version for versions in await asyncio.gather(*writers) for version in versions}
    assert max(found) >= 100
    changed = {item.version async for item in store.scan(ITEMS, pattern="k*") if item.value == 0}
    assert len(changed) == 100
    assert not [v for v in written if min(changed) < v < max(changed)], "not one change"
    assert (await store.check()).ok
