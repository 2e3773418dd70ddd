"""What a call costs on a cluster: how often one machine asks another one, and whether it agrees.

Citus tells of each command that it sends to another machine (`citus.log_remote_commands`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from kvstore import IndexConfig

from .cluster import ENVIRONMENT
from .server import Database, reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)
if not os.environ.get(ENVIRONMENT):
    pytest.skip(f"{ENVIRONMENT} names no cluster", allow_module_level=True)

from kvstore.postgres import PostgresStore
from kvstore.postgres.session import Session

NS = ("a", "b")
TELLING = "-c citus.log_remote_commands=on"


class Commands:
    """What machines have sent to others since `clear`."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def hear(self, _connection: object, message: Any) -> None:
        if message.message.startswith("issuing "):
            self.sent.append(message.message.removeprefix("issuing "))

    async def of(self, call: Callable[[], Awaitable[Any]]) -> int:
        """Make a call; return how many commands it was."""
        self.sent.clear()
        await call()
        assert not [each for each in self.sent if "PREPARE" in each], "a two-phase commit"
        return len(self.sent)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    prepare_for = Session.prepare_for

    async def prepare(session: Session, target: Any) -> None:
        session.add_log_listener(commands.hear)
        await prepare_for(session, target)

    monkeypatch.setattr(Session, "prepare_for", prepare)
    return commands


@pytest.fixture
def telling_url(citus: Database) -> Any:
    """The address of an empty schema, in whose sessions each command is told of."""
    with citus.schema() as url:
        yield url.replace("-c%20", f"{TELLING} -c ".replace(" ", "%20").replace("=", "%3D"), 1)


@pytest.fixture
async def store(telling_url: str, commands: Commands) -> AsyncIterator[PostgresStore]:
    assert schema_of(telling_url)
    async with PostgresStore(telling_url, distributed=True) as store:
        await store.put(NS, "k", 1)
        if not commands.sent:
            pytest.skip("all is on one machine")
        yield store


async def test_a_put_is_one_command(store: PostgresStore, commands: Commands) -> None:
    assert await commands.of(lambda: store.put(NS, "k", 2)) == 1
    assert await commands.of(lambda: store.put(NS, "new", 1, ttl=60)) == 1
    assert await commands.of(lambda: store.put_many(NS, {str(at): at for at in range(50)})) == 1
    for root in ("b", "c", "d"):  # on one machine or another; none was written under before
        assert await commands.of(partial(store.put, (root,), "k", 1)) == 1
    async with store.watch(NS), store.watch():
        assert await commands.of(lambda: store.put(NS, "k", 3)) == 1
        assert await commands.of(lambda: store.put(NS, "newer", 3)) == 1


async def test_other_calls_of_one_root_are_few_commands(
    store: PostgresStore, commands: Commands
) -> None:
    log, queue = store.log(("a", "log")), store.queue(("a", "queue"))
    await log.append(1)
    await queue.put(1)
    jobs: list[Any] = []

    async def take() -> None:
        jobs.append(await queue.take())

    async def finish() -> None:
        await jobs[0].done()

    calls: dict[str, tuple[Callable[[], Awaitable[Any]], int]] = {
        "get": (lambda: store.get(NS, "k"), 1),
        "get many": (lambda: store.get_many(NS, ["k", "l", "m"]), 1),
        "keys": (lambda: store.keys(NS), 1),
        "count": (lambda: store.count(("a",), subtree=True), 1),
        "search": (lambda: store.search(NS, filter={"n": 1}), 1),
        "namespaces": (lambda: store.list_namespaces(prefix=("a",)), 1),
        # The second writes; the others read what it is decided by, of the item and of its log
        "increment": (lambda: store.increment(NS, "k"), 3),
        "put over a version": (lambda: store.put(NS, "once", 1, if_version=0), 3),
        "delete": (lambda: store.delete(NS, "once"), 3),
        "append": (lambda: log.append(2), 3),
        "queue put": (lambda: queue.put(2), 3),
        "take": (take, 4),
        "done": (finish, 4),
    }
    taken = {name: await commands.of(call) for name, (call, _) in calls.items()}
    assert taken == {name: most for name, (_, most) in calls.items()}


async def test_a_put_with_words_is_a_read_and_one_command_that_writes(
    telling_url: str, commands: Commands
) -> None:
    async with PostgresStore(telling_url, distributed=True, index=IndexConfig()) as store:
        await store.put(NS, "k", "some words")
        assert await commands.of(lambda: store.put(NS, "k", "other words")) == 2
        assert await commands.of(lambda: store.put(NS, "l", "more words")) == 2
        async with store.watch(NS):
            assert await commands.of(lambda: store.put(NS, "l", "no more")) == 2
        assert await commands.of(lambda: store.search(NS, "other", mode="text")) == 5


async def test_a_put_with_a_past_is_one_command(telling_url: str, commands: Commands) -> None:
    async with PostgresStore(telling_url, distributed=True, history=60) as store:
        await store.put(("c",), "k", 1)
        assert await commands.of(lambda: store.put(("c",), "k", 2)) == 1
        assert await commands.of(lambda: store.increment(("c",), "k")) == 2


async def test_namespaces_of_all_roots_are_asked_for_root_by_root(
    store: PostgresStore, commands: Commands
) -> None:
    for root in ("b", "c"):
        await store.put((root, "x"), "k", 1)
    await store.put((), "k", 1)
    for depth in (None, 1):
        await commands.of(partial(store.list_namespaces, max_depth=depth))
        items = [each for each in commands.sent if "kvstore_items" in each]
        assert items
        assert all("root OPERATOR(pg_catalog.=)" in each for each in items)
    assert await store.list_namespaces() == [(), ("a", "b"), ("b", "x"), ("c", "x")]
