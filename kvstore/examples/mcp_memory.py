"""Two clients of the Model Context Protocol with one memory, each with a server of its own.

    pip install 'agent-kvstore[mcp]'
    python -m kvstore.examples.mcp_memory [PATH_OR_URL]     (memory.db unless you name one)

Run it twice: the second run finds what the first one remembered. A client that is configured by
JSON starts the same server by `"command": "kvstore", "args": ["mcp", "/home/me/memory.db"]`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


@asynccontextmanager
async def client(target: str) -> AsyncIterator[ClientSession]:
    """Start a server, and talk to it."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "kvstore", "mcp", target])
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session


async def call(session: ClientSession, tool: str, **arguments: Any) -> Any:
    """Call a tool, and return what it says."""
    result = await session.call_tool(tool, arguments)
    (content,) = result.content
    assert content.type == "text"
    return json.loads(content.text)


async def main(target: str) -> None:
    """Let one client remember what the other one asks for."""
    async with client(target) as desk, client(target) as phone:
        found = await call(phone, "search", query="drink")
        texts = [item["text"] for item in found["items"]]
        print("phone: what to drink?", *texts or ["No idea."])
        await call(desk, "remember", text="Alice likes to drink tea", key="drink", tags=["alice"])
        await call(desk, "remember", text="Alice has a cat", key="pet", tags=["alice"])
        found = await call(phone, "search", query="drink", tags=["alice"])
        print("phone: and now?", *(item["text"] for item in found["items"]))
        print("desk: there is", *(item["key"] for item in (await call(desk, "list"))["items"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "memory.db"))
