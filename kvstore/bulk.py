"""Whole namespaces at once: their items out of a store, and into one."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from typing import IO, Any

from kvstore.arguments import Place, check_place
from kvstore.backend import Host, Span
from kvstore.errors import InvalidArgumentError, StoreError, ValueTooLargeError
from kvstore.exchange import Intake, Sink, Spool
from kvstore.files import FilePath, check_source, check_target, open_file, partial_file, whole_path
from kvstore.filters import Filter
from kvstore.jobs import SequenceRecord
from kvstore.namespace import address, decode_namespace, show
from kvstore.operations import Conflict, Record, Restore
from kvstore.patterns import EVERY_KEY, compile_pattern
from kvstore.report import Meter
from kvstore.types import Item

__all__ = ["Scan", "all_records", "copy_records", "read_items", "span_of", "write_items"]

_LOG = logging.getLogger("kvstore")

_SLICE = 1_000  # records in hand at once


def span_of(
    namespace: Sequence[str],
    pattern: str = "*",
    subtree: bool = False,
    after: Place | None = None,
    before: Place | None = None,
    reverse: bool = False,
) -> Span:
    """Return the span of a listing, from the arguments of `Store.keys` and `Store.scan`.

    Raises:
        InvalidArgumentError: `after` or `before` names no place there.
        InvalidNamespaceError: the namespace is none.
        InvalidPatternError: the pattern does not parse.
    """
    _, path = address(namespace)
    begin = check_place(after, "after", path, subtree=subtree)
    end = check_place(before, "before", path, subtree=subtree)
    return Span(path, compile_pattern(pattern), bool(subtree), begin, end, bool(reverse))


class Scan(AsyncIterator[Item]):
    """The items of a span, a page in hand at a time.

    It is no async generator: whoever leaves it before its end leaves nothing to be closed.
    """

    def __init__(self, store: Host, span: Span, filter: Filter, batch_size: int) -> None:
        self._store = store
        self._span: Span | None = span
        self._filter = filter
        self._batch_size = batch_size
        self._page: Iterator[Item] = iter(())

    async def __anext__(self) -> Item:
        while (item := next(self._page, None)) is None:
            span = self._span
            if span is None or span.is_empty:
                raise StopAsyncIteration
            self._store.require_open()
            page = await self._store.backend.page(span, self._filter, self._batch_size)
            self._page = iter(await self._store.renewed(page.items))
            self._span = None if page.end is None else span.rest(page.end)
        return item


async def write_items(store: Host, file: FilePath | IO[Any], path: str, meter: Meter) -> int:
    """Write the items of a subtree to a file; return how many."""
    if not isinstance(file, (str, bytes, os.PathLike)):
        _require_method(file, "write")
        return await _write(store, file, path, meter)
    target = whole_path(file)
    check_target(target, store.backend.own_file, over_database=False)
    with partial_file(target) as partial, partial.open("wb") as opened:
        return await _write(store, opened, path, meter)


def _require_method(file: Any, name: str) -> None:
    if not hasattr(file, name):
        raise InvalidArgumentError(
            f"a file is a path or an object with {name}(), not {type(file).__name__}"
        )


async def _write(store: Host, file: IO[Any], path: str, meter: Meter) -> int:
    backend = store.backend
    total = await backend.count(path, EVERY_KEY, subtree=True)
    sink = Sink(file)
    sink.begin()
    async for records in all_records(store, path):
        await backend.aside(sink.add, records)
        meter.show(sink.count, max(total, sink.count))
    sequences = await backend.sequences(path)  # last, so that no position is above theirs
    await backend.aside(sink.add_sequences, sequences)
    await backend.aside(sink.end)
    meter.show(sink.count, sink.count)
    await backend.pause(0)  # for the last word of progress
    return sink.count


async def all_records(store: Host, path: str) -> AsyncIterator[list[Record]]:
    """Yield the records of a subtree in pieces."""
    after: tuple[str, str] | None = None
    while True:
        store.require_open()
        records, after = await store.backend.records(path, after, _SLICE)
        if records:
            yield records
        if after is None:
            return


async def read_items(
    store: Host, file: FilePath | IO[Any], on_conflict: Conflict, meter: Meter
) -> int:
    """Read items from a file, check them as a whole, and write them in one unit."""
    with Spool() as spool:
        if isinstance(file, (str, bytes, os.PathLike)):
            path = whole_path(file)
            check_source(path, store.backend.own_file)
            with open_file(path) as opened:
                sequences = await _stage(store, opened, spool, meter)
        else:
            _require_method(file, "read")
            sequences = await _stage(store, file, spool, meter)
        return await _restore(store, spool, sequences, on_conflict, meter)


async def _stage(store: Host, file: IO[Any], spool: Spool, meter: Meter) -> list[SequenceRecord]:
    """Check a whole import, into a spool; return its logs and queues."""
    backend = store.backend
    with closing(Intake(file, backend.now(), store.settings.max_value_bytes)) as intake:
        while records := await backend.aside(intake.read):
            await backend.aside(spool.add, records)
            meter.show(spool.count, None)
        return intake.sequences


async def _restore(
    store: Host,
    spool: Spool,
    sequences: list[SequenceRecord],
    on_conflict: Conflict,
    meter: Meter,
) -> int:
    """Write what is spooled, in one unit."""
    store.require_open()
    if sequences and not store.backend.has_sequences:
        _LOG.warning(
            "%d logs and queues become plain items, as this store has none", len(sequences)
        )
        sequences = []
    op = Restore(_Metered(spool, meter), on_conflict, sequences)
    written: int = (await store.apply((op,)))[0]
    if written and store.backend.embedder is not None:
        try:
            taken = await store.reindex()
            if taken.skipped:
                _LOG.warning("the model refused texts of %d imported items", len(taken.skipped))
        except StoreError as exc:  # the items are there, and marked
            _LOG.warning("what was imported has no vectors yet (%s): call reindex()", exc)
    await store.backend.pause(0)  # for the last word of progress
    return written


async def copy_records(source: Host, target: Host, path: str, meter: Meter) -> int:
    """Write the items of a subtree of one store to another, in one unit; return how many."""
    source.require_open()
    target.require_writable()
    if source.backend.is_same(target.backend):
        raise InvalidArgumentError("the source and the target are one store; name another target")
    longest = target.settings.max_value_bytes
    with Spool() as spool:
        async for records in all_records(source, path):
            for record in records:
                if len(record.data) > longest:
                    where = show(decode_namespace(record.path), record.key)
                    raise ValueTooLargeError(
                        f"the value of {where} takes {len(record.data):,} bytes, and the target's "
                        f"max_value_bytes is {longest:,}; nothing was copied"
                    )
            await source.backend.aside(spool.add, records)
            meter.show(spool.count, None)
        sequences = await source.backend.sequences(path)
        return await _restore(target, spool, sequences, "replace", meter)


class _Metered:
    """The records of a spool, of which a meter shows how many are read; may be iterated again."""

    def __init__(self, spool: Spool, meter: Meter) -> None:
        self._spool = spool
        self._meter = meter

    def __iter__(self) -> Iterator[Record]:
        number, total = 0, self._spool.count
        for piece in self._spool.pieces():
            for begin in range(0, len(piece), _SLICE):
                self._meter.show(number, total)
                some = piece[begin : begin + _SLICE]
                number += len(some)
                yield from some
        self._meter.show(total, total)
