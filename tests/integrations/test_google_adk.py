"""`KVSessionService` and `KVMemoryService` are services of Google's Agent Development Kit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("google.adk.sessions")

from google.adk.errors._stale_session_error import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from kvstore.integrations.google_adk import KVMemoryService, KVSessionService

WHO: Any = {"app_name": "app", "user_id": "al/ice"}


def said(text: str, at: float = 1.0, **more: Any) -> Event:
    content = types.Content(role="user", parts=[types.Part(text=text)])
    return Event(author="user", content=content, timestamp=at, id=text, **more)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[KVSessionService]:
    service = KVSessionService(tmp_path / "a.db")
    yield service
    await service.close()


async def test_events_and_states_by_their_scopes(tmp_path: Path, service: KVSessionService) -> None:
    first = {"app:a": 1, "user:u": 2, "temp:t": 3, "s": 4}
    session = await service.create_session(**WHO, session_id=" s1 ", state=first)
    assert (session.id, session.state) == ("s1", {"app:a": 1, "user:u": 2, "s": 4})
    with pytest.raises(AlreadyExistsError):
        await service.create_session(**WHO, session_id="s1")
    delta = {"app:a": 5, "temp:t": 6, "s": 7}
    event = await service.append_event(
        session, said("hello", 10.0, actions=EventActions(state_delta=delta))
    )
    assert session.state["temp:t"] == 6
    assert event.actions.state_delta == {"app:a": 5, "s": 7}
    await service.append_event(session, said("partial", 11.0, partial=True))
    await service.append_event(session, said("older", 5.0))
    other = KVSessionService(tmp_path / "a.db")  # as another process would
    found = await other.get_session(**WHO, session_id="s1")
    assert found is not None
    assert [each.id for each in found.events] == ["hello", "older"]
    assert found.state == {"app:a": 5, "user:u": 2, "s": 7}
    assert found.last_update_time == 5.0
    assert found.events[0].content == event.content
    mine = await other.create_session(**WHO)
    assert mine.state == {"app:a": 5, "user:u": 2}
    bobs = await other.create_session(app_name="app", user_id="bob")
    assert bobs.state == {"app:a": 5}
    assert (await other.create_session(app_name="b", user_id="al/ice")).state == {}
    assert await other.get_user_state(**WHO) == {"u": 2}
    await other.close()


async def test_a_part_of_the_events(service: KVSessionService) -> None:
    session = await service.create_session(**WHO, session_id="s")
    for number in range(5):
        await service.append_event(session, said(str(number), float(number)))
    for config, ids in (
        (GetSessionConfig(num_recent_events=2), "34"),
        (GetSessionConfig(num_recent_events=0), ""),
        (GetSessionConfig(after_timestamp=3.0), "34"),
        (GetSessionConfig(num_recent_events=9), "01234"),
    ):
        found = await service.get_session(**WHO, session_id="s", config=config)
        assert found is not None
        assert "".join(each.id for each in found.events) == ids


async def test_lists_and_deletes(service: KVSessionService) -> None:
    for number in (2, 1):
        session = await service.create_session(**WHO, session_id=f"s{number}")
        await service.append_event(session, said("x", float(number)))
    await service.create_session(app_name="app", user_id="bob", session_id="b")
    listed = (await service.list_sessions(**WHO)).sessions
    assert [(each.id, each.events) for each in listed] == [("s1", []), ("s2", [])]
    assert len((await service.list_sessions(app_name="app")).sessions) == 3
    await service.delete_session(**WHO, session_id="s1")
    assert await service.get_session(**WHO, session_id="s1") is None
    again = await service.create_session(**WHO, session_id="s1")
    assert again.events == []


async def test_an_id_means_the_same_with_spaces_around_it(service: KVSessionService) -> None:
    await service.create_session(**WHO, session_id=" s ")
    assert await service.get_session(**WHO, session_id="s ") is not None
    await service.delete_session(**WHO, session_id=" s")
    assert await service.get_session(**WHO, session_id="s") is None


async def test_stale_and_missing_sessions_are_told(service: KVSessionService) -> None:
    session = await service.create_session(**WHO, session_id="s")
    stale = await service.get_session(**WHO, session_id="s")
    assert stale is not None
    await service.append_event(session, said("one"))
    with pytest.raises(StaleSessionError):
        await service.append_event(stale, said("two"))
    copies = [await service.get_session(**WHO, session_id="s") for _ in range(8)]
    done = await asyncio.gather(
        *(service.append_event(each, said(f"r{n}")) for n, each in enumerate(copies) if each),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Event) for each in done) == 1
    assert sum(isinstance(each, StaleSessionError) for each in done) == 7
    await service.delete_session(**WHO, session_id="s")
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, said("late"))


async def test_memories(tmp_path: Path) -> None:
    sessions = KVSessionService("memory://")
    session = await sessions.create_session(**WHO, session_id="s")
    for text in ("I like green tea", "My cat sleeps"):
        await sessions.append_event(session, said(text))
    memory = KVMemoryService(tmp_path / "m.db")
    for _ in range(2):
        await memory.add_session_to_memory(session)
    found = (await memory.search_memory(**WHO, query="tea")).memories
    assert [each.id for each in found] == ["I like green tea"]
    assert found[0].content.parts[0].text == "I like green tea"
    assert (await memory.search_memory(app_name="app", user_id="bob", query="tea")).memories == []
    session.events.pop(1)
    await memory.add_session_to_memory(session)
    assert (await memory.search_memory(**WHO, query="cat")).memories == []
    many = [said(f"tea number {n}") for n in range(30)]
    await memory.add_events_to_memory(**WHO, events=[*many, many[0]])
    assert len((await memory.search_memory(**WHO, query="tea")).memories) == 10
    await memory.delete_memory(**WHO, memory_id="I like green tea")
    await memory.add_session_to_memory(session)
    assert (await memory.search_memory(**WHO, query="green")).memories == []
    await memory.close()
    await sessions.close()


async def test_both_services_and_others_on_one_file(tmp_path: Path) -> None:
    sessions, memories = KVSessionService(tmp_path / "a.db"), KVMemoryService(tmp_path / "a.db")
    session = await sessions.create_session(**WHO, session_id="s")
    for text in ("green tea", "a cat"):
        await sessions.append_event(session, said(text))
    await memories.add_session_to_memory(session)
    await sessions.append_event(session, said("later"))
    for _ in range(2):
        found = await memories.search_memory(**WHO, query="tea")
        assert [each.id for each in found.memories] == ["green tea"]
        async with kvstore.open(tmp_path / "a.db") as store:  # which knows of no index
            await store.put(("other",), "k", {"text": "tea"})
    await sessions.close()
    await memories.close()
