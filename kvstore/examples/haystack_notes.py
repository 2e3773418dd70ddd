"""A Haystack pipeline over a file: documents are written once, and found by words.

    pip install 'agent-kvstore[haystack]'
    python -m kvstore.examples.haystack_notes [PATH]     (notes.db unless you name one)

Run it twice: the second run finds the first one's documents. It needs no network.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

from haystack import Document, Pipeline

from kvstore.integrations.haystack import KVBM25Retriever, KVDocumentStore


def main(target: str) -> None:
    """Note and look up."""
    documents = KVDocumentStore(target)
    if not documents.count_documents():
        texts = ("Alice likes green tea", "The cat sleeps")
        documents.write_documents([Document(content=text) for text in texts])
        print("noted two things")
    pipeline = Pipeline()
    pipeline.add_component("retriever", KVBM25Retriever(documents, top_k=1))
    question = "which tea does Alice like?"
    (found,) = pipeline.run({"retriever": {"query": question}})["retriever"]["documents"]
    print(f"> {question}\n{found.content}")
    documents.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "notes.db")
