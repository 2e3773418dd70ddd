"""Tools that remember, and are handed no store: they find it in the runtime of the run.

    python -m kvstore.examples.tool_runtime [PATH_OR_URL]      (tools.db unless you name another)

Run it twice: the second run remembers the first one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import kvstore
from kvstore import RuntimeAwareTool, ToolRuntime
from kvstore.runtime import use


class Remember(RuntimeAwareTool):
    """Keeps facts about the user of the run."""

    name = "remember"
    description = "Remember a fact about the user."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {"fact": {"type": "string"}},
        "required": ["fact"],
    }

    async def call_with_runtime(self, args: Mapping[str, Any], runtime: ToolRuntime) -> str:
        """Store the fact."""
        if runtime.store is None:
            return "I have nothing to remember it with."
        count = await runtime.store.append(("facts",), runtime.state["user"], args["fact"])
        return f"Noted; I know {count} thing{'s' * (count > 1)} about {runtime.state['user']}."


async def execute(tool: RuntimeAwareTool, args: Mapping[str, Any]) -> None:
    """What a host does with the call of a model: nothing here knows of any store."""
    print(f"  {tool.name}({args['fact']!r}): {await tool(args)}")


async def main(target: str) -> None:
    """Call the same tool for two users at once, and then without a runtime."""
    async with kvstore.open(target) as store:

        async def run(user: str, fact: str) -> None:
            with use(ToolRuntime(store=store, state={"user": user})):
                await execute(Remember(), {"fact": fact})

        await asyncio.gather(run("alice", "likes tea"), run("bob", "has a cat"))
        await execute(Remember(), {"fact": "nobody asked"})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tools.db"))
