"""What is said where something is called in another way than it is meant.

`with` of what wants `async with`, and the other way round; options that there are not.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

__all__ = ["WithAsync", "WithoutAsync", "no_option"]


def no_option(kind: type, names: Iterable[str]) -> TypeError:
    """Return an error that says which options a class has in place of some that it has not."""
    known = {
        name
        for made in kind.__mro__[:-1]
        if "__init__" in vars(made)
        for name, parameter in inspect.signature(vars(made)["__init__"]).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    name = next(iter(names))
    near = get_close_matches(name, known, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return TypeError(
        f"{name!r} is no option of {kind.__name__}{meant}; there are {', '.join(sorted(known))}"
    )


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
