"""A session goes with all that belongs to it, and nothing of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.views import SESSION, SESSION_PLACES, delete_session


@pytest.fixture(params=["memory", "file"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else str(tmp_path / "a.db")


async def test_all_of_one_session_goes_at_once(target: str) -> None:
    async with kvstore.open(target) as store:
        for session in ("s*", "s", "s1"):
            await store.log(("openai_agents", "sessions", session)).append({"role": "user"})
            await store.put(("langchain", "history", session), "1", {})
            await store.put(("llama_index", "chats", session), "1", {})
            await store.put(("langgraph", "threads", session, "\0"), "1", {})
            await store.put(("langgraph", "threads", session, "\0", "pieces"), "1", {})
            await store.put(("flow", "project", "session", session), "$session.seen", 1)
            await store.put(("flow", "entity", "e/1", "session", session), "$session.x", 1)
            await store.put(("sessions",), session, {})
            await store.put(("sessions", session, "draft"), "k", {})
            await store.put(("files", session), "a.txt", "text")
        await store.put(("flow", "entity", "e/1"), "s*", "an entity's, no session's")
        total = await store.count((), subtree=True)
        assert await delete_session(store, "s*") == 9
        assert await delete_session(store, "s*") == 0
        assert await store.count((), subtree=True) == total - 9
        assert await store.get(("flow", "entity", "e/1"), "s*") is not None
        assert await delete_session(store, "s*", places=(("files", SESSION),)) == 1
        places = (*SESSION_PLACES, ("files", SESSION))
        assert await delete_session(store, "s1", places=places) == 10


@pytest.mark.parametrize("wrong", ["", None, 1])
async def test_no_id_deletes_nothing(wrong: Any, target: str) -> None:
    async with kvstore.open(target) as store:
        with pytest.raises(kvstore.InvalidArgumentError, match="id of a session"):
            await delete_session(store, wrong)
        with pytest.raises(kvstore.InvalidArgumentError, match="names no session"):
            await delete_session(store, "s", places=(("files",),))
