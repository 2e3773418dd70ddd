"""Stores and their adapters are copied, pickled and carried across a fork as what made them.

A connection, a thread and an event loop belong to one process. So the copy is made anew by the
call that made the original, and is not open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from kvstore.errors import InvalidArgumentError

__all__ = ["Recipe"]

T = TypeVar("T")


class Recipe:
    """Remembers the arguments that an object was made with, and makes its copies of them."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Take note of the arguments; `__init__` sees to the rest."""
        made = super().__new__(cls)
        made._arguments = args, kwargs
        return made

    def _recipe(self) -> tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]:
        """Return what to call for a copy, and with what.

        Raises:
            InvalidArgumentError: there can be no copy.
        """
        args, kwargs = self._arguments
        return type(self), args, kwargs

    def _make_anew(self) -> None:
        """Become as it was made, in the child of a fork; the caller keeps what it was."""
        args, kwargs = self._arguments
        self.__init__(*args, **kwargs)  # type: ignore[misc]

    def __reduce__(self) -> Any:
        make, args, kwargs = self._recipe()
        for name, value in (*enumerate(args, 1), *kwargs.items()):
            _check_pickles(self, name, value)
        return _make, (make, args, dict(kwargs))

    def __copy__(self) -> Self:
        """Return another view of what is open here."""
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        make, args, kwargs = self._recipe()
        return make(
            *(_copied(value, memo) for value in args),
            **{name: _copied(value, memo) for name, value in kwargs.items()},
        )


def _make(make: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
    return make(*args, **kwargs)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Copy a store or an adapter; all else, such as a model or a clock, is shared."""
    return value.__deepcopy__(memo) if isinstance(value, Recipe) else value


def _check_pickles(owner: object, name: object, value: Any) -> None:
    from multiprocessing.reduction import ForkingPickler

    if isinstance(value, Recipe):
        return  # says so for itself
    try:
        ForkingPickler.dumps(value)
    except Exception as exc:
        what = f"argument {name}" if isinstance(name, int) else f"option {name!r}"
        raise InvalidArgumentError(
            f"this {type(owner).__name__} cannot be pickled, because its {what}, of type "
            f"{type(value).__name__}, cannot: {exc}; use what is defined in a module, or make the "
            "store in each process"
        ) from exc
