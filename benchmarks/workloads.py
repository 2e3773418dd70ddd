"""What is measured, as data: the items, the work, the counts and the seeds.

Nothing here touches a store. `run.py` hands the same plan of calls to every contender.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

__all__ = [
    "FILTER",
    "GROUPS",
    "NAMESPACE_LIMIT",
    "PUT_MANY",
    "QUICK",
    "SEARCH_LIMIT",
    "SEED",
    "Call",
    "Dataset",
    "Group",
    "Namespace",
    "Work",
    "batches",
    "expected_namespaces",
    "make_plan",
    "namespace",
    "place",
    "value",
]

Namespace = tuple[str, ...]
Call = tuple[str, tuple[Any, ...]]  # the contender's method, and its arguments

SEED = 20_260
PUT_MANY = 100  # items in one put_many
TEMPORARY = 100  # keys that one wildcard remove takes away
COUNTERS = 100
PLAN_LENGTH = 20_000  # calls; a plan that runs out starts again
STATUSES = ("open", "closed", "waiting", "new")
FILTER = {"status": "open", "score": {"$gte": 50}}  # 12 items in 100
SEARCH_LIMIT = 10
NAMESPACE_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Dataset:
    """Items that lie in the store before the clock starts."""

    items: int
    value_bytes: int
    per_namespace: int

    @property
    def namespaces(self) -> int:
        return self.items // self.per_namespace


@dataclass(frozen=True, slots=True)
class Work:
    """One row of a table: what is called, and by how many tasks at once."""

    op: str
    tasks: int = 1
    prepare: bool = False  # a call without the clock goes before each call with it


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that share a dataset, and how long each contender works at each of them."""

    name: str
    title: str  # a format for what `heading` says
    dataset: Dataset
    works: tuple[Work, ...] = ()
    rounds: int = 5
    seconds: float = 0.3  # per contender, row and round
    warm_up: float = 0.1

    @property
    def heading(self) -> str:
        return self.title.format(items=self.dataset.items, namespaces=self.dataset.namespaces)


def _grid(ops: tuple[str, ...], tasks: tuple[int, ...]) -> tuple[Work, ...]:
    return tuple(Work(op, n) for op in ops for n in tasks)


_POINT = ("get", "put", "mixed")  # mixed: nine gets to one put
_REST = (
    Work("put_many"),
    Work("increment"),
    Work("increment", 100),
    Work("search"),
    Work("list_namespaces"),
    Work("remove", prepare=True),
)
# A thousand items lie in one namespace, which favours LangGraph: it reads what 100 tasks ask of one
# namespace by one statement, and of ten by ten. A million items make 10,000 namespaces.
_SMALL = Dataset(1_000, 150, per_namespace=1_000)
_LARGE = Dataset(1_000, 4096, per_namespace=1_000)
_MILLION = Dataset(1_000_000, 150, per_namespace=100)
_QUICK_MILLION = Dataset(20_000, 150, per_namespace=100)  # what --quick makes of it

GROUPS = {
    group.name: group
    for group in (
        Group(
            "small",
            "{items:,} items, 150-byte values",
            _SMALL,
            _grid(_POINT, (1, 10, 100, 1000)) + _REST,
        ),
        Group(
            "large",
            "{items:,} items, 4 KB values",
            _LARGE,
            (*_grid(_POINT, (1, 10, 100, 1000)), Work("put_many"), Work("search")),
        ),
        Group(
            "million",
            "{items:,} items, 150-byte values",
            _MILLION,
            _grid(_POINT, (1, 10, 100, 1000)) + _REST,
        ),
        Group("loop", "The event loop, warm", _SMALL, seconds=2.0, warm_up=0.5),
        Group("cold", "The event loop, page cache dropped", _MILLION, seconds=1.0, warm_up=0.0),
        Group("core", "{items:,} items in {namespaces:,} namespaces", _MILLION),
    )
}

QUICK = {
    "small": replace(
        GROUPS["small"],
        works=(*_grid(_POINT, (1, 100)), Work("put", 1000), *_REST),
        seconds=0.03,
        warm_up=0.01,
    ),
    "large": replace(
        GROUPS["large"], works=_grid(("get", "put"), (1, 100)), seconds=0.05, warm_up=0.02
    ),
    "million": replace(
        GROUPS["million"],
        dataset=_QUICK_MILLION,
        works=_grid(("get", "put"), (1, 100)) + _REST[3:],
        seconds=0.05,
        warm_up=0.02,
    ),
    "loop": replace(GROUPS["loop"], seconds=0.15, warm_up=0.05),
    "cold": replace(GROUPS["cold"], dataset=_QUICK_MILLION, rounds=3, seconds=0.3),
    "core": replace(GROUPS["core"], dataset=_QUICK_MILLION),
}


def namespace(number: int) -> Namespace:
    """Return the namespace of that number: a hundred users to an organisation."""
    return (f"org{number // 100:03}", f"user{number % 100:03}")


def value(index: int, size: int, revision: int = 0) -> dict[str, Any]:
    """Return the value of an item: `size` bytes of JSON, of which the filter selects 12 in 100."""
    body: dict[str, Any] = {
        "id": index,
        "status": STATUSES[index % len(STATUSES)],
        "score": index * 37 % 100,
        "revision": revision,
        "tags": ["a", "b"],
        "text": "",
    }
    sentence = "the quick brown fox jumps over the lazy dog "
    missing = size - len(orjson.dumps(body))
    body["text"] = (sentence * (missing // len(sentence) + 1))[:missing]
    return body


def place(index: int, dataset: Dataset) -> tuple[Namespace, str]:
    """Return namespace and key of an item."""
    return namespace(index // dataset.per_namespace), f"k{index:07}"


def expected_namespaces(dataset: Dataset) -> list[Namespace]:
    """Return what listing the first organisation's namespaces gives."""
    return [namespace(number) for number in range(min(dataset.namespaces, NAMESPACE_LIMIT))]


def batches(dataset: Dataset) -> Iterator[tuple[Namespace, dict[str, Any]]]:
    """Yield the items to load, 100 at a time, in order."""
    for first in range(0, dataset.items, PUT_MANY):
        yield _block(first, dataset, revision=0)


def _block(first: int, dataset: Dataset, revision: int) -> tuple[Namespace, dict[str, Any]]:
    mapping = {
        place(index, dataset)[1]: value(index, dataset.value_bytes, revision)
        for index in range(first, first + PUT_MANY)
    }
    return place(first, dataset)[0], mapping


def make_plan(work: Work, dataset: Dataset, round_number: int) -> list[Call]:
    """Return the calls of one round, the same for every contender.

    Puts go over items that exist, so that the store keeps its size. With `work.prepare` the
    calls come in pairs, of which only the second is timed.
    """
    rng = random.Random(f"{SEED}/{work.op}/{work.tasks}/{round_number}")
    revision = round_number + 1
    values: dict[int, dict[str, Any]] = {}

    def put(index: int) -> Call:
        if index not in values:
            values[index] = value(index, dataset.value_bytes, revision)
        return ("put", (*place(index, dataset), values[index]))

    def some_namespace() -> Namespace:
        return namespace(rng.randrange(dataset.namespaces))

    if work.op in ("get", "put", "mixed"):
        put_share = {"get": 0.0, "put": 1.0, "mixed": 0.1}[work.op]
        indexes = [rng.randrange(dataset.items) for _ in range(PLAN_LENGTH)]
        return [put(i) if rng.random() < put_share else ("get", place(i, dataset)) for i in indexes]
    if work.op == "put_many":
        firsts = [rng.randrange(dataset.items // PUT_MANY) * PUT_MANY for _ in range(20)]
        return [("put_many", _block(first, dataset, revision)) for first in firsts]
    if work.op == "increment":
        return [
            ("increment", (("counters",), f"c{rng.randrange(COUNTERS)}"))
            for _ in range(PLAN_LENGTH)
        ]
    if work.op == "search":
        return [("search", (some_namespace(), FILTER, SEARCH_LIMIT)) for _ in range(1000)]
    if work.op == "list_namespaces":
        return [("list_namespaces", (some_namespace()[:1], NAMESPACE_LIMIT)) for _ in range(1000)]
    if work.op == "remove":
        temporary = {f"temp_{i:05}": value(i, dataset.value_bytes) for i in range(TEMPORARY)}
        plan: list[Call] = []
        for _ in range(100):
            where = some_namespace()
            plan += [("put_many", (where, temporary)), ("remove", (where, "temp_*"))]
        return plan
    raise ValueError(f"no such work: {work.op}")
