"""The options of a store outside their domain are refused when it is made."""

from __future__ import annotations

from typing import Any

import pytest

import kvstore
from kvstore import InMemoryStore, InvalidArgumentError, InvalidTTLError, SQLiteStore, Store
from kvstore.testing import BAD_TTLS


def stores(**options: Any) -> list[Store]:
    return [InMemoryStore(**options), SQLiteStore("unused.db", **options)]


@pytest.mark.parametrize("ttl", BAD_TTLS, ids="{!r:.20}".format)
def test_default_ttl(ttl: Any) -> None:
    for make in (InMemoryStore, lambda **options: SQLiteStore("unused.db", **options)):
        with pytest.raises(InvalidTTLError):
            make(default_ttl=ttl)


@pytest.mark.parametrize(
    "options",
    [
        {"index": "model"},
        {"index": len},
        {"clock": 5},
        {"clock": None},
        {"max_value_bytes": -1},
        {"max_value_bytes": "64"},
        {"max_value_bytes": True},
        {"sweep_interval": 0},
        {"sweep_interval": -1},
        {"sweep_interval": float("nan")},
        {"sweep_interval": "60"},
        {"sweep_interval": 10**400},
    ],
    ids=lambda options: str(options)[:40],
)
def test_options_of_every_store(options: dict[str, Any]) -> None:
    for make in (InMemoryStore, lambda **each: SQLiteStore("unused.db", **each)):
        with pytest.raises(InvalidArgumentError):
            make(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "fast"},
        {"durability": None},
        {"busy_timeout": -1},
        {"busy_timeout": float("nan")},
        {"busy_timeout": "5"},
        {"busy_timeout": 10**400},
    ],
    ids=lambda options: str(options)[:40],
)
def test_options_of_sqlite(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        SQLiteStore("unused.db", **options)


def test_sensible_options_are_taken() -> None:
    for store in stores(default_ttl=5, refresh_ttl=True, max_value_bytes=10, sweep_interval=None):
        assert isinstance(store, Store)


def test_a_stores_repr_names_its_place_and_never_a_password() -> None:
    assert repr(kvstore.SQLiteStore("some/agent.db")) == "SQLiteStore('some/agent.db')"
    assert repr(kvstore.InMemoryStore()) == "InMemoryStore()"
    pytest.importorskip("asyncpg")
    shown = repr(kvstore.open("postgresql://me:very-secret@db.example:5433/agents"))
    assert "db.example" in shown
    assert "very-secret" not in shown
