"""A session with all that belongs to it, wherever in a store that lies."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Final

from kvstore.errors import InvalidArgumentError
from kvstore.namespace import address
from kvstore.operations import Remove
from kvstore.patterns import EVERY_KEY, compile_pattern, escape
from kvstore.store import Store
from kvstore.types import Namespace

__all__ = ["SESSION", "SESSION_PLACES", "delete_session"]

SESSION: Final = "{session}"
"""Stands for the session's id in a place."""

Place = Sequence[str | EllipsisType]

SESSION_PLACES: Final[tuple[Place, ...]] = (
    ("langgraph", "threads", SESSION),  # checkpoints, their writes and pieces
    ("langchain", "history", SESSION),
    ("llama_index", "chats", SESSION),
    ("openai_agents", "sessions", SESSION),
    ("flow", "project", "session", SESSION),
    ("flow", "entity", ..., "session", SESSION),
    ("sessions", SESSION),  # for what is one's own
)
"""Where kvstore's adapters and flows keep what belongs to a session.

Those of Google's ADK are not among them: an id is one of an app and a user there, and
`KVSessionService.delete_session` takes all three.
"""


async def delete_session(
    store: Store, session: str, *, places: Sequence[Place] = SESSION_PLACES
) -> int:
    """Delete all that belongs to a session, in one transaction; return how many items went.

    Args:
        store: an open store.
        session: the id of the session, which is the thread of LangGraph.
        places: namespaces with `SESSION` for the id and `...` for any label. All below them goes.
            The last label may be a key: a place that ends with `SESSION` is both. Add places of
            your own: `(*SESSION_PLACES, ("files", SESSION))`.

    Raises:
        InvalidArgumentError: the id is empty, or a place has no `SESSION`.
    """
    if not isinstance(session, str) or not session:
        raise InvalidArgumentError("delete_session takes the id of a session, a text")
    removals: dict[tuple[str, str], Remove] = {}
    for place in places:
        if SESSION not in place:
            raise InvalidArgumentError(f"the place {place!r} names no session: it has no SESSION")
        labels = tuple(session if label == SESSION else label for label in place)
        for namespace in await _namespaces(store, labels):
            _, path = address(namespace)
            removals[path, "*"] = Remove(namespace, path, EVERY_KEY, True)
        if place[-1] == SESSION:
            for namespace in await _namespaces(store, labels[:-1]):
                _, path = address(namespace)
                key = compile_pattern(escape(session))
                removals[path, session] = Remove(namespace, path, key, False)
    return sum(await store.apply([*removals.values()])) if removals else 0


async def _namespaces(store: Store, labels: tuple[str | EllipsisType, ...]) -> list[Namespace]:
    """Return the namespaces that labels stand for, of those that are there."""
    if ... not in labels:
        return [tuple(str(label) for label in labels)]
    found = await store.list_namespaces(labels, max_depth=len(labels))
    return [each for each in found if len(each) == len(labels)]
