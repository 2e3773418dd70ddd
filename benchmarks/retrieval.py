"""How well an agent's memory finds the turns that answer a question, on data that you bring.

    python -m benchmarks.retrieval locomo10.json
    python -m benchmarks.retrieval turns.jsonl --modes text hybrid --context 1 --rerank
    python -m benchmarks.retrieval cranfield/

The data is LoCoMo (Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM
Agents", ACL 2024), which its authors publish; it is not part of this project. Their own file is
read, and one JSON object a line, with `turns` (`id`, `text`) and `questions` (`question`,
`evidence`). Each turn is an item, in the order of the talk; each question is asked once.

A folder is a collection as the Cranfield one (Cleverdon, "The Cranfield tests on index language
devices", 1967) is passed on: `cran.all.1400`, `cran.qry` and `cranqrel`. Every text that is judged
for a query counts alike.

- R@k: which share of the turns that answer is among the first k, the mean over all questions;
- hit@k: the share of the questions with at least one of them there;
- MRR: the mean of 1 / rank of the first of them among the first 20, 0 where there is none;
- nDCG@10: the mean of the sum of 1 / log2(1 + rank) of those among the first 10, against the most
  that this sum can be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

from kvstore import IndexConfig, SQLiteStore
from kvstore.embeddings import LocalEmbeddings, LocalReranker

NS = ("talk",)
DEPTH = 20
MODES = ("text", "semantic", "hybrid", "auto")


class Dialogue(NamedTuple):
    """A talk: its turns in order, and questions with the ids of the turns that answer them."""

    name: str
    turns: dict[str, str]
    questions: list[tuple[str, frozenset[str]]]


class Figures(NamedTuple):
    """What is measured of some questions: means, and the median time of a search."""

    r5: float
    r20: float
    hit20: float
    mrr: float
    ndcg: float
    ms: float


def load(path: Path) -> list[Dialogue]:
    """Read dialogues from LoCoMo's own file, or from one object a line; or a collection."""
    if path.is_dir():
        return [_collection(path)]
    text = path.read_text("utf-8")
    try:
        whole = json.loads(text)
        rows = whole if isinstance(whole, list) else [whole]
    except ValueError:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [_dialogue(row, f"{at}") for at, row in enumerate(rows, 1)]


def _dialogue(row: dict[str, Any], name: str) -> Dialogue:
    if "turns" in row:
        turns = {turn["id"]: turn["text"] for turn in row["turns"]}
        asked = row["questions"]
    else:
        turns, asked = dict(_locomo_turns(row["conversation"])), row["qa"]
    questions = []
    for each in asked:
        answers = frozenset(each.get("evidence", ())) & turns.keys()
        if answers:
            questions.append((each["question"], answers))
    return Dialogue(
        str(row.get("sample_id") or row.get("conversation_id") or name), turns, questions
    )


def _locomo_turns(talk: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for number in range(1, 1_000):
        for turn in talk.get(f"session_{number}", ()):
            shown = f" [shares a photo: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            yield turn["dia_id"], f"{turn['speaker']}: {turn['text']}{shown}"


def _collection(folder: Path) -> Dialogue:
    """Read texts, queries, and which text is judged for which query, by their numbers."""
    texts, asked = (_parts(next(folder.glob(pattern))) for pattern in ("*.all*", "*.qry"))
    answers: dict[int, set[str]] = {}
    for line in next(folder.glob("*qrel")).read_text("ascii").splitlines():
        query, judged, *_ = line.split()
        answers.setdefault(int(query), set()).add(judged)
    turns = {f"{number}": text for number, text in enumerate(texts, 1)}
    questions = [
        (text, frozenset(answers.get(number, ())) & turns.keys())
        for number, text in enumerate(asked, 1)  # the judgements count the queries
    ]
    return Dialogue(folder.resolve().name, turns, [each for each in questions if each[1]])


def _parts(path: Path) -> list[str]:
    """Return the text, `.W`, of each part, `.I`."""
    parts = re.split(r"^\.I +\d+ *$", path.read_text("latin-1"), flags=re.MULTILINE)[1:]
    return [" ".join(part.partition("\n.W\n")[2].split()) for part in parts]


async def measure(
    dialogue: Dialogue, index: IndexConfig, modes: Iterable[str]
) -> dict[str, list[tuple[float, ...]]]:
    """Return for each mode one row of figures a question."""
    keys = {turn: f"{at:06}" for at, turn in enumerate(dialogue.turns)}
    with tempfile.TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder, "talk.db"), index=index) as store:
            await store.put_many(NS, {keys[turn]: text for turn, text in dialogue.turns.items()})
            return {
                mode: [
                    await _ask(store, question, {keys[turn] for turn in answers}, mode)
                    for question, answers in track(
                        dialogue.questions, f"{dialogue.name}, {mode}", transient=True
                    )
                ]
                for mode in modes
            }


async def _ask(
    store: SQLiteStore, question: str, answers: set[str], mode: str
) -> tuple[float, ...]:
    began = time.perf_counter()
    items = await store.search(NS, question, mode=mode, limit=DEPTH)
    ms = (time.perf_counter() - began) * 1e3
    found = [item.key in answers for item in items]
    rank = found.index(True) + 1 if True in found else 0
    recall5, recall20 = (sum(found[:most]) / len(answers) for most in (5, DEPTH))
    gains = [1 / math.log2(at + 2) for at in range(10)]
    ndcg = sum(gain for gain, is_one in zip(gains, found, strict=False) if is_one)
    ndcg /= sum(gains[: len(answers)])
    return recall5, recall20, float(rank > 0), 1 / rank if rank else 0.0, ndcg, ms


def figures(rows: list[tuple[float, ...]]) -> Figures:
    """Take the means of figures, and the median of times."""
    *measured, times = zip(*rows, strict=True)
    return Figures._make([*map(statistics.fmean, measured), statistics.median(times)])


def table(results: dict[str, dict[str, list[tuple[float, ...]]]]) -> Table:
    """Lay out a row for each dialogue and mode, and for all dialogues together."""
    shown = Table("dialogue", "mode", "questions", "R@5", "R@20", "hit@20", "MRR", "nDCG@10", "ms")
    modes = next(iter(results.values()))
    together = {mode: [row for each in results.values() for row in each[mode]] for mode in modes}
    for name, by_mode in [*results.items(), ("all", together)]:
        for mode, rows in by_mode.items():
            *means, ms = figures(rows)
            shown.add_row(
                name, mode, str(len(rows)), *(f"{mean:.3f}" for mean in means), f"{ms:.1f}"
            )
    return shown


async def run(dialogues: list[Dialogue], options: argparse.Namespace) -> None:
    """Measure and print."""
    model = None if set(options.modes) == {"text"} else LocalEmbeddings()
    extra: dict[str, Any] = {}
    if options.context:
        extra["context"] = options.context
    if options.rerank:
        extra["rerank"] = LocalReranker()
    index = IndexConfig(model, **extra)
    results = {}
    for dialogue in dialogues:
        results[dialogue.name] = await measure(dialogue, index, options.modes)
    Console().print(table(results))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES[:3]))
    parser.add_argument("--context", type=int, default=0, help="IndexConfig(context=...)")
    parser.add_argument("--rerank", action="store_true", help="with LocalReranker")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of dialogues, from 1")
    options = parser.parse_args()
    dialogues = load(options.data)
    if options.only:
        dialogues = [dialogues[number - 1] for number in options.only]
    asyncio.run(run(dialogues, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
