"""Key-value store nodes as steps of a LangGraph graph: read, count, write.

    pip install 'agent-kvstore[langgraph]'
    python -m kvstore.examples.flow_graph [PATH_OR_URL]      (graph.db unless you name another)

Run it twice: the second run reads what the first one wrote.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

import kvstore
from kvstore import KeyValueStoreNode
from kvstore.integrations.langgraph import LangGraphStore


class State(TypedDict, total=False):
    """What the steps pass on."""

    entity_id: str
    visits: float | None


def count(state: State) -> State:
    """A step of the user's own."""
    return {"visits": (state.get("visits") or 0) + 1}


async def main(target: str) -> None:
    """Run the graph once for each of two users."""
    graph = StateGraph(State)
    graph.add_node("load", KeyValueStoreNode("retrieve", "visits", "number", field="visits"))
    graph.add_node("count", count)
    graph.add_node("save", KeyValueStoreNode("insert", "visits", "number", field="visits"))
    for step, following in [(START, "load"), ("load", "count"), ("count", "save"), ("save", END)]:
        graph.add_edge(step, following)

    async with kvstore.open(target) as store:
        flow = graph.compile(store=LangGraphStore(store))
        for user in ("alice", "bob", "alice"):
            state = await flow.ainvoke({"entity_id": user})
            print(f"visit {state['visits']} of {user}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "graph.db"))
