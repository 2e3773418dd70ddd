"""What `with` says of what wants `async with`, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["WithAsync", "WithoutAsync"]


class WithAsync:
    """Opened by `async with` alone; a type checker sees nothing else either."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise TypeError(
                f"a {type(self).__name__} is opened by 'async with'; code that does not await has "
                "kvstore.SyncStore and kvstore.KeyValueStore, which take the same path"
            )

        def __exit__(self, *_: object) -> None:
            """Never come to."""


class WithoutAsync:
    """Opened by `with` alone; a type checker sees nothing else either."""

    if not TYPE_CHECKING:

        def __aenter__(self) -> NoReturn:
            raise TypeError(
                f"a {type(self).__name__} is opened by 'with', without 'async'; code that awaits "
                "has kvstore.open and kvstore.AsyncKeyValueStore, which take the same path"
            )

        async def __aexit__(self, *_: object) -> None:
            """Never come to."""
