"""`kv`: the sync facade, over each way that it can run its store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvstore
from kvstore import FlowScope, KeyValueStore

Make = Callable[..., KeyValueStore]


@contextmanager
def open_elsewhere(store: kvstore.Store) -> Iterator[kvstore.Store]:
    """Open a store on an event loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(store.open(), loop).result()
        yield store
    finally:
        asyncio.run_coroutine_threadsafe(store.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(params=["file", "memory", "guest"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes facades on one and the same store."""
    path = tmp_path / "project.db"
    if request.param == "file":
        made: list[KeyValueStore] = []

        def on_file(scope: FlowScope | None = None) -> KeyValueStore:
            made.append(KeyValueStore(path, scope=scope))
            return made[-1]

        yield on_file
        for facade in made:
            facade.close()
    elif request.param == "memory":
        first = KeyValueStore("memory://")
        yield lambda scope=None: first.scoped(
            **{name: getattr(scope, name, None) for name in ("flow", "session", "run")}
        )
        first.close()
    else:
        with open_elsewhere(kvstore.SQLiteStore(path)) as store:
            yield lambda scope=None: KeyValueStore(store, scope=scope)


@pytest.fixture
def kv(make: Make) -> KeyValueStore:
    return make()
