"""`KVSession` is a session of the OpenAI Agents SDK."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("agents.memory")

from agents.memory import Session, SessionSettings

from kvstore.integrations.openai_agents import KVSession


def said(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


async def test_the_latest_come_in_their_order(tmp_path: Path) -> None:
    session = KVSession(tmp_path / "a.db", "s/1")
    assert isinstance(session, Session)
    assert await session.get_items() == []
    await session.add_items(said("a", "b"))
    await session.add_items([])
    await session.add_items(said("c"))
    assert await session.get_items() == said("a", "b", "c")
    assert await session.get_items(2) == said("b", "c")
    assert await session.get_items(0) == []
    assert await KVSession(tmp_path / "a.db", "s/2").get_items() == []
    await session.close()
    session = KVSession(tmp_path / "a.db", "s/1", session_settings=SessionSettings(limit=1))
    assert await session.get_items() == said("c")
    assert await session.get_items(limit=3) == said("a", "b", "c")
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items(said("d"))
    assert await session.get_items() == said("d")
    await session.close()


async def test_nothing_is_popped_twice_and_nothing_mixed_up(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "a.db") as store:
        sessions = [KVSession(store, "s") for _ in range(5)]
        await sessions[0].add_items(said(*map(str, range(50))))
        popped = await asyncio.gather(*(sessions[n % 5].pop_item() for n in range(60)))
        texts = [item["content"] for item in popped if item is not None]
        assert sorted(texts, key=int) == [str(n) for n in range(50)]
        assert await sessions[0].pop_item() is None
        await asyncio.gather(*(each.add_items(said("1", "2", "3")) for each in sessions))
        assert await sessions[0].get_items() == said("1", "2", "3") * 5


def test_a_namespace_that_is_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(kvstore.InvalidNamespaceError, match="not a str"):
        KVSession(tmp_path / "a.db", "s", namespace="sessions")
