"""The values that users handle: `Item`, `SearchQuery`, `IndexConfig`, `Change`.

All are immutable dataclasses with slots, and know nothing of any backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Literal

from kvstore import codec
from kvstore.errors import InvalidArgumentError
from kvstore.instants import EPOCH, to_datetime
from kvstore.positions import Positions
from kvstore.showing import item_table, items_table

if TYPE_CHECKING:  # where alone a default counts: a plain `Item` has a value of any type
    from typing_extensions import TypeVar

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")

__all__ = [
    "EPOCH",
    "UNKNOWN",
    "Change",
    "Draft",
    "IndexConfig",
    "Item",
    "Items",
    "Mode",
    "Namespace",
    "Recall",
    "Recalled",
    "SearchQuery",
    "Unknown",
    "make_item",
    "pack_item",
]

Namespace = tuple[str, ...]
Mode = Literal["auto", "semantic", "text", "hybrid"]


class _Packed:
    """What an item that a store made has not unpacked yet; see `make_item` and `pack_item`."""

    __slots__ = ("_created", "_data", "_expires", "_updated")


@dataclass(frozen=True, slots=True)
class Item(_Packed, Generic[V]):
    """A stored value with its address and its history.

    Attributes:
        namespace: the labels of its namespace; `()` is the root.
        key: its key, unique within the namespace.
        value: JSON as Python has it, and `bytes`. A copy: changing it changes nothing stored.
        created_at: when the item was first written, aware UTC.
        updated_at: when the item was last written, aware UTC.
        version: grows with every write of the store and is never used twice.
        expires_at: the instant at which the item is gone, aware UTC; `None` for never.
        score: 0.0 to 1.0, higher is better; set by ranked searches alone.
    """

    namespace: Namespace
    key: str
    value: V
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH
    version: int = 0
    expires_at: datetime | None = None
    score: float | None = None

    def _repr_html_(self) -> str:
        return item_table(self, codec.encode)

    if not TYPE_CHECKING:  # else a misspelt attribute would pass the type checker

        def __getattr__(self, name: str) -> Any:
            """Unpack a field at its first use, when its slot is still empty."""
            match name:
                case "value":
                    return _unpack_value(self)
                case "created_at":
                    field = to_datetime(self._created)
                case "updated_at":
                    field = to_datetime(self._updated)
                case "expires_at":
                    field = None if self._expires is None else to_datetime(self._expires)
                case _:
                    raise AttributeError(f"an Item has no {name!r}", name=name, obj=self)
            object.__setattr__(self, name, field)
            return field


class Unknown(Enum):
    """In the place of an item of which it is not known, or not just now, whether it is there."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
Recalled = Item | Unknown | None
Recall = Callable[[Sequence[str], str], Recalled]  # of a namespace and a key


class Items(list[Item[V]]):
    """A list of items, such as a search returns; a notebook shows it as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return items_table(self, codec.encode)


_unpacking: dict[int, Any] = {}  # values of items, by their ids, as threads unpack them just now


def _unpack_value(item: Any) -> Any:
    """Decode a value; whichever thread is first, all get the same one, without a lock."""
    get = object.__getattribute__
    with suppress(AttributeError):  # another thread was faster
        decoded = codec.decode(get(item, "_data"))
        try:
            value = _unpacking.setdefault(id(item), decoded)
            try:
                get(item, "value")  # set before that thread took it out of there
            except AttributeError:
                object.__setattr__(item, "value", value)
        finally:  # even if interrupted: the id may soon be that of another item
            _unpacking.pop(id(item), None)
        object.__delattr__(item, "_data")
    return get(item, "value")


class Draft(_Packed):
    """An `Item` in the making: the same slots, but not frozen.

    A frozen dataclass sets each field through `object.__setattr__`. A draft is filled, and turns
    into an `Item` (https://docs.python.org/3/reference/datamodel.html, `__class__` assignment). The
    times, which few look at, are unpacked at their first use.
    """

    __slots__ = tuple(field.name for field in fields(Item))

    value: Any
    _data: bytes

    def item(
        self,
        namespace: Namespace,
        key: str,
        version: int,
        created: int,
        updated: int,
        expires: int | None,
    ) -> Item:
        """Become an item; the arguments are those of `make_item`. `value` is set before."""
        self.namespace = namespace
        self.key = key
        self.version = version
        self.score = None
        self._created = created
        self._updated = updated
        self._expires = expires
        made: Any = self
        made.__class__ = Item
        return made  # type: ignore[no-any-return]


def make_item(
    namespace: Namespace,
    key: str,
    value: Any,
    version: int,
    created: int,
    updated: int,
    expires: int | None,
) -> Item:
    """Make an `Item`, as its constructor does, but quicker.

    Args:
        namespace: the labels.
        key: the key.
        value: the value.
        version: of the store, at the item's last write.
        created: this and the next two: in microseconds since the epoch.
        updated: when the item was last written.
        expires: when it is gone; `None`: never.
    """
    draft = Draft()
    draft.value = value
    return draft.item(namespace, key, version, created, updated, expires)


def pack_item(
    namespace: Namespace,
    key: str,
    data: bytes,
    version: int,
    created: int,
    updated: int,
    expires: int | None,
) -> Item:
    """As `make_item`, of an encoded value, which is decoded when somebody looks at it.

    It answers writes: who has just put a value seldom reads it out of the answer.
    """
    draft = Draft()
    draft._data = data
    return draft.item(namespace, key, version, created, updated, expires)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A whole search as one value; the fields are the arguments of `Store.search`.

    `mode="auto"` is by words without a model, else `"hybrid"`, and `"semantic"` where a cosine is
    asked for: with `min_score`, or by a `vector` alone.
    """

    query: str | None = None
    filter: Mapping[str, Any] | None = None
    order_by: str | Sequence[str] | None = None
    limit: int = 10
    offset: int = 0
    mode: Mode = "auto"
    subtree: bool = False
    min_score: float | None = None
    vector: Any = None


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """What of each value is indexed for search, and by which model.

    Attributes:
        embeddings: the model: an object with `async embed_documents(list[str])` and
            `async embed_query(str)`, a LangChain `Embeddings`, or a function from a list of
            texts to a list of vectors, sync or async. `None`: full text alone.
        fields: the paths whose text is indexed; `"$"` is the whole value and
            `"chunks[*].text"` gives one vector per element. None, and no model: no index of words.
        filters: the paths whose scalars are kept in order, such as `"status"`, `"user.id"` and, for
            `$contains`, `"tags[*]"`: `$eq`, `$in`, bounds and `$exists` cost there by what they
            find. Filters on other paths look at every item.
        context: for chats, logs and texts in pieces: the words of so many neighbours on each
            side, in the order of keys, count for an item too, at half the weight; at most 10.
        rerank: reads the query together with each of the best 40 candidates of a ranked search,
            before these are cut to a page: `async (query, texts) -> scores`, or a function that
            is not async; higher is better, and any number will do. With `context`, a candidate's
            text comes after that of the item before it. Its order is fused with the search's own,
            and `Item.score` then tells of both ranks, 1.0 at most.
        dimensions: the length of the model's vectors; `None`: as its first answer has it.
        model_id: names the model in the file, so that another one is noticed; `None`: derived
            from `embeddings`. Without those: the model of the vectors that you `put` and search
            for; `None`: they are taken to be of the same one as the vectors that are there.
    """

    embeddings: Any = None
    fields: tuple[str, ...] = ("$",)
    filters: tuple[str, ...] = ()
    context: int = 0
    rerank: Any = None
    dimensions: int | None = None
    model_id: str | None = None

    def __init__(
        self,
        embeddings: Any = None,
        *,
        fields: tuple[str, ...] | list[str] = ("$",),
        filters: tuple[str, ...] | list[str] = (),
        context: int = 0,
        rerank: Any = None,
        dimensions: int | None = None,
        model_id: str | None = None,
    ) -> None:
        if isinstance(fields, str):
            raise InvalidArgumentError(f"fields is a list of paths, not a str: write {[fields]!r}")
        if isinstance(filters, str):
            raise InvalidArgumentError(
                f"filters is a list of paths, not a str: write {[filters]!r}"
            )
        if isinstance(context, bool) or not isinstance(context, int) or not 0 <= context <= 10:
            raise InvalidArgumentError(f"context is a number from 0 to 10, not {context!r}")
        set_field = object.__setattr__  # the instance is frozen, and this is its constructor
        set_field(self, "embeddings", embeddings)
        set_field(self, "fields", tuple(fields))
        set_field(self, "filters", tuple(filters))
        set_field(self, "context", context)
        set_field(self, "rerank", rerank)
        set_field(self, "dimensions", dimensions)
        set_field(self, "model_id", model_id)

    @property
    def ranks(self) -> bool:
        """Whether it makes an index of words or vectors, and not one of filters alone."""
        others = self.embeddings, self.dimensions, self.model_id
        return bool(self.fields) or not self.filters or any(each is not None for each in others)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change feed.

    Attributes:
        kind: `"put"`, `"delete"` or `"expire"`.
        version: the store's version at which it happened; changes come in this order.
        at: the instant at which it was committed; later changes have no earlier one.
        item: after a put, the item: as it then was, where the store keeps its history; else as it
            now is, or `None` if it is gone. `None` after a delete or an expiry.
        position: where it stands in a watch over several roots of a shared server, each of which
            counts versions of its own; `None` elsewhere.
    """

    kind: Literal["put", "delete", "expire"]
    namespace: Namespace
    key: str
    version: int
    at: datetime = EPOCH
    item: Item | None = None
    position: Positions | None = field(default=None, repr=False, compare=False)
