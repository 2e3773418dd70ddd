"""Embeddings: any model behind one face, and calls to it shared by whoever needs vectors at once.

A vector inside kvstore is `bytes`: float32, of unit length, so that the cosine of two is their
product. A text without a direction (its vector is all zeros) has the empty `bytes`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

from kvstore.errors import EmbeddingError, InvalidArgumentError, StoreError
from kvstore.model_id import model_id_of
from kvstore.types import IndexConfig

__all__ = [
    "Embedder",
    "Embeddings",
    "UnavailableError",
    "awaitable",
    "numpy_or_none",
    "unit_vector",
]

BATCH_TEXTS = 128  # in one call to the model
CALLS_AT_ONCE = 4  # to a model that is awaited; one that computes in a thread gets one
LINGER_S = 0.003  # how long a call is put off, at most, while more texts may be on their way
_LINGER_STEP_S = 0.0005
_SURELY_TAKEN = "text"  # by a model that works
MAX_QUERY_CHARS = 8192  # of a query that is given to the model
_LEAST_SQUARE, _LARGEST_SQUARE = 1e-200, 1e200  # of a vector's length; no number is lost between


@cache
def numpy_or_none() -> Any:
    """Return numpy where it is installed; to import it takes time, so only where it is needed."""
    try:
        import numpy as np
    except ImportError:
        return None
    return np


@runtime_checkable
class Embeddings(Protocol):
    """A model that turns texts into vectors, all of the same length."""

    async def embed_documents(self, texts: list[str], /) -> Sequence[Sequence[float]]:
        """Return a vector for each text, in order."""
        ...

    async def embed_query(self, text: str, /) -> Sequence[float]:
        """Return the vector with which documents that answer a query are found."""
        ...


class UnavailableError(EmbeddingError):
    """The model cannot be reached, whatever the texts: to ask again for each alone is no use."""


@dataclass(slots=True, eq=False)
class _Request:
    """Texts that one caller waits for."""

    texts: list[str]
    future: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Model:
    """A model as two coroutine functions."""

    documents: Callable[[list[str]], Awaitable[Any]]
    query: Callable[[str], Awaitable[Any]]
    calls_at_once: int


class Embedder:
    """Gives the vectors of texts; concurrent callers share calls to the model.

    What a cancelled caller has asked for is still computed for the others. When a call fails that
    several callers share, each of them is served alone, so that one bad text fails one caller.

    Args:
        config: with a model.
        most_dimensions: how many numbers a vector may have at most; `None`: any number.

    Raises:
        InvalidArgumentError: `config.embeddings` is no model, or its vectors are too long.
    """

    def __init__(self, config: IndexConfig, most_dimensions: int | None = None) -> None:
        if most_dimensions is not None and (config.dimensions or 0) > most_dimensions:
            raise InvalidArgumentError(
                f"dimensions is {config.dimensions:,}, and this store takes vectors of at most "
                f"{most_dimensions:,} numbers: use a model with shorter ones, or have it cut them"
            )
        self._most_dimensions = most_dimensions
        self._model = _adapt(config.embeddings)
        self._name = model_id_of(config.embeddings)
        self.model_id = config.model_id or self._name
        self.dimensions = config.dimensions
        self._waiting: list[_Request] = []
        self._vectors: dict[str, bytes] = {}  # results, until their callers have taken them
        self._wanted: dict[str, int] = {}  # how many callers want a text
        self._calls: set[asyncio.Task[None]] = set()
        self._is_scheduled = False
        self._linger_until = 0.0
        self._on_their_way = 0

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Let a call be put off for a moment: here somebody finds out whether it needs a vector."""
        self._on_their_way += 1
        try:
            yield
        finally:
            self._on_their_way -= 1

    async def documents(self, texts: Iterable[str]) -> dict[str, bytes]:
        """Return the vector of each text.

        Raises:
            EmbeddingError: the model failed, or what it returned are no embeddings.
        """
        distinct = list(dict.fromkeys(texts))
        loop = asyncio.get_running_loop()
        requests = [
            _Request(distinct[at : at + BATCH_TEXTS], loop.create_future())
            for at in range(0, len(distinct), BATCH_TEXTS)
        ]
        for text in distinct:
            self._wanted[text] = self._wanted.get(text, 0) + 1
        self._waiting += requests
        if not self._is_scheduled:
            self._is_scheduled = True
            self._linger_until = loop.time() + LINGER_S
            loop.call_soon(self._flush)
        try:
            await asyncio.gather(*(request.future for request in requests))
            return {text: self._vectors[text] for text in distinct}
        finally:
            for request in requests:
                request.future.cancel()
            for text in distinct:
                self._wanted[text] -= 1
                if not self._wanted[text]:
                    del self._wanted[text]
                    self._vectors.pop(text, None)

    async def accepted(self, texts: Iterable[str]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return the vector of each text that the model takes, and why it refuses the others.

        Raises:
            EmbeddingError: it takes no text at all, or cannot be reached.
        """
        distinct = list(dict.fromkeys(texts))
        vectors: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        waiting = [distinct] if distinct else []
        while waiting:
            some = waiting.pop()
            try:
                vectors |= await self.documents(some)
            except UnavailableError:
                raise
            except EmbeddingError as exc:
                if len(some) > 1:
                    middle = len(some) // 2
                    waiting += [some[middle:], some[:middle]]
                    continue
                if not vectors and not refused:
                    try:
                        await self.documents([_SURELY_TAKEN])
                    except EmbeddingError:
                        raise exc from None
                refused[some[0]] = str(exc)
        return vectors, refused

    async def query(self, text: str) -> bytes:
        """Return the vector of a query.

        Raises:
            EmbeddingError: the model failed, or what it returned is no embedding.
        """
        readable = text[:MAX_QUERY_CHARS].encode("utf-8", "replace").decode()
        try:
            vector = await self._model.query(readable)
        except StoreError:
            raise
        except Exception as exc:
            raise self._failure(exc) from exc
        return self._checked([vector], 1)[0]

    async def close(self) -> None:
        """End the calls that nobody waits for any more."""
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    # Sharing

    def _flush(self) -> None:
        self._waiting = [request for request in self._waiting if not request.future.done()]
        if self._waiting and self._on_their_way and len(self._waiting) < BATCH_TEXTS:
            loop = asyncio.get_running_loop()
            if loop.time() < self._linger_until:
                loop.call_later(_LINGER_STEP_S, self._flush)
                return
        self._is_scheduled = False
        while self._waiting and len(self._calls) < self._model.calls_at_once:
            shared: list[_Request] = []
            texts = 0
            while self._waiting and texts + len(self._waiting[0].texts) <= BATCH_TEXTS:
                shared.append(self._waiting.pop(0))
                texts += len(shared[-1].texts)
            call = asyncio.create_task(self._serve(shared))
            self._calls.add(call)
            call.add_done_callback(partial(self._called, shared))

    def _called(self, requests: list[_Request], call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if call.cancelled():  # perhaps before it began
            why = "the store was closed, or its tasks cancelled, before the model had answered"
            _fail(requests, EmbeddingError(why))
        else:
            call.result()
        if not self._is_scheduled:
            self._flush()

    async def _serve(self, requests: list[_Request]) -> None:
        try:
            await self._embed(requests)
        except Exception as exc:  # noqa: BLE001 - it belongs to the callers
            if len(requests) == 1 or isinstance(exc, UnavailableError):
                _fail(requests, exc)
                return
            for request in requests:
                if not request.future.done():
                    await self._serve([request])

    async def _embed(self, requests: list[_Request]) -> None:
        texts = list(dict.fromkeys(text for request in requests for text in request.texts))
        missing = [text for text in texts if text not in self._vectors]
        if missing:
            try:
                answer = await self._model.documents(missing)
            except StoreError:
                raise
            except Exception as exc:
                raise self._failure(exc) from exc
            for text, vector in zip(missing, self._checked(answer, len(missing)), strict=True):
                if text in self._wanted:
                    self._vectors[text] = vector
        for request in requests:
            if not request.future.done():
                request.future.set_result(None)

    # Checking

    def _failure(self, exc: Exception) -> EmbeddingError:
        return EmbeddingError(
            f"the embedding model {self._name} failed: {type(exc).__name__}: {exc}"
        )

    def _checked(self, answer: Any, count: int) -> list[bytes]:
        """Return unit vectors for what a model has answered."""
        try:
            vectors = list(answer)
        except TypeError:
            raise EmbeddingError(
                f"the embedding model {self._name} returned {type(answer).__name__}, not vectors"
            ) from None
        if len(vectors) != count:
            raise EmbeddingError(
                f"the embedding model {self._name} returned {len(vectors)} vectors for "
                f"{count} texts"
            )
        found = _unit_vectors(vectors) or [self._unit(vector) for vector in vectors]
        if self._most_dimensions is not None and any(
            length > self._most_dimensions for _, length in found
        ):
            raise EmbeddingError(
                f"the embedding model {self._name} returned a vector of more than "
                f"{self._most_dimensions:,} numbers, which is the most that this store takes"
            )
        if self.dimensions is None and found:
            self.dimensions = found[0][1]
        for _, length in found:
            if length != self.dimensions:
                raise EmbeddingError(
                    f"the embedding model {self._name} returned a vector of {length} numbers, "
                    f"and {self.dimensions} were expected"
                )
        return [vector for vector, _ in found]

    def _unit(self, vector: Any) -> tuple[bytes, int]:
        try:
            return unit_vector(vector), len(vector)
        except (TypeError, ValueError, OverflowError) as exc:
            raise EmbeddingError(
                f"the embedding model {self._name} returned what is no vector: {exc}"
            ) from None


def _fail(requests: list[_Request], error: Exception) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(error)


def unit_vector(vector: Any) -> bytes:
    """Return a vector at unit length as float32; the empty bytes if it has no direction.

    Raises:
        TypeError: it is no sequence of numbers.
        ValueError: it is empty, or a number in it is not finite.
    """
    if isinstance(vector, (str, bytes)) or not hasattr(vector, "__len__"):
        raise TypeError(f"a vector is a sequence of numbers, not {type(vector).__name__}")
    if not len(vector):
        raise ValueError("it is empty")
    np = numpy_or_none()
    if np is not None:
        numbers = _numbers(np, vector)
        if numbers.ndim != 1:
            raise ValueError("it is not one sequence of numbers")
        with np.errstate(all="ignore"):
            square = float(numbers @ numbers)
        if _LEAST_SQUARE < square < _LARGEST_SQUARE:
            return bytes((numbers / math.sqrt(square)).astype(np.float32).tobytes())
        largest = float(np.abs(numbers).max())
        if not math.isfinite(largest):
            raise ValueError("a number in it is not finite")
        if not largest:
            return b""
        numbers = numbers / largest  # so that no square overflows or vanishes
        return bytes((numbers / math.sqrt(float(numbers @ numbers))).astype(np.float32).tobytes())
    plain = array("d", vector)
    length = math.hypot(*plain)
    if not math.isfinite(length):
        raise ValueError("a number in it is not finite")
    if not length:
        return b""
    return array("f", [number / length for number in plain]).tobytes()


def _numbers(np: Any, given: Any) -> Any:
    """Return numpy's array of numbers; of texts it would make some, too."""
    found = np.asarray(given)
    if found.dtype.kind in "SU":
        raise TypeError("it holds texts, not numbers")
    return found.astype(np.float64, copy=False)


def _unit_vectors(vectors: list[Any]) -> list[tuple[bytes, int]] | None:
    """Return many unit vectors with their lengths at once, or `None` if one of them is unusual."""
    np = numpy_or_none()
    if np is None or len(vectors) == 1:
        return None
    try:
        matrix = _numbers(np, vectors)
    except (TypeError, ValueError, OverflowError):
        return None
    if matrix.ndim != 2 or not matrix.shape[1]:
        return None
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix)
    if not ((squares > _LEAST_SQUARE) & (squares < _LARGEST_SQUARE)).all():
        return None
    length = matrix.shape[1]
    data = (matrix / np.sqrt(squares)[:, None]).astype(np.float32).tobytes()
    return [(data[at : at + 4 * length], length) for at in range(0, len(data), 4 * length)]


# Adapting


def _adapt(embeddings: Any) -> _Model:
    """Make a model of whatever users have."""
    documents = getattr(embeddings, "embed_documents", None)
    query = getattr(embeddings, "embed_query", None)
    if documents is not None and query is not None and not isinstance(embeddings, type):
        if not _is_async(documents):  # LangChain's have both
            documents = getattr(embeddings, "aembed_documents", documents)
            query = getattr(embeddings, "aembed_query", query)
        awaited = _is_async(documents)
        return _Model(awaitable(documents), awaitable(query), CALLS_AT_ONCE if awaited else 1)
    if callable(embeddings) and not isinstance(embeddings, type):
        embed = awaitable(embeddings)

        async def embed_query(text: str) -> Any:
            answer = list(await embed([text]))
            if len(answer) != 1:
                raise EmbeddingError(
                    f"the embedding function returned {len(answer)} vectors for 1 text"
                )
            return answer[0]

        return _Model(embed, embed_query, CALLS_AT_ONCE if _is_async(embeddings) else 1)
    raise InvalidArgumentError(
        "embeddings is a function from a list of texts to a list of vectors, or an object with "
        f"embed_documents and embed_query, not {type(embeddings).__name__}"
    )


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object that is called
    )


def awaitable(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Make a function awaitable; one that is not async runs in a thread, never on the loop."""
    if _is_async(function):
        return function

    async def call(*args: Any) -> Any:
        result = await asyncio.to_thread(function, *args)
        return await result if inspect.isawaitable(result) else result

    return call
