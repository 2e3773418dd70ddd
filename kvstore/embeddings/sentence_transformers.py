"""`SentenceTransformerEmbeddings`: models in PyTorch form, computed in this process."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any

from kvstore.distribution import or_install

__all__ = ["SentenceTransformerEmbeddings"]


class SentenceTransformerEmbeddings:
    """A model of sentence-transformers; it is loaded with the first text.

    Args:
        model: its name or the path of its folder.
        query_prefix: put before a query, for models that want one, such as `"query: "`.
        document_prefix: put before a document.
        options: more arguments of `sentence_transformers.SentenceTransformer`, such as `device`.
    """

    def __init__(
        self,
        model: str = "all-MiniLM-L6-v2",
        *,
        query_prefix: str = "",
        document_prefix: str = "",
        **options: Any,
    ) -> None:
        needed = "sentence-transformers"
        with or_install(f"SentenceTransformerEmbeddings needs {needed}", needed, needed):
            import sentence_transformers
        self.model = model
        self._query_prefix = query_prefix
        self._document_prefix = document_prefix
        self._options = options
        self._make: Any = lambda: sentence_transformers.SentenceTransformer(model, **options)
        self._loaded: Any = None
        self._lock = Lock()

    @property
    def model_id(self) -> str:
        """What makes the vectors: the model, and all that changes what it is given or gives."""
        changes = {"document_prefix": self._document_prefix, "query_prefix": self._query_prefix}
        told = [f"{name}={value!r}" for name, value in changes.items() if value]
        told += [
            f"{name}={value!r}"
            for name, value in sorted(self._options.items())
            if name in ("prompts", "default_prompt_name", "truncate_dim", "revision", "backend")
        ]
        return " ".join([self.model, *told])

    async def embed_documents(self, texts: list[str]) -> Any:
        """Return a vector for each text."""
        prefixed = [self._document_prefix + text for text in texts]
        return await asyncio.to_thread(self._embed, prefixed)

    async def embed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        return (await asyncio.to_thread(self._embed, [self._query_prefix + text]))[0]

    def _embed(self, texts: list[str]) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._make()
            return self._loaded.encode(texts, show_progress_bar=False)
