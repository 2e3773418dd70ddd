"""An agent of Google's ADK that goes on with its session, and remembers, after a restart.

    pip install 'agent-kvstore[google-adk]'
    python -m kvstore.examples.google_adk_chat [PATH]     (agent.db unless you name one)

Run it twice: the second run has the events and the state of the first. The agent is a script, so
that this needs no network; put an `LlmAgent` in its place.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents import BaseAgent
from google.adk.events import Event, EventActions
from google.adk.runners import Runner
from google.genai import types

from kvstore.integrations.google_adk import KVMemoryService, KVSessionService

WHO: Any = {"app_name": "chat", "user_id": "alice"}


class Counter(BaseAgent):  # type: ignore[misc, unused-ignore]
    """Stands in for an agent with a model."""

    async def _run_async_impl(self, ctx: Any) -> AsyncGenerator[Event, None]:
        said = [each for each in ctx.session.events if each.author == "user"]
        visits = ctx.session.state.get("user:visits", 0) + 1
        yield Event(
            author=self.name,
            invocation_id=ctx.invocation_id,
            content=_text("model", f"You have said {len(said)} things."),
            actions=EventActions(state_delta={"user:visits": visits}),
        )


def _text(role: str, text: str) -> types.Content:
    return types.Content(role=role, parts=[types.Part(text=text)])


async def main(target: str) -> None:
    """Say one thing more."""
    sessions, memories = KVSessionService(target), KVMemoryService(target)
    runner = Runner(
        app_name=WHO["app_name"],
        agent=Counter(name="counter"),
        session_service=sessions,
        memory_service=memories,
    )
    session = await sessions.get_session(**WHO, session_id="1")
    if session is None:
        session = await sessions.create_session(**WHO, session_id="1")
    number = len(session.events) // 2 + 1
    said = f"this is message {number}"
    print(f"> {said}")
    message = _text("user", said)
    async for event in runner.run_async(user_id="alice", session_id="1", new_message=message):
        print(event.content.parts[0].text)
    if number > 1:
        found = await memories.search_memory(**WHO, query="message 1")
        print(f"remembered: {found.memories[0].content.parts[0].text}")
    session = await sessions.get_session(**WHO, session_id="1")
    assert session is not None
    await memories.add_session_to_memory(session)
    print(f"visit {session.state['user:visits']} of alice")
    await memories.close()
    await sessions.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "agent.db"))
