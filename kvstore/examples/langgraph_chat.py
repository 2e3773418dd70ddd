"""A LangGraph chat that goes on after a restart: its checkpoints and its memory lie in one file.

    pip install 'agent-kvstore[langgraph]'
    python -m kvstore.examples.langgraph_chat [PATH]     (agent.db unless you name one)

Run it twice: the second run goes on with the same conversation, and answers a question that the
first one was left with. The model is a scripted one, so that this needs no network; put your own in
its place.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from kvstore.integrations.langgraph import LangGraphCheckpointer, LangGraphStore

USER = ("memories", "alice")


async def answer(state: MessagesState, runtime: Runtime[Any]) -> dict[str, Any]:
    """Stand in for a chat model."""
    said = [message.text for message in state["messages"] if isinstance(message, HumanMessage)]
    return {"messages": [AIMessage(f"You have said {len(said)} things, first {said[0]!r}.")]}


async def confirm(state: MessagesState, runtime: Runtime[Any]) -> None:
    """Ask before something is remembered for good."""
    assert runtime.store is not None
    if interrupt("May I remember that?") == "yes":
        fact = state["messages"][-2].text
        await runtime.store.aput(USER, fact, {"fact": fact})


async def main(target: str) -> None:
    """Talk, and leave a question open."""
    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_node("confirm", confirm)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", "confirm")

    async with (
        LangGraphStore.from_conn_string(target) as store,
        LangGraphCheckpointer.from_conn_string(target) as checkpointer,
    ):
        agent = graph.compile(store=store, checkpointer=checkpointer)
        thread: Any = {"configurable": {"thread_id": "alice-1"}}

        waiting = (await agent.aget_state(thread)).interrupts
        if waiting:
            print(f"{waiting[0].value} yes")
            await agent.ainvoke(Command(resume="yes"), thread)
        for item in await store.asearch(USER):
            print(f"remembered: {item.value['fact']}")

        number = len((await agent.aget_state(thread)).values.get("messages", ())) // 2 + 1
        said = f"This is message {number}"
        state = await agent.ainvoke(MessagesState(messages=[HumanMessage(said)]), thread)
        print(f"> {said}\n{state['messages'][-1].text}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "agent.db"))
