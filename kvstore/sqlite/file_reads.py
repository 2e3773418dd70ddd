"""`FileReads`: the reads of a SQLite file, wherever they run, each written once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from kvstore.backend import NamespaceQuery, Page, Selection, Span
from kvstore.feed import ChangePage
from kvstore.filters import Filter
from kvstore.jobs import JobState, QueueSize, SequenceRecord
from kvstore.operations import Record
from kvstore.past import Moment
from kvstore.patterns import Pattern
from kvstore.report import Meter, Report, Stats
from kvstore.sequences import EntryPage
from kvstore.sqlite import backup, changes, checking, driver, past, reading, sequences
from kvstore.sqlite.file import FileBackend
from kvstore.types import Change, Item, Namespace

__all__ = ["FileReads"]

P = ParamSpec("P")
T = TypeVar("T")


class FileReads(FileBackend):
    """Has the reads of a file run by its subclass, which says where."""

    @abstractmethod
    def point(
        self,
        read: Callable[Concatenate[driver.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Awaitable[T]:
        """Run a short read."""

    @abstractmethod
    def scan(
        self,
        read: Callable[Concatenate[driver.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Awaitable[T]:
        """Run a read that may take its time, and for which no short one waits."""

    @abstractmethod
    async def by_itself(self, meter: Meter, read: Callable[[driver.Connection], T]) -> T:
        """Run a read of the whole file, for which no other waits."""

    @abstractmethod
    async def extend(self, path: str | None) -> None:
        """Have the order of a large namespace kept, a slice of it; `None`: of none."""

    async def select(self, path: str, selection: Selection) -> list[Item]:
        found = await self.scan(reading.select, path, selection, self.now(), self.asked)
        await self.extend(self.asked.take())
        return found

    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        return await self.scan(reading.list_namespaces, asked, limit, offset, self.now())

    async def keys(self, span: Span, limit: int | None) -> list[str]:
        return await self.scan(reading.keys, span, limit, self.now())

    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        found = await self.scan(reading.count, path, pattern, subtree, self.now(), self.asked)
        await self.extend(self.asked.take())
        return found

    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        return await self.scan(reading.page, span, filter, limit, self.now())

    async def records(
        self, path: str, after: tuple[str, str] | None, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        return await self.scan(reading.records, path, after, limit, self.now())

    # Logs and queues

    async def entries(self, path: str, after: int | None, limit: int) -> EntryPage:
        return await self.point(sequences.entries, path, after, limit, self.now())

    async def length(self, path: str) -> int:
        return await self.point(sequences.length, path, self.now())

    async def queue_size(self, path: str) -> QueueSize:
        return await self.point(sequences.queue_size, path, self.now())

    async def dead_jobs(self, path: str, limit: int) -> list[tuple[Item, JobState]]:
        return await self.point(sequences.dead_jobs, path, limit, self.now())

    async def sequences(self, path: str, *, with_jobs: bool = True) -> list[SequenceRecord]:
        return await self.scan(sequences.records, path, with_jobs)

    async def is_ripe(self, path: str) -> bool:
        return await self.point(sequences.is_ripe, path, self.now())

    # Changes and the past

    async def read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        return await self.point(changes.read_changes, after, path, pattern, subtree, self.now())

    async def moment(
        self, version: int | None, instant: int | None, root: str | None = None
    ) -> Moment:
        return await self.point(past.find_moment, version, instant, self.now())

    async def past_many(self, moment: Moment, path: str, keys: Sequence[str]) -> list[Record]:
        return await self.point(past.get_many, moment, path, keys, self.now())

    async def past_page(
        self, moment: Moment, span: Span, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        return await self.scan(past.page, moment, span, limit, self.now())

    async def history(self, path: str, key: str, limit: int | None) -> list[Change]:
        return await self.point(past.history, path, key, limit)

    # Upkeep

    async def backup(self, path: Path, meter: Meter) -> None:
        await self.by_itself(meter, lambda raw: backup.backup(raw, self.file, path, meter))

    async def check(self, meter: Meter) -> Report:
        return await self.by_itself(meter, lambda raw: checking.check(raw, self.file, meter))

    async def stats(self) -> Stats:
        meter, now = Meter(None, has_loop=self.needs_loop), self.now()
        return await self.by_itself(meter, lambda raw: checking.stats(raw, self.file, now, meter))
