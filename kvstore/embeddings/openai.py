"""`OpenAIEmbeddings`: models behind an HTTP server with OpenAI's `/embeddings`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import random
import re
import ssl
import sys
from array import array
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from kvstore.distribution import or_install
from kvstore.embedding import UnavailableError
from kvstore.errors import EmbeddingError, InvalidArgumentError

if TYPE_CHECKING:
    import httpx

__all__ = ["OpenAIEmbeddings"]

_FIRST_PAUSE_S = 0.5  # before the second try; doubles with each
_LONGEST_PAUSE_S = 30.0
_WORTH_RETRYING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_TEXTS_FAULT = frozenset({400, 413, 422})
_MOST_SAID = 300  # characters of a server's own words in an error


class _RefusedError(EmbeddingError):
    """The server refused these texts: fewer of them, or shorter ones, may do."""


class OpenAIEmbeddings:
    """A model behind an HTTP server that speaks OpenAI's protocol.

        OpenAIEmbeddings("text-embedding-3-small")                     # key in OPENAI_API_KEY
        OpenAIEmbeddings("nomic-embed-text", base_url="http://localhost:11434/v1")    # Ollama

    Requests that fail for a moment (no connection, a time-out, status 429 or 5xx) are sent again,
    after a pause that doubles each time, or as long as the server's `Retry-After` says. What the
    server refuses as too much is sent again in halves, down to one text, and how much it took is
    remembered. Certificates that do not verify, servers that do not speak TLS where `https` says
    so, and addresses that are none fail at once.

    Args:
        model: its name on the server.
        base_url: the server's address up to `/embeddings`.
        api_key: sent as a bearer token; `None`: `OPENAI_API_KEY` of the environment, if it is set.
        dimensions: asked of the server, for models that can shorten their vectors; a server that
            ignores it is an error.
        batch_size: texts in one request, at most.
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
        if not _is_address(base_url):
            raise InvalidArgumentError("base_url is an address such as 'http://localhost:11434/v1'")
        with or_install("OpenAIEmbeddings needs httpx", "http", "httpx"):
            import httpx
        self._httpx = httpx
        self.model = model
        self.dimensions = dimensions
        self._url = f"{base_url.rstrip('/').removesuffix('/embeddings')}/embeddings"
        self._at = re.sub(r"//[^/]*@", "//", self._url)  # as errors show it: without a password
        key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
        self._key = key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._most = batch_size  # less, where a server has shown that it takes less
        self._timeout = timeout
        self._attempts = attempts
        self._query_prefix = query_prefix
        self._document_prefix = document_prefix
        self._given = client
        self._own: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None

    def __repr__(self) -> str:
        return f"OpenAIEmbeddings({self.model!r})"

    @property
    def model_id(self) -> str:
        """What makes the vectors: the model, and all that changes what it is given or gives."""
        changes = [
            f"{name}={value!r}"
            for name, value in (
                ("dimensions", self.dimensions),
                ("query_prefix", self._query_prefix),
                ("document_prefix", self._document_prefix),
            )
            if value
        ]
        return " ".join([self.model, *changes])

    async def embed_documents(self, texts: list[str]) -> list[Any]:
        """Return a vector for each text.

        Raises:
            EmbeddingError: the server cannot be reached, or refused a text, in its own words.
        """
        vectors: list[Any] = []
        while len(vectors) < len(texts):
            some = texts[len(vectors) : len(vectors) + self._most]
            vectors += await self._embed_halving([self._document_prefix + text for text in some])
        return vectors

    async def embed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        return (await self._embed([self._query_prefix + text]))[0]

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        own, self._own = self._own, None
        if own is not None and own[0] is asyncio.get_running_loop():
            await own[1].aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _client(self) -> httpx.AsyncClient:
        """Return a client of the running loop."""
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._own is None or self._own[0] is not loop:
            self._own = (loop, self._httpx.AsyncClient())
        return self._own[1]

    async def _embed_halving(self, texts: list[str]) -> list[Any]:
        """Embed texts; what the server refuses as a whole, in halves."""
        try:
            return await self._embed(texts)
        except _RefusedError:
            if len(texts) == 1:
                raise
        half = (len(texts) + 1) // 2
        vectors = await self._embed_halving(texts[:half])
        vectors += await self._embed_halving(texts[half:])
        self._most = min(self._most, half)  # no text was at fault, so it was their number
        return vectors

    async def _embed(self, texts: list[str]) -> list[Any]:
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
            except (self._httpx.UnsupportedProtocol, self._httpx.InvalidURL) as exc:
                raise self._error(self._words(str(exc))) from exc
            except self._httpx.TransportError as exc:
                if attempt == self._attempts or _is_wrong_tls(exc):
                    said = f"{type(exc).__name__} after {attempt} attempts: {exc}"
                    raise self._error(self._words(said).rstrip(": ")) from exc
            else:
                if response.is_success:
                    return self._vectors(response, len(texts))
                if response.status_code not in _WORTH_RETRYING or attempt == self._attempts:
                    raise self._refusal(response, attempt)
                pause = _retry_after(response.headers.get("Retry-After"), pause)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _vectors(self, response: httpx.Response, count: int) -> list[Any]:
        try:
            vectors = _in_order(response.json()["data"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            words = self._words(_said(response))
            said = f"an answer that is no list of embeddings{words and f': {words}'}"
            raise self._error(said) from exc
        if len(vectors) != count:
            raise self._error(f"{len(vectors)} embeddings for {count} texts")
        for vector in vectors:
            if self.dimensions is not None and len(vector) != self.dimensions:
                raise self._error(
                    f"vectors of {len(vector)} numbers, where dimensions={self.dimensions} was "
                    "asked for: the server ignores it; leave it out, or take a model whose "
                    "vectors can be shortened"
                )
        return vectors

    def _refusal(self, response: httpx.Response, attempt: int) -> EmbeddingError:
        status = response.status_code
        tries = f" after {attempt} attempts" if attempt > 1 else ""
        hint = "; check the API key" if status in (401, 403) else ""
        words = self._words(_said(response))
        said = f"HTTP {status} {response.reason_phrase}{tries}{hint}{words and f': {words}'}"
        if status in _TEXTS_FAULT:
            return _RefusedError(f"embedding by {self.model!r} at {self._at}: {said}")
        return self._error(said)

    def _words(self, said: str) -> str:
        """Return a server's own words as an error may hold them: short, on one line, no key."""
        if self._key:
            said = said.replace(self._key, "***")
        said = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", said).strip()
        return said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}..."

    def _error(self, said: str) -> UnavailableError:
        return UnavailableError(f"embedding by {self.model!r} at {self._at}: {said}")


def _said(response: httpx.Response) -> str:
    """Return what a server says of its refusal, in any of the shapes that servers use."""
    try:
        body = response.json()
    except ValueError:
        return "" if "<" in response.text else response.text
    for _ in range(4):
        if isinstance(body, list):
            body = body[0] if body else ""
        if not isinstance(body, dict):
            break
        named = (body.get(name) for name in ("error", "message", "detail", "msg", "errors"))
        body = next((each for each in named if each), "")
    return body if isinstance(body, str) else ""


def _in_order(rows: list[dict[str, Any]]) -> list[Any]:
    """Return the vectors of an answer by their index, where it is given and makes sense.

    A server that leaves out what is zero leaves out the first index, and some give none.
    """
    given = [row.get("index") for row in rows]
    places = [place or 0 for place in given]
    if sorted(places) == list(range(len(rows))):
        rows = [row for _, row in sorted(zip(places, rows, strict=True), key=lambda each: each[0])]
    elif any(place is not None for place in given):
        raise ValueError("indexes that are no permutation")
    return [_vector(row["embedding"]) for row in rows]


def _vector(embedding: Any) -> Any:
    """Return the numbers of a vector, which some servers send as float32 in base64."""
    if isinstance(embedding, list):
        return embedding
    if not isinstance(embedding, str):
        raise TypeError("a vector that is neither numbers nor base64")
    try:
        numbers = array("f", base64.b64decode(embedding, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("a vector that is neither numbers nor base64") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _is_address(url: Any) -> bool:
    try:
        where = urlsplit(url)
        host, _ = where.hostname, where.port  # which raises for a port that is none
    except (AttributeError, TypeError, ValueError):
        return False
    return where.scheme in ("http", "https") and bool(host) and not re.search(r"\s", url)


def _is_wrong_tls(exc: BaseException) -> bool:
    """Whether a connection failed on its certificate or protocol: another try will not mend it."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        cause = cause.__cause__ or cause.__context__
    return "CERTIFICATE_VERIFY_FAILED" in str(exc)


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
