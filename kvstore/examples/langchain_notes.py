"""LangChain with one file for all: notes that are found by meaning, and a chat that goes on.

    pip install 'agent-kvstore[langchain]'
    python -m kvstore.examples.langchain_notes [PATH]     (notes.db unless you name one)

Run it twice: the second run finds the first one's notes, and goes on with its chat. The embeddings
are those of words, and nothing answers but a script, so that this needs no network.
"""

from __future__ import annotations

import asyncio
import sys

from langchain_core.messages import AIMessage, HumanMessage

import kvstore
from kvstore.embeddings import HashingEmbeddings
from kvstore.integrations.langchain import KVChatMessageHistory, KVVectorStore


async def main(target: str) -> None:
    """Ask, look up and answer."""
    index = kvstore.IndexConfig(HashingEmbeddings(256), fields=("text",))
    async with kvstore.open(target, index=index) as store:
        notes = KVVectorStore(store)
        history = KVChatMessageHistory(store, "alice")
        if not await notes.aget_by_ids(["tea", "cat"]):
            await notes.aadd_texts(["Alice likes green tea", "The cat sleeps"], ids=["tea", "cat"])
            print("noted two things")
        question = "which tea does Alice like?"
        (found,) = await notes.asimilarity_search(question, k=1)
        await history.aadd_messages([HumanMessage(question), AIMessage(found.page_content)])
        print(f"> {question}\n{found.page_content}")
        print(f"{len(await history.aget_messages())} messages so far")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "notes.db"))
