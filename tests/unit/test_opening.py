"""`kvstore.open`: which store a path or a URL means."""

from __future__ import annotations

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
    "url", ["http://host/agent.db", "redis://host", "sqlite://agent.db", "sqlite://", "sqlite:///"]
)
def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError):
        kvstore.open(url)


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
