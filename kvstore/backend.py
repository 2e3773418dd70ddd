"""What a store is made of: the primitives that a `Store` builds the whole contract on.

A `Store` checks arguments, encodes values and speaks to users; its `Backend` holds rows. Whoever
writes one gets clean input, and is proven right by `kvstore.testing.StoreConformance`; see
docs/backends.md, and tests/conformance/dict_backend.py for one over a dict.

    open  close                   lifecycle
    get_many                      point reads of one namespace
    apply                         a unit of writes: all or nothing, conditions tested inside
    select                        an unranked search: filter, order by version, page
    list_namespaces  keys  count  listings
    page                          the next rows of a scan, by keyset
    read_changes                  a piece of the change feed
    check  stats                  upkeep

These must be there. `entries` and `length` are for those that have logs, `search` for those that
have an index, `recall`, `peek`, `get`, `put_now` and `change_now` for those that do one point read,
put or change quicker than many, `records` where a page's items say less than is stored,
`backup` and `vacuum` where there is something to do; `blocking` gives one for sync code. One that
keeps the past has `moment`, `past_many`, `past_page` and `history`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import EllipsisType
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar

from kvstore import codec
from kvstore.arguments import TTL, Indexing, LabelPattern, check_count, check_label_pattern
from kvstore.description import Description
from kvstore.embedding import Embedder
from kvstore.errors import InvalidArgumentError
from kvstore.feed import ChangePage
from kvstore.filters import ALL, Filter
from kvstore.instants import micros_of, to_micros
from kvstore.jobs import JobState, QueueSize, SequenceRecord
from kvstore.namespace import decode_namespace, encode_namespace, subtree_range
from kvstore.operations import Append, Mutate, Operation, Put, PutJob, Record
from kvstore.ordering import Order
from kvstore.past import Moment, RecallPast
from kvstore.patterns import EVERY_KEY, Pattern
from kvstore.ranking import Search
from kvstore.recipe import Recipe
from kvstore.report import Counters, Meter, Metrics, Reindexed, Report, Stats
from kvstore.sequences import EntryPage
from kvstore.types import Change, IndexConfig, Item, Namespace, Recall
from kvstore.waiting import Backlog, Bell

__all__ = ["Backend", "Host", "NamespaceQuery", "Page", "Selection", "Settings", "Span"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a store was told; lifetimes and spans in microseconds.

    Attributes:
        clock: the present time in seconds since the epoch.
        default_ttl: lifetime of items put without one; `None`: for ever.
        refresh_ttl: whether reads renew an item's lifetime.
        max_value_bytes: the longest encoded value that is accepted.
        sweep_interval: seconds between two sweeps of expired rows; `None`: no sweeps.
        history: how long changes are kept once somebody has watched, or what ceases to be.
        keeps: whether what ceases to be is kept, for `history`.
        read_only: whether nothing is written, not even beside a file; no unit comes then.
        reindex: whether its index is completed once it is open, and searches serve what is there.
    """

    clock: Callable[[], float]
    default_ttl: int | None
    refresh_ttl: bool
    max_value_bytes: int
    sweep_interval: float | None
    history: int
    keeps: bool
    read_only: bool
    reindex: bool = False

    def options(self) -> dict[str, Any]:
        """Return them as the arguments of `Store`."""
        return {
            "clock": self.clock,
            "default_ttl": None if self.default_ttl is None else self.default_ttl / 1e6,
            "refresh_ttl": self.refresh_ttl,
            "max_value_bytes": self.max_value_bytes,
            "sweep_interval": self.sweep_interval,
            "history": self.history / 1e6 if self.keeps else None,
            "read_only": self.read_only,
        }


@dataclass(frozen=True, slots=True)
class Selection:
    """An unranked search, normalised.

    Attributes:
        text: folded; the key or the value's text must contain it. `None`: no such condition.
        orders: what they are ordered by, before the version; only for a backend that `can_order`.
    """

    filter: Filter
    limit: int
    offset: int
    subtree: bool
    text: str | None = None
    orders: tuple[Order, ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceQuery:
    """A listing of namespaces, normalised.

    Attributes:
        root: the labels of `prefix` before its first wildcard.
    """

    prefix: tuple[str | EllipsisType, ...]
    suffix: tuple[str | EllipsisType, ...]
    max_depth: int | None
    root: Namespace

    @classmethod
    def of(
        cls, prefix: LabelPattern, suffix: LabelPattern, max_depth: int | None
    ) -> NamespaceQuery:
        """Check and normalise the arguments of `Store.list_namespaces`."""
        before, after = check_label_pattern(prefix, "prefix"), check_label_pattern(suffix, "suffix")
        if max_depth is not None:
            max_depth = check_count(max_depth, "max_depth", least=1)
        wild = before.index(...) if ... in before else len(before)
        root = tuple(label for label in before[:wild] if isinstance(label, str))
        return cls(before, after, max_depth, root)

    def matches(self, namespace: Namespace) -> bool:
        """Whether the namespace has the prefix and the suffix."""
        before, after = self.prefix, self.suffix
        if not after and self.root == before:  # all below the root, as most listings have it
            return namespace[: len(before)] == before
        if len(namespace) < max(len(before), len(after)):
            return False
        return all(map(_label_matches, before, namespace)) and all(
            map(_label_matches, reversed(after), reversed(namespace))
        )

    def listed(self, path: str, max_depth: int, following: str) -> tuple[Namespace | None, str]:
        """Return the namespace that a path is listed as, cut, and the least path of another one.

        `following` makes a path the next one that can be.
        """
        labels = decode_namespace(path)
        cut = labels[:max_depth]
        if not self.matches(labels):  # too short for the prefix, or another label at a wildcard
            return None, path + following
        beyond = None if len(labels) < max_depth else subtree_range(encode_namespace(cut))[1]
        return cut, path + following if beyond is None else beyond

    def cut(self, namespaces: Iterable[Namespace]) -> list[Namespace]:
        """Return those that match, cut to `max_depth`, each once."""
        matching = filter(self.matches, namespaces)
        return list(dict.fromkeys(labels[: self.max_depth] for labels in matching))


def _label_matches(wanted: str | EllipsisType, label: str) -> bool:
    return wanted in (..., label)


@dataclass(frozen=True, slots=True)
class Span:
    """Which rows a listing goes through, in which direction.

    Attributes:
        path: of the namespace.
        pattern: which keys.
        subtree: the namespaces below, too.
        after: (path, key) that all rows lie above; within the namespace or the subtree.
        before: (path, key) that all rows lie below; within the namespace or the subtree.
        reverse: from the end, in descending order.
    """

    path: str
    pattern: Pattern
    subtree: bool
    after: tuple[str, str] | None = None
    before: tuple[str, str] | None = None
    reverse: bool = False

    @property
    def _range(self) -> tuple[str, str | None]:
        return subtree_range(self.path) if self.subtree else (self.path, self.path + "\0")

    @property
    def bounds(self) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
        """Return `after` and `before` as far as they lie within; a span that has none is whole.

        One that lies below all rows is no bound from below, and one above them none from above.
        """
        low, high = self._range
        after, before = self.after, self.before
        if after is not None and after < (low, ""):
            after = None
        if before is not None and high is not None and before >= (high, ""):
            before = None
        return after, before

    @property
    def is_empty(self) -> bool:
        """Whether its bounds leave nothing."""
        low, high = self._range
        is_above = self.after is not None and high is not None and self.after >= (high, "")
        is_below = self.before is not None and self.before <= (low, "")
        is_crossed = None not in (self.after, self.before) and self.after >= self.before  # type: ignore[operator]
        return is_above or is_below or is_crossed

    def rest(self, place: tuple[str, str]) -> Span:
        """Return what is left of it, beyond a place."""
        return replace(self, before=place) if self.reverse else replace(self, after=place)


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a scan: the items of it that pass, and where the next piece begins after."""

    items: list[Item]
    end: tuple[str, str] | None  # (path, key) of the last row looked at; `None`: the end


class Backend(Recipe, ABC):
    """Where the rows of one store are.

    It is called by its store alone, between `open` and `close`, on the loop that opened it. A
    namespace comes as its labels or as its path (`kvstore.namespace`), a key checked, a value
    encoded (`kvstore.codec`), an instant in microseconds since the epoch.

    Attributes:
        settings: those of the store.
        index: what the store indexes for search; `None`: nothing.
        embedder: its model; `None`: none.
        bell: to be rung, on the loop, when there is something for those who watch.
        backlog: of what is accepted and not yet done; callers wait while it is full.
        counters: of what it has done, for `metrics`.
        most_dimensions: that a vector may have; `None`: any number.
        has_sequences: whether it has logs and queues, for which it has `entries` and `length`.
        keeps_history: whether it can keep the past: it has the reads for that, and does what a
            `Keep`, a `Forget` and a `Rewind` ask.
        needs_loop: whether coroutines may wait for something, so that a loop must run them. One
            that says no blocks instead, and any thread may call it.
        can_order: whether `select` knows `orders`; else the store sorts all that passes.
    """

    most_dimensions: ClassVar[int | None] = None
    needs_loop: ClassVar[bool] = True
    can_order: ClassVar[bool] = False
    has_sequences: ClassVar[bool] = False
    keeps_history: ClassVar[bool] = False
    settings: Settings
    index: IndexConfig | None
    embedder: Embedder | None

    def __init__(self) -> None:
        self.bell = Bell()
        self.backlog = Backlog()
        self.counters = Counters()

    def attach(
        self, settings: Settings, index: IndexConfig | None, embedder: Embedder | None
    ) -> None:
        """Become the backend of a store, before it opens."""
        self.settings, self.index, self.embedder = settings, index, embedder

    def now(self) -> int:
        """Return the present instant."""
        return to_micros(self.settings.clock())

    # Lifecycle

    @abstractmethod
    async def open(self) -> None:
        """Acquire what the store needs; on an error, release what was acquired."""

    @abstractmethod
    async def close(self) -> None:
        """Finish accepted writes, then release everything; leave no task behind."""

    def look(self) -> None:
        """Raise if what it is on is not there any more; called before each operation, often."""

    def cross_fork(self, is_open: bool) -> bool:
        """Let go, in a forked child, of what belongs to the parent.

        Returns:
            Whether the items are left behind in the parent, so that nothing can be opened here.
        """
        return False

    def blocking(self) -> Backend | None:
        """Return one on the same rows, not open, that needs no loop; `None`: there is none."""
        return None

    # Read

    recall: Recall | None = None
    """While it is open, if it remembers what it read; its errors are those of what it is given.

    Asked with what a caller gave, before all checks. After `UNKNOWN` all is done in its turn.
    """
    recall_past: RecallPast | None = None  # as `recall`, of a moment

    def peek(self, namespace: Namespace, path: str, key: str) -> list[Item] | None:
        """Answer a point read at once, on the loop's thread, if that takes mere microseconds.

        Returns:
            The live item in a list, an empty list, or `None`: `get` must be asked.
        """
        return None

    def get(self, namespace: Namespace, path: str, key: str) -> Awaitable[list[Item]]:
        """Return the live item in a list, or an empty list."""
        return self.get_many(namespace, path, (key,))

    @abstractmethod
    async def get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        """Return the live items among `keys`, in any order."""

    @abstractmethod
    async def select(self, path: str, selection: Selection) -> list[Item]:
        """Return the live items that pass, the latest write first: by version."""

    @abstractmethod
    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        """Return the distinct namespaces with live items that match, cut, sorted and paged."""

    @abstractmethod
    async def keys(self, span: Span, limit: int | None) -> list[str]:
        """Return the keys of a span's live items, in its order; only called if it is not empty."""

    @abstractmethod
    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        """Count the live items whose keys match."""

    @abstractmethod
    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        """Return the first piece of a span: of at most `limit` rows looked at, in its order."""

    async def records(
        self, path: str, after: tuple[str, str] | None, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        """Return the next piece of a subtree's live records, and where the one after it begins.

        This one makes them of a page's items, which say nothing of an index and of lifetimes
        only the rest.
        """
        page = await self.page(Span(path, EVERY_KEY, True, after), ALL, limit)
        return [_record(item) for item in page.items], page.end

    async def search(self, path: str, asked: Search) -> list[Item]:
        """Return the page of a ranked search, with scores; only called with an index.

        Raises:
            IndexMismatchError: the index is another model's, or does not hold all items yet.
        """
        raise InvalidArgumentError(f"a {type(self).__name__} has no ranked search")

    async def description(self) -> Description | None:
        """Return what the index that is there says of itself; `None`: there is none."""
        return None

    async def sample_vectors(self, path: str, limit: int) -> list[tuple[str, str, bytes]]:
        """Return path, key and a vector of at most so many items, from all over a subtree."""
        return []

    async def entries(self, path: str, after: int | None, limit: int) -> EntryPage:
        """Return live entries of a log, oldest first: those after a position, or the last ones.

        Args:
            path: of the namespace.
            after: a position; `None`: the last `limit` ones.
            limit: how many at most; there may be fewer where they are long, but not none.
        """
        raise NotImplementedError

    async def length(self, path: str) -> int:
        """Count the live entries of a log; costs nothing by their number."""
        raise NotImplementedError

    async def queue_size(self, path: str) -> QueueSize:
        """Count the jobs of a queue."""
        raise NotImplementedError

    async def dead_jobs(self, path: str, limit: int) -> list[tuple[Item, JobState]]:
        """Return the first dead jobs of a queue, in order."""
        raise NotImplementedError

    async def sequences(self, path: str, *, with_jobs: bool = True) -> list[SequenceRecord]:
        """Return the logs and queues of a subtree, with their jobs, of which there may be many."""
        return []

    async def is_ripe(self, path: str) -> bool:
        """Whether a `TakeJob` may find something; costs little and locks nothing."""
        raise NotImplementedError

    async def items_before(self, places: Sequence[tuple[str, str]]) -> list[Item | None]:
        """Return the live item that stands before each path and key, in the same namespace.

        Only called with an index that has a context and a reranker.
        """
        raise InvalidArgumentError(
            f"a {type(self).__name__} cannot tell what stands before an item"
        )

    @abstractmethod
    async def read_changes(
        self, after: Any, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        """Return the next changes after a version, and the state of the feed."""

    # The past

    async def moment(
        self, version: int | None, instant: int | None, root: str | None = None
    ) -> Moment:
        """Find a moment, by a version or by an instant in microseconds.

        Args:
            version: which it is, or
            instant: at which it is.
            root: of which root label it is a version, where each counts its own; `None`: of each.

        Raises:
            InvalidArgumentError: it is in the future.
            HistoryExpiredError: it is older than what is kept.
        """
        raise InvalidArgumentError(f"a {type(self).__name__} keeps no history")

    def past_peek(
        self, moment: Moment, namespace: Namespace, path: str, key: str
    ) -> list[Item] | None:
        """As `peek`, of what was there; `None`: `past_many` must be asked, whose errors it has."""
        return None

    async def past_many(self, moment: Moment, path: str, keys: Sequence[str]) -> list[Record]:
        """Return the items among `keys` that were there, in any order; or `HistoryExpiredError`."""
        raise NotImplementedError

    async def past_page(
        self, moment: Moment, span: Span, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        """Return the first items of a span that were there, and where to go on; errors as above."""
        raise NotImplementedError

    async def history(self, path: str, key: str, limit: int | None) -> list[Change]:
        """Return the kept changes of an item, the newest first."""
        raise InvalidArgumentError(f"a {type(self).__name__} keeps no history")

    # Write

    async def unembedded(self, ops: Sequence[Operation]) -> Sequence[str]:
        """Return texts for which `apply` would want vectors, as far as a read can tell.

        Asked before a write, so that none begins in vain; what is not told here is by
        `UnembeddedError`.
        """
        return ()

    @abstractmethod
    def apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """Apply a unit of operations, all or none, and return the answer to each.

        What they come to is decided by `kvstore.plan`.

        Raises:
            UnembeddedError: texts need vectors; it is handed in again with them.
        """

    def put_now(self, op: Put) -> Item | Awaitable[Item] | None:
        """Apply a put by itself at once, on the loop's thread, if that takes mere microseconds.

        Returns:
            The stored item, after which `give_way` is due if `is_turn_over`; what gives it once it
            is committed with others; or `None`: nothing is done, and `apply` must be asked.
        """
        return None

    def change_now(self, op: Mutate) -> tuple[Any] | None:
        """As `put_now`, of a change; gives its answer. `apply`, if it is asked, makes it anew."""
        return None

    takes_columns = False
    """Whether `apply` is quicker with `PutColumns` than with the puts that these stand for."""

    encodes_late = False
    """Whether it encodes the values of many `PutColumns` itself, while others are written."""

    is_turn_over = False
    """Whether what was done at once has taken all that it may of this turn of the loop."""

    async def give_way(self) -> None:
        """Wait for a share of a later turn if this one is over."""

    # Upkeep

    @property
    def own_file(self) -> Path | None:
        """The file in which the items are, if they are in one, while it is open."""
        return None

    def is_same(self, other: Backend) -> bool:
        """Whether another open one has the very same rows."""
        return self is other

    async def backup(self, path: Path, meter: Meter) -> None:
        """Write a consistent copy, by `partial_file`."""
        raise InvalidArgumentError("this store has no backup of its own; use export_items")

    @abstractmethod
    async def check(self, meter: Meter) -> Report:
        """Look for damage."""

    @abstractmethod
    async def stats(self) -> Stats:
        """Return the sizes of everything."""

    def metrics(self) -> Metrics:
        """Return what it has counted, and what waits; without any I/O."""
        return Metrics.of(self.counters, queued=self.backlog.units, queued_bytes=self.backlog.size)

    async def vacuum(self) -> int:
        """Give back unused space, and return how much; this one has none."""
        return 0

    # Waiting, which one that needs no loop does otherwise

    async def pause(self, seconds: float) -> None:
        """Let time pass, and others work."""
        await asyncio.sleep(seconds)

    async def aside(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something that takes long, such as work on a file, where it holds up nobody."""
        return await asyncio.to_thread(fn, *args, **kwargs)


class Host(Protocol):
    """What the parts of a store know of it."""

    backend: Backend
    settings: Settings

    def require_open(self) -> None:
        """Raise unless the store is open, here."""

    async def apply(self, ops: Sequence[Operation]) -> list[Any]:
        """Apply a unit of operations, all or none, and return the answer to each."""

    def submit(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """As `apply`, called on the store's loop."""

    def require_writable(self) -> None:
        """Raise unless the store is open, and was opened for writing."""

    def tell(self, name: str, seconds: float, error: BaseException | None) -> None:
        """Tell the observer, if there is one, of something that has ended."""

    def prepare_append(
        self, namespace: Sequence[str], values: Sequence[Any], ttl: TTL = None
    ) -> Append:
        """Return the operation that adds entries to a log."""

    def prepare_job(
        self,
        namespace: Sequence[str],
        value: Any,
        delay: float | timedelta,
        unique: str | None,
        index: Indexing,
    ) -> PutJob:
        """Return the operation that adds a job to a queue."""

    async def renewed(self, items: list[Item]) -> list[Item]:
        """Return items just read, with their lifetimes renewed if the store does so."""

    async def reindex(self) -> Reindexed:
        """Make the search index complete."""


def _record(item: Item) -> Record:
    created_at, updated_at = micros_of(item.created_at), micros_of(item.updated_at)
    expires_at = None if item.expires_at is None else micros_of(item.expires_at)
    ttl = None if expires_at is None else max(1, expires_at - updated_at)
    path, data = encode_namespace(item.namespace), codec.encode(item.value)
    return Record(path, item.key, data, item.version, created_at, updated_at, expires_at, ttl)
