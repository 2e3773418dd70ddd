"""`kvstore.open`: which store a path or a URL means."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import InMemoryStore, InvalidArgumentError, MissingDependencyError, SQLiteStore


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("agent.db", "agent.db"),
        ("/var/lib/agent.db", "/var/lib/agent.db"),
        ("./sqlite:odd.db", "sqlite:odd.db"),
        (Path("agent.db"), "agent.db"),
        ("sqlite:///agent.db", "agent.db"),
        ("sqlite:////var/lib/agent.db", "/var/lib/agent.db"),
        ("SQLite:///agent.db", "agent.db"),
        ("sqlite:///a%20b%3F.db", "a b?.db"),
        ("sqlite:///my#notes.db", "my#notes.db"),
        ("sqlite:///100%.db", "100%.db"),
        ("sqlite:///r%E9sum%E9.db", os.fsdecode(b"r\xe9sum\xe9.db")),
        ("sqlite:///ü.db?durability=full&busy_timeout=2.5", "ü.db"),
        (b"agent.db", "agent.db"),
        ("a b?.db", "a b?.db"),
        ("C:\\agent.db", "C:\\agent.db"),
    ],
    ids=str,
)
def test_a_path_or_a_sqlite_url_is_a_file(url: Any, path: str) -> None:
    store = kvstore.open(url, default_ttl=5)
    assert isinstance(store, SQLiteStore)
    assert store.path == Path(path)


def test_memory() -> None:
    assert isinstance(kvstore.open("memory://"), InMemoryStore)


@pytest.mark.parametrize("url", ["memory://", "sqlite:///agent.db"])
def test_options_go_to_the_store(url: str) -> None:
    with pytest.raises(kvstore.InvalidTTLError):
        kvstore.open(url, default_ttl=-1)
    with pytest.raises(TypeError):
        kvstore.open(url, no_such_option=1)


@pytest.mark.parametrize(
    "url",
    [
        *("http://host/agent.db", "redis://host", "memory://name", "memory:?x=1"),
        *("sqlite://agent.db", "sqlite://", "sqlite:///", "sqlite://host/agent.db", "sqlite:a.db"),
        *("sqlite:///a.db?durabilty=full", "sqlite:///a.db?durability", "sqlite:///a.db?x"),
        *("sqlite:///a.db?durability=most", "sqlite:///a.db?busy_timeout=soon", "sqlite:///%00"),
        "sqlite:///a.db?busy_timeout=1&busy_timeout=2",
    ],
)
def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError):
        kvstore.open(url)


def test_a_url_and_a_keyword_must_not_disagree() -> None:
    assert kvstore.open("sqlite:///a.db?durability=full", durability="full")
    with pytest.raises(InvalidArgumentError, match=r"'full'.*'normal'"):
        kvstore.open("sqlite:///a.db?durability=full", durability="normal")


def test_postgres_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("kvstore.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(MissingDependencyError, match=r"kvstore\[postgres\]") as refusal:
        kvstore.open("postgresql://user:hunter2@host/db")
    assert "hunter2" not in str(refusal.value)


async def test_a_store_is_inert_until_opened(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    store = kvstore.open(path)
    assert not path.exists()
    async with store:
        assert path.exists()
