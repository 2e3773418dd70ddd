"""How results come back to those who wait for them, whatever has become of these meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kvstore.errors import StoreClosedError

__all__ = ["call_soon", "require_open", "settle"]


def require_open(is_open: bool) -> None:
    """Refuse what comes after the end, such as a call that awaited something of the caller's."""
    if not is_open:
        raise StoreClosedError("the store was closed while this call was under way")


def settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Give a future its result or its error, unless its caller was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # of a clock, say; no future takes one
        future.set_exception(RuntimeError(f"StopIteration: {error}"))
    else:
        future.set_exception(error)


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    """Have the loop call back; where it is closed, nobody waits any more."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
