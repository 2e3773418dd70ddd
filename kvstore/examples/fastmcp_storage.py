"""A FastMCP server whose response cache outlives it.

    pip install 'agent-kvstore[key-value]' fastmcp
    python -m kvstore.examples.fastmcp_storage [PATH_OR_URL]      (mcp.db unless you name another)

Run it twice: the second server answers from what the first one worked out. The same object is
storage for sessions (`FastMCP(session_state_store=...)`) and OAuth (`client_storage=...`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastmcp import Client, FastMCP
from fastmcp.server.middleware.caching import ResponseCachingMiddleware

from kvstore.integrations.key_value import KVStoreBackend


def make_server(storage: KVStoreBackend) -> FastMCP[None]:
    """Make a server that caches in the storage, and closes it at its end."""

    @asynccontextmanager
    async def lifespan(server: FastMCP[None]) -> AsyncIterator[None]:
        async with storage:
            yield

    server: FastMCP[None] = FastMCP("squares", lifespan=lifespan, session_state_store=storage)
    server.add_middleware(ResponseCachingMiddleware(cache_storage=storage))

    @server.tool
    async def square(number: int) -> int:
        print(f"  working out {number} squared ...")
        return number * number

    return server


async def main(target: str) -> None:
    """Start a server, and ask it the same things as ever."""
    async with Client(make_server(KVStoreBackend(target))) as client:
        for number in (12, 12, 25):
            answer = await client.call_tool("square", {"number": number})
            print(f"{number} squared is {answer.data}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "mcp.db"))
