"""Tells an observer of each call of a store: its name, how long it took, and its error.

The methods of an observed store are wrapped when it is made; those of others are as they are, so
that nobody pays for what he does not use.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from kvstore.errors import InvalidArgumentError

__all__ = ["OBSERVED", "Observer", "observe"]

Observer = Callable[[str, float, BaseException | None], object]
"""Called after a call with its name, its seconds, and its error or `None`."""

OBSERVED: Final = (
    "put", "get", "delete", "search", "list_namespaces", "put_many", "get_many", "delete_many",
    "remove", "keys", "count", "expire", "increment", "append", "pop", "update", "transact",
    "sweep", "backup", "export_items", "import_items", "check", "stats", "vacuum", "reindex",
)  # fmt: skip
_LOG = logging.getLogger("kvstore")


def observe(store: Any, observer: Observer) -> None:
    """Have an observer told of a store's calls from now on.

    Raises:
        InvalidArgumentError: it cannot be called, or would have to be awaited.
    """
    if not callable(observer) or inspect.iscoroutinefunction(observer):
        raise InvalidArgumentError(
            "observer is a plain function of a call's name, its seconds, and its error or None"
        )
    of = weakref.ref(store)  # or the store would keep itself alive
    for name in OBSERVED:
        setattr(store, name, _observed(name, getattr(type(store), name), of, observer))


def _observed(
    name: str, method: Callable[..., Any], of: weakref.ref[Any], observer: Observer
) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        error: BaseException | None = None
        began = time.perf_counter()
        try:
            return await method(of(), *args, **kwargs)
        except BaseException as exc:
            error = exc
            raise
        finally:
            _tell(observer, name, time.perf_counter() - began, error)

    return call


def _tell(observer: Observer, name: str, seconds: float, error: BaseException | None) -> None:
    try:
        observer(name, seconds, error)
    except Exception:  # noqa: BLE001 - whatever it is, it is not of the call
        _LOG.exception("the observer of a store failed; the call that it was told of did not")
