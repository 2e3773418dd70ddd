"""Models in this process: the real libraries, with tiny models that the tests build.

Where a library is not installed, its test is skipped, and says so; what happens then is tested in
any case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstore import EmbeddingError, IndexConfig, InMemoryStore, MissingDependencyError
from kvstore.embeddings import FastEmbedEmbeddings, SentenceTransformerEmbeddings
from kvstore.testing_search import found

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "apple", "banana", "cherry", "passage", "query", ":"]
NS = ("notes",)


@pytest.mark.parametrize(
    ("module", "kind", "extra"),
    [
        ("fastembed", FastEmbedEmbeddings, "fastembed"),
        ("sentence_transformers", SentenceTransformerEmbeddings, "sentence-transformers"),
    ],
)
def test_without_the_library_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, kind: Any, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingDependencyError, match=rf"'agent-kvstore\[{extra}\]', or pip install"
    ):
        kind("some-model")


async def finds_by_words_of_the_model(embeddings: Any) -> None:
    """Require a store to find texts by vectors of the tiny model."""
    async with InMemoryStore(index=IndexConfig(embeddings)) as store:
        await store.put_many(NS, {"a": "apple apple", "b": "banana", "c": "cherry cherry"})
        for word in ("apple", "banana", "cherry"):
            (item,) = await store.search(NS, word, limit=1)
            assert item.key == word[0]
            assert item.score is not None
            assert item.score > 0.5
        await store.put(NS, "b", "apple banana")
        assert set(found(await store.search(NS, "banana apple", limit=2))) == {"a", "b"}


def word_tokenizer() -> Any:
    """Return a tokenizer of the words that the tiny models know."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: at for at, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


# sentence-transformers prints, warns and imports as it likes: no business of these tests


@pytest.fixture
def torch_model(tmp_path: Path) -> Path:
    """Build a model of one embedding layer, whose words are all at right angles."""
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    base = tmp_path / "base"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(), pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(base)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    config = transformers.BertConfig(vocab_size=len(WORDS), num_hidden_layers=0, **sizes)
    model = transformers.BertModel(config)
    with torch.no_grad():
        for weights in model.embeddings.parameters():
            weights.zero_()
        model.embeddings.word_embeddings.weight[4:, :6] = torch.eye(6)
        model.embeddings.LayerNorm.weight.fill_(1.0)
    model.save_pretrained(base)
    parts = sentence_transformers.models
    whole = sentence_transformers.SentenceTransformer(
        modules=[parts.Transformer(str(base)), parts.Pooling(16)], device="cpu"
    )
    whole.save(str(tmp_path / "model"))
    return tmp_path / "model"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
async def test_sentence_transformers_embed(torch_model: Path) -> None:
    embeddings = SentenceTransformerEmbeddings(str(torch_model), device="cpu")
    await finds_by_words_of_the_model(embeddings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
async def test_sentence_transformers_take_prefixes(torch_model: Path) -> None:
    plain = SentenceTransformerEmbeddings(str(torch_model), device="cpu")
    embeddings = SentenceTransformerEmbeddings(
        str(torch_model), query_prefix="query: ", document_prefix="passage: ", device="cpu"
    )
    for found_, text in (
        ((await embeddings.embed_documents(["apple"]))[0], "passage: apple"),
        (await embeddings.embed_query("apple"), "query: apple"),
    ):
        assert list(found_) == pytest.approx(list(await plain.embed_query(text)))
        assert list(found_) != pytest.approx(list(await plain.embed_query("apple")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
async def test_a_model_that_is_not_there_fails_the_put(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    embeddings = SentenceTransformerEmbeddings(
        str(tmp_path / "nowhere"), device="cpu", local_files_only=True
    )
    async with InMemoryStore(index=IndexConfig(embeddings)) as store:
        with pytest.raises(EmbeddingError, match="nowhere"):
            await store.put(NS, "k", "apple")
        assert await store.count(NS) == 0


@pytest.fixture
def onnx_model(tmp_path: Path) -> Path:
    """Build a model that looks each word's vector up; the words are at right angles."""
    pytest.importorskip("fastembed", reason="fastembed is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx, to build a model, is not installed")
    import numpy as np

    helper, kinds = onnx.helper, onnx.TensorProto
    table = np.zeros((len(WORDS), 8), dtype=np.float32)
    table[4:, :6] = np.eye(6)
    table[:4, 7] = 0.01  # so that no text is without direction
    names = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "tiny",
        [helper.make_tensor_value_info(name, kinds.INT64, ["n", "m"]) for name in names],
        [helper.make_tensor_value_info("last_hidden_state", kinds.FLOAT, ["n", "m", 8])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    word_tokenizer().save(str(tmp_path / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    for file, said in (
        ("config.json", {"pad_token_id": 0}),
        ("tokenizer_config.json", {"model_max_length": 64, **special}),
        ("special_tokens_map.json", special),
    ):
        (tmp_path / file).write_text(json.dumps(said), "utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
async def test_fastembed_embeds(onnx_model: Path) -> None:
    fastembed = pytest.importorskip("fastembed")
    described = pytest.importorskip("fastembed.common.model_description")
    fastembed.TextEmbedding.add_custom_model(
        model="kvstore/tiny",
        pooling=described.PoolingType.MEAN,
        normalization=True,
        sources=described.ModelSource(hf="kvstore/tiny"),
        dim=8,
        model_file="model.onnx",
    )
    embeddings = FastEmbedEmbeddings("kvstore/tiny", specific_model_path=str(onnx_model))
    await finds_by_words_of_the_model(embeddings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
async def test_fastembed_without_the_model_fails_the_put() -> None:
    pytest.importorskip("fastembed", reason="fastembed is not installed")
    async with InMemoryStore(index=IndexConfig(FastEmbedEmbeddings("nobody/nothing"))) as store:
        with pytest.raises(EmbeddingError, match="nobody/nothing"):
            await store.put(NS, "k", "apple")
        assert await store.count(NS) == 0
