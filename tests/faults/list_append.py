"""Whether transactions that append to lists and read them could have happened one after another.

Each element is appended once, so that a list, read at any time, tells the order of the writes
before it. From these orders, and from the instants at which transactions began and ended, follows
which one came before which. A cycle among them, a list that is no prefix of a longer one, or an
acknowledged element that is not there, is a fault.

Source: Kingsbury and Alvaro, "Elle: inferring isolation anomalies from experimental observations",
VLDB 2020.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

__all__ = ["Transaction", "faults_of"]


@dataclass(slots=True)
class Transaction:
    """What one call did.

    Attributes:
        name: to be named by.
        began: when, by a clock that all share.
        ended: when it was acknowledged; infinite if it never was.
        appends: pairs of key and element.
        reads: pairs of key and the list that it saw.
        has_failed: whether it said that it changed nothing.
    """

    name: str
    began: float
    ended: float = math.inf
    appends: list[tuple[str, int]] = field(default_factory=list)
    reads: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    has_failed: bool = False

    def __str__(self) -> str:
        did = [f"append {key} {element}" for key, element in self.appends]
        did += [f"read {key} of {len(seen)}, ending {seen[-2:]}" for key, seen in self.reads]
        return f"{self.name} [{self.began:.6f} to {self.ended:.6f}]: {'; '.join(did)}"


def faults_of(
    transactions: Sequence[Transaction], final: dict[str, tuple[int, ...]]
) -> Iterator[str]:
    """Yield what cannot be, in words; nothing if the history is strictly serializable.

    Args:
        transactions: in any order.
        final: what each list holds at the end.
    """
    writers: dict[tuple[str, int], int] = {}
    for number, transaction in enumerate(transactions):
        for pair in transaction.appends:
            if pair in writers:
                raise ValueError(f"{pair} is appended twice: by the test itself")
            writers[pair] = number
    yield from _wrong_elements(transactions, writers, final)
    yield from _wrong_reads(transactions, final)
    happened = [
        transaction
        for transaction in transactions
        if not transaction.has_failed
        and (
            transaction.ended < math.inf
            or any(element in final.get(key, ()) for key, element in transaction.appends)
        )
    ]
    edges = _data_edges(happened, final)
    _add_time_edges(happened, edges)
    for cycle in _cycles(edges):
        of_it = [node for node in cycle if node < len(happened)]
        yield "a cycle:\n" + "\n".join(f"  {happened[node]}" for node in of_it[:20])


def _wrong_elements(
    transactions: Sequence[Transaction],
    writers: dict[tuple[str, int], int],
    final: dict[str, tuple[int, ...]],
) -> Iterator[str]:
    """Yield what is lost, what is there twice, and what should not be there."""
    for key, elements in final.items():
        for element, count in Counter(elements).items():
            if count > 1:
                yield f"{key} holds {element} {count} times"
            if (key, element) not in writers:
                yield f"{key} holds {element}, which nobody appended"
    for (key, element), number in writers.items():
        writer = transactions[number]
        is_there = element in final.get(key, ())
        if writer.has_failed and is_there:
            yield f"{key} holds {element} of a call that failed: {writer}"
        if not writer.has_failed and writer.ended < math.inf and not is_there:
            yield f"{key} lost {element}, which was acknowledged: {writer}"


def _wrong_reads(
    transactions: Iterable[Transaction], final: dict[str, tuple[int, ...]]
) -> Iterator[str]:
    for transaction in transactions:
        for key, seen in transaction.reads:
            if final.get(key, ())[: len(seen)] != seen:
                yield f"{key} was read as no prefix of what it became: {transaction}"


def _data_edges(
    transactions: Sequence[Transaction], final: dict[str, tuple[int, ...]]
) -> list[set[int]]:
    """Return what comes directly after each transaction, by what they wrote and read."""
    edges: list[set[int]] = [set() for _ in transactions]
    writers = {
        pair: number
        for number, transaction in enumerate(transactions)
        for pair in transaction.appends
    }

    def add(one: int | None, other: int | None) -> None:
        if one is not None and other is not None and one != other:
            edges[one].add(other)

    for key, elements in final.items():
        for element, following in pairwise(elements):
            add(writers.get((key, element)), writers.get((key, following)))
    for number, transaction in enumerate(transactions):
        for key, seen in transaction.reads:
            if seen:
                add(writers.get((key, seen[-1])), number)
            after = final.get(key, ())[len(seen) : len(seen) + 1]
            if after:
                add(number, writers.get((key, after[0])))
    return edges


def _add_time_edges(transactions: Sequence[Transaction], edges: list[set[int]]) -> None:
    """Add that what ended before another began comes before it.

    A node for each end, in a chain, makes these edges as many as the transactions.
    """
    begins = sorted(range(len(transactions)), key=lambda number: transactions[number].began)
    ends = sorted(
        (number for number, each in enumerate(transactions) if each.ended < math.inf),
        key=lambda number: transactions[number].ended,
    )
    latest: int | None = None  # the node of the latest end
    position = 0
    for number in begins:
        while position < len(ends) and transactions[ends[position]].ended < (
            transactions[number].began
        ):
            edges.append(set())
            if latest is not None:
                edges[latest].add(len(edges) - 1)
            latest = len(edges) - 1
            edges[ends[position]].add(latest)
            position += 1
        if latest is not None:
            edges[latest].add(number)


def _cycles(edges: Sequence[Iterable[int]]) -> Iterator[list[int]]:
    """Yield the strongly connected components of several nodes (Tarjan's, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in range(len(edges)):
        if root in index:
            continue
        work: list[tuple[int, Iterator[int]]] = []

        def enter(node: int, work: Any = work) -> None:
            index[node] = low[node] = len(index)
            stack.append(node)
            on_stack.add(node)
            work.append((node, iter(edges[node])))

        enter(root)
        while work:
            node, successors = work[-1]
            following = next(successors, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = stack[stack.index(node) :]
                    del stack[stack.index(node) :]
                    on_stack.difference_update(component)
                    if len(component) > 1:
                        yield component
            elif following not in index:
                enter(following)
            elif following in on_stack:
                low[node] = min(low[node], index[following])
