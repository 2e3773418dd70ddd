"""Google's Agent Development Kit over a kvstore: `KVSessionService` and `KVMemoryService`.

Each takes a path, a URL or a store first, and opens it at the first call. A session's revision is
its number of events so far; an event, the session and the states that it changes are written in one
transaction, and only over the revision that the caller has.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from kvstore.instants import FOREVER
from kvstore.integrations.access import Access, Target, indexed
from kvstore.integrations.requirements import needing
from kvstore.namespace import address, check_key
from kvstore.operations import Delete, Remove
from kvstore.patterns import EVERY_KEY
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.transaction import Transaction
from kvstore.types import IndexConfig, Item, Namespace

with needing("kvstore.integrations.google_adk", "google-adk", "2.10", extra="google-adk"):
    from google.adk.errors._stale_session_error import StaleSessionError
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.events.event import Event
    from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
    from google.adk.memory.memory_entry import MemoryEntry
    from google.adk.sessions.base_session_service import (
        BaseSessionService,
        GetSessionConfig,
        ListSessionsResponse,
    )
    from google.adk.sessions.session import Session
    from google.adk.sessions.state import State

__all__ = ["KVMemoryService", "KVSessionService"]

_ROOT: Final = ("google_adk",)
_MOST_MEMORIES: Final = 10


def _sessions(app: str, user: str) -> Namespace:
    return (*_ROOT, "sessions", app, user)


def _events(app: str, user: str, session: str) -> Namespace:
    return (*_ROOT, "events", app, user, session)


def _event_key(number: int) -> str:
    """Return the key of an event, whose number is the session's revision since."""
    return f"{number:016}"


def _app_state() -> Namespace:
    return (*_ROOT, "state")


def _user_state(app: str) -> Namespace:
    return (*_ROOT, "state", app)


class KVSessionService(Recipe, BaseSessionService):  # type: ignore[misc, unused-ignore]
    """An ADK session service: sessions, their events, and state by app, user and session.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
    """

    def __init__(self, target: Target) -> None:
        self._access = Access(target, type(self).__name__)

    async def close(self) -> None:
        """Close the store if this object opened it."""
        await self._access.close()

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Make a session, of a new id unless one is given.

        Raises:
            AlreadyExistsError: there is one of that id.
        """
        id = (session_id or "").strip() or str(uuid.uuid4())
        scopes = _by_scope(state or {})
        now = time.time()

        async def make(tx: Transaction) -> None:
            if await tx.get(_sessions(app_name, user_id), id) is not None:
                raise AlreadyExistsError(f"Session with id {id} already exists.")
            value = {"state": scopes["session"], "updated": now, "revision": 0}
            tx.put(_sessions(app_name, user_id), id, value, ttl=FOREVER, index=False)
            await _merge(tx, app_name, user_id, scopes)

        await self._access.run(lambda store: store.transact(make))
        found = await self.get_session(app_name=app_name, user_id=user_id, session_id=id)
        assert found is not None
        return found

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session with its events in the order in which they were appended."""
        id = session_id.strip()

        async def read(store: Store) -> Session | None:
            item = await store.get(_sessions(app_name, user_id), id)
            if item is None:
                return None
            namespace = _events(app_name, user_id, id)
            last, first = item.value["revision"], 0
            if config is not None and config.num_recent_events is not None:
                first = max(0, last - config.num_recent_events)
            # What has come in since the session was read is not of this one.
            keys = await store.keys(namespace, after=_event_key(first), before=_event_key(last + 1))
            stored = (await store.get_many(namespace, keys)).values()
            events = [Event.model_validate(each.value) for each in stored]
            if config is not None and config.after_timestamp is not None:
                events = [each for each in events if each.timestamp >= config.after_timestamp]
            merged = await _merged(store, app_name, user_id, item.value["state"])
            return _session(app_name, user_id, id, item.value, merged, events)

        return await self._access.run(read)

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return sessions without their events, the one updated longest ago first."""

        async def read(store: Store) -> list[Session]:
            root = (*_ROOT, "sessions", app_name) + (() if user_id is None else (user_id,))
            found = []
            async for item in store.scan(root):
                user = item.namespace[-1]
                merged = await _merged(store, app_name, user, item.value["state"])
                found.append(_session(app_name, user, item.key, item.value, merged, []))
            return sorted(found, key=lambda each: each.last_update_time)

        return ListSessionsResponse(sessions=await self._access.run(read))

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session with its events, in one transaction."""
        id = session_id.strip()
        sessions, events = _sessions(app_name, user_id), _events(app_name, user_id, id)
        unit = (
            Delete(*address(sessions), check_key(id)),
            Remove(*address(events), EVERY_KEY, False),
        )
        await self._access.run(lambda store: store.apply(unit))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return a user's state, without the prefix of its names."""
        item = await self._access.run(lambda store: store.get(_user_state(app_name), user_id))
        return {} if item is None else item.value

    async def append_event(self, session: Session, event: Event) -> Event:
        """Add an event, with the changes of state that it brings; a partial one is not stored.

        Raises:
            SessionNotFoundError: there is no such session.
            StaleSessionError: another one has added an event since this session was read.
        """
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        app, user, id = session.app_name, session.user_id, session.id
        scopes = _by_scope(event.actions.state_delta if event.actions else {})

        async def append(tx: Transaction) -> int:
            item = await tx.get(_sessions(app, user), id)
            if item is None:
                raise SessionNotFoundError(f"Session not found: {id}")
            revision: int = item.value["revision"]
            marker = session._storage_update_marker
            if marker is not None and marker != str(revision):
                raise StaleSessionError(
                    f"The session {id} has been changed since it was read; get it again."
                )
            state = {**item.value["state"], **scopes["session"]}
            value = {"state": state, "updated": event.timestamp, "revision": revision + 1}
            dumped = event.model_dump(mode="json", exclude_none=True)
            tx.put(
                _events(app, user, id), _event_key(revision + 1), dumped, ttl=FOREVER, index=False
            )
            tx.put(_sessions(app, user), id, value, ttl=FOREVER, index=False)
            await _merge(tx, app, user, scopes)
            return revision + 1

        revision = await self._access.run(lambda store: store.transact(append, attempts=100))
        event = self._commit_event_to_session(session, event)
        session.last_update_time = event.timestamp
        session._storage_update_marker = str(revision)
        return event


def _by_scope(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is of the app, of the user and of the session; `temp:` is nobody's."""
    scopes: dict[str, dict[str, Any]] = {"app": {}, "user": {}, "session": {}}
    for name, value in state.items():
        if name.startswith(State.APP_PREFIX):
            scopes["app"][name.removeprefix(State.APP_PREFIX)] = value
        elif name.startswith(State.USER_PREFIX):
            scopes["user"][name.removeprefix(State.USER_PREFIX)] = value
        elif not name.startswith(State.TEMP_PREFIX):
            scopes["session"][name] = value
    return scopes


async def _merge(
    tx: Transaction, app: str, user: str, scopes: Mapping[str, Mapping[str, Any]]
) -> None:
    for namespace, key, news in (
        (_app_state(), app, scopes["app"]),
        (_user_state(app), user, scopes["user"]),
    ):
        if news:
            item = await tx.get(namespace, key)
            old = {} if item is None else item.value
            tx.put(namespace, key, {**old, **news}, ttl=FOREVER, index=False)


async def _merged(store: Store, app: str, user: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a session's state as it sees it, with the app's and the user's."""
    of_app = await store.get(_app_state(), app)
    of_user = await store.get(_user_state(app), user)
    merged = dict(own)
    for prefix, item in ((State.APP_PREFIX, of_app), (State.USER_PREFIX, of_user)):
        if item is not None:
            merged |= {prefix + name: value for name, value in item.value.items()}
    return merged


def _session(
    app: str, user: str, id: str, value: Mapping[str, Any], state: Any, events: list[Event]
) -> Session:
    session = Session(
        app_name=app,
        user_id=user,
        id=id,
        state=state,
        events=events,
        last_update_time=value["updated"],
    )
    session._storage_update_marker = str(value["revision"])
    return session


class KVMemoryService(Recipe, BaseMemoryService):  # type: ignore[misc, unused-ignore]
    """An ADK memory service: what was said in sessions, found by words or by meaning.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store, which should have an index. The
            file of a path gets one of words.
    """

    def __init__(self, target: Target) -> None:
        self._access = Access(target, type(self).__name__, index=IndexConfig(fields=("text",)))

    async def close(self) -> None:
        """Close the store if this object opened it."""
        await self._access.close()

    async def add_session_to_memory(self, session: Session) -> None:
        """Remember a session's events, in place of what was remembered of it."""
        where = _memories(session.app_name, session.user_id)

        async def remember(store: Store) -> None:
            new = _texts(session.events, session.id)
            kept = await store.keys(where)
            found = await store.get_many(where, kept)
            old = [key for key, item in found.items() if item.value["session"] == session.id]
            await store.delete_many(where, [key for key in old if key not in new])
            await self._put(store, where, new)

        await self._access.run(remember)

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember events, each once."""
        where = _memories(app_name, user_id)
        new = _texts(events, session_id)
        await self._access.run(lambda store: self._put(store, where, new))

    async def _put(self, store: Store, where: Namespace, new: Mapping[str, Any]) -> None:
        """Store memories, but none that was deleted."""
        deleted = await store.get_many((*where, "deleted"), new)
        wanted = {key: new[key] for key in new if key not in deleted}
        await store.put_many(where, wanted, ttl=FOREVER)

    async def search_memory(
        self, *, app_name: str, user_id: str, query: str
    ) -> SearchMemoryResponse:
        """Return what was said about something, ten memories at most, the best first."""
        where = _memories(app_name, user_id)

        async def search(store: Store) -> list[Item]:
            return await indexed(store, lambda: store.search(where, query, limit=_MOST_MEMORIES))

        found = await self._access.run(search)
        memories = [
            MemoryEntry(
                id=item.key,
                content=item.value["content"],
                author=item.value["author"],
                timestamp=datetime.fromtimestamp(item.value["at"], UTC).isoformat(),
            )
            for item in found
        ]
        return SearchMemoryResponse(memories=memories)

    async def delete_memory(
        self, *, app_name: str, user_id: str, memory_id: str | None = None
    ) -> None:
        """Delete a memory for good: it does not come back when its session is added again."""
        where = _memories(app_name, user_id)
        if memory_id is None:
            return

        def delete(tx: Transaction) -> None:
            tx.delete(where, memory_id)
            tx.put((*where, "deleted"), memory_id, True, ttl=FOREVER, index=False)

        await self._access.run(lambda store: store.transact(delete))


def _memories(app: str, user: str) -> Namespace:
    return (*_ROOT, "memories", app, user)


def _texts(events: Sequence[Event], session: str | None) -> dict[str, Any]:
    """Return the memories that events are, by their ids."""
    memories: dict[str, Any] = {}
    for event in events:
        parts = (event.content and event.content.parts) or []
        text = " ".join(part.text for part in parts if part.text)
        if text:
            memories[event.id] = {
                "text": text,
                "content": event.content.model_dump(mode="json", exclude_none=True),
                "author": event.author,
                "at": event.timestamp,
                "session": session,
            }
    return memories
