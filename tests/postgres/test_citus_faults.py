"""What becomes of a store on a cluster when a machine, a connection or a neighbour fails."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kvstore import Store, StoreAccessError, StoreBusyError

from .cluster import ENVIRONMENT, Cluster, cluster
from .server import Database, Server, reason_to_skip, schema_of
from .test_lost_answers import When, through_proxy

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)
if not os.environ.get(ENVIRONMENT):
    pytest.skip(f"{ENVIRONMENT} names no cluster", allow_module_level=True)

import asyncpg

from kvstore.postgres import PostgresStore

NS = ("a", "b")
BUSY_S = 2.0
SHARD = "get_shard_id_for_distribution_column('{schema}.kvstore_roots', E'{root}\\t'::text)"
WHERE = "SELECT nodeport FROM pg_dist_shard_placement WHERE shardid = {shard}"
LOCK = "SELECT 1 FROM {schema}.kvstore_roots WHERE root = E'{root}\\t' FOR UPDATE"


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    """A cluster whose machines a test may stop."""
    with cluster() as servers:
        if not servers.workers or servers.coordinator is None:
            pytest.skip("there is no cluster of the tests' own, with workers")
        yield servers


@pytest.fixture(scope="module")
def database(servers: Cluster) -> Iterator[Database]:
    with closing(Database(servers.url, extension=False)) as database:
        yield database


@pytest.fixture
def url(database: Database) -> str:
    """The address of an empty schema."""
    return database.new_schema()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(url, distributed=True, busy_timeout=BUSY_S) as store:
        await store.put(NS, "k", 0)
        yield store


async def where_is(url: str, root: str) -> int:
    """Return the port of the machine that has a root."""
    connection = await asyncpg.connect(url)
    shard = SHARD.format(schema=schema_of(url), root=root)
    port: int = await connection.fetchval(WHERE.format(shard=shard))
    await connection.close()
    return port


async def machine_of(servers: Cluster, url: str, root: str) -> tuple[Server, str]:
    """Return the machine that has a root, and another root that is not there."""
    port = await where_is(url, root)
    ports = [
        int((worker.data / "postmaster.pid").read_text().splitlines()[3])
        for worker in servers.workers
    ]
    for number in range(100):
        if await where_is(url, f"other{number}") != port:
            return servers.workers[ports.index(port)], f"other{number}"
    raise AssertionError("all roots are on one machine")


async def took(call: Awaitable[Any], error: type[Exception]) -> float:
    """Wait for a call that fails; return for how long."""
    began = time.monotonic()
    with pytest.raises(error):
        await call
    return time.monotonic() - began


# Neighbours


async def test_a_wait_for_a_lock_of_another_machine_ends(url: str, store: PostgresStore) -> None:
    other = await asyncpg.connect(url)
    log = store.log(("a", "log"))
    await log.append(1)
    await other.execute("BEGIN")
    await other.execute(LOCK.format(schema=schema_of(url), root="a"))
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.put(NS, "k", 1),
        lambda: store.increment(NS, "k"),
        lambda: log.append(2),
        lambda: store.remove(NS, "x*"),
    ]
    for call in calls:
        assert BUSY_S - 0.1 < await took(call(), StoreBusyError) < BUSY_S + 2
    await other.execute("ROLLBACK")
    assert await store.increment(NS, "k") == 1
    await other.close()


KILLED = """
import asyncio, sys
from kvstore.postgres import PostgresStore

async def main():
    async with PostgresStore(sys.argv[1]) as store:

        number = 0
        while True:
            number = await store.increment(("a", "b"), "n")
            print(number, flush=True)

asyncio.run(main())
"""


async def test_a_client_that_is_killed_costs_nobody_much(url: str, store: PostgresStore) -> None:
    for _ in range(3):
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, url, stdout=asyncio.subprocess.PIPE
        )
        assert client.stdout is not None
        acknowledged = 0
        for _ in range(50):
            acknowledged = int(await client.stdout.readline())
        client.send_signal(signal.SIGKILL)
        rest = (await client.stdout.read()).split()
        await client.wait()
        acknowledged = int(rest[-1]) if rest else acknowledged
        number = await store.increment(NS, "n", 0)
        assert acknowledged <= number <= acknowledged + 1
    assert (await store.check()).ok


# Connections


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_is_written_is_written_once(url: str, tmp_path: Path, when: When) -> None:
    """The connection to the coordinator is cut at each message of a call."""
    async with (
        through_proxy(url, tmp_path) as (by_proxy, proxy),
        PostgresStore(url, distributed=True) as straight,
        PostgresStore(by_proxy, busy_timeout=5) as store,
    ):
        log, queue = store.log(("a", "log")), store.queue(("a", "queue"))
        await store.increment(NS, "n")
        await log.append("first")
        await queue.put("first")
        for number in range(1, 7):
            proxy.cut(number, when)
            item = await store.put(NS, "k", number)
            assert await straight.get(NS, "k") == item
            proxy.cut(number, when)
            assert await store.increment(NS, "n") == number + 1
            assert (await straight.get(NS, "n")).value == number + 1  # type: ignore[union-attr]
            proxy.cut(number, when)
            await log.append(number)
            assert await straight.log(("a", "log")).length() == number + 1
            proxy.cut(number, when)
            await queue.put(number)
            assert (await straight.queue(("a", "queue")).size()).ready == number + 1
        seen = []
        for at in range(7):
            proxy.cut(1 + at % 4, when)
            job = await queue.take()
            assert job is not None
            seen.append(job.value)
            proxy.cut(1 + at % 4, when)
            await job.done()
        assert seen == ["first", *range(1, 7)]
        assert proxy.cuts >= 20
        assert (await straight.check()).ok


# Machines


async def write_until(
    store: Store, root: str, stop: asyncio.Event, worker: int, progress: asyncio.Queue[str]
) -> tuple[int, int]:
    """Put and count in turns; return how many were acknowledged, and how many may have been."""
    done = unsure = 0
    while not stop.is_set():
        try:
            await store.put((root, "items"), f"{worker}-{done + unsure}", done + unsure)
            await store.increment((root, "counts"), str(worker))
            done += 1
            progress.put_nowait(root)
        except StoreAccessError:
            unsure += 1
    return done, unsure


@pytest.mark.parametrize("who", ["worker", "coordinator"])
async def test_a_machine_killed_while_it_writes_loses_nothing_acknowledged(
    servers: Cluster, url: str, who: str
) -> None:
    async with PostgresStore(url, distributed=True, busy_timeout=30) as store:
        machine, other = await machine_of(servers, url, "a")
        if who == "coordinator":
            assert servers.coordinator is not None
            machine = servers.coordinator
        stop = asyncio.Event()
        progress: asyncio.Queue[str] = asyncio.Queue()
        writers = {
            (root, number): asyncio.create_task(write_until(store, root, stop, number, progress))
            for root in ("a", other)
            for number in range(8)
        }
        for _ in range(2):
            for _ in range(150):
                await progress.get()
            await asyncio.to_thread(machine.kill)
            await asyncio.to_thread(machine.start)
        for _ in range(50):
            await progress.get()
        stop.set()
        for (root, worker), task in writers.items():
            done, unsure = await task
            keys = set(await store.keys((root, "items"), f"{worker}-*"))
            assert len([at for at in range(done + unsure) if f"{worker}-{at}" in keys]) >= done
            counted = await store.get((root, "counts"), str(worker))
            assert counted is not None
            assert done <= counted.value <= done + unsure
        for root in ("a", other):
            versions = [item.version async for item in store.scan((root, "items"))]
            assert len(set(versions)) == len(versions)
        assert (await store.check()).ok


async def test_a_machine_that_is_away_is_an_error_for_its_roots_alone(
    servers: Cluster, url: str, store: PostgresStore
) -> None:
    machine, other = await machine_of(servers, url, "a")
    await store.put((other,), "k", 0)
    await asyncio.to_thread(machine.kill)
    try:
        for call in (store.get(NS, "k"), store.put(NS, "k", 1), store.keys(NS)):
            assert await took(call, StoreAccessError) < BUSY_S + 2
        began = time.monotonic()
        item = await store.put((other,), "k", 1)
        assert await store.get((other,), "k") == item
        assert time.monotonic() - began < 1
        waiting = [asyncio.create_task(store.get(NS, "k"))]
        waiting.append(asyncio.create_task(store.put(NS, "l", 2)))
    finally:
        await asyncio.to_thread(machine.start)
    for task in waiting:  # it came back in time
        await task
    assert await store.increment(NS, "n") == 1


async def test_a_watch_goes_on_when_a_machine_is_back(servers: Cluster, url: str) -> None:
    async with PostgresStore(url, distributed=True, busy_timeout=30) as store:
        await store.put(NS, "k", 0)
        machine, _ = await machine_of(servers, url, "a")
        async with store.watch(NS) as of_one, store.watch() as of_all:
            await store.put(NS, "before", 1)
            assert (await anext(of_one)).key == (await anext(of_all)).key == "before"
            await asyncio.to_thread(machine.kill)
            await asyncio.to_thread(machine.start)
            await store.put(NS, "after", 2)
            assert (await anext(of_one)).key == (await anext(of_all)).key == "after"
