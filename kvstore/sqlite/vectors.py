"""Vectors held in memory: an exact search by numpy, for scopes too large for vec0 to be quick.

Only a cache of what SQLite holds. It is checked inside the read transaction of each search: by the
number of transactions that have changed vectors in the scope. What this process has written since
is taken from its journal. When others have written, vec0 answers, until two searches in a row
have found nobody else's changes; then the scope is read anew. See `kvstore.sqlite.indexing` for the
tables.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from kvstore.description import Description
from kvstore.embedding import numpy_or_none
from kvstore.namespace import is_within
from kvstore.ranking import SCORE_DIGITS
from kvstore.sql import Sql
from kvstore.sqlite import driver, statements
from kvstore.sqlite import index_statements as sql

__all__ = ["Journal", "VectorCache", "VectorChange", "new_cache", "scores_of_chunks"]

_ScopeKey = tuple[str, bool]
Block = list[tuple[float, int]]

JOURNAL_VECTORS = 20_000  # changes that are kept
_FIRST_BLOCK = 64
_BLOCK_GROWTH = 4
_EXAMINED = 16  # candidates for each item that is wanted, before a filter is asked for all ...
_EXAMINED_SHARE = 1 / 64  # ... or this part of them, if that is more


def new_cache(budget: int, journal: Journal) -> VectorCache | None:
    """Return a cache of so many bytes, or `None` without numpy or without room."""
    if budget <= 0:
        return None
    np = numpy_or_none()
    return None if np is None else VectorCache(np, budget, journal)


def scores_of_chunks(
    chunks: Sequence[tuple[bytes, bytes, bytes]], vector: bytes
) -> list[tuple[float, int]] | None:
    """Return the cosine and the rowid of each vector of a few chunks, or `None` without numpy.

    To ask vec0 takes longer: for each search it compiles a statement and opens a blob.

    Args:
        chunks: as vec0 keeps them: a bit for each place that is taken, the rowids, the vectors.
        vector: of the query, and as long as those.
    """
    np = numpy_or_none()
    if np is None:
        return None
    if not chunks:
        return []
    taken, rowids, vectors = (b"".join(parts) for parts in zip(*chunks, strict=True))
    # In doubles, so that equal vectors get equal scores wherever they stand.
    query = np.frombuffer(vector, dtype=np.float32).astype(np.float64)
    matrix = np.frombuffer(vectors, dtype=np.float32).reshape(-1, len(query))
    cosines = (matrix @ query).round(SCORE_DIGITS).tolist()
    bits = int.from_bytes(taken, "little")
    return [
        (cosine, rowid)
        for at, (cosine, rowid) in enumerate(
            zip(cosines, memoryview(rowids).cast("q"), strict=True)
        )
        if bits >> at & 1
    ]


class VectorChange(NamedTuple):
    """A vector that was written (`None`: deleted)."""

    path: str
    rowid: int
    vector: bytes | None


class Journal:
    """The latest changes of vectors by this process, for its caches.

    Attributes:
        is_read: whether there is a cache that reads it.
    """

    def __init__(self) -> None:
        self.is_read = False
        self._records: deque[tuple[int, list[VectorChange]]] = deque()
        self._length = 0

    def publish(self, version: int, changes: list[VectorChange]) -> None:
        """Add what a committed transaction has changed."""
        self._records.append((version, changes))
        self._length += len(changes)
        while self._length > JOURNAL_VECTORS:
            self._length -= len(self._records.popleft()[1])

    def between(self, after: int, until: int) -> list[list[VectorChange]]:
        """Return the changes of each transaction with `after < version <= until`, in order."""
        records = list(self._records)  # another thread may be adding to them
        begin, end = (bisect_right(records, at, key=itemgetter(0)) for at in (after, until))
        return [changes for _, changes in records[begin:end]]


@dataclass(slots=True)
class _ReadAt:
    """Which state of the database a scope was read in."""

    version: int  # of the store
    writes: int  # in the scope
    epoch: int


@dataclass(slots=True)
class _Held:
    """The vectors of a scope: the first `count` rows of `matrix`, and whose they are."""

    matrix: Any  # (capacity, dimensions) float32, unit length
    rowids: Any  # (capacity,) int64
    count: int
    state: _ReadAt
    row_of: dict[int, int] = field(default_factory=dict)  # by rowid; empty until it is needed

    @property
    def bytes(self) -> int:
        return int(self.matrix.nbytes + self.rowids.nbytes)


class VectorCache:
    """The vectors of the scopes that were searched lately, within a budget of memory."""

    def __init__(self, numpy: Any, budget: int, journal: Journal) -> None:
        self._np = numpy
        self._budget = budget
        self._journal = journal
        self._held: OrderedDict[_ScopeKey, _Held] = OrderedDict()
        self._seen: OrderedDict[_ScopeKey, _ReadAt] = OrderedDict()

    def scores(
        self,
        connection: driver.Connection,
        description: Description,
        path: str,
        subtree: bool,
        vector: bytes,
    ) -> Scores | None:
        """Return the nearness of every vector in a scope, or `None`: ask vec0.

        Args:
            connection: inside a read transaction.
            description: of the index, as it is in that transaction.
            path: of the namespace.
            subtree: whether the scope is all below it, too.
            vector: of the query.
        """
        np = self._np
        within = statements.in_range(path, subtree)
        if not self._is_large(connection, within, subtree):
            return None
        version = connection.execute(statements.GET_VERSION).fetchone()[0]
        writes = _one(connection, sql.count_writes(within))
        state = _ReadAt(version, int(writes), description.epoch)
        key = (path, subtree)
        held = self._held.get(key)
        if held is None or not self._is_current(held, state, key, description):
            held = self._read_if_quiet(connection, description, within, key, state)
        if held is None:
            return None
        self._held.move_to_end(key)
        query = np.frombuffer(vector, dtype=np.float32)
        cosines = held.matrix[: held.count] @ query
        return Scores(np, held.matrix[: held.count], query, cosines, held.rowids[: held.count])

    def _is_large(self, connection: driver.Connection, within: Sql, subtree: bool) -> bool:
        if driver.run(connection, sql.has_large_chunk(within)).fetchone():
            return True
        if not subtree:
            return False  # a namespace of many has large chunks
        chunks = sql.count_small_chunks(within, sql.SMALL_CHUNKS)
        return bool(_one(connection, chunks) >= sql.SMALL_CHUNKS)

    def _is_current(
        self, held: _Held, state: _ReadAt, key: _ScopeKey, description: Description
    ) -> bool:
        """Bring a scope up to date from the journal, if it knows all that has happened since."""
        changes = self._own_changes(held.state, state, key)
        if changes is None:
            return False
        for change in changes:
            self._change(held, change)
        held.state = state
        return True

    def _own_changes(
        self, before: _ReadAt, now: _ReadAt, key: _ScopeKey
    ) -> list[VectorChange] | None:
        """Return what has changed between two states, or `None` if others have had a part in it."""
        if before.epoch != now.epoch:
            return None
        if before.writes == now.writes:
            return []
        records = self._journal.between(before.version, now.version)
        own = [[change for change in record if is_within(change.path, *key)] for record in records]
        touched = sum(len({change.path for change in record}) for record in own)
        if before.writes + touched != now.writes:
            return None
        return [change for record in own for change in record]

    def _change(self, held: _Held, change: VectorChange) -> None:
        np = self._np
        if not held.row_of and held.count:
            rowids = held.rowids[: held.count].tolist()
            held.row_of = dict(zip(rowids, range(held.count), strict=True))
        row = held.row_of.get(change.rowid)
        if change.vector is None:
            if row is not None:
                del held.row_of[change.rowid]
                held.count -= 1
                if row != held.count:  # the last one fills the gap
                    moved = int(held.rowids[held.count])
                    held.matrix[row] = held.matrix[held.count]
                    held.rowids[row] = moved
                    held.row_of[moved] = row
            return
        if row is None:
            row = held.count
            if row == len(held.matrix):
                room = max(1024, row // 8)
                dimensions = held.matrix.shape[1]
                held.matrix = np.concatenate(
                    [held.matrix, np.empty((room, dimensions), dtype=np.float32)]
                )
                held.rowids = np.concatenate([held.rowids, np.empty(room, dtype=np.int64)])
            held.count += 1
            held.row_of[change.rowid] = row
        held.matrix[row] = np.frombuffer(change.vector, dtype=np.float32)
        held.rowids[row] = change.rowid

    def _read_if_quiet(
        self,
        connection: driver.Connection,
        description: Description,
        within: Sql,
        key: _ScopeKey,
        state: _ReadAt,
    ) -> _Held | None:
        """Read a scope, if the search before has found it in the same state."""
        self._held.pop(key, None)
        before = self._seen.get(key)
        self._seen[key] = state
        self._seen.move_to_end(key)
        if len(self._seen) > 1000:
            self._seen.popitem(last=False)
        self._journal.is_read = True
        if before is None or self._own_changes(before, state, key) is None:
            return None
        held = self._read(connection, description, within, state)
        if held is not None:
            self._held[key] = held
            while sum(each.bytes for each in self._held.values()) > self._budget:
                self._held.popitem(last=False)
        return self._held.get(key)

    def _read(
        self, connection: driver.Connection, description: Description, within: Sql, state: _ReadAt
    ) -> _Held | None:
        np = self._np
        dimensions = description.dimensions
        assert dimensions is not None
        tables = sql.VECTOR_TABLES
        count = sum(_one(connection, sql.room_of_chunks(table, within)) for table in tables)
        capacity = int(count) + max(1024, int(count) // 16)
        if capacity * (4 * dimensions + 8) > self._budget:
            return None
        matrix = np.empty((capacity, dimensions), dtype=np.float32)
        rowids = np.empty(capacity, dtype=np.int64)
        filled = 0
        for table in tables:
            rows = driver.run(connection, sql.read_chunks(table, within))
            while some := rows.fetchmany(64):
                validity, ids, vectors = (b"".join(parts) for parts in zip(*some, strict=True))
                bits = np.unpackbits(np.frombuffer(validity, dtype=np.uint8), bitorder="little")
                chosen = bits.astype(bool)
                added = int(chosen.sum())
                found = np.frombuffer(vectors, dtype=np.float32).reshape(-1, dimensions)
                matrix[filled : filled + added] = found[chosen]
                rowids[filled : filled + added] = np.frombuffer(ids, dtype=np.int64)[chosen]
                filled += added
        garbage = [row[0] for row in connection.execute(sql.GET_GARBAGE)]
        if garbage:
            kept = ~np.isin(rowids[:filled], np.array(garbage, dtype=np.int64))
            matrix[: kept.sum()] = matrix[:filled][kept]
            rowids[: kept.sum()] = rowids[:filled][kept]
            filled = int(kept.sum())
        return _Held(matrix, rowids, filled, state)


class Scores:
    """The nearness of a scope's vectors to a query."""

    def __init__(self, numpy: Any, matrix: Any, query: Any, cosines: Any, rowids: Any) -> None:
        self._np = numpy
        self._matrix = matrix
        self._query = query.astype(numpy.float64)
        self._cosines = cosines
        self._rowids = rowids

    def blocks(
        self, wanted: int, is_filtered: bool, is_known: bool, passing: Callable[[], array[int]]
    ) -> Iterator[Block]:
        """Yield the items, best first; each once.

        Args:
            wanted: how many items are wanted that pass.
            is_filtered: whether many of them may not pass.
            is_known: whether those that do were asked for before, because the best did not.
            passing: gives the ids of those that do, at some cost, and perhaps of some that are
                gone.
        """
        np = self._np
        cosines, rowids = self._cosines, self._rowids
        rows = np.arange(len(cosines))
        seen: set[int] = set()
        size = _FIRST_BLOCK
        examined = 0
        if not is_known:
            examined = max(_EXAMINED * wanted, int(_EXAMINED_SHARE * len(cosines)))
        while len(cosines):
            if is_filtered and len(seen) >= examined:
                kept = np.isin(rowids & sql.ITEM_MASK, np.asarray(passing(), dtype=np.int64))
                cosines, rowids, rows = cosines[kept], rowids[kept], rows[kept]
                is_filtered = False
                size = _FIRST_BLOCK
                continue
            count = min(size, examined - len(seen)) if is_filtered else size
            if count < len(cosines):
                best = np.argpartition(cosines, len(cosines) - count)[-count:]
                least = cosines[best].min() - 10**-SCORE_DIGITS  # equals belong together
                top = np.flatnonzero(cosines >= least)
            else:
                top = np.arange(len(cosines))
            # Once more, in doubles, so that scores are the same whatever has found them
            exact = (self._matrix[rows[top]].astype(np.float64) @ self._query).round(SCORE_DIGITS)
            order = np.argsort(-exact, kind="stable")
            block: Block = []
            for cosine, rowid in zip(
                exact[order].tolist(), rowids[top[order]].tolist(), strict=True
            ):
                item = rowid & sql.ITEM_MASK
                if item not in seen:
                    seen.add(item)
                    block.append((cosine, item))
            rest = np.ones(len(cosines), dtype=bool)
            rest[top] = False
            if block:
                yield block
            cosines, rowids, rows = cosines[rest], rowids[rest], rows[rest]
            size *= _BLOCK_GROWTH


def _one(connection: driver.Connection, statement: Sql) -> Any:
    return driver.run(connection, statement).fetchone()[0]
