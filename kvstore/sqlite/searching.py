"""The read side of the search index: rankings as plain functions on a connection.

A search is one read transaction. Each ranking is a walk: candidates come best first, in blocks,
from FTS5, from vec0 or from a cache of its vectors, and each block is held against the items: in
the namespace, alive, passing the filter. The walk ends when no candidate can be better than what
was found, so a page is never short, and its order never depends on where the page is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from heapq import merge

import orjson

from kvstore.errors import IndexMismatchError
from kvstore.filters import ALL
from kvstore.ranking import (
    Hit,
    Search,
    page_of,
    relevance,
    similarity_of_distance,
)
from kvstore.sqlite import driver, reading, statements
from kvstore.sqlite.filters import compile_filter
from kvstore.sqlite.indexing import (
    ITEM_MASK,
    Description,
    Setup,
    describe,
    namespace_token,
    subtree_token,
)
from kvstore.sqlite.sql import Sql, all_of
from kvstore.sqlite.vectors import VectorCache
from kvstore.text import Phrase
from kvstore.types import Item

__all__ = ["is_small", "search"]

Block = list[tuple[float, int]]
"""Candidates: scores and ids of items, best first; no later block has a better one."""

SMALL_CHUNKS = 16  # of a namespace that is searched on the event loop's thread: 128 vectors
SMALL_ROWS = 1000  # at most so many are measured; more vectors than SMALL_CHUNKS hold are rare
SAMPLE = 100  # items that a filter is tried on, to see whether many pass
MANY = 0.2
MOST_NEIGHBOURS = 4096  # that vec0 gives at once
_FIRST_NEIGHBOURS = 16
_FIRST_BLOCK = 64
_LONGEST_BLOCK = 8192
_MOST = 2**62


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a search looks: a namespace or a subtree, and what an item must be there."""

    path: str
    subtree: bool
    condition: Sql
    is_filtered: bool


def search(
    connection: driver.Connection,
    setup: Setup,
    cache: VectorCache | None,
    path: str,
    asked: Search,
    now: int,
) -> list[Item]:
    """Run a ranked search, and return its items with their scores.

    Raises:
        IndexMismatchError: the index is another model's, or not complete.
    """
    connection.execute("BEGIN")
    try:
        description = describe(connection)
        if description is None:
            raise IndexMismatchError("the index is gone from the file; open the store again")
        _check_index(description, setup, asked)
        condition = compile_filter(asked.filter)
        scope = _Scope(
            path,
            asked.subtree,
            all_of([statements.in_range(path, asked.subtree), statements.live(now), condition]),
            condition.text != "1",
        )
        by_meaning = by_words = None
        vector, phrases = asked.vector, asked.phrases
        if vector is not None:

            def by_meaning(wanted: int) -> list[Hit]:
                if not vector or description.dimensions is None:
                    return []
                candidates = _neighbours(connection, cache, description, scope, vector, wanted)
                return _walk(connection, scope, candidates, wanted)

        if phrases is not None:

            def by_words(wanted: int) -> list[Hit]:
                if not phrases:
                    return []
                return _walk(connection, scope, _matches(connection, scope, phrases), wanted)

        clamped = replace(asked, limit=min(asked.limit, _MOST), offset=min(asked.offset, _MOST))
        return _load(connection, page_of(clamped, by_meaning, by_words))
    finally:
        connection.execute("COMMIT")


def is_small(connection: driver.Connection, path: str, asked: Search, longest: int) -> bool:
    """Whether a search is the work of a moment: by meaning, among few vectors and short values."""
    if asked.subtree or asked.phrases is not None or asked.filter != ALL:
        return False
    description = describe(connection)
    if description is None or description.dimensions is None:
        return False
    measure = statements.measure_vectors(path, SMALL_CHUNKS + 1, SMALL_ROWS + 1)
    chunks, large_chunk, size = connection.execute(measure.text, measure.params).fetchone()
    return chunks <= SMALL_CHUNKS and not large_chunk and (size or 0) <= longest


def _check_index(description: Description, setup: Setup, asked: Search) -> None:
    cure = "; 'await store.reindex()' makes it this store's, and everything else works without"
    if asked.vector is not None:
        problem = setup.mismatch(description)
        if problem is None and setup.fields != description.fields:
            problem = (
                f"the index is of the fields {list(description.fields)}, and this store has "
                f"{list(setup.fields)}"
            )
        if problem is None and asked.vector and description.dimensions is not None:
            length = len(asked.vector) // 4
            if length != description.dimensions:
                problem = (
                    f"the index has vectors of {description.dimensions} numbers, and this store's "
                    f"model gives {length}"
                )
        if problem is not None:
            raise IndexMismatchError(problem + cure)
    if not (description.has_all_vectors if asked.vector is not None else description.has_all_words):
        raise IndexMismatchError(
            "the index does not hold all items yet; 'await store.reindex()' completes it"
        )


def _load(connection: driver.Connection, hits: list[Hit]) -> list[Item]:
    """Return the items of a page of hits."""
    if not hits:
        return []
    items = reading.get_by_id(connection, [hit.id for hit in hits])
    return [replace(items[hit.id], score=hit.score) for hit in hits]


def _walk(
    connection: driver.Connection, scope: _Scope, candidates: Iterable[Block], wanted: int
) -> list[Hit]:
    """Return the best candidates that are in scope: so many, or all there are."""
    hits: list[Hit] = []
    statement = statements.select_among(scope.condition)
    for block in candidates:
        scores: dict[int, float] = {}
        for score, item in block:
            scores.setdefault(item, score)  # its best vector comes first
        rows = connection.execute(
            statement.text, (orjson.dumps(list(scores)).decode(), *statement.params)
        )
        hits += [Hit(scores[item], (path, key), item) for item, path, key in rows]
        hits.sort(key=_rank)
        if len(hits) >= wanted and (not wanted or hits[wanted - 1].score > block[-1][0]):
            break
    return hits[:wanted]


def _rank(hit: Hit) -> tuple[float, tuple[str, str]]:
    return -hit.score, hit.place


def _unseen(rows: Iterator[tuple[float, int]]) -> Iterator[Block]:
    """Cut candidates into growing blocks, each item once."""
    seen: set[int] = set()
    size = _FIRST_BLOCK
    block: Block = []
    for score, item in rows:
        if item in seen:
            continue
        seen.add(item)
        block.append((score, item))
        if len(block) == size:
            yield block
            block, size = [], min(2 * size, _LONGEST_BLOCK)
    if block:
        yield block


# By words


def _matches(
    connection: driver.Connection, scope: _Scope, phrases: tuple[Phrase, ...]
) -> Iterator[Block]:
    """Yield the items of a namespace or subtree that hold a phrase, best first."""
    any_phrase = " OR ".join('"' + " ".join(phrase) + '"' for phrase in phrases)
    query = f"text : ({any_phrase})"
    if not scope.subtree:
        query = f'namespaces : "{namespace_token(scope.path)}" AND ({query})'
    elif scope.path:
        query = f'namespaces : "{subtree_token(scope.path)}" AND ({query})'
    rows = connection.execute(statements.MATCH_WORDS, (query,))
    return _unseen((relevance(weight), item) for item, weight in rows)


# By meaning


def _neighbours(
    connection: driver.Connection,
    cache: VectorCache | None,
    description: Description,
    scope: _Scope,
    vector: bytes,
    wanted: int,
) -> Iterator[Block]:
    """Yield the items of a namespace or subtree by the nearness of their best vectors."""
    within = (
        None if not scope.path and scope.subtree else statements.in_range(scope.path, scope.subtree)
    )
    if cache is not None:
        cached = cache.scores(connection, description, scope.path, scope.subtree, vector)
        if cached is not None:
            return cached.blocks(scope.is_filtered, lambda: _passing(connection, scope))
    return _unseen_neighbours(connection, scope, within, vector, wanted)


def _share(connection: driver.Connection, scope: _Scope) -> float:
    """Return which part of some items of the scope passes its filter."""
    statement = statements.sample(scope.path, scope.subtree, scope.condition, SAMPLE)
    return float(connection.execute(statement.text, statement.params).fetchone()[0] or 0)


def _passing(connection: driver.Connection, scope: _Scope) -> list[int]:
    statement = Sql("SELECT id FROM items WHERE") + scope.condition
    return [item for (item,) in connection.execute(statement.text, statement.params)]


def _unseen_neighbours(
    connection: driver.Connection, scope: _Scope, within: Sql | None, vector: bytes, wanted: int
) -> Iterator[Block]:
    """Ask vec0 for more and more neighbours, until it has given them all.

    With a filter, vec0 looks only among the vectors of items that pass; but when many seem to,
    the nearest of all are tried first, which is quicker.
    """
    garbage = {rowid for (rowid,) in connection.execute("SELECT vector FROM index_garbage")}
    passing = scope.condition if scope.is_filtered else None
    count = min(MOST_NEIGHBOURS, max(_FIRST_NEIGHBOURS, 2 * min(wanted, MOST_NEIGHBOURS)))
    tries_all = scope.is_filtered and _share(connection, scope) >= MANY
    seen: set[int] = set()
    is_complete = False
    while not is_complete:
        # One table may have given all it has, while the other's next one is nearer than its last.
        found: list[list[tuple[float, int]]] = []
        reach = 3.0  # the largest distance up to which both have given all: 2 is the largest
        for table in statements.VECTOR_TABLES:
            statement = statements.nearest(
                table,
                within,
                None if tries_all else passing,
                vector,
                min(MOST_NEIGHBOURS, 4 * count) if tries_all else count,
            )
            rows = [
                (distance, rowid)
                for rowid, distance in connection.execute(statement.text, statement.params)
            ]
            found.append(rows)
            if len(rows) >= (min(MOST_NEIGHBOURS, 4 * count) if tries_all else count):
                reach = min(reach, rows[-1][0])
        is_complete = reach == 3.0
        block: Block = []
        for distance, rowid in merge(*found):
            if distance > reach:
                break
            item = rowid & ITEM_MASK
            if item in seen or rowid in garbage:
                continue
            seen.add(item)
            block.append((similarity_of_distance(distance), item))
        if block:
            yield block
        if tries_all:
            tries_all = False
            continue
        if count == MOST_NEIGHBOURS and not is_complete:
            rest = merge(
                *(
                    _all_by_distance(connection, table, within, passing, vector)
                    for table in statements.VECTOR_TABLES
                )
            )
            yield from _unseen(
                (similarity_of_distance(distance), rowid & ITEM_MASK)
                for distance, rowid in rest
                if rowid & ITEM_MASK not in seen and rowid not in garbage
            )
            return
        count = min(MOST_NEIGHBOURS, 8 * count)


def _all_by_distance(
    connection: driver.Connection,
    table: str,
    within: Sql | None,
    passing: Sql | None,
    vector: bytes,
) -> Iterator[tuple[float, int]]:
    """Yield all neighbours, however many: slow, for very deep pages and very many equals."""
    statement = statements.all_distances(table, within, passing, vector)
    for rowid, distance in connection.execute(statement.text, statement.params):
        yield distance, rowid
