"""The read side of the search index: rankings as plain functions on a connection.

A search is one read transaction. Each ranking is a walk: candidates come best first, in blocks,
from FTS5, from vec0 or from a cache of its vectors, and each block is held against the items: in
the namespace, alive, passing the filter. The walk ends when no candidate can be better than what
was found, so a page is never short, and its order never depends on where the page is cut.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import merge

import orjson

from kvstore.context import CONTEXT_HITS, Neighbour, in_context, with_tail
from kvstore.description import Description, check_index
from kvstore.errors import IndexMismatchError
from kvstore.filters import ALL
from kvstore.ranking import SCORE_DIGITS, Hit, Search, cosine_with, cosines_of, page_of
from kvstore.sql import TRUE, Sql, all_of
from kvstore.sqlite import driver, reading, statements
from kvstore.sqlite import index_statements as sql
from kvstore.sqlite.connection import snapshot
from kvstore.sqlite.filters import compile_filter
from kvstore.sqlite.index_file import Setup, describe, described, load_vectors
from kvstore.sqlite.vectors import VectorCache, scores_of_chunks
from kvstore.sqlite.words import Weigher
from kvstore.types import Item

__all__ = ["sample_vectors", "search", "search_small"]

Block = list[tuple[float, int]]
"""Candidates: scores and ids of items, best first; no later block has a better one."""

_Row = tuple[float, int, bytes]  # of vec0: distance, rowid, vector

# What vec0 and numpy say of two scores in single precision, in which others may come after all
SLACK = 2 * 10.0**-SCORE_DIGITS
SAMPLE = 100  # items that a filter is tried on, to see whether many pass
MANY = 0.2  # that pass: the nearest of all are tried
SOME = 0.05  # the same, where every value would have to be asked, and was not yet
MOST_TRIED = 1_000  # vectors: more take vec0 longer than that
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
    filter: Sql
    condition: Sql  # all of it, the filter included
    among: Sql | None  # the ids of all that can pass the filter, where declared filters tell
    is_told: bool  # whether next to none of those fail

    @property
    def is_filtered(self) -> bool:
        return self.filter != TRUE

    @property
    def filtered(self) -> tuple[str, bool, Sql]:
        return self.path, self.subtree, self.filter


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
    with snapshot(connection):
        description = describe(connection)
        if description is None:
            raise IndexMismatchError(
                "the file has no search index: a store that is opened with one, and not with "
                "read_only=True, makes it"
            )
        check_index(description, setup, asked)
        if asked.is_own and setup.model is None and description.dimensions is not None:
            load_vectors(connection)
        condition = compile_filter(asked.filter)
        scope = _Scope(
            path,
            asked.subtree,
            condition,
            all_of([statements.in_range(path, asked.subtree), statements.live(now), condition]),
            *reading.candidates(connection, path, asked.subtree, asked.filter),
        )
        by_meaning = by_words = None
        vector, words = asked.vector, asked.words
        if vector is not None:

            def by_meaning(wanted: int) -> list[Hit]:
                if not vector or description.dimensions is None:
                    return []
                candidates = _neighbours(
                    connection, setup, cache, description, scope, vector, wanted
                )
                return _walk(connection, scope, candidates, wanted)

        if words is not None:

            def by_words(wanted: int) -> list[Hit]:
                weigher = Weigher(connection, words, path, asked.subtree)
                if not weigher.weights.found:
                    return []
                if asked.context:
                    return _in_context(connection, scope, weigher, asked.context, now, wanted)
                return _by_own_words(connection, scope, weigher, wanted)

        clamped = replace(asked, limit=min(asked.limit, _MOST), offset=min(asked.offset, _MOST))
        hits = page_of(clamped, by_meaning, by_words)
        return _scored(reading.get_by_id(connection, [hit.id for hit in hits]), hits)


def search_small(
    connection: driver.Connection,
    setup: Setup,
    path: str,
    asked: Search,
    now: int,
    longest: int,
) -> list[Item] | None:
    """Run a search that is the work of a moment: by meaning, among few vectors and short values.

    Args:
        connection: with sqlite-vec.
        setup: of the store.
        path: of the namespace.
        asked: any search.
        now: the instant.
        longest: how many bytes the values of its items may have together.

    Returns:
        The items with their scores, or `None`: it may take longer, or there is more to it.

    Raises:
        IndexMismatchError: as `search`.
    """
    vector = asked.vector
    if not vector or asked.subtree or asked.words is not None or asked.filter != ALL:
        return None
    with snapshot(connection):
        chunks = connection.execute(sql.SURVEY, (path, path)).fetchall()
        if not chunks or len(chunks) > sql.FEW_CHUNKS:
            return None
        text, has_more, *_ = chunks[0]
        if has_more:
            return None
        check_index(described(text), setup, asked)
        scores = scores_of_chunks([chunk[2:] for chunk in chunks if chunk[2]], vector)
        if scores is None:
            within, most = statements.in_range(path, subtree=False), sql.SMALL_CHUNK * len(chunks)
            nearest = sql.nearest("vectors_small", within, None, vector, most)
            rows = driver.run(connection, nearest).fetchall()
            cosines = cosines_of([held for _, _, held in rows], vector)
            scores = [(cosine, row[1]) for cosine, row in zip(cosines, rows, strict=True)]
        scores.sort(reverse=True)
        best: dict[int, float] = {}
        for score, rowid in scores:
            best.setdefault(rowid & sql.ITEM_MASK, score)
        wanted = asked.offset + asked.limit
        if wanted < len(best):
            least = list(best.values())[wanted - 1] if wanted else 2.0
            best = {item: score for item, score in best.items() if score >= least}  # and equals
        items = reading.get_small_by_id(connection, path, best, now, longest)
        if items is None or len(items) < len(best):
            return None  # some have expired, and others come after them
        hits = [Hit(best[id_], (path, item.key), id_) for id_, item in items.items()]
        hits.sort(key=_rank)
        return _scored(items, page_of(asked, lambda _: hits, None))


def _scored(items: Mapping[int, Item], hits: list[Hit]) -> list[Item]:
    """Return the items of hits with their scores; nobody else has them yet."""
    found = []
    for hit in hits:
        item = items[hit.id]
        object.__setattr__(item, "score", hit.score)  # `replace` would unpack all its fields
        found.append(item)
    return found


def _walk(
    connection: driver.Connection,
    scope: _Scope,
    candidates: Iterable[Block],
    wanted: int,
    score_of: Callable[[bytes, int], float] | None = None,
) -> list[Hit]:
    """Return the best candidates that are in scope: so many, or all there are.

    Args:
        connection: inside a read transaction.
        scope: where to look.
        candidates: the scores, or what they can be at most.
        wanted: how many hits.
        score_of: tells the score by the words of an item; `None`: the candidates do.
    """
    hits: list[Hit] = []
    statement = sql.select_among(scope.condition)
    for block in candidates:
        scores: dict[int, float] = {}
        for score, item in block:
            scores.setdefault(item, score)  # its best vector comes first
        rows = connection.execute(
            statement.text, (orjson.dumps(list(scores)).decode(), *statement.params)
        )
        hits += [
            Hit(scores[item] if score_of is None else score_of(words, length), (path, key), item)
            for item, path, key, words, length in rows
        ]
        hits.sort(key=_rank)
        if len(hits) >= wanted and (not wanted or hits[wanted - 1].score > block[-1][0] + SLACK):
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


def _matches(connection: driver.Connection, weigher: Weigher) -> Iterator[Block]:
    """Yield the items that hold a word, with what they score at most."""
    if weigher.is_few:
        some = connection.execute(sql.FIND_WORDS, (weigher.query,))
        return _unseen((1.0, item) for (item,) in some)
    rows = connection.execute(sql.RANK_WORDS, (weigher.query,))
    return _unseen((weigher.most(weight), item) for item, weight in rows)


def _by_own_words(
    connection: driver.Connection, scope: _Scope, weigher: Weigher, wanted: int
) -> list[Hit]:
    return _walk(connection, scope, _matches(connection, weigher), wanted, weigher.score)


def _in_context(
    connection: driver.Connection,
    scope: _Scope,
    weigher: Weigher,
    context: int,
    now: int,
    wanted: int,
) -> list[Hit]:
    """Rank by the words of items and of their neighbours, whether these pass the filter or not."""
    inside = all_of([statements.in_range(scope.path, scope.subtree), statements.live(now)])
    whole = replace(scope, filter=TRUE, condition=inside)
    own = _by_own_words(connection, whole, weigher, CONTEXT_HITS)
    ids = orjson.dumps([hit.id for hit in own]).decode()
    statement = sql.select_around(ids, 2 * context, now)
    items = [
        Neighbour((path, key), weigher.counts(words or b""), length or 0, item)
        for item, path, key, words, length in driver.run(connection, statement)
    ]
    hits = in_context(items, {hit.place for hit in own}, context, weigher.weights)
    if scope.is_filtered:
        hits = _walk(connection, scope, _unseen((hit.score, hit.id) for hit in hits), wanted)
    if len(own) < CONTEXT_HITS:
        return hits[:wanted]
    return with_tail(hits, lambda more: _by_own_words(connection, scope, weigher, more), wanted)


# By meaning


def _neighbours(
    connection: driver.Connection,
    setup: Setup,
    cache: VectorCache | None,
    description: Description,
    scope: _Scope,
    vector: bytes,
    wanted: int,
) -> Iterator[Block]:
    """Yield the items of a namespace or subtree by the nearness of their best vectors."""
    if cache is not None:
        cached = cache.scores(connection, description, scope.path, scope.subtree, vector)
        if cached is not None:
            return cached.blocks(
                wanted,
                scope.is_filtered,
                setup.passing.knows(*scope.filtered),
                lambda: _passing(connection, setup, scope),
            )
    return _unseen_neighbours(connection, setup, scope, vector, wanted)


def _share(connection: driver.Connection, scope: _Scope) -> float:
    """Return which part of some items of the scope passes its filter."""
    statement = sql.sample(scope.path, scope.subtree, scope.condition, SAMPLE)
    return float(driver.run(connection, statement).fetchone()[0] or 0)


def _any_passes(connection: driver.Connection, scope: _Scope, rows: Iterable[_Row]) -> bool:
    """Whether one of some vectors, by distance and rowid, is of an item in the scope."""
    statement = sql.select_among(scope.condition)
    items = orjson.dumps([rowid & sql.ITEM_MASK for _, rowid, _ in rows]).decode()
    found = connection.execute(f"{statement.text} LIMIT 1", (items, *statement.params))
    return found.fetchone() is not None


def _among(connection: driver.Connection, setup: Setup, scope: _Scope) -> Sql | None:
    """Be a vector of an item that passes the filter; `None`: there is no filter."""
    if not scope.is_filtered:
        return None
    ids = _passing(connection, setup, scope)
    highest = max(
        connection.execute(sql.highest_vector(table)).fetchone()[0] for table in sql.VECTOR_TABLES
    )
    return sql.vectors_of(orjson.dumps(ids.tolist()).decode(), highest)


def _passing(connection: driver.Connection, setup: Setup, scope: _Scope) -> array[int]:
    return setup.passing.ids(connection, *scope.filtered, scope.among, is_told=scope.is_told)


def _unseen_neighbours(
    connection: driver.Connection, setup: Setup, scope: _Scope, vector: bytes, wanted: int
) -> Iterator[Block]:
    """Ask vec0 for more and more neighbours, until it has given them all.

    With a filter, vec0 looks only among the vectors of items that pass; but when many seem to,
    the nearest of all are tried first, so many that twice as many pass as are wanted. That is
    quicker than to ask every value, unless that was done before, or declared filters tell. Of a
    large
    namespace, some vectors are in small chunks: when no item near by passes there, all are asked.
    """
    whole_store = scope.subtree and not scope.path
    within = None if whole_store else statements.in_range(scope.path, scope.subtree)
    garbage = {rowid for (rowid,) in connection.execute(sql.GET_GARBAGE)}
    count = min(MOST_NEIGHBOURS, max(_FIRST_NEIGHBOURS, 2 * min(wanted, MOST_NEIGHBOURS)))
    tries_all = False
    tried = 4 * count
    if scope.is_filtered and not scope.is_told and not setup.passing.knows(*scope.filtered):
        share = _share(connection, scope)
        if share:
            tried = max(tried, int(2 * wanted / share))
        # The second time, it pays to find out what passes, as that is remembered.
        pays = share >= SOME and scope.among is None and setup.passing.is_new(*scope.filtered)
        tries_all = tried <= MOST_TRIED and (pays or share >= MANY)
    among = None if tries_all else _among(connection, setup, scope)
    score_of = cosine_with(vector)
    seen: set[int] = set()
    is_complete = False
    while not is_complete:
        asked_for = tried if tries_all else count
        # One table may have given all it has, while the other's next one is nearer than its last.
        found: list[list[_Row]] = []
        reach = 3.0  # the largest distance up to which both have given all: 2 is the largest
        for table in sql.VECTOR_TABLES:
            statement = sql.nearest(table, within, among, vector, asked_for)
            rows = driver.run(connection, statement).fetchall()
            found.append(rows)
            if len(rows) >= asked_for:
                reach = min(reach, rows[-1][0])
                if tries_all and not _any_passes(connection, scope, rows):
                    found = []
                    break
        is_complete = reach == 3.0
        items: list[int] = []
        vectors: list[bytes] = []
        for distance, rowid, held in merge(*found):
            if distance > reach:
                break
            item = rowid & sql.ITEM_MASK
            if item in seen or rowid in garbage:
                continue
            seen.add(item)
            items.append(item)
            vectors.append(held)
        if items:
            block = list(zip(cosines_of(vectors, vector), items, strict=True))
            yield sorted(block, key=lambda candidate: -candidate[0])
        if tries_all:
            if is_complete:
                return
            tries_all = False
            among = _among(connection, setup, scope)
            continue
        if count == MOST_NEIGHBOURS and not is_complete:
            # All of them, however many: slow, for very deep pages and very many equals
            every = (sql.all_distances(each, within, among, vector) for each in sql.VECTOR_TABLES)
            rest = merge(*(driver.run(connection, statement) for statement in every))
            yield from _unseen(
                (score_of(held), rowid & sql.ITEM_MASK)
                for _, rowid, held in rest
                if rowid & sql.ITEM_MASK not in seen and rowid not in garbage
            )
            return
        count = min(MOST_NEIGHBOURS, 8 * count)


# To be drawn


def sample_vectors(
    connection: driver.Connection, path: str, limit: int
) -> list[tuple[str, str, bytes]]:
    """Return path, key and a vector of at most so many items, from all over the subtree.

    It reads the tables in which sqlite-vec keeps its vectors, so that the extension need not be
    there. Where the items are many, those are taken whose number a step divides.
    """
    found: list[tuple[str, str, bytes]] = []
    with snapshot(connection):
        description = describe(connection)
        if description is None or description.dimensions is None:
            return []
        size = description.dimensions * 4  # bytes of a vector
        (items,) = driver.run(connection, sql.count_items(path)).fetchone()
        every = max(1, items // limit)
        for table in sql.VECTOR_TABLES:
            chunks: dict[int, bytes] = {}
            sample = sql.sample_vectors(table, path, every, limit - len(found))
            rows = driver.run(connection, sample).fetchall()
            for there, key, chunk, place in sorted(rows, key=lambda row: row[2]):
                if chunk not in chunks:
                    held = connection.execute(sql.chunk_of(table), (chunk,)).fetchone()
                    chunks = {chunk: held[0]}
                found.append((there, key, chunks[chunk][place * size : (place + 1) * size]))
    return found
