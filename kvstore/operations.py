"""What a store is asked to write.

A backend gets a sequence of operations as one unit: it applies them all or none, in order, and
answers each. An operation carries the namespace both as its labels and as its path; data is
encoded already. All conditions of a unit are tested before its first write, no two operations of
a unit name the same item, and those that are `Named` go before the `Wide` ones. What a `Named` one
does to its items is decided in `kvstore.plan`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any, Literal, assert_never, overload

from kvstore.jobs import SequenceRecord
from kvstore.own_vectors import OwnVectors
from kvstore.past import Moment
from kvstore.patterns import Pattern
from kvstore.types import Namespace

__all__ = [
    "Adopt",
    "Append",
    "Check",
    "Conflict",
    "Delete",
    "Embedded",
    "Expire",
    "ExtendJob",
    "FinishJob",
    "Forget",
    "GiveBackJob",
    "Keep",
    "Lease",
    "Mutate",
    "Named",
    "OfItem",
    "OfJobs",
    "OfSequence",
    "OfUpkeep",
    "Operation",
    "PopEntry",
    "Put",
    "PutColumns",
    "PutJob",
    "Record",
    "Reindex",
    "Remove",
    "Restore",
    "RetryJob",
    "ReviveJobs",
    "Rewind",
    "Sweep",
    "TakeJob",
    "Touch",
    "Trim",
    "TrimLog",
    "UnembeddedError",
    "Wide",
    "named_of",
    "take_piece",
]

_PIECE_RECORDS = 500
_PIECE_BYTES = 8 * 2**20


@dataclass(slots=True)
class OfNamespace:
    """What is done in a namespace: its labels, and its path."""

    namespace: Namespace
    path: str


@dataclass(slots=True)
class OfItem(OfNamespace):
    """What is done to an item."""

    key: str


@dataclass(slots=True)
class Put(OfItem):
    """Upsert an item; answers the stored `Item`.

    Attributes:
        data: the encoded value.
        ttl: lifetime in microseconds, or `None`.
        expected: the version to write over, 0 for an absent item, `None` for any.
        indexing: `None` for the store's fields, `()` for none, or the paths to index.
        keep: an item that is there keeps its lifetime and its indexing.
        vectors: of the texts to index, as far as they are known; or the item's own.
        planned: paths, and by their hashes the texts that the value has there; for a backend to
            keep from one try to the next.
    """

    data: bytes
    ttl: int | None = None
    expected: int | None = None
    indexing: tuple[str, ...] | None = None
    keep: bool = False
    vectors: Mapping[str, bytes] | OwnVectors | None = None
    planned: tuple[tuple[str, ...], dict[bytes, str]] | None = None


@dataclass(slots=True, eq=False, repr=False)
class PutColumns(Sequence[Put]):
    """A unit of puts in one namespace, as columns: none is made before it is asked for.

    Each collection of Python's walks all objects that may hold others, and holds up every thread:
    puts are such objects, keys and encoded values are none.

    Attributes:
        namespace: of all of them.
        path: of all of them.
        keys: no two alike.
        datas: the encoded values; with `encode` the first of them, and the others come to these
            when they are asked for by `encoded`, which is before the puts are.
        ttl: of all of them.
        indexing: of all of them.
        encode: encodes so many values from a place on; fails for one that could not come back.
    """

    namespace: Namespace
    path: str
    keys: Sequence[str]
    datas: list[bytes]
    ttl: int | None
    indexing: tuple[str, ...] | None
    encode: Callable[[int], Awaitable[list[bytes]]] | None = None

    async def encoded(self, end: int | None = None) -> list[bytes]:
        """Return the encoded values, of which there are at least those before a place.

        Raises:
            StoreError: one cannot be encoded.
        """
        end = len(self.keys) if end is None else min(end, len(self.keys))
        while len(self.datas) < end:
            assert self.encode is not None
            self.datas += await self.encode(len(self.datas))
        return self.datas

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, at: int) -> Put: ...
    @overload
    def __getitem__(self, at: slice) -> PutColumns: ...
    def __getitem__(self, at: int | slice) -> Put | PutColumns:
        if not isinstance(at, slice):
            return self._put(self.keys[at], self.datas[at])
        columns = self.keys[at], self.datas[at]
        return PutColumns(self.namespace, self.path, *columns, self.ttl, self.indexing)

    def __iter__(self) -> Iterator[Put]:
        return starmap(self._put, zip(self.keys, self.datas, strict=True))

    def _put(self, key: str, data: bytes) -> Put:
        return Put(self.namespace, self.path, key, data, self.ttl, None, self.indexing)


@dataclass(slots=True)
class Delete(OfItem):
    """Delete an item; answers whether it was there."""

    expected: int | None = None


@dataclass(slots=True)
class Check(OfItem):
    """Require an item to be at a version, 0 for absent; answers `None`."""

    version: int


@dataclass(slots=True)
class Mutate(OfItem):
    """Read, change and write one item; answers what `change` gives beside the new data.

    Attributes:
        change: from the present data (`None`: absent) to the new data (`None`: leave it) and
            the answer. It is pure, quick, and may run in another thread. An item that is there
            keeps its lifetime and its indexing.
        ttl: lifetime of an item that it creates, in microseconds, or `None`.
        vectors: of the texts to index, as far as they are known.
    """

    change: Callable[[bytes | None], tuple[bytes | None, Any]]
    ttl: int | None = None
    vectors: Mapping[str, bytes] | None = None


@dataclass(slots=True)
class Append(OfNamespace):
    """Add entries to the end of a log; answers the position of the last one.

    Attributes:
        data: the encoded values, in order.
        ttl: lifetime in microseconds, or `None`.
        vectors: of the texts to index, as far as they are known.
    """

    data: tuple[bytes, ...]
    ttl: int | None = None
    vectors: Mapping[str, bytes] | None = None


@dataclass(slots=True)
class PopEntry(OfNamespace):
    """Take the newest entry off a log; answers its `Item`, or `None`."""


@dataclass(slots=True)
class TrimLog(OfNamespace):
    """Delete all but the last `keep` entries of a log; answers how many of the live ones went."""

    keep: int


@dataclass(slots=True)
class PutJob(OfNamespace):
    """Add a job to a queue; answers its key, or that of the job that has its name.

    Attributes:
        data: the encoded value.
        delay: until it is ready, in microseconds.
        name: that no two jobs have which wait or run; `None`: none.
        indexing: as that of a `Put`.
        vectors: of the texts to index, as far as they are known.
    """

    data: bytes
    delay: int = 0
    name: str | None = None
    indexing: tuple[str, ...] | None = None
    vectors: Mapping[str, bytes] | None = None


@dataclass(slots=True)
class FinishJob(OfItem):
    """Delete a job that a token holds, or raise `LeaseLostError`; answers `None`."""

    token: int


@dataclass(slots=True)
class TakeJob(OfNamespace):
    """Lease the first job that is ready; answers its `Item` and attempt, or `None`.

    Attributes:
        token: whose the lease is; no other one's.
        lease: in microseconds.
        attempts: how often a job is tried at most.
    """

    token: int
    lease: int
    attempts: int


@dataclass(slots=True)
class RetryJob(OfItem):
    """Have a job that a token holds tried again, or raise `LeaseLostError`; answers `None`.

    Attributes:
        delay: until it is ready, in microseconds.
        error: why.
    """

    token: int
    delay: int
    error: str | None


@dataclass(slots=True)
class GiveBackJob(OfNamespace):
    """Make the job ready that a token holds, if it does, and do not count that attempt."""

    token: int


@dataclass(slots=True)
class ExtendJob(OfItem):
    """Let a lease last so many microseconds from now, or raise `LeaseLostError`."""

    token: int
    lease: int


@dataclass(slots=True)
class ReviveJobs(OfNamespace):
    """Make dead jobs ready, unless their names are taken; answers how many."""

    keys: tuple[str, ...]


@dataclass(slots=True)
class Remove(OfNamespace):
    """Delete the items whose keys match; answers how many."""

    pattern: Pattern
    subtree: bool


@dataclass(slots=True)
class Touch(OfNamespace):
    """Renew the lifetime of live items that have one; answers their new expiry in micros."""

    keys: tuple[str, ...]


@dataclass(slots=True)
class Expire(OfItem):
    """Give a live item another lifetime; answers whether it was there.

    Attributes:
        ttl: in microseconds from now; `None`: for ever.
    """

    ttl: int | None


@dataclass(slots=True)
class Sweep:
    """Delete at most `limit` expired items; answers how many."""

    limit: int


@dataclass(slots=True)
class Record:
    """An item with all that a store keeps of it, as exports carry it; times in microseconds.

    Attributes:
        version: orders the records of one `Restore`; 0: after those that stand before it.
    """

    path: str
    key: str
    data: bytes
    version: int
    created_at: int
    updated_at: int
    expires_at: int | None = None
    ttl: int | None = None
    indexing: tuple[str, ...] | None = None

    def is_live(self, now: int) -> bool:
        """Whether it is there at an instant."""
        return self.expires_at is None or self.expires_at > now

    def at_version(self, version: int) -> Record:
        """Return the same at another version; many times as fast as `dataclasses.replace`."""
        times = self.created_at, self.updated_at, self.expires_at
        return Record(self.path, self.key, self.data, version, *times, self.ttl, self.indexing)


def take_piece(records: Iterator[Record], number: int = _PIECE_RECORDS) -> list[Record]:
    """Take the next records: as many as may be in hand at once, none at the end.

    Args:
        records: from where.
        number: how many at most.
    """
    taken: list[Record] = []
    size = 0
    for record in records:
        taken.append(record)
        size += len(record.data)
        if size > _PIECE_BYTES or len(taken) >= number:
            break
    return taken


Conflict = Literal["replace", "skip", "error"]


@dataclass(slots=True)
class Restore:
    """Write records with their times; answers how many. Their versions keep their order.

    They are written as if put one after the other, by the rule of `kvstore.plan`. Unlike with the
    others, a condition may fail, or the iterator raise, after writes. The backend undoes those: by
    giving up the transaction, in which a `Restore` is alone.

    Attributes:
        records: may be read again where a transaction is tried again, perhaps in another thread.
        on_conflict: what to do where an item is there: replace it, skip the record, or raise
            `ConflictError`.
        sequences: the logs and queues among the namespaces, or below them.
    """

    records: Iterable[Record]
    on_conflict: Conflict
    sequences: Sequence[SequenceRecord] = ()


@dataclass(slots=True)
class Lease:
    """Have changes recorded for `span` microseconds at least; answers two positions.

    They are the store's, and the one after which the kept history holds every change: versions, or
    `Positions` where several roots are watched that count versions of their own.

    Attributes:
        path: of the namespace whose changes are wanted, for backends to which it matters.
        subtree: whether those of the namespaces below are, too.
    """

    span: int
    path: str = ""
    subtree: bool = True


@dataclass(slots=True)
class Trim:
    """Delete at most `limit` changes older than `history` microseconds; answers how many.

    It also ends the recording when the lease is over, unless `is_watched` renews it; and trims
    what is kept of the past, for which `keeps` is the `Keep` of the store, if it has one.
    """

    limit: int
    history: int
    is_watched: bool
    keeps: int | None = None


@dataclass(slots=True)
class Keep:
    """Have what ceases to be kept for `span` microseconds; answers `None`.

    It holds for a span from now, after which a `Trim` of a store that asks for less ends it.
    """

    span: int


@dataclass(slots=True)
class Forget(OfNamespace):
    """Take away what is kept of the past of the items whose keys match; answers how many."""

    pattern: Pattern
    subtree: bool


@dataclass(slots=True)
class Rewind:
    """Bring a namespace, or a subtree, back to a moment; answers how many items it took.

    It is decided by `kvstore.plan.rewound`. Like a `Restore` it may fail after writes.
    """

    path: str
    subtree: bool
    moment: Moment


@dataclass(slots=True)
class Adopt:
    """Make the index this store's: its fields and its model; answers how many items are marked.

    What another model has made is dropped, and every item that it may concern marked.

    Attributes:
        filters: the paths that it declares, whose scalars are to be had in order from now on.
    """

    filters: tuple[str, ...] = ()


@dataclass(slots=True)
class Reindex:
    """Index at most `limit` marked items after one.

    It answers the last one's place, how many they were, and the addresses of those that stay
    marked, because the model has refused a text of theirs.

    Attributes:
        after: the place after which to look, as the last one has answered; 0 at first.
        vectors: of the texts to index, as far as they are known.
        refused: texts that the model does not take, and why.
    """

    after: Any
    limit: int
    vectors: Mapping[str, bytes] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


class UnembeddedError(Exception):
    """A unit needs vectors that it does not carry: embed the texts, and hand it in again."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(f"{len(texts)} texts have no vector")
        self.texts = texts


Named = Put | Delete | Check | Mutate | Touch | Expire | Append | PutJob | FinishJob
"""Those that say which items they are about, which is what `kvstore.plan` decides on."""

OfJobs = TakeJob | RetryJob | GiveBackJob | ExtendJob | ReviveJobs
"""Those of the `Wide` ones about a queue, on which `kvstore.plan.run_job` decides."""

OfSequence = OfJobs | PopEntry | TrimLog
"""Those of the `Wide` ones that are for backends which have logs and queues."""

OfPast = Keep | Forget | Rewind
"""Those of the `Wide` ones that are for backends which keep the past."""

OfUpkeep = Sweep | Lease | Trim | Adopt | Reindex | Keep | Forget
"""Those of the `Wide` ones that may be done twice, and that nobody needs all over the store or not
at all."""

Wide = OfSequence | OfPast | Remove | Sweep | Restore | Lease | Trim | Adopt | Reindex
"""Those that find their items themselves, or are about none."""

Operation = Named | Wide

Embedded = Put | Mutate | Append | PutJob | Reindex
"""Those that write texts, and have a place for their vectors."""


def named_of(ops: Iterable[Operation]) -> list[Named]:
    """Return those of a unit that name their items, and fail for what is no operation at all."""
    found: list[Named] = []
    for op in ops:
        if isinstance(op, Named):
            found.append(op)
        elif not isinstance(op, Wide):
            assert_never(op)
    return found
