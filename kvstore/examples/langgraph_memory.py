"""A LangGraph agent with a long-term memory: its tools use `runtime.store`.

    pip install 'agent-kvstore[langgraph]'
    python -m kvstore.examples.langgraph_memory [PATH_OR_URL]     (agent.db unless you name one)

Run it twice: the second run recalls what the first one was told. The model is a scripted one, so
that this needs no network; put your own in its place.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, ToolRuntime, tools_condition

from kvstore.integrations.langgraph import LangGraphStore

USER = ("memories", "alice")


@tool
async def remember(fact: str, runtime: ToolRuntime) -> str:
    """Remember a fact about the user."""
    if runtime.store is None:
        return "I have no memory."
    await runtime.store.aput(USER, fact, {"fact": fact})
    return f"Noted. I know {len(await runtime.store.asearch(USER, limit=1000))} now."


@tool
def recall(runtime: ToolRuntime) -> str:
    """Recall what is known about the user."""
    if runtime.store is None:
        return "I have no memory."
    facts = [item.value["fact"] for item in runtime.store.search(USER, limit=1000)]
    return "You said: " + "; ".join(sorted(facts)) if facts else "Nothing yet."


class ScriptedModel(BaseChatModel):
    """Stands in for a chat model: calls a tool, and then repeats what it said."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            answer = AIMessage(last.text)
        else:
            request, _, fact = last.text.partition(": ")
            call = {
                "name": request,
                "args": {"fact": fact} if fact else {},
                "id": f"call-{last.id}",
            }
            answer = AIMessage("", tool_calls=[{**call, "type": "tool_call"}])
        return ChatResult(generations=[ChatGeneration(message=answer)])


async def main(target: str) -> None:
    """Talk to the agent."""
    model = ScriptedModel()

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode([remember, recall]))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition)
    graph.add_edge("tools", "think")

    async with LangGraphStore.from_conn_string(target) as store:
        agent = graph.compile(store=store)
        for request in ("recall", "remember: I like tea", "remember: I have a cat", "recall"):
            state = await agent.ainvoke(MessagesState(messages=[HumanMessage(request)]))
            print(f"> {request}\n{state['messages'][-1].text}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "agent.db"))
