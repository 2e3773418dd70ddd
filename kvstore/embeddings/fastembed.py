"""`FastEmbedEmbeddings`: models in ONNX form, computed in this process by fastembed."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any

from kvstore.distribution import or_install

__all__ = ["FastEmbedEmbeddings"]


class FastEmbedEmbeddings:
    """A model that fastembed runs; it is loaded, and at first downloaded, with the first text.

    Args:
        model: its name in fastembed's list.
        options: more arguments of `fastembed.TextEmbedding`, such as `cache_dir` or `threads`.
    """

    def __init__(self, model: str = "BAAI/bge-small-en-v1.5", **options: Any) -> None:
        with or_install("FastEmbedEmbeddings needs fastembed", "fastembed", "fastembed"):
            import fastembed
        self.model = model
        self._make: Any = lambda: fastembed.TextEmbedding(model, **options)
        self._loaded: Any = None
        self._lock = Lock()

    async def embed_documents(self, texts: list[str]) -> list[Any]:
        """Return a vector for each text."""
        return await asyncio.to_thread(self._embed, "passage_embed", texts)

    async def embed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        return (await asyncio.to_thread(self._embed, "query_embed", [text]))[0]

    def _embed(self, method: str, texts: list[str]) -> list[Any]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._make()
            return list(getattr(self._loaded, method)(texts))
