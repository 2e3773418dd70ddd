"""`Series`: the transactions of one writer, each of which knows what the last one left behind."""

from __future__ import annotations

from kvstore.sqlite import driver
from kvstore.sqlite.index_file import Setup
from kvstore.sqlite.indexing import begin_batch
from kvstore.sqlite.read_cache import NO_MARK, Mark, ReadCache
from kvstore.sqlite.rows import FileState
from kvstore.sqlite.writing import Batch

__all__ = ["Series"]


class Series:
    """Begins the batches of a writer, and keeps what is known of the file between them.

    What one transaction left is what the next one finds, unless the header of the WAL index says
    that somebody else has committed: then it is read anew.

    Args:
        connection: the writer's.
        setup: of a store that has a search index.
        cache: of reads, which goes along with what is written; `None`: there is none, and the
            file's state is read by each transaction.

    Attributes:
        cursor: of the connection; at rest between the batches.
    """

    def __init__(
        self, connection: driver.Connection, setup: Setup | None, cache: ReadCache | None
    ) -> None:
        self.cursor = connection.cursor()
        self._setup = setup
        self._cache = cache
        self._known: tuple[Mark, FileState] | None = None  # at which header, and what
        self._before = NO_MARK

    def begin(self, now: int, longest: int | None = None) -> Batch:
        """Return the batch of a write transaction that has begun; see `Batch`."""
        cache, known = self._cache, self._known
        if cache is None:
            return begin_batch(self.cursor, now, longest, self._setup)
        self._before = before = cache.header()
        state = known[1] if known is not None and known[0] == before else None
        batch = begin_batch(self.cursor, now, longest, self._setup, state)
        batch.changed = {}
        return batch

    def committed(self, batch: Batch) -> None:
        """Take note that the transaction of the last batch is committed."""
        if self._cache is not None:
            after, state = self._cache.follow(self._before, batch.changed), batch.state
            self._known = None if after is None or state is None else (after, state)
        batch.committed()

    def end(self) -> None:
        """Let go of the cache, whose view of the file ends with the last connection."""
        self._cache = None
