"""`OpenAIEmbeddings`: models behind an HTTP server with OpenAI's `/embeddings`."""

from __future__ import annotations

import asyncio
import os
import random
from email.utils import parsedate_to_datetime
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kvstore.embedding import UnavailableError
from kvstore.errors import EmbeddingError, InvalidArgumentError, MissingDependencyError

if TYPE_CHECKING:
    import httpx

__all__ = ["OpenAIEmbeddings"]

_FIRST_PAUSE_S = 0.5  # before the second try; doubles with each
_LONGEST_PAUSE_S = 30.0
_WORTH_RETRYING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_TEXTS_FAULT = frozenset({400, 413, 422})


class OpenAIEmbeddings:
    """A model behind an HTTP server that speaks OpenAI's protocol.

        OpenAIEmbeddings("text-embedding-3-small")                     # key in OPENAI_API_KEY
        OpenAIEmbeddings("nomic-embed-text", base_url="http://localhost:11434/v1")    # Ollama

    Requests that fail for a moment (no connection, a time-out, status 429 or 5xx) are sent again,
    after a pause that doubles each time, or as long as the server's `Retry-After` says.

    Args:
        model: its name on the server.
        base_url: the server's address up to `/embeddings`.
        api_key: sent as a bearer token; `None`: `OPENAI_API_KEY` of the environment, if it is set.
        dimensions: asked of the server, for models that can shorten their vectors.
        batch_size: texts in one request.
        timeout: of one request, in seconds.
        attempts: how often a request is sent at most.
        query_prefix: put before a query, for models that want one, such as `"query: "`.
        document_prefix: put before a document.
        client: an `httpx.AsyncClient` of your own, which you close; else one is made at need,
            and `await embeddings.aclose()` closes it.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        dimensions: int | None = None,
        batch_size: int = 64,
        timeout: float = 30.0,
        attempts: int = 5,
        query_prefix: str = "",
        document_prefix: str = "",
        client: httpx.AsyncClient | None = None,
    ) -> None:
        if batch_size < 1 or attempts < 1:
            raise InvalidArgumentError("batch_size and attempts are at least 1")
        try:
            import httpx
        except ImportError as exc:
            raise MissingDependencyError(
                "OpenAIEmbeddings needs httpx: pip install 'kvstore[http]'"
            ) from exc
        self._httpx = httpx
        self.model = model
        self.dimensions = dimensions
        self._url = f"{base_url.rstrip('/')}/embeddings"
        key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._batch_size = batch_size
        self._timeout = timeout
        self._attempts = attempts
        self._query_prefix = query_prefix
        self._document_prefix = document_prefix
        self._given = client
        self._own: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None

    def __repr__(self) -> str:
        return f"OpenAIEmbeddings({self.model!r})"

    async def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text."""
        vectors: list[list[float]] = []
        for at in range(0, len(texts), self._batch_size):
            some = texts[at : at + self._batch_size]
            vectors += await self._embed([self._document_prefix + text for text in some])
        return vectors

    async def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return (await self._embed([self._query_prefix + text]))[0]

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        own, self._own = self._own, None
        if own is not None and own[0] is asyncio.get_running_loop():
            await own[1].aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _client(self) -> httpx.AsyncClient:
        """Return a client of the running loop."""
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._own is None or self._own[0] is not loop:
            self._own = (loop, self._httpx.AsyncClient())
        return self._own[1]

    async def _embed(self, texts: list[str]) -> list[list[float]]:
        body: dict[str, Any] = {"model": self.model, "input": texts, "encoding_format": "float"}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        for attempt in range(1, self._attempts + 1):
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1))
            pause *= random.uniform(0.5, 1.0)
            try:
                response = await self._client().post(
                    self._url, json=body, headers=self._headers, timeout=self._timeout
                )
            except self._httpx.TransportError as exc:
                if attempt == self._attempts:
                    raise self._error(f"{type(exc).__name__} after {attempt} attempts") from exc
            else:
                if response.is_success:
                    return self._vectors(response, len(texts))
                if response.status_code not in _WORTH_RETRYING or attempt == self._attempts:
                    raise self._refusal(response, attempt)
                pause = _retry_after(response.headers.get("Retry-After"), pause)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _vectors(self, response: httpx.Response, count: int) -> list[list[float]]:
        try:
            rows = sorted(response.json()["data"], key=lambda row: row["index"])
            vectors = [row["embedding"] for row in rows]
        except (ValueError, KeyError, TypeError) as exc:
            raise self._error("an answer that is no list of embeddings") from exc
        if len(vectors) != count:
            raise self._error(f"{len(vectors)} embeddings for {count} texts")
        return vectors

    def _refusal(self, response: httpx.Response, attempt: int) -> EmbeddingError:
        status = response.status_code
        tries = f" after {attempt} attempts" if attempt > 1 else ""
        hint = "; check the API key" if status in (401, 403) else ""
        said = f"HTTP {status} {response.reason_phrase}{tries}{hint}"
        if status in _TEXTS_FAULT:  # perhaps one text is too long: others may do
            return EmbeddingError(f"embedding by {self.model!r} at {self._url}: {said}")
        return self._error(said)

    def _error(self, said: str) -> UnavailableError:
        return UnavailableError(f"embedding by {self.model!r} at {self._url}: {said}")


def _retry_after(header: str | None, pause: float) -> float:
    """Return how long a server wants us to wait: seconds or a date; `pause` if it does not say."""
    if header is None:
        return pause
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time()
        except ValueError:
            return pause
    return min(_LONGEST_PAUSE_S, max(0.0, seconds)) if seconds == seconds else pause
