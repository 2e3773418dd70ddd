"""PostgresStore behind a real PgBouncer in transaction mode, if there is one on the path."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from textwrap import dedent
from urllib.parse import parse_qs, urlsplit

import pytest

from kvstore import IndexConfig, StoreAccessError
from kvstore.testing_search import RecordingEmbeddings, found

from .server import Database, reason_to_skip, schema_of

pytest.importorskip("asyncpg", reason=reason_to_skip())

from kvstore.postgres import PostgresStore

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer on the path")
NS = ("a", "b")
SERVER_SESSIONS = 3  # fewer than the stores want, so that they get each other's


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kvstore-pgbouncer-"))  # short enough for a socket
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def listens(path: Path) -> bool:
    """Whether somebody takes connections there; the socket is there a moment before."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture
def pooled_url(postgres: Database, empty_schema: str, folder: Path) -> Iterator[str]:
    """The address of an empty schema, by way of a PgBouncer."""
    parts = urlsplit(postgres.url)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    password = f"password={parts.password}" if parts.password else ""
    config = folder / "pgbouncer.ini"
    config.write_text(
        dedent(
            f"""
            [databases]
            kv = host={host} port={parts.port or 5432} dbname={parts.path[1:]} \
                user={parts.username} {password} \
                connect_query='SET search_path = {schema_of(empty_schema)}, public'

            [pgbouncer]
            unix_socket_dir = {folder}
            listen_port = 6432
            auth_type = any
            pool_mode = transaction
            default_pool_size = {SERVER_SESSIONS}
            max_client_conn = 500
            logfile = {folder}/log
            """
        )
    )
    # It ends with its standard input, and so with these tests, whatever becomes of them.
    pooler = subprocess.Popen(
        ["/bin/sh", "-c", f'"{PGBOUNCER}" -q "{config}" & read -r _; kill $!; wait'],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        user="nobody" if os.geteuid() == 0 else None,
    )
    try:
        while not listens(folder / ".s.PGSQL.6432"):
            assert pooler.poll() is None, (folder / "log").read_text()
            time.sleep(0.005)
        yield f"postgresql://app@/kv?host={folder}&port=6432&pooler=true"
    finally:
        pooler.communicate()


@pytest.fixture
def make_store(pooled_url: str) -> partial[PostgresStore]:
    return partial(PostgresStore, pooled_url, busy_timeout=20.0)


async def test_many_stores_share_few_sessions(make_store: partial[PostgresStore]) -> None:
    async with AsyncExitStack() as stack:
        stores = await asyncio.gather(
            *(stack.enter_async_context(make_store()) for _ in range(6))
        )  # the tables are made by whoever is first

        async def work(number: int, store: PostgresStore) -> None:
            for at in range(20):
                await store.increment(NS, "shared")
                await store.put(NS, f"{number}-{at}", {"at": at})
                item = await store.get(NS, f"{number}-{at}")
                assert item is not None
                assert item.value == {"at": at}

        await asyncio.gather(*(work(number, store) for number, store in enumerate(stores)))
        counter = await stores[0].get(NS, "shared")
        assert counter is not None
        assert counter.value == 120
        assert await stores[1].count(NS) == 121
        assert (await stores[2].check()).ok


async def test_a_watch_sees_what_others_write(make_store: partial[PostgresStore]) -> None:
    async with make_store() as one, make_store() as other:
        seen: list[str] = []

        async def watch() -> None:
            async for change in one.watch(NS):
                seen.append(change.key)
                if change.key == "last":
                    return

        watching = asyncio.create_task(watch())
        async with asyncio.timeout(30):
            while not seen:  # until it has begun to watch
                await other.put(NS, "first", 1)
            await other.put_many(NS, {"a": 1, "b": 2})
            await other.put(NS, "last", 3)
            await watching
        assert seen[-3:] == ["a", "b", "last"]


async def test_searches_of_every_kind(make_store: partial[PostgresStore]) -> None:
    index = IndexConfig(RecordingEmbeddings())
    async with make_store(index=index) as one, make_store(index=index) as other:
        await one.put_many(NS, {f"k{at}": {"text": f"text {at}", "n": at} for at in range(50)})
        await asyncio.gather(*(other.put(NS, f"l{at}", {"text": f"x {at}"}) for at in range(20)))

        async def search(store: PostgresStore, at: int) -> None:
            for mode in ("semantic", "text", "hybrid"):
                items = await store.search(NS, f"text {at}\n{at}", mode=mode, filter={"n": at})
                assert found(items) == [f"k{at}"]

        await asyncio.gather(*(search(store, at) for store in (one, other) for at in range(10)))
        assert (await one.check()).ok


async def test_a_pooler_of_which_nobody_has_spoken_is_refused(pooled_url: str) -> None:
    url = pooled_url.replace("&pooler=true", "")
    for _ in range(3):
        with pytest.raises(StoreAccessError, match="pooler=true"):
            await PostgresStore(url).open()


async def test_the_url_may_name_the_schema_and_the_program(
    postgres: Database, pooled_url: str
) -> None:
    name = f"{schema_of(postgres.new_schema())}"
    try:
        url = f"{pooled_url}&search_path={name}&application_name=mine"
        async with PostgresStore(url) as store:
            await store.put(NS, "k", 1)
            assert await store.count(NS) == 1
        assert postgres.execute(f"SELECT count(*) FROM {name}.kvstore_items") == 1
    finally:
        postgres.execute(f"DROP SCHEMA {name} CASCADE")
