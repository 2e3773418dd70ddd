"""Tells an observer of each call of a store: its name, how long it took, and its error.

The methods of an observed store are wrapped when it is made, and those of its logs and queues;
those of others are as they are, so that nobody pays for what he does not use.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from kvstore.errors import InvalidArgumentError

__all__ = ["OBSERVED", "OBSERVED_OF_LOGS", "OBSERVED_OF_QUEUES", "Observer", "observe", "tell"]

Observer = Callable[[str, float, BaseException | None], object]
"""Called after a call with its name, its seconds, and its error or `None`."""

OBSERVED: Final = (
    "put", "get", "delete", "search", "list_namespaces", "put_many", "get_many", "delete_many",
    "remove", "keys", "count", "expire", "increment", "append", "pop", "update", "transact",
    "sweep", "backup", "export_items", "import_items", "check", "stats", "vacuum", "reindex",
    "history", "rewind", "forget",
)  # fmt: skip
OBSERVED_OF_LOGS: Final = ("append", "tail", "pop", "length", "trim")
OBSERVED_OF_QUEUES: Final = ("put", "take", "finish", "retry", "extend", "size", "dead", "revive")
_LOG = logging.getLogger("kvstore")


def observe(
    observed: Any, observer: Observer, names: Iterable[str] = OBSERVED, prefix: str = ""
) -> None:
    """Have an observer told of an object's calls from now on.

    Args:
        observed: a store, or a log or a queue of it.
        observer: who is told.
        names: of its methods.
        prefix: what stands before them in what the observer is told.

    Raises:
        InvalidArgumentError: it cannot be called, or would have to be awaited.
    """
    if not callable(observer) or inspect.iscoroutinefunction(observer):
        raise InvalidArgumentError(
            "observer is a plain function of a call's name, its seconds, and its error or None"
        )
    # A store would keep itself alive; a log or a queue may, as nobody else keeps it
    of = (lambda: observed) if prefix else weakref.ref(observed)
    for name in names:
        method = getattr(type(observed), name)
        setattr(observed, name, _observed(prefix + name, method, of, observer))


def _observed(
    name: str, method: Callable[..., Any], of: Callable[[], Any], observer: Observer
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
            tell(observer, name, time.perf_counter() - began, error)

    return call


def tell(observer: Observer, name: str, seconds: float, error: BaseException | None) -> None:
    """Tell an observer of a call that has ended; whatever it raises is logged."""
    try:
        observer(name, seconds, error)
    except Exception:  # noqa: BLE001 - whatever it is, it is not of the call
        _LOG.exception("the observer of a store failed; the call that it was told of did not")
