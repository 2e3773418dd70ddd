"""An agent of the OpenAI Agents SDK that goes on with its conversation after a restart.

    pip install 'agent-kvstore[openai-agents]'
    python -m kvstore.examples.openai_agents_chat [PATH]     (agent.db unless you name one)

Run it twice: the second run knows what was said in the first. The model is a scripted one, so that
this needs no network; put your own in its place.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from kvstore.integrations.openai_agents import KVSession


class Scripted(Model):  # type: ignore[misc, unused-ignore]
    """Stands in for a chat model."""

    async def get_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> ModelResponse:
        """Say how much was said, and what came first."""
        said = [item["content"] for item in input if item.get("role") == "user"]
        text = f"You have said {len(said)} things, first {said[0]!r}."
        part = ResponseOutputText(text=text, type="output_text", annotations=[])
        message = ResponseOutputMessage(
            id=f"m{len(said)}",
            content=[part],
            role="assistant",
            status="completed",
            type="message",
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Refuse: this model answers at once."""
        raise NotImplementedError


async def main(target: str) -> None:
    """Say one thing more."""
    set_tracing_disabled(True)
    session = KVSession(target, "alice-1")
    said = f"this is message {len(await session.get_items()) // 2 + 1}"
    agent = Agent(name="Counter", model=Scripted())
    result = await Runner.run(agent, said, session=session)
    print(f"> {said}\n{result.final_output}")
    await session.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "agent.db"))
