"""A read of several statements sees one moment, whoever writes between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore import SQLiteStore, Store
from kvstore.backend import NamespaceQuery
from kvstore.namespace import encode_namespace
from kvstore.sqlite import reading
from kvstore.sqlite.connection import connect
from kvstore.sqlite.direct import run_directly
from kvstore.transaction import Transaction

NS = ("n",)
KEYS = ["\0", *(f"k{n}" for n in range(50))]
NOW = 1_750_000_000_000_000
ROUND = [("a",), ("b",), ("c",)], [("x",), ("y",), ("z",)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    twin = SQLiteStore(tmp_path / "a.db").blocking()
    assert twin is not None
    run_directly(twin.open())
    yield twin
    run_directly(twin.close())


def read_while(store: Store, write: Callable[[int], None], read: Callable[[Any], Any]) -> Any:
    """Read on a connection, and write with its number before each statement but the first."""
    write(0)
    statements: list[str] = []

    def begins(statement: str) -> None:
        if "FROM items" in statement:
            statements.append(statement)
            write(len(statements))

    assert store.backend.own_file is not None
    connection = connect(store.backend.own_file, "ro", busy_timeout=5.0)
    connection.set_trace_callback(begins)
    try:
        return read(connection)
    finally:
        connection.close()
        assert len(statements) > 2


def test_many_keys_are_of_one_moment(store: Store) -> None:
    def write(number: int) -> None:
        run_directly(store.put_many(NS, dict.fromkeys(KEYS, number)))

    path = encode_namespace(NS)
    items = read_while(store, write, lambda link: reading.get_many(link, NS, path, KEYS, NOW * 2))
    assert len(items) == len(KEYS)
    assert len({item.value for item in items}) == 1


def test_a_listing_of_namespaces_is_of_one_moment(store: Store) -> None:
    def write(number: int) -> None:
        def swap(tx: Transaction) -> None:
            for namespace in ROUND[number % 2]:
                tx.put(namespace, "k", 1)
            for namespace in ROUND[1 - number % 2]:
                tx.delete(namespace, "k")

        run_directly(store.transact(swap))

    asked = NamespaceQuery((), (), 1, ())
    found = read_while(
        store, write, lambda link: reading.list_namespaces(link, asked, None, 0, NOW * 2)
    )
    assert found in ROUND
