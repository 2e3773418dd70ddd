"""`Series`: the transactions of one writer, each of which knows what the last one left behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvstore.operations import Check, Mutate, Put, Record
from kvstore.sqlite import driver, statements
from kvstore.sqlite.connection import transaction
from kvstore.sqlite.index_file import Setup
from kvstore.sqlite.indexing import begin_batch
from kvstore.sqlite.openfile import OpenFile
from kvstore.sqlite.plain_changes import change_plain
from kvstore.sqlite.plain_puts import put_plain
from kvstore.sqlite.read_cache import ABSENT, NO_MARK, Address, Entry, Mark, ReadCache
from kvstore.sqlite.rows import FileState, columns_of
from kvstore.sqlite.sequences import find_state
from kvstore.sqlite.writing import Batch
from kvstore.types import Item, pack_item

__all__ = ["Series"]


class _ThereError(Exception):
    """An item that was to be new is there."""


class Series:
    """Begins the batches of a writer, and keeps what is known of the file between them.

    What one transaction left is what the next one finds, unless the header of the WAL index says
    that somebody else has committed: then it is read anew.

    Args:
        connection: the writer's.
        file: that of the connection.
        setup: of a store that has a search index.
        cache: of reads, which goes along with what is written; `None`: there is none, and the
            file's state is read by each transaction.

    Attributes:
        cursor: of the connection; at rest between the batches.
        is_watched: whether changes were noted, by what was last committed.
    """

    def __init__(
        self,
        connection: driver.Connection,
        file: OpenFile,
        setup: Setup | None,
        cache: ReadCache | None,
    ) -> None:
        self._connection = connection
        self._file = file
        self.cursor = connection.cursor()
        self._setup = setup
        self._cache = cache
        self._known: tuple[Mark, FileState] | None = None  # at which header, and what
        self._before = NO_MARK
        self.is_watched = False

    def begin(self, now: int, longest: int | None = None) -> Batch:
        """Return the batch of a write transaction that has begun; see `Batch`."""
        cache, known = self._cache, self._known
        if cache is None:
            return begin_batch(self.cursor, now, longest, self._setup)
        self._before = before = cache.header()
        state = known[1] if known is not None and known[0] == before else None
        batch = begin_batch(self.cursor, now, longest, self._setup, state)
        batch.changed, batch.look = {}, cache.look
        return batch

    def put_alone(self, op: Put, now: int, timeout: float, longest: int) -> Item | None:
        """Commit a plain put by itself; `None`: nothing is written, and a batch must do it.

        That is so in a file with an index, in logs and queues, and where an item of another kind is
        there. It comes to what a `Batch` of the one unit does, in half the time.

        Args:
            op: `is_bare_put`.
            now: the instant, in microseconds.
            timeout: how long to wait for other processes, in seconds.
            longest: value to write over, in bytes.

        Raises:
            driver.Error: as `Batch.apply`, and as `transaction` has it.
        """
        cache, known = self._cache, self._known
        if cache is None or known is None or known[1].description is not None:
            return None
        mark, state = known
        version, execute = state.version + 1, self.cursor.execute
        path, key, data = op.path, op.key, op.data
        at = max(now, state.last) if state.is_watched else None
        with transaction(self._connection, timeout, self._file, self.cursor):
            if cache.header() != mark or not self._are_outside(state, (path,)):
                return None
            (there,) = cache.look(((path, key),))
            created = put_plain(execute, op, version, now, longest, there, at, state.keeps)
            if created is None:
                return None
            execute(statements.SET_VERSION, (version,))
        entry = Entry(data, version, created, now, None)
        self._know_written(mark, state, version, now, {(path, key): entry})
        return pack_item(op.namespace, key, data, version, created, now, None)

    def change_alone(
        self, op: Mutate, now: int, timeout: float, longest: int
    ) -> tuple[Any, int] | None:
        """As `put_alone`, of a change of one item.

        Returns:
            The answer, and how many bytes are written; `None`: nothing is, and a batch must do it.

        Raises:
            driver.Error: as `Batch.apply`, and as `transaction` has it.
            Exception: what the change raises; nothing is written.
        """
        cache, known = self._cache, self._known
        if cache is None or known is None or known[1].description is not None:
            return None
        mark, state = known
        version, execute, address = state.version + 1, self.cursor.execute, (op.path, op.key)
        at = max(now, state.last) if state.is_watched else None
        with transaction(self._connection, timeout, self._file, self.cursor):
            if cache.header() != mark or not self._are_outside(state, (op.path,)):
                return None
            (there,) = cache.look((address,))
            changed = change_plain(execute, op, version, now, longest, there, at, state.keeps)
            if changed is None:
                return None
            entry, answer = changed
            if entry is not None:
                execute(statements.SET_VERSION, (version,))
        if entry is None:
            return answer, 0
        self._know_written(mark, state, version, now, {address: entry})
        return answer, len(entry.data)

    def add_alone(
        self, ops: Sequence[Put | Check], now: int, timeout: float
    ) -> list[Item | None] | None:
        """Commit a unit of new items by itself; `None`: nothing is written, and a batch must do it.

        That is so as of `put_alone`, where one of them is there, and where it is not known of
        another what is to be checked. It comes to what a `Batch` of the unit does.

        Args:
            ops: `are_new`.
            now: the instant, in microseconds.
            timeout: how long to wait for other processes, in seconds.

        Raises:
            driver.Error: as `Batch.apply`, and as `transaction` has it.
        """
        cache, known = self._cache, self._known
        if cache is None or known is None or known[1].description is not None:
            return None
        mark, state = known
        there = cache.look([(op.path, op.key) for op in ops])
        if not all(map(_is_as_wanted, ops, there)):
            return None
        version, execute = state.version, self.cursor.execute
        answers: list[Item | None] = []
        changed: dict[Address, Entry | None] = {}
        try:
            with transaction(self._connection, timeout, self._file, self.cursor):
                if cache.header() != mark or not self._are_outside(state, {op.path for op in ops}):
                    return None
                for op in ops:
                    if isinstance(op, Check):
                        answers.append(None)
                        continue
                    path, key, data = op.path, op.key, op.data
                    version += 1
                    row = Record(path, key, data, version, now, now, indexing=op.indexing)
                    if not execute(statements.INSERT_NEW, columns_of(row)).rowcount:
                        raise _ThereError
                    if state.is_watched:
                        note = version, "put", path, key, max(now, state.last)
                        execute(statements.ADD_CHANGE, note)
                    changed[path, key] = Entry(data, version, now, now, None)
                    answers.append(pack_item(op.namespace, key, data, version, now, now, None))
                execute(statements.SET_VERSION, (version,))
        except _ThereError:
            return None
        self._know_written(mark, state, version, now, changed)
        return answers

    def _are_outside(self, state: FileState, paths: Iterable[str]) -> bool:
        """Whether namespaces are no logs or queues, in the present transaction."""
        execute = self.cursor.execute
        return not state.has_sequences or all(find_state(execute, path) is None for path in paths)

    def _know_written(
        self,
        before: Mark,
        state: FileState,
        version: int,
        now: int,
        changed: Mapping[Address, Entry | None],
    ) -> None:
        """Take note of the items that were written over a state, and up to which version."""
        self.is_watched = state.is_watched
        if state.is_watched:
            state = state._replace(version=version, last=max(now, state.last))
        else:
            state = FileState(version, False, None, state.has_sequences)
        self._know(before, changed, state)

    def _know(
        self,
        before: Mark,
        changed: Mapping[Address, Entry | None] | None,
        state: FileState | None,
    ) -> None:
        """Have the cache go along with a commit, and keep the state that it has left."""
        if self._cache is not None:
            after = self._cache.follow(before, changed)
            self._known = None if after is None or state is None else (after, state)

    def committed(self, batch: Batch) -> None:
        """Take note that the transaction of the last batch is committed."""
        if self._cache is not None:
            self._know(self._before, batch.changed, batch.state)
        batch.committed()

    def end(self) -> None:
        """Let go of the cache, whose view of the file ends with the last connection."""
        self._cache = None


def _is_as_wanted(op: Put | Check, there: Entry | None) -> bool:
    """Whether what is known of an item is what `Series.add_alone` can go by."""
    if isinstance(op, Put):
        return there is None or there is ABSENT
    return there is not None and there.expires_at is None and there.version == op.version
