"""A deep agent whose files and conversation outlast it.

    pip install 'agent-kvstore[deepagents]'
    python -m kvstore.examples.deepagents_files [PATH]     (agent.db unless you name one)

Run it twice: the second run reads what the first one wrote. The model is a scripted one, so that
this needs no network; put your own in its place.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from deepagents import create_deep_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

import kvstore
from kvstore.integrations.deepagents import KVFilesBackend
from kvstore.integrations.langgraph import LangGraphCheckpointer


class Scripted(BaseChatModel):
    """Stands in for a chat model: it reads its notes, adds a line, and says what they are."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Take any tools."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        done = [each for each in messages if isinstance(each, ToolMessage)]
        asked = sum(each.type == "human" for each in messages)
        last = messages[-1]
        if not isinstance(last, ToolMessage):
            answer = self._call("grep", pattern="likes", path="/notes", output_mode="content")
        elif last.name == "grep":
            line = f"- Alice likes tea number {asked}\n"
            answer = self._call("write_file", file_path=f"/notes/day{asked}.md", content=line)
        else:
            found = next(each for each in reversed(done) if each.name == "grep")
            known = str(found.content).count("likes")
            answer = AIMessage(f"I knew {known} things about Alice, and wrote down one more.")
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _call(self, name: str, **args: Any) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call-{name}"}])


async def main(target: str) -> None:
    """Say one thing more, and show the files."""
    async with kvstore.open(target) as store:
        backend = KVFilesBackend(store, namespace=("files", "alice"))
        agent = create_deep_agent(
            Scripted(), backend=backend, checkpointer=LangGraphCheckpointer(store)
        )
        config: Any = {"configurable": {"thread_id": "alice-1"}}
        said: Any = {"messages": [{"role": "user", "content": "what do you know of me?"}]}
        state = await agent.ainvoke(said, config)
        print(state["messages"][-1].content)
        for entry in (await backend.als("/notes")).entries or []:
            print(entry["path"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "agent.db"))
