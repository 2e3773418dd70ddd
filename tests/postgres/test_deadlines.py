"""Everything ends: in a silent network, over a server that has stopped, after a cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from kvstore import ReadOnlyError, StoreAccessError, StoreBusyError

from .network import Network, network_to
from .server import Database, Server, reason_to_skip, schema_of, with_options

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import asyncpg

from kvstore.postgres import PostgresStore
from kvstore.postgres.channels import Channel
from kvstore.postgres.connection import Target, aside, connect
from tests.waiting import until

NS = ("a", "b")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of these tests' own, of which they change settings."""
    settings = {
        "max_connections": "20",
        "superuser_reserved_connections": "0",
        "reserved_connections": "0",
    }
    with Server(settings) as server:
        yield server


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(server.url)
    await connection.execute(
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC"
    )
    yield connection
    await connection.close()


@pytest.fixture
async def network(server: Server, admin: Any) -> AsyncIterator[Network]:
    async with network_to(server.url) as network:
        yield network


async def outcome(call: Any) -> str:
    """Wait for a call, for some seconds at most; return the name of its error, if it has one."""
    try:
        async with asyncio.timeout(12):
            await call
    except TimeoutError:
        return "it did not end"
    except Exception as exc:  # noqa: BLE001 - all are looked at
        return type(exc).__name__
    return "done"


async def sleep(link: Any, seconds: float) -> Any:
    return await link.fetchval("SELECT pg_sleep($1)", seconds)


async def take_all(server: Server, taken: list[Any]) -> None:
    """Take all connections that the server still gives."""
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            taken.append(await asyncpg.connect(server.url))


async def set_read_only(server: Server, admin: Any, wanted: str, *sessions: Any) -> None:
    """Have a server take writes or not, and wait until all have heard of it."""
    name = "default_transaction_read_only"
    await admin.execute(f"SET {name} = off")  # of this session
    await admin.execute(f"ALTER SYSTEM SET {name} = {wanted}")
    await admin.execute("SELECT pg_reload_conf()")

    async def is_heard() -> bool:
        other = await asyncpg.connect(server.url)  # by which others begin
        found = [await each.fetchval(f"SHOW {name}") for each in (other, *sessions)]
        await other.close()
        return set(found) == {wanted}

    await until(is_heard)


async def all_closed(sessions: set[Any]) -> bool:
    return all(session.is_closed() for session in sessions)


# A silent network


@pytest.mark.parametrize("suffix", ["", "?pooler=true"])
async def test_calls_end_in_a_silent_network_and_the_store_heals(
    network: Network, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with PostgresStore(network.url + suffix, busy_timeout=0.5) as store:
        await store.put(NS, "k", 1)
        assert await store.count(NS) == 1
        await store.get(NS, "k")
        network.cut()
        calls = [
            store.get(NS, "k"),
            store.put(NS, "k", 2),
            store.count(NS),
            store.increment(NS, "n"),
        ]
        ends = await asyncio.gather(*map(outcome, calls))
        assert set(ends) == {"StoreAccessError"}
        network.mend()
        lost = network.lost
        assert (await store.put(NS, "k", 3)).value == 3
        item = await store.get(NS, "k")
        assert item is not None
        assert item.value == 3
        assert network.lost == lost  # nothing was tried over what had broken
    assert not [each for each in caplog.records if each.name == "asyncio"]


async def test_a_connection_that_the_network_forgot_is_replaced(network: Network) -> None:
    """As behind a firewall that drops what was idle, while new connections go through."""
    async with PostgresStore(network.url, busy_timeout=0.5) as store:
        await store.put(NS, "k", 1)
        await store.get(NS, "k")
        network.cut()
        calls = [asyncio.create_task(call) for call in (store.get(NS, "k"), store.put(NS, "k", 2))]
        await until(lambda: network.lost == 2)
        network.mend()
        async with asyncio.timeout(8):
            item, put = await asyncio.gather(*calls)
        assert item is not None
        assert put is not None
        assert (await store.get(NS, "k")) == put


async def test_a_store_closes_in_a_silent_network(network: Network) -> None:
    store = PostgresStore(network.url, busy_timeout=0.5)
    await store.open()
    await store.put(NS, "k", 1)
    await store.get(NS, "k")
    network.cut()
    writing = asyncio.create_task(outcome(store.put(NS, "k", 2)))
    await asyncio.sleep(0)
    assert await outcome(store.close()) == "done"
    assert await writing == "StoreAccessError"


async def test_a_store_closes_while_a_read_finds_no_connection(network: Network) -> None:
    store = PostgresStore(network.url, busy_timeout=0.5)
    await store.open()
    network.cut()
    reading = asyncio.create_task(outcome(store.count(NS)))
    await asyncio.sleep(0.05)
    session = store.backend._writer._channels[0].raw
    assert session is not None
    session.terminate()  # so that it is the read that is waited for
    assert await asyncio.wait_for(outcome(store.close()), 8) == "done"
    assert await reading == "StoreAccessError"


async def test_what_takes_long_is_not_taken_for_lost(network: Network) -> None:
    async with PostgresStore(network.url, busy_timeout=0.3) as store:
        await store.backend._pool.run(sleep, 1.5)
        assert store.metrics().retries == 0


async def test_a_large_value_over_a_slow_network_is_not_taken_for_lost(network: Network) -> None:
    """The server's session is idle until it has the whole of a statement, and after its answer."""
    value = "x" * 1_500_000
    network.rate = 1e6
    async with PostgresStore(network.url, busy_timeout=1) as store:
        await store.put(NS, "k", value)
        await store.put(NS, "k", value + "y", if_version=1)
        item = await store.get(NS, "k")
        assert item is not None
        assert item.value == value + "y"
        assert store.metrics().reconnects == store.metrics().retries == 0


async def test_who_was_stopped_over_a_look_believes_nothing_of_the_server(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    async def connect_and_stop(*_: Any, patience: float) -> None:
        looks.append(patience)
        time.sleep(patience + 0.5)  # as of a process that a debugger or the system has stopped
        await asyncio.Event().wait()

    async with PostgresStore(network.url, busy_timeout=0.3) as store:
        monkeypatch.setattr("kvstore.postgres.watchman.connect", connect_and_stop)
        await store.backend._pool.run(sleep, 2.5)
        assert looks
        assert store.metrics().retries == 0


# Limits


async def test_the_server_ends_what_takes_too_long(server: Server, admin: Any) -> None:
    async with PostgresStore(server.url, statement_timeout=1.0) as store:
        with pytest.raises(StoreBusyError, match="took too long"):
            await store.backend._pool.run(sleep, 60.0)
        await store.put(NS, "k", 1)
        assert await store.get(NS, "k") is not None


@pytest.mark.parametrize(("theirs", "expected"), [("0", "3s"), ("1h", "3s"), ("700ms", "700ms")])
@pytest.mark.parametrize("pooler", [False, True])
async def test_an_open_transaction_is_ended_soon_and_never_later_than_the_server_says(
    postgres: Database, postgres_url: str, theirs: str, expected: str, pooler: bool
) -> None:
    url = with_options(postgres_url, f"-c idle_in_transaction_session_timeout={theirs}")
    session = await connect(Target.parse(url, is_pooler=pooler))
    await session.execute("BEGIN")
    found = await session.fetchval("SHOW idle_in_transaction_session_timeout")
    await session.close()
    assert found == expected
    assert session.idle_s == (0.7 if expected == "700ms" else 3.0)


async def test_who_works_on_a_thread_speaks_well_within_the_servers_limit(
    postgres_url: str,
) -> None:
    session = await connect(Target.parse(postgres_url))
    session.idle_s = 0.06
    before, ends = session.progress[0], time.monotonic() + 20

    def wait_for_many() -> int:
        while session.progress[0] < before + 50 and time.monotonic() < ends:
            time.sleep(0.001)
        return session.progress[0] - before

    assert await aside(session, wait_for_many) >= 50
    await session.close()


# Cancellation


async def test_a_cancelled_read_ends_at_once_and_its_statement_soon(
    server: Server, admin: Any
) -> None:
    async with PostgresStore(server.url, pool_size=1) as store:
        reading = asyncio.create_task(store.backend._pool.run(sleep, 30.0))

        async def is_at_work() -> Any:
            return await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' "
                "AND state = 'active' AND pid <> pg_backend_pid()"
            )

        await until(is_at_work)
        began = time.monotonic()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert time.monotonic() - began < 10
        assert await store.count(NS) == 0  # on the same one connection
        assert not await is_at_work()


async def test_reads_that_are_cancelled_anywhere_leave_the_pool_whole(
    server: Server, admin: Any
) -> None:
    async with PostgresStore(server.url, pool_size=2, busy_timeout=5) as store:
        await store.put_many(NS, {str(number): number for number in range(50)})
        for delay in range(40):
            tasks = [
                asyncio.create_task(call)
                for call in (
                    store.get(NS, "1"),
                    store.search(NS, filter={"x": 1}),
                    store.stats(),
                    store.check(),
                )
            ]
            await asyncio.sleep(delay / 10_000)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await store.count(NS) == 50
        assert len(await asyncio.gather(*(store.get(NS, "1") for _ in range(20)))) == 20


# Servers


async def test_a_session_of_the_same_number_on_another_server_is_another(network: Network) -> None:
    """As after a failover between containers, where all numbers are small."""
    tries = 0

    async def sleep_elsewhere(link: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            link.started -= timedelta(hours=1)
            return await sleep(link, 2.0)
        return await link.fetchval("SELECT 1")

    async with PostgresStore(network.url, busy_timeout=0.3) as store:
        assert await store.backend._pool.run(sleep_elsewhere) == 1
        assert tries == 2


async def test_another_isolation_by_default_is_not_for_a_store(server: Server, admin: Any) -> None:
    name = "default_transaction_isolation"
    await admin.execute(f"ALTER DATABASE postgres SET {name} = 'serializable'")
    try:
        async with PostgresStore(server.url) as one, PostgresStore(server.url) as two:
            stores = [store for store in (one, two) for _ in range(3)]
            for number in range(40):
                await asyncio.gather(
                    *(store.put(NS, f"{at}-{number}", at) for at, store in enumerate(stores)),
                    *(store.increment(NS, "n") for store in stores),
                )
            assert await one.count(NS) == 241
            session = one.backend._writer._channels[0].raw
            assert session is not None
            assert await session.fetchval(f"SHOW {name}") == "read committed"
    finally:
        await admin.execute(f"ALTER DATABASE postgres RESET {name}")


async def test_a_server_that_became_read_only_is_left(server: Server, admin: Any) -> None:
    async with PostgresStore(server.url) as store:
        await store.put(NS, "k", 1)
        await store.get(NS, "k")
        pool, writer = store.backend._pool, store.backend._writer
        before = {writer._channels[0].raw, *(link.raw for link in pool._idle)}
        assert len(before) == 2
        try:
            await set_read_only(server, admin, "on", *before)
            with pytest.raises(ReadOnlyError):
                await store.put(NS, "k", 2)
            assert all(raw.is_closed() for raw in before)
            assert await store.get(NS, "k") is not None
        finally:
            await set_read_only(server, admin, "off")
        assert (await store.put(NS, "k", 3)).value == 3


async def test_reads_wait_for_a_connection_when_the_server_has_no_more(
    server: Server, admin: Any
) -> None:
    async with PostgresStore(server.url, busy_timeout=10) as store:
        await store.put(NS, "k", 1)
        await asyncio.gather(*(store.count(NS) for _ in range(3)))
        others: list[Any] = []
        try:
            await take_all(server, others)
            counts = await asyncio.gather(*(store.count(NS) for _ in range(60)))
            assert counts == [1] * 60
        finally:
            for other in others:
                await other.close()


async def test_a_server_that_became_read_only_is_left_by_whoever_only_watches(
    server: Server, admin: Any
) -> None:
    async with PostgresStore(server.url) as store, store.watch(NS) as changes:
        await store.put(NS, "k", 1)
        async with asyncio.timeout(10):
            await anext(changes)
        waiting = asyncio.create_task(anext(changes))
        news, pool = store.backend._news, store.backend._pool

        async def listens() -> bool:
            return news._connection is not None and not news._connection.is_closed()

        async def is_refused() -> bool:
            try:
                async with store.watch(("another",)):
                    return False
            except ReadOnlyError:
                return True

        await until(listens)
        before = {news._connection, *(link.raw for link in pool._idle)}
        try:
            await set_read_only(server, admin, "on")
            await until(is_refused)  # once the sessions have heard of it
            await until(lambda: all_closed(before))
        finally:
            await set_read_only(server, admin, "off")
        await store.put(NS, "l", 1)
        async with asyncio.timeout(10):
            assert (await waiting).key == "l"


@pytest.mark.parametrize("is_lost", [False, True])
async def test_writes_go_over_the_connections_there_are_when_the_server_has_no_more(
    server: Server, admin: Any, monkeypatch: pytest.MonkeyPatch, *, is_lost: bool
) -> None:
    """Also if one that is handed on is lost before the other has looked at it."""
    take_over = Channel.take_over
    lost: list[Any] = []

    def take_over_what_is_lost(channel: Channel, other: Channel) -> None:
        take_over(channel, other)
        if is_lost and len(lost) < 3 and channel.raw is not None:
            lost.append(channel.raw)
            channel.raw.terminate()

    monkeypatch.setattr(Channel, "take_over", take_over_what_is_lost)
    async with PostgresStore(server.url, busy_timeout=5) as store:
        await store.put(NS, "k", 1)
        others: list[Any] = []
        try:
            await take_all(server, others)
            roots = [(f"root {number}",) for number in range(30)]
            for number in range(3):
                await asyncio.gather(*(store.put(root, "k", number) for root in roots))
        finally:
            for other in others:
                await other.close()
        assert await store.count((), subtree=True) == 31
        assert (await store.check()).ok


async def test_a_server_that_is_full_is_waited_for_by_who_opens(server: Server, admin: Any) -> None:
    others: list[Any] = []
    try:
        await take_all(server, others)
        with pytest.raises(StoreBusyError, match="max_connections"):
            await PostgresStore(server.url, busy_timeout=0.2).open()
        store = PostgresStore(server.url, busy_timeout=5)
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(0.1)
        for other in others:
            await other.close()
        async with asyncio.timeout(5):
            await opening
        await store.put(NS, "k", 1)
        await store.close()
    finally:
        for other in others:
            await other.close()


@pytest.mark.parametrize("pooler", [False, True])
async def test_upkeep_waits_no_longer_for_a_lock_than_others(
    server: Server, admin: Any, *, pooler: bool
) -> None:
    async with PostgresStore(server.url) as store:
        await store.put(NS, "k", 1)

    async def keep_the_past() -> None:
        async with PostgresStore(  # and a server that is busy with others has time to let it in
            server.url, busy_timeout=1.2, pooler=pooler, history=3600.0
        ) as keeping:
            await keeping.sweep()

    async with admin.transaction(), asyncio.timeout(20):
        await admin.execute("SELECT FROM kvstore_state FOR UPDATE")
        with pytest.raises(StoreBusyError):
            await keep_the_past()


async def test_behind_a_pooler_each_statement_has_a_transaction_and_its_settings(
    server: Server, admin: Any
) -> None:
    session = await connect(Target.parse(server.url, is_pooler=True, busy_timeout=0.7))
    assert await session.fetchval("SHOW lock_timeout") == "700ms"
    rows = await session.fetch("SELECT current_setting('search_path') WHERE $1", True)
    assert [row[0] for row in rows] == ["pg_catalog, pg_temp"]
    assert not session.is_in_transaction()
    await session.close()


@pytest.mark.parametrize("pooler", [False, True])
async def test_a_call_of_a_queue_waits_no_longer_for_a_lock_than_others(
    server: Server, admin: Any, *, pooler: bool
) -> None:
    async with PostgresStore(server.url, busy_timeout=0.3, pooler=pooler) as store:
        queue = store.queue(NS)
        for number in range(20):  # so many that it goes by one call
            await queue.put(number)
        async with admin.transaction(), asyncio.timeout(20):
            await admin.execute("SELECT FROM kvstore_roots FOR UPDATE")
            for call in (lambda: queue.put(20), lambda: queue.take(timeout=0)):
                with pytest.raises(StoreBusyError):
                    await call()
        job = await queue.take(timeout=0)
        assert job is not None
        assert job.value == 0
        await job.done()


async def test_a_server_that_is_full_at_first_is_waited_for_and_then_named(
    server: Server, admin: Any
) -> None:
    async with PostgresStore(server.url, busy_timeout=0.3) as store:
        await store.put(NS, "k", 1)
        others: list[Any] = []
        try:
            await take_all(server, others)
            with pytest.raises(StoreBusyError, match="max_connections"):
                await store.count(NS)
            reading = asyncio.create_task(store.count(NS))
            await asyncio.sleep(0.05)
            await others.pop().close()
            assert await reading == 1
        finally:
            for other in others:
                await other.close()


# Schemas


@pytest.mark.parametrize(
    ("path", "schemas", "holding", "is_asked", "expected"),
    [
        ('"$user", public', ["public"], [], False, "public"),
        ('"$user", public', ["app", "public"], [], False, "app"),
        ('"$user", public', ["app", "public"], ["public"], False, "public"),
        ('"$user", public', ["app", "public"], ["app", "public"], False, "app"),
        ('"$user", public', [], [], False, None),
        ("kv,public", ["kv", "public"], ["public"], True, "kv"),
        ("kv,public", ["public"], [], True, None),
        ("KV , public", ["kv", "public"], [], True, "kv"),
        ('"K""V",public', ['K"V', "public"], [], True, 'K"V'),
        ('"$user",public', ["app", "public"], ["public"], True, "app"),
        ('"$user",public', ["public"], [], True, "public"),
    ],
)
def test_where_a_store_is(
    path: str, schemas: list[str], holding: list[str], is_asked: bool, expected: str | None
) -> None:
    from kvstore.postgres.session import choose_schema

    assert choose_schema(path, "app", schemas, holding, is_asked=is_asked) == expected


async def test_a_schema_that_appears_later_makes_no_store_look_empty(
    server: Server, admin: Any
) -> None:
    await admin.execute("CREATE ROLE later LOGIN; GRANT CREATE ON SCHEMA public TO later")
    url = server.url.replace("postgres@", "later@")
    async with PostgresStore(url) as one:
        await one.put(NS, "k", 1)
        await admin.execute("CREATE SCHEMA later AUTHORIZATION later")
        async with PostgresStore(url) as other:
            assert await other.get(NS, "k") is not None
            await other.put(NS, "k", 2)
        item = await one.get(NS, "k")
        assert item is not None
        assert item.value == 2
        async with PostgresStore(f"{url}&search_path=later") as asked:
            assert await asked.get(NS, "k") is None
        assert await one.get(NS, "k") == item
        with pytest.raises(StoreAccessError, match="schemas later and public: say which"):
            await PostgresStore(url).open()
        async with PostgresStore(f"{url}&search_path=public") as asked:
            assert await asked.get(NS, "k") == item


async def test_a_store_that_the_user_may_not_see_is_not_made_a_second_time(
    server: Server, admin: Any
) -> None:
    await admin.execute(
        "CREATE ROLE outsider LOGIN; CREATE SCHEMA apart; GRANT ALL ON SCHEMA apart TO outsider;"
        "ALTER ROLE outsider SET search_path = apart, public;"
        "GRANT CREATE ON SCHEMA public TO outsider"
    )
    url = server.url.replace("postgres@", "outsider@")
    async with PostgresStore(url) as store:
        await store.put(NS, "k", 1)
    await admin.execute("REVOKE USAGE ON SCHEMA apart FROM outsider")
    with pytest.raises(StoreAccessError, match="schema apart, which this user may not use"):
        await PostgresStore(url).open()
    async with PostgresStore(f"{url}&search_path=public") as store:
        assert await store.get(NS, "k") is None
    async with PostgresStore(url) as store:  # which is there now
        assert await store.count(NS) == 0
    await admin.execute("GRANT USAGE ON SCHEMA apart TO outsider")
    with pytest.raises(StoreAccessError, match="schemas apart and public"):
        await PostgresStore(url).open()
    await admin.execute("DROP OWNED BY outsider; DROP ROLE outsider; DROP SCHEMA apart CASCADE")


async def test_nothing_of_others_on_the_search_path_is_run(
    postgres: Database, postgres_url: str
) -> None:
    """Another's function of a better fit than the server's own, in the store's own schema."""
    schema = schema_of(postgres_url)
    async with PostgresStore(postgres_url) as store:
        await store.put_many(NS, {"a": 1, "b": 2})
        postgres.execute(
            f"CREATE TABLE {schema}.loot (at text);"
            f"CREATE FUNCTION {schema}.unnest(k text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$"
            f"BEGIN INSERT INTO {schema}.loot VALUES ('seen');"
            "RETURN QUERY SELECT pg_catalog.unnest(k); END $$;"
            f"CREATE FUNCTION {schema}.octet_length(t text) RETURNS int LANGUAGE plpgsql AS $$"
            f"BEGIN INSERT INTO {schema}.loot VALUES ('seen'); RETURN 1; END $$"
        )
        assert len(await store.get_many(NS, ["a", "b"])) == 2
        await store.stats()
        await store.delete_many(NS, ["a"])
        assert postgres.execute(f"SELECT count(*) FROM {schema}.loot") == 0
    async with PostgresStore(postgres_url):
        assert postgres.execute(f"SELECT count(*) FROM {schema}.loot") == 0


async def test_a_schema_with_any_name_will_do(postgres: Database) -> None:
    name = 'Kv\'s "own"; $$ --'
    quoted = '"' + name.replace('"', '""') + '"'
    postgres.execute(f"CREATE SCHEMA {quoted}")
    try:
        from urllib.parse import quote

        separator = "&" if "?" in postgres.url else "?"
        url = f"{postgres.url}{separator}search_path={quote(quoted, safe='')}"
        async with PostgresStore(url) as store:
            await store.put(NS, "k", 1)
            assert (await store.stats()).items == 1
            assert (await store.check()).ok
            await store.vacuum()
    finally:
        postgres.execute(f"DROP SCHEMA {quoted} CASCADE")


async def test_a_schema_that_is_asked_for_and_not_there_is_named(postgres: Database) -> None:
    separator = "&" if "?" in postgres.url else "?"
    url = f"{postgres.url}{separator}search_path=no_such_one,public"
    with pytest.raises(StoreAccessError, match="no_such_one"):
        await PostgresStore(url).open()
