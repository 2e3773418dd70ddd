"""`KnowledgeDB`: a namespace to be searched, as a value of a flow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from kvstore.errors import InvalidArgumentError
from kvstore.namespace import check_namespace, show
from kvstore.types import Item, Namespace

__all__ = ["KnowledgeDB", "Search"]

Search = Callable[..., Awaitable[list[Item]]]
"""As `Store.search`."""


@dataclass(frozen=True)
class KnowledgeDB:
    """A reference to a namespace, which the flow node gives as a handle that can be searched.

    A store keeps the reference alone; the items are in the namespace, and are searched by meaning
    or by words as the store's index has it.

    Attributes:
        namespace: where the items are.
        subtree: search in the namespaces below, too.
    """

    namespace: Namespace
    subtree: bool = False
    _search: Search | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "namespace", check_namespace(self.namespace))

    def __reduce__(self) -> Any:
        return KnowledgeDB, (self.namespace, self.subtree)  # of no store

    def reference(self) -> dict[str, Any]:
        """Return what is stored of it."""
        return {"namespace": list(self.namespace), "subtree": self.subtree}

    def of(self, search: Search) -> KnowledgeDB:
        """Return the same with what searches its store."""
        return KnowledgeDB(self.namespace, self.subtree, search)

    async def search(self, query: Any = None, **options: Any) -> list[Item]:
        """Find items of the namespace; the arguments and errors are those of `Store.search`.

        Raises:
            InvalidArgumentError: it was not retrieved, or came by a copy, and has no store.
        """
        if self._search is None:
            raise InvalidArgumentError(
                f"this reference to {show(self.namespace)} has no store: retrieve it by the flow "
                "node, and search what that gives"
            )
        return await self._search(self.namespace, query, **{"subtree": self.subtree, **options})
