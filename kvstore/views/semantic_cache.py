"""A cache of answers that is asked by meaning: an answer to a question in other words counts."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from kvstore.arguments import TTL
from kvstore.errors import InvalidArgumentError
from kvstore.namespace import check_namespace
from kvstore.store import Store
from kvstore.types import Item, Namespace

__all__ = ["SemanticCache"]

_FIELD: Final = "prompt"


class SemanticCache:
    """Answers by the meaning of what was asked, never across tenants, models or settings.

    Who asks and what answers are parts of the namespace, and so is the model of the embeddings:
    with another one there is nothing yet, and old vectors are never compared with new ones. A
    near question is not always the same one (`in 2023` and `in 2024`), so the threshold is high;
    choose it on questions of your own.

    Args:
        store: an open store with an index that has embeddings.
        namespace: where the answers are.
        tenant: whose answers; nobody sees those of another.
        llm_string: which model answers, and with which settings.
        threshold: the least cosine similarity that counts, above 0 and up to 1.
        ttl: lifetime of an answer in seconds; a hit renews nothing. `None`: the store's default.

    Raises:
        InvalidArgumentError: the store has no embeddings, or the threshold is out of range.
    """

    def __init__(
        self,
        store: Store,
        *,
        namespace: Sequence[str] = ("semantic_cache",),
        tenant: str = "",
        llm_string: str = "",
        threshold: float = 0.95,
        ttl: TTL = None,
    ) -> None:
        embedder = store.backend.embedder
        if embedder is None:
            raise InvalidArgumentError(
                "SemanticCache needs a store with a model: "
                "index=IndexConfig(embeddings, fields=('prompt',))"
            )
        if isinstance(threshold, bool) or not 0 < threshold <= 1:
            raise InvalidArgumentError(
                f"threshold is a similarity above 0 and up to 1, not {threshold!r}"
            )
        self._store = store
        self._threshold = threshold
        self._ttl = ttl
        whose = "\0".join(f"{len(part)}:{part}" for part in (tenant, llm_string, embedder.model_id))
        self._root = check_namespace(namespace)
        self._namespace: Namespace = (*self._root, _digest(whose))

    async def get(self, prompt: str) -> Item | None:
        """Return the nearest question with its answer, if it is near enough.

        Returns:
            An item whose value is `{"prompt": ..., "answer": ...}`, with its similarity as
            `score`; `None`: a miss.
        """
        found = await self._store.search(
            self._namespace,
            prompt,
            mode="semantic",
            limit=1,
            min_score=self._threshold,
            refresh_ttl=False,
        )
        return found[0] if found else None

    async def put(self, prompt: str, answer: Any) -> Item:
        """Keep an answer, over the one to the same words."""
        value = {_FIELD: prompt, "answer": answer}
        return await self._store.put(
            self._namespace, _digest(prompt), value, ttl=self._ttl, index=[_FIELD]
        )

    async def get_or_compute(
        self, prompt: str, compute: Callable[[str], Any | Awaitable[Any]]
    ) -> Any:
        """Return the answer that is known, or else what `compute` gives, and keep that.

        Args:
            prompt: the question.
            compute: from it to the whole answer, sync or async. What it raises passes, and
                nothing is kept.
        """
        found = await self.get(prompt)
        if found is not None:
            return found.value["answer"]
        answer = compute(prompt)
        if inspect.isawaitable(answer):
            answer = await answer
        await self.put(prompt, answer)
        return answer

    async def clear(self) -> int:
        """Forget the answers of this tenant, model and settings; return how many there were."""
        return await self._store.remove(self._namespace, "*")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
