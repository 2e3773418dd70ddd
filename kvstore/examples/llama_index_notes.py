"""LlamaIndex with one file for all: documents, and the memory of a chat.

    pip install 'agent-kvstore[llama-index]'
    python -m kvstore.examples.llama_index_notes [PATH]     (notes.db unless you name one)

Run it twice: the second run finds the first one's documents, and goes on with its chat. It needs
no network.
"""

from __future__ import annotations

import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore.keyval_docstore import KVDocumentStore

from kvstore.integrations.llama_index import KVChatStore, KVStore


def main(target: str) -> None:
    """Note, look up and remember."""
    values, chats = KVStore(target), KVChatStore(target)
    documents = KVDocumentStore(values)
    if not documents.docs:
        texts = {"tea": "Alice likes green tea", "cat": "The cat sleeps"}
        documents.add_documents([TextNode(text=text, id_=id) for id, text in texts.items()])
        print("noted two things")
    for id in ("tea", "cat"):
        print(documents.get_node(id).get_content())
    # The limit is in tokens; the tokenizer says what those are.
    memory = ChatMemoryBuffer.from_defaults(
        chat_store=chats, chat_store_key="alice", token_limit=1_000, tokenizer_fn=str.split
    )
    memory.put(ChatMessage("what is there?"))
    print(f"{len(memory.get_all())} messages so far")
    values.close()
    chats.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "notes.db")
