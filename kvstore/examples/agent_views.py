"""What agents ask of a store: cached answers, a chat that fits, files, and an end of it all.

    pip install agent-kvstore
    python -m kvstore.examples.agent_views [PATH]     (views.db unless you name one)

Run it twice: the second run asks its model nothing. The embeddings are those of words, and the
model is a script, so that this needs no network.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import kvstore
from kvstore.embeddings import HashingEmbeddings
from kvstore.views import SESSION, SESSION_PLACES, Files, SemanticCache, delete_session, trimmed

SESSION_ID = "alice-1"
CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "look it up"},
    {"role": "assistant", "tool_calls": [{"id": "1"}], "content": ""},
    {"role": "tool", "tool_call_id": "1", "content": "found"},
    {"role": "user", "content": "question"},
    {"role": "assistant", "content": "answer"},
]


def model(question: str) -> str:
    """Stand in for a model that costs something."""
    print(f"asked the model: {question}")
    return f"an answer to {question}"


async def main(target: str) -> None:
    """Use each view once."""
    index = kvstore.IndexConfig(HashingEmbeddings(256), fields=("prompt",))
    async with kvstore.open(target, index=index) as store:
        cache = SemanticCache(store, tenant="alice", llm_string="scripted")
        for question in (
            "how do I reset my password?",
            "my password, how do I reset?",
            "what is the weather?",
        ):
            await cache.get_or_compute(question, model)

        chat = store.log(("sessions", SESSION_ID, "chat"))
        await chat.append(*CHAT[len(await chat.tail(len(CHAT))) :])
        whole = [entry.value async for entry in chat.read()]
        sent = trimmed(whole, count=3)  # the tool's result would be without its call
        contents = ", ".join(message["content"] for message in sent)
        print(f"{len(sent)} of {len(whole)} messages go to the model: {contents}")

        files = Files(store, ("files", "alice"))
        if not await files.glob("*.md"):
            await files.write("/plan.md", "# Plan\n- call Bob (open)\n")
            await files.edit("/plan.md", "(open)", "(done)")
        for found in await files.grep("Bob"):
            print(f"{found.path}:{found.line}: {found.text}")

        places = (*SESSION_PLACES, ("drafts", SESSION))
        print(
            f"the session is gone, {await delete_session(store, SESSION_ID, places=places)} items"
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "views.db"))
