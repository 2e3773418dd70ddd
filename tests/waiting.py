"""Waiting for what tells nobody: files that another thread writes, a server, a screen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["until"]


async def until(claim: Callable[..., Any], *, limit: float = 20.0) -> None:
    """Wait until something holds, at most so many seconds; a claim may be awaited."""
    async with asyncio.timeout(limit):
        while True:
            found = claim()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)
