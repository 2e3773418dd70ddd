"""What an operation does to the rows that it names: the one place where that is decided.

`decide` is pure: the rows as they are go in, what is to be done to them comes out. A backend reads
the rows that the operations of a unit name, asks `decide`, and carries the effects out, in one
transaction. What a backend does in quicker ways (many plain puts by one statement) must come to
the same, and a property test holds it against this.

Operations that find their rows by a pattern or a date (`Remove`, `Sweep`) need no decision; the
changes that they leave are by `gone`. A `Restore`, which may be long, is decided piece by piece, by
`Admission`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Literal, NamedTuple, assert_never

from kvstore.errors import ConflictError, InvalidArgumentError
from kvstore.jobs import DELAYED, READY, Jobs, JobState, other_items, require_lease, seen_at
from kvstore.namespace import decode_namespace, show
from kvstore.operations import (
    Append,
    Check,
    Delete,
    Expire,
    ExtendJob,
    FinishJob,
    GiveBackJob,
    Mutate,
    Named,
    OfJobs,
    Put,
    PutJob,
    Record,
    Restore,
    RetryJob,
    ReviveJobs,
    Rewind,
    TakeJob,
    Touch,
)
from kvstore.own_vectors import OwnVectors
from kvstore.sequences import (
    Sequences,
    SequenceState,
    key_of,
    position_of,
    queues_among,
    require_kind,
    require_positions,
    require_room,
)
from kvstore.types import pack_item

__all__ = [
    "Address",
    "Admission",
    "Effects",
    "Kind",
    "Note",
    "carry_jobs",
    "decide",
    "ends_of",
    "gone",
    "is_rewound",
    "named",
    "not_before",
    "rewound",
    "run_job",
]

Address = tuple[str, str]  # path and key; sorts as (namespace, key)
Kind = Literal["put", "delete", "expire"]
Vectors = Mapping[str, bytes] | OwnVectors  # by their texts, or put with the item

_MOST_VERSIONS = 2**62
_NONE: Mapping[str, SequenceState] = {}
_ADDRESS = attrgetter("path", "key")
_NO_DATA: Mapping[Address, bytes] = {}


class Note(NamedTuple):
    """A change, for those who watch."""

    version: int
    kind: Kind
    path: str
    key: str
    at: int


@dataclass(slots=True)
class Effects:
    """What is to be done to the rows, and what the callers get for it.

    Attributes:
        now: the instant of it all, in microseconds.
        version: the store's, after all of it.
        is_watched: whether changes are noted.
        answers: one for each operation.
        writes: rows as they are to be, over what is there, each with the vectors of its texts as
            far as they are known.
        drops: of the rows that go.
        renewals: rows of which the lifetime alone changes.
        notes: the changes, in order; none if nobody watches.
        sequences: the logs and queues among the namespaces.
        jobs: those that are new.
    """

    now: int
    version: int
    is_watched: bool
    answers: list[Any] = field(default_factory=list)
    writes: list[tuple[Record, Vectors | None]] = field(default_factory=list)
    drops: list[Address] = field(default_factory=list)
    renewals: list[Record] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    sequences: Sequences = field(default_factory=lambda: Sequences({}))
    jobs: list[JobState] = field(default_factory=list)

    def drop(self, path: str, key: str) -> None:
        """Have a row go."""
        self.drops.append((path, key))
        self.sequences.drop(path, key)

    def note(self, kind: Kind, path: str, key: str) -> int:
        """Give a change the next version, and return that."""
        self.version += 1
        if self.is_watched:
            self.notes.append(Note(self.version, kind, path, key, self.now))
        return self.version


def named(ops: Iterable[Named]) -> dict[Address, bool]:
    """Return the rows that operations name, and of each whether its data is needed."""
    wanted: dict[Address, bool] = {}
    for op in ops:
        match op:
            case Put() | Delete() | Check() | Expire() | FinishJob():
                wanted.setdefault((op.path, op.key), False)
            case Mutate():
                wanted[op.path, op.key] = True
            case Touch():
                wanted |= {(op.path, key): wanted.get((op.path, key), False) for key in op.keys}
            case Append() | PutJob():
                pass  # what they write is new
            case _:
                assert_never(op)
    return wanted


def decide(
    ops: Sequence[Named],
    rows: Mapping[Address, Record],
    now: int,
    version: int,
    *,
    is_watched: bool,
    sequences: Mapping[str, SequenceState] = _NONE,
    jobs: Jobs | None = None,
) -> Effects:
    """Decide what a unit of operations comes to.

    Args:
        ops: no two of them name the same item.
        rows: those that they name, as far as they are there, whether live or not; the `data` of
            those that only `Mutate` needs may be left out of the others.
        now: the instant, in microseconds.
        version: the store's, before.
        is_watched: whether changes are to be noted.
        sequences: the state of each namespace that is one, or is to become one, by its path.
        jobs: as they are, and at this instant; of a store that has queues.

    Raises:
        ConflictError: an item is not at the version that an operation expects.
        Exception: what a `Mutate` raises.
    """
    effects = Effects(now, version, is_watched, sequences=Sequences(sequences))
    for op in ops:
        effects.answers.append(_decide_one(op, rows, effects, jobs))
    return effects


def gone(
    kind: Literal["delete", "expire"],
    addresses: Sequence[Address],
    now: int,
    version: int,
    *,
    is_watched: bool,
    sequences: Mapping[str, SequenceState] = _NONE,
) -> Effects:
    """Return what it comes to that rows go, such as those that match a pattern."""
    effects = Effects(now, version, is_watched, sequences=Sequences(sequences))
    for path, key in addresses:
        effects.note(kind, path, key)
        effects.drop(path, key)
    return effects


def rewound(
    addresses: Iterable[Address],
    then: Mapping[Address, Record],
    rows: Mapping[Address, Record],
    now: int,
    version: int,
    sequences: Mapping[str, SequenceState] = _NONE,
) -> Effects:
    """Decide what it comes to that items become again what they were.

    Lifetimes are absolute: what would be over by now is not brought back. Items that are as they
    were are left alone, and so is what was in a namespace before that became a queue. Each effect
    has one answer.

    Args:
        addresses: of all the items that may differ, in order.
        then: those that were there.
        rows: what is there, whether live or not.
        now: the instant, in microseconds.
        version: the store's, before.
        sequences: as for `decide`.
    """
    effects = Effects(now, version, is_watched=True, sequences=Sequences(sequences))
    queues = queues_among(sequences)
    for path, key in addresses:
        if path in queues and position_of(key) is None:
            continue
        present, past = _live(rows, path, key, now), _live(then, path, key, now)
        if past is None:
            if present is not None:
                effects.note("delete", path, key)
                effects.drop(path, key)
                effects.answers.append(True)
        elif present is None or not _is_same(past, present):
            if present is None and (path, key) in rows:
                effects.note("expire", path, key)
            written = effects.note("put", path, key)
            effects.writes.append((replace(past, version=written, updated_at=now), None))
            effects.answers.append(True)
    return effects


def is_rewound(state: SequenceState, op: Rewind) -> bool:
    """Whether a `Rewind` is about a log or a queue, too: only if it names its own namespace.

    Jobs that come back are ready, and `Jobs.release` ends all leases.
    """
    return state.path == op.path


def _is_same(one: Record, other: Record) -> bool:
    return (
        one.data == other.data
        and one.expires_at == other.expires_at
        and one.indexing == other.indexing
    )


def ends_of(effects: Effects) -> Iterable[Note]:
    """Return, of each item that changes, the change that ends what was there before.

    An item that is put over an expired one has two changes, and of these the first ended it; of an
    import's several records for one key, only the last is ever there.
    """
    ends: dict[Address, Note] = {}
    for note in effects.notes:
        before = ends.get((note.path, note.key))
        if before is None or before.kind == "put":
            ends[note.path, note.key] = note
    return ends.values()


def not_before(effects: Effects, instant: int) -> None:
    """Have no change at an earlier instant than the one before it, whatever the clock does."""
    if effects.notes and effects.now < instant:
        effects.notes = [note._replace(at=instant) for note in effects.notes]


def run_job(
    op: OfJobs,
    jobs: Jobs,
    state: SequenceState | None,
    now: int,
) -> JobState | int | None:
    """Do what an operation on the jobs of a queue asks.

    Args:
        op: the operation.
        jobs: as they are at this instant.
        state: of the queue; `None`: it has not begun.
        now: the instant, in microseconds.

    Returns:
        Its answer; of a `TakeJob` the job that is taken, if there is one.

    Raises:
        InvalidNamespaceError: it is no queue.
        LeaseLostError: the job is not the token's.
    """
    if state is not None:
        require_kind(state, "queue")
    match op:
        case TakeJob():
            if state is None:
                return None
            return jobs.take(op.path, op.token, op.lease, op.attempts)
        case RetryJob() | ExtendJob():
            position = position_of(op.key)
            found = state is not None and position is not None
            job = jobs.get(op.path, position or 0) if found else None
            held = require_lease(job, op.token, now, op.namespace, op.key)
            if isinstance(op, RetryJob):
                jobs.retry(held, op.delay, op.error)
            else:
                jobs.extend(held, op.lease)
            return None
        case GiveBackJob():
            if state is not None:
                jobs.give_back(op.path, op.token)
            return None
        case ReviveJobs():
            positions = [at for key in op.keys if (at := position_of(key)) is not None]
            return 0 if state is None else jobs.revive(op.path, positions)
    assert_never(op)


def carry_jobs(effects: Effects, jobs: Jobs, is_queue: Callable[[str], bool]) -> None:
    """Take over what was decided about jobs: whose items are gone, and which are new."""
    for path, key in effects.drops:
        position = position_of(key)
        if position is not None and is_queue(path):
            jobs.drop(path, position)
    for job in effects.jobs:
        jobs.put(job)


class Admission:
    """Decides which records of a `Restore` are written, and at which versions.

    A record whose time is over is left out. Of several for one key the last is what stays if
    items are replaced; else the first one is there when the next comes.

    Args:
        op: the operation.
        version: the store's, before it.
        now: the instant, in microseconds.
        is_watched: whether changes are to be noted.

    Attributes:
        replaces: whether it makes no difference what is there.
        written: how many records were let in so far.
        version: the store's, with those.
    """

    def __init__(self, op: Restore, version: int, now: int, *, is_watched: bool) -> None:
        self._on_conflict = op.on_conflict
        self._base = version
        self._now = now
        self._is_watched = is_watched
        self.replaces = op.on_conflict == "replace"
        self.version = version
        self.written = 0

    def admit(
        self,
        records: Iterable[Record],
        there: Collection[Address],
        entries: Mapping[Address, bytes] = _NO_DATA,
        queues: Collection[str] = (),
    ) -> Effects:
        """Decide on the next records.

        Args:
            records: what comes next.
            there: the addresses of those for which a live item is there; may be empty if
                `replaces`.
            entries: what is there at those of the addresses that lie in a log or a queue.
            queues: the paths of those namespaces that are queues, or become queues by it.

        Raises:
            ConflictError: an item is there, and that is an error; or another entry of a log has
                the position; or it lies in a queue, and is no job.
            InvalidArgumentError: the store has no more versions.
        """
        taken: set[Address] = set()
        admitted = []
        for record in records:
            address = record.path, record.key
            if not record.is_live(self._now):
                continue
            if record.path in queues and position_of(record.key) is None:
                where = show(decode_namespace(record.path), record.key)
                raise ConflictError(f"{where} is no job, and lies in a queue; nothing was imported")
            if not self.replaces and (address in there or address in taken):
                if self._on_conflict == "skip":
                    continue
                where = show(decode_namespace(record.path), record.key)
                raise ConflictError(f"{where} is there already; nothing was imported")
            if entries.get(address, record.data) != record.data:
                where = show(decode_namespace(record.path), record.key)
                raise ConflictError(
                    f"{where} is another entry, and a position is given once; nothing was imported"
                )
            admitted.append(record)
            taken.add(address)
        rows, notes = {}, []
        for record, version in zip(admitted, self._give_versions(admitted), strict=True):
            rows[record.path, record.key] = record.at_version(version)
            if self._is_watched:
                notes.append(Note(version, "put", record.path, record.key, self._now))
        effects = Effects(self._now, self.version, self._is_watched, notes=sorted(notes))
        effects.writes += ((row, None) for row in rows.values())
        return effects

    def take(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[int]]:
        """As `admit`, of items that replace what is there and have nothing beside them.

        Returns them, and the versions that they get.
        """
        now = self._now
        live = [it for it in records if it.expires_at is None or it.expires_at > now]
        versions = self._give_versions(live)
        last = dict(zip(map(_ADDRESS, live), zip(live, versions, strict=True), strict=True))
        if len(last) < len(live):
            live, versions = map(list, zip(*last.values(), strict=True))
        return live, versions

    def _give_versions(self, records: Sequence[Record]) -> list[int]:
        versions = []
        base, newest = self._base, self.version
        for record in records:
            version = base + record.version if record.version else newest + 1
            if version > _MOST_VERSIONS:
                raise InvalidArgumentError(
                    f"the versions of the items go up to {record.version:,}, and the store has no "
                    "more of them; import the items without their header and versions"
                )
            newest = max(newest, version)
            versions.append(version)
        self.version = newest
        self.written += len(versions)
        return versions


def _decide_one(
    op: Named, rows: Mapping[Address, Record], effects: Effects, jobs: Jobs | None
) -> Any:
    match op:
        case Put():
            present = _live(rows, op.path, op.key, effects.now)
            _require_room(op, present, effects)
            _require_version(op, op.expected, present)
            row = _write(op, op.data, op.indexing, present if op.keep else None, rows, effects)
            times = row.created_at, row.updated_at, row.expires_at
            return pack_item(op.namespace, op.key, op.data, row.version, *times)
        case Mutate():
            present = _live(rows, op.path, op.key, effects.now)
            _require_room(op, present, effects)
            data, answer = op.change(None if present is None else present.data)
            if data is not None:
                _write(op, data, None, present, rows, effects)
            return answer
        case Delete():
            present = _live(rows, op.path, op.key, effects.now)
            _require_version(op, op.expected, present)
            if present is not None:
                effects.note("delete", op.path, op.key)
                effects.drop(op.path, op.key)
            return present is not None
        case Check():
            _require_version(op, op.version, _live(rows, op.path, op.key, effects.now))
            return None
        case Touch():
            return _touch(op, rows, effects)
        case Expire():
            present = _live(rows, op.path, op.key, effects.now)
            _require_room(op, present, effects, may_be_absent=True)
            if present is not None:
                until = None if op.ttl is None else effects.now + op.ttl
                effects.renewals.append(replace(present, expires_at=until, ttl=op.ttl))
            return present is not None
        case Append():
            return _append(op, effects)
        case PutJob():
            return _put_job(op, effects, jobs)
        case FinishJob():
            job = None if jobs is None else jobs.get(op.path, position_of(op.key) or 0)
            require_lease(job, op.token, effects.now, op.namespace, op.key)
            effects.note("delete", op.path, op.key)
            effects.drop(op.path, op.key)
            return None
    assert_never(op)


def _live(rows: Mapping[Address, Record], path: str, key: str, now: int) -> Record | None:
    row = rows.get((path, key))
    return row if row is not None and row.is_live(now) else None


def _require_version(op: Put | Delete | Check, expected: int | None, row: Record | None) -> None:
    """Raise `ConflictError` unless an item is at a version, 0 for absent."""
    found = 0 if row is None else row.version
    if expected is None or expected == found:
        return
    there = f"is at version {found}" if found else "is absent"
    wanted = f"version {expected}" if expected else "absence"
    raise ConflictError(
        f"{show(op.namespace, op.key)} {there}, and {wanted} was expected; read it again and retry"
    )


def _write(
    op: Put | Mutate,
    data: bytes,
    indexing: tuple[str, ...] | None,
    kept: Record | None,
    rows: Mapping[Address, Record],
    effects: Effects,
) -> Record:
    """Write an item; of what is `kept` it has the lifetime and the indexing."""
    now, before = effects.now, rows.get((op.path, op.key))
    if before is not None and not before.is_live(now):
        before = None
        if effects.is_watched:
            effects.note("expire", op.path, op.key)
    version = effects.note("put", op.path, op.key)
    expires_at = None if op.ttl is None else now + op.ttl
    row = Record(op.path, op.key, data, version, now, now, expires_at, op.ttl, indexing)
    if before is not None:
        row.created_at = before.created_at
    if kept is not None:
        row.expires_at, row.ttl, row.indexing = kept.expires_at, kept.ttl, kept.indexing
    effects.writes.append((row, op.vectors))
    return row


def _require_room(
    op: Put | Mutate | Expire,
    present: Record | None,
    effects: Effects,
    *,
    may_be_absent: bool = False,
) -> None:
    state = effects.sequences.get(op.path)
    if state is not None:
        is_there = may_be_absent or present is not None
        require_room(state, op.namespace, op.key, is_there=is_there)


def _put_job(op: PutJob, effects: Effects, jobs: Jobs | None) -> str:
    state = effects.sequences.change(op.path)
    if state.kind is None and state.size:
        raise other_items(op.namespace)
    require_kind(state, "queue")
    if op.name is not None:
        known = None if jobs is None else jobs.named(op.path, op.name)
        fresh = (job for job in effects.jobs if (job.path, job.name) == (op.path, op.name))
        if (job := known or next(fresh, None)) is not None:
            return key_of(job.position)
    require_positions(state, 1)
    now = effects.now
    state.last += 1
    state.size += 1
    if op.delay:
        state.seen = seen_at(state.seen, now, op.delay)
    key = key_of(state.last)
    version = effects.note("put", op.path, key)
    row = Record(op.path, key, op.data, version, now, now, indexing=op.indexing)
    effects.writes.append((row, op.vectors))
    kind, due = (DELAYED, now + op.delay) if op.delay else (READY, 0)
    effects.jobs.append(JobState(op.path, state.last, kind, due, op.delay, name=op.name))
    return key


def _append(op: Append, effects: Effects) -> int:
    state = effects.sequences.change(op.path)
    require_kind(state, "log")
    require_positions(state, len(op.data))
    now = effects.now
    expires_at = None if op.ttl is None else now + op.ttl
    for data in op.data:
        state.last += 1
        state.size += 1
        key = key_of(state.last)
        version = effects.note("put", op.path, key)
        row = Record(op.path, key, data, version, now, now, expires_at, op.ttl)
        effects.writes.append((row, op.vectors))
    return state.last


def _touch(op: Touch, rows: Mapping[Address, Record], effects: Effects) -> dict[str, int]:
    renewed = {}
    for key in op.keys:
        row = _live(rows, op.path, key, effects.now)
        if row is not None and row.ttl is not None:
            expires_at = renewed[key] = effects.now + row.ttl
            effects.renewals.append(replace(row, expires_at=expires_at))
    return renewed
