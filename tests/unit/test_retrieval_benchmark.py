"""The benchmark of retrieval reads what others bring, and counts right."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.retrieval import load, measure
from kvstore import IndexConfig


def write_collection(folder: Path) -> None:
    texts = ("on wings", "on tails\nand wings", "")
    parts = [f".I {at}\n.T\nx\n.W\n{text}\n" for at, text in enumerate(texts, 1)]
    (folder / "cran.all.1400").write_text("".join(parts))
    (folder / "cran.qry").write_text(".I 004\n.W\nwhich tails ?\n.I 009\n.W\nnobody knows\n")
    (folder / "cranqrel").write_text("1 2 3\n1 1 -1\n1 99 2\n")


def test_a_folder_is_a_collection(tmp_path: Path) -> None:
    write_collection(tmp_path)
    (collection,) = load(tmp_path)
    assert collection.turns == {"1": "on wings", "2": "on tails and wings", "3": ""}
    assert collection.questions == [("which tails ?", frozenset({"1", "2"}))]


async def test_what_is_found_is_counted(tmp_path: Path) -> None:
    turns = [{"id": f"t{at}", "text": text} for at, text in enumerate(["a cat", "two dogs", "hm"])]
    asked = [{"question": "dogs?", "evidence": ["t1", "t2"]}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"turns": turns, "questions": asked}))
    (talk,) = load(tmp_path / "talk.jsonl")
    ((*figures, _),) = (await measure(talk, IndexConfig(), ["text"]))["text"]
    assert figures == pytest.approx([0.5, 0.5, 1.0, 1.0, 1 / (1 + 1 / math.log2(3))])
