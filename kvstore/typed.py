"""`Typed`: a namespace whose values are of one type, checked by pydantic.

    users = store.typed(("users",), User)
    await users.put("alice", User(name="Alice"))
    item = await users.get("alice")              # Item[User]

A value is written as pydantic dumps it, by the names of its fields and not by their aliases, and
read as pydantic validates it, by either. What lies in the
namespace and does not fit, such as an item of an older program, is an error that names the item
and the field, and never a value.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from kvstore import codec
from kvstore.distribution import or_install
from kvstore.errors import (
    InvalidArgumentError,
    ValueEncodingError,
    ValueTypeError,
)
from kvstore.namespace import check_namespace, show
from kvstore.types import Item

__all__ = ["Typed"]

V = TypeVar("V")


class Typed(Generic[V]):
    """A namespace of a store, and the type of its values; made by `Store.typed`.

    The methods, their arguments and errors are those of `Store`, without the namespace. Beside
    them, reading raises `ValueTypeError` for an item that does not fit the type, and writing for a
    value that does not.

    Attributes:
        store: the `Store`.
        namespace: the labels of the namespace.
    """

    def __init__(self, store: Any, namespace: Sequence[str], model: type[V]) -> None:
        with or_install("typed namespaces need pydantic", "typed", "pydantic"):
            from pydantic import PydanticUserError, TypeAdapter
        self.store = store
        self.namespace = check_namespace(namespace)
        try:
            self._adapter: TypeAdapter[V] = TypeAdapter(model)
        except PydanticUserError as exc:
            raise InvalidArgumentError(f"pydantic cannot check values of this type: {exc}") from exc
        self._name = getattr(model, "__name__", repr(model))

    def __repr__(self) -> str:
        return f"{self.store!r}.typed({self.namespace!r}, {self._name})"

    async def put(self, key: str, value: V, **options: Any) -> Item[V]:
        """Store a value; see `Store.put`."""
        item = await self.store.put(self.namespace, key, self._dumped(key, value), **options)
        return self._typed(item)

    async def put_many(self, mapping: Mapping[str, V], **options: Any) -> list[Item[V]]:
        """Store many values, all or none; see `Store.put_many`."""
        dumped = {key: self._dumped(key, value) for key, value in mapping.items()}
        items = await self.store.put_many(self.namespace, dumped, **options)
        return [self._typed(item) for item in items]

    async def get(self, key: str, *, refresh_ttl: bool | None = None) -> Item[V] | None:
        """Return the item, or `None` if there is none; see `Store.get`."""
        item = await self.store.get(self.namespace, key, refresh_ttl=refresh_ttl)
        return None if item is None else self._typed(item)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Item[V]]:
        """Return the items that are there, by key; see `Store.get_many`."""
        items = await self.store.get_many(self.namespace, keys)
        return {key: self._typed(item) for key, item in items.items()}

    async def delete(self, key: str, *, if_version: int | None = None) -> bool:
        """Delete the item; return whether it was there."""
        was_there: bool = await self.store.delete(self.namespace, key, if_version=if_version)
        return was_there

    async def search(self, query: Any = None, **options: Any) -> list[Item[V]]:
        """Find items by value, by words or by meaning; see `Store.search`."""
        items = await self.store.search(self.namespace, query, **options)
        return [self._typed(item) for item in items]

    async def scan(self, **options: Any) -> AsyncIterator[Item[V]]:
        """Iterate over the items in the order of keys; see `Store.scan`."""
        async for item in self.store.scan(self.namespace, subtree=False, **options):
            yield self._typed(item)

    async def update(
        self, key: str, fn: Callable[[V], V | Awaitable[V]], **options: Any
    ) -> Item[V]:
        """Read a value, change it by `fn(value)`, and write it, atomically; see `Store.update`."""
        default = options.get("default")

        async def change(value: Any) -> Any:
            present: Any = value if value is default else self._validated(key, value)
            changed: Any = fn(present)
            if inspect.isawaitable(changed):
                changed = await changed
            return self._dumped(key, changed)

        return self._typed(await self.store.update(self.namespace, key, change, **options))

    async def keys(self, pattern: str = "*", **options: Any) -> list[str]:
        """Return the sorted keys that match; see `Store.keys`."""
        keys: list[str] = await self.store.keys(self.namespace, pattern, **options)
        return keys

    async def count(self, pattern: str = "*") -> int:
        """Return how many keys match."""
        count: int = await self.store.count(self.namespace, pattern)
        return count

    def _typed(self, item: Item[Any]) -> Item[V]:
        return replace(item, value=self._validated(item.key, item.value))

    def _validated(self, key: str, value: Any) -> V:
        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(value, by_alias=True, by_name=True)
        except ValidationError as exc:
            raise self._misfit(key, exc) from None  # its message quotes the value

    def _dumped(self, key: str, value: V) -> Any:
        """Return a value as it is stored: as it is where that can be, else as JSON has it."""
        valid: Any = self._validated(key, value)
        plain = self._adapter.dump_python(valid, by_alias=False)
        try:
            codec.encode(plain)
        except ValueEncodingError:
            return _jsonable(plain)
        return plain

    def _misfit(self, key: str, exc: Any) -> ValueTypeError:
        found = exc.errors(include_url=False, include_context=False, include_input=False)
        first, *rest = found
        path = "$" + "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
        )
        more = f", and {len(rest)} more" if rest else ""
        return ValueTypeError(
            f"{show(self.namespace, key)} is no {self._name}: {path}: {first['msg']}{more}"
        )


def _jsonable(value: Any) -> Any:
    """Write what a store does not take, such as sets and decimals, as pydantic would in JSON."""
    from pydantic_core import to_jsonable_python

    if isinstance(value, dict):
        names = (next(iter(to_jsonable_python({key: None}))) for key in value)  # texts
        return dict(zip(names, map(_jsonable, value.values()), strict=True))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(each) for each in value]
    return value if isinstance(value, bytes) else to_jsonable_python(value)
