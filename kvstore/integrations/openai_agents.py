"""Sessions of the OpenAI Agents SDK in a kvstore: `KVSession`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvstore.instants import FOREVER
from kvstore.integrations.access import Access, Target
from kvstore.integrations.requirements import needing
from kvstore.namespace import check_namespace
from kvstore.recipe import Recipe
from kvstore.store import Store

with needing("kvstore.integrations.openai_agents", "openai-agents", "0.8", extra="openai-agents"):
    from agents.memory import SessionABC, SessionSettings

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

__all__ = ["KVSession"]


class KVSession(Recipe, SessionABC):  # type: ignore[misc, unused-ignore]
    """The items of a conversation, in order: for `Runner.run(..., session=...)`.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        session_id: whose items.
        session_settings: the SDK's, such as how many items to give to the model.
        namespace: where the sessions are.
    """

    def __init__(
        self,
        target: Target,
        session_id: str,
        *,
        session_settings: SessionSettings | None = None,
        namespace: Sequence[str] = ("openai_agents", "sessions"),
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self._access = Access(target, type(self).__name__)
        self._namespace = check_namespace((*check_namespace(namespace), session_id))

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the last items, the oldest of them first.

        Args:
            limit: how many at most; `None`: as the session's settings say, or else all.
        """
        wanted = self.session_settings.limit if limit is None else limit

        async def read(store: Store) -> list[Any]:
            log = store.log(self._namespace)
            if wanted is None:
                return [entry.value async for entry in log.read()]
            return [entry.value for entry in await log.tail(wanted)]

        return await self._access.run(read)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items at the end, all or none of them."""

        async def add(store: Store) -> None:
            if items:
                await store.log(self._namespace).append(*items, ttl=FOREVER)

        await self._access.run(add)

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item off and return it; no two callers get the same one."""

        async def pop(store: Store) -> Any:
            entry = await store.log(self._namespace).pop()
            return None if entry is None else entry.value

        return await self._access.run(pop)

    async def clear_session(self) -> None:
        """Delete the session's items."""
        await self._access.run(lambda store: store.remove(self._namespace, "*"))

    async def close(self) -> None:
        """Close the store if this object opened it."""
        await self._access.close()
