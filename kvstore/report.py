"""What a store tells of itself: `Report`, `Stats` and `Metrics`; and how long work tells so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Self

from kvstore.errors import InvalidArgumentError
from kvstore.showing import table
from kvstore.types import Namespace

__all__ = [
    "WAITS",
    "Counters",
    "Meter",
    "Metrics",
    "Progress",
    "Reindexed",
    "Report",
    "RootStats",
    "Stats",
    "StoppedError",
]

Progress = Callable[[int, int | None], object]
"""Called with what is done and the total, `None` while that is unknown."""

WAITS = "waits for reindex"
_INTERVAL_S = 0.05  # between two calls of a progress callback


@dataclass(frozen=True, slots=True)
class Report:
    """What `Store.check` found.

    Attributes:
        items: how many items it looked at.
        problems: one line for each thing that is wrong; none holds a stored value.
        waiting: one line for each item that waits for `Store.reindex`, the first hundred: nothing
            is wrong with it, but a search by meaning finds it by a part of its texts, or not.
    """

    items: int
    problems: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class Reindexed(int):
    """How many items `Store.reindex` took.

    Attributes:
        skipped: namespace and key of the items that stay marked, because the model has refused a
            text of theirs: they are found by words, and by what else they hold.
        reasons: what the model said of each.
    """

    skipped: tuple[tuple[Namespace, str], ...]
    reasons: tuple[str, ...]

    def __new__(
        cls,
        count: int,
        skipped: tuple[tuple[Namespace, str], ...] = (),
        reasons: tuple[str, ...] = (),
    ) -> Self:
        """Make the answer of a call."""
        self = super().__new__(cls, count)
        self.skipped = skipped
        self.reasons = reasons
        return self

    def __repr__(self) -> str:
        count = int(self)
        return f"Reindexed({count}, skipped={self.skipped!r})" if self.skipped else str(count)


@dataclass(frozen=True, slots=True)
class RootStats:
    """What lies in a root namespace and below it; `bytes` is the length of the encoded values."""

    items: int
    namespaces: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The size of a store, as `Store.stats` has it.

    Attributes:
        items: live items.
        namespaces: namespaces that hold live items.
        bytes: the length of their encoded values.
        roots: the same for each first label, as `("users",)`, and for `()` alone.
        version: the store's version; it grows with every write.
        expired: rows that are gone for every reader and wait for the sweep.
        indexed: items that do not wait for `reindex`; `None`: there is no index.
        changes: how many entries the change feed holds.
        past: how many old items are kept, for `history`.
        past_bytes: the length of their encoded values.
        logs: how many logs there are, empty ones included; `queues` the same of queues.
        dead_jobs: how many jobs were given up, in all queues.
        file_bytes: the size of the file; `None`: there is none.
        wal_bytes: the size of its write-ahead log.
    """

    items: int
    namespaces: int
    bytes: int
    roots: Mapping[Namespace, RootStats] = field(default_factory=dict)
    version: int = 0
    expired: int = 0
    indexed: int | None = None
    changes: int = 0
    past: int = 0
    past_bytes: int = 0
    logs: int = 0
    queues: int = 0
    dead_jobs: int = 0
    file_bytes: int | None = None
    wal_bytes: int | None = None

    def _repr_html_(self) -> str:
        totals = [
            (name, f"{number:,}")
            for name in self.__dataclass_fields__
            if isinstance(number := getattr(self, name), int)
        ]
        roots = [
            (root[0] if root else "(root)", *(f"{each:,}" for each in astuple(size)))
            for root, size in sorted(self.roots.items(), key=lambda entry: -entry[1].bytes)
        ]
        by_root = table(("root", "items", "namespaces", "bytes"), roots) if roots else ""
        return table((), totals) + by_root

    @property
    def index_coverage(self) -> float | None:
        """The indexed part of the items, 0.0 to 1.0; `None`: no index."""
        if self.indexed is None:
            return None
        return self.indexed / self.items if self.items else 1.0


@dataclass(slots=True)
class Counters:
    """Numbers that a backend counts up from its opening on; the names are those of `Metrics`."""

    commits: int = 0
    units: int = 0
    largest_group: int = 0
    lock_waits: int = 0
    retries: int = 0
    reconnects: int = 0

    def committed(self, units: int) -> None:
        """Count a transaction, and the calls whose writes are in it."""
        self.commits += 1
        self.units += units
        if units > self.largest_group:  # quicker than `max`
            self.largest_group = units


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one store object, in this process, has done since it opened, and what waits now.

    Attributes:
        commits: write transactions that were committed.
        units: calls that wrote something; `units / commits` is the mean size of a group.
        largest_group: calls in one transaction, at most.
        lock_waits: how often a transaction found another one at work, and waited for it.
        retries: how often something was done again, after a lost connection or a conflict.
        reconnects: how often a connection was opened in the place of a lost one.
        cache_hits: reads that the cache answered.
        queued: writes that are accepted and not yet done.
        queued_bytes: what they hold in memory, roughly.
        connections: of the pool, those that are open; 0: there is no pool.
        idle_connections: those of them that nobody uses now.
        waiting_reads: reads that wait for one of them.
    """

    commits: int = 0
    units: int = 0
    largest_group: int = 0
    lock_waits: int = 0
    retries: int = 0
    reconnects: int = 0
    cache_hits: int = 0
    queued: int = 0
    queued_bytes: int = 0
    connections: int = 0
    idle_connections: int = 0
    waiting_reads: int = 0

    @classmethod
    def of(cls, counters: Counters, **more: int) -> Metrics:
        """Make one of what was counted, and what is known besides."""
        return cls(**asdict(counters), **more)

    @property
    def group_size(self) -> float:
        """Calls in a transaction, on average; 0.0: there was none."""
        return self.units / self.commits if self.commits else 0.0


class StoppedError(Exception):
    """Raised in a thread whose caller has gone, so that it ends; nobody sees it."""


class Meter:
    """Carries progress from a working thread to a callback on the loop, and a stop back.

    A callback that raises ends the work, and its error is what the caller gets.

    Args:
        progress: the callback.
        has_loop: whether the work is another thread's; else it is done here, and so are the calls.
    """

    def __init__(self, progress: Progress | None, *, has_loop: bool = True) -> None:
        if progress is not None and not callable(progress):
            raise InvalidArgumentError(
                f"progress takes a function (done, total), not {type(progress).__name__}"
            )
        self._progress = progress
        self._loop = asyncio.get_running_loop() if has_loop else None
        self._due = 0.0
        self._error: BaseException | None = None
        self._is_stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped = True
        if self._error is not None:
            raise self._error

    def check(self) -> None:
        """Raise `StoppedError` once the work is to end; from any thread."""
        if self._is_stopped:
            raise StoppedError

    def show(self, done: int, total: int | None) -> None:
        """Tell how far the work is, from any thread; the callback is not called too often.

        Raises:
            StoppedError: the work is to end.
        """
        self.check()
        if self._progress is None:
            return
        now = time.monotonic()
        if now >= self._due or done == total:
            self._due = now + _INTERVAL_S
            if self._loop is None:
                self._call(done, total)
                self.check()
            else:
                self._loop.call_soon_threadsafe(self._call, done, total)

    def _call(self, done: int, total: int | None) -> None:
        if self._progress is None or self._error is not None:
            return
        try:
            self._progress(done, total)
        except BaseException as exc:  # noqa: BLE001 - it belongs to the caller
            self._error = exc
            self._is_stopped = True
