"""Checkpoints of LangGraph as items of a store: where they are, and how they come and go.

    ("langgraph", "threads", thread, ns)             checkpoint id -> the checkpoint
    ("langgraph", "threads", thread, ns, "writes")   checkpoint and task -> the task's writes
    ("langgraph", "threads", thread, ns, "pieces")   series and number -> a piece of a value

A checkpoint's item is `{"metadata": {...}, "data": bytes}`. Its data is what the serializer made of
the checkpoint, the small values themselves, and of the large ones the runs of their pieces (see
`langgraph_parts`). Nothing of it is in another checkpoint, so any of them can go.

A piece never changes, and its number is never given again while a checkpoint is left from which its
series could go on: where such a one is freed, an empty item stays. A checkpoint that shares pieces
is written only over the very parent that has them; so `free`, which looks at the pieces first and
at the checkpoints then, takes none that is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.base import SerializerProtocol

from kvstore.errors import ConflictError, StoreCorruptError, ValueEncodingError
from kvstore.instants import FOREVER
from kvstore.integrations.langgraph_drafts import (
    ROOT,
    Draft,
    Known,
    Memory,
    Place,
    Saved,
    Value,
    key_of,
    orphaned,
    piece_of,
    threads,
)
from kvstore.integrations.langgraph_parts import (
    Piece,
    Typed,
    joined,
    pack,
    unpack,
)
from kvstore.integrations.langgraph_states import (
    has_states,
    remade,
    state_of_message,
    when_sure,
)
from kvstore.integrations.langgraph_states import states as states_of
from kvstore.namespace import show
from kvstore.patterns import escape
from kvstore.store import Store
from kvstore.transaction import Transaction
from kvstore.types import Item

__all__ = ["Checkpoints", "VanishedError", "Write"]

_COPY_ATTEMPTS: Final = 5
_SLICE: Final = 500  # pieces freed in one transaction
_MOST_WRITTEN: Final = 64  # pieces that are remembered as they were written, until they are read
_DELTA_COUNTERS: Final = "counters_since_delta_snapshot"  # LangGraph's, in metadata


class VanishedError(Exception):
    """The checkpoint was deleted, or written anew, while it was read."""


class Write(NamedTuple):
    """A write that waits beside a checkpoint.

    Attributes:
        slot: its place among the task's writes; below 0 for the special channels.
    """

    task_id: str
    slot: int
    channel: str
    value: Typed
    task_path: str


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints in an open store, by one serializer."""

    store: Store
    serde: SerializerProtocol
    memory: Memory

    # Read

    async def get(self, place: Place, id: str | None) -> Saved | None:
        """Return a checkpoint; without an id the last one, which has the largest."""
        if id is not None:
            item = await self.store.get(place.checkpoints, id)
        else:
            newest = self.store.scan(place.checkpoints, subtree=False, reverse=True, batch_size=1)
            item = await anext(newest, None)
        return None if item is None else self._once_more(place, item) or self.saved(item)

    def _once_more(self, place: Place, item: Item) -> Saved | None:
        """Return a checkpoint that is remembered as it is stored."""
        known = self.memory.get(place, item.key)
        if known is None or known.saved.version != item.version or "sealed" in item.value:
            return None
        return replace(
            known.saved, metadata=item.value["metadata"], versions=dict(known.saved.versions)
        )

    def saved(self, item: Item) -> Saved:
        """Return the checkpoint of an item.

        Raises:
            StoreCorruptError: it is damaged.
        """
        try:
            data = unpack(item.value["data"])
            parent, record, versions, values, series, following, sealed = data
            return Saved(
                item.key,
                parent,
                item.value["metadata"] if sealed is None else self.serde.loads_typed(tuple(sealed)),
                tuple(record),
                versions,
                {channel: Value.unpacked(value) for channel, value in values.items()},
                series,
                following,
                item.version,
            )
        except (LookupError, TypeError, ValueError) as exc:
            raise StoreCorruptError(
                f"the checkpoint {show(item.namespace, item.key)} is damaged; restore it from a "
                "backup, or go on from an older one"
            ) from exc

    async def values(
        self,
        place: Place,
        saved: Saved,
        channels: Iterable[str] | None = None,
        *,
        remember: bool = False,
    ) -> dict[str, Any]:
        """Return values of a checkpoint.

        Args:
            place: where it is.
            saved: the checkpoint.
            channels: those wanted; `None`: all.
            remember: whether a child of it is likely to be written.

        Raises:
            VanishedError: somebody has deleted it meanwhile.
            StoreCorruptError: a part of it is damaged or missing.
        """
        wanted = list(saved.values if channels is None else channels)
        known = self.memory.get(place, saved.id) if has_states(self.serde) else None
        if known is None or known.saved.version != saved.version:
            known = Known(saved, {}, {})
        stored = await self._stored(place, known, wanted)
        values: dict[str, Any] = {}
        states: dict[str, list[bytes]] = {}
        for channel in wanted:
            inline, kind, pieces, _ = saved.values[channel]
            if inline is not None:
                values[channel] = self.serde.loads_typed(inline)
                continue
            before = known.states.get(channel, ())
            parts = [
                self.serde.loads_typed(stored[piece]) if piece in stored else remade(before[index])
                for index, piece in enumerate(pieces)
            ]
            values[channel] = joined(kind, parts)
            if remember:
                states[channel] = self._states(pieces, parts, stored, before)
        if remember:
            self.memory.put(place, Known(saved, states, {}))
        return values

    def _states(
        self,
        pieces: Sequence[Piece],
        parts: Sequence[Any],
        stored: Collection[Piece],
        before: Sequence[bytes],
    ) -> list[bytes]:
        """Return the states of the pieces of a value, as far as they were read: anew."""
        read = [part for piece, part in zip(pieces, parts, strict=True) if piece in stored]
        found, _ = states_of(self.serde, read)
        self.memory.add_sure(when_sure(read, found))
        anew = iter(found)
        return [
            next(anew) if piece in stored else before[index] for index, piece in enumerate(pieces)
        ]

    async def _stored(
        self, place: Place, known: Known, channels: Iterable[str]
    ) -> dict[Piece, Typed]:
        """Return the pieces of channels that cannot be remade, as the serializer made them."""
        owners: dict[str, tuple[Piece, str]] = {}
        stored: dict[Piece, Typed] = {}
        for channel in channels:
            states = known.states.get(channel)
            for index, piece in enumerate(known.saved.values[channel].pieces):
                if states is not None and self.memory.is_sure(states[index]):
                    continue
                if (typed := known.written.get(piece)) is not None:
                    stored[piece] = typed
                else:
                    owners[key_of(piece)] = piece, channel
        found = await self.store.get_many(place.pieces, owners) if owners else {}
        for key, (piece, channel) in owners.items():
            try:
                kind, data = unpack(found[key].value)
                stored[piece] = kind, data
            except (LookupError, TypeError, ValueError) as exc:
                now = await self.get(place, known.saved.id)
                if now is None or now.version != known.saved.version:
                    raise VanishedError from None
                raise StoreCorruptError(
                    f"the piece {show(place.pieces, key)}, of the channel {channel!r} of the "
                    f"checkpoint {known.saved.id!r}, is {'damaged' if key in found else 'missing'}"
                    "; restore it from a backup, or go on from an older checkpoint"
                ) from exc
        return stored

    async def writes(self, place: Place, id: str) -> list[Write]:
        """Return the writes that wait beside a checkpoint, in the order in which they apply."""
        found: list[Write] = []
        head = _task_key(id, "")
        async for item in self.store.scan(place.writes, pattern=escape(head) + "*", subtree=False):
            found += _slots_of(item, item.key.removeprefix(head)).values()
        return sorted(found, key=lambda each: (each.task_path, each.task_id, each.slot))

    async def places(self, thread: str | None = None) -> list[Place]:
        """Return where something of a thread is, or of any."""
        depth = len(ROOT) + 2
        found = await self.store.list_namespaces(threads(thread), max_depth=depth)
        return [Place.of(labels) for labels in found if len(labels) == depth]

    async def history(
        self, place: Place, id: str | None, channels: Sequence[str]
    ) -> dict[str, tuple[list[Write], Any]]:
        """Return what made up channels that store what is new of each step alone.

        Returns:
            By channel: the writes of the checkpoints before the one of this id, the oldest first,
            back to the last that has a value; and that value in a list, or an empty one.
        """
        written: dict[str, list[Write]] = {channel: [] for channel in channels}
        seeds: dict[str, list[Any]] = {channel: [] for channel in channels}
        saved = await self.get(place, id)
        seen: set[str | None] = {None}
        while saved is not None and saved.parent not in seen:
            seen.add(saved.parent)
            saved = await self.get(place, saved.parent)
            open_ = [channel for channel in written if not seeds[channel]]
            if saved is None or not open_:
                break
            for write in reversed(await self.writes(place, saved.id)):
                if write.channel in open_:
                    written[write.channel].append(write)
            there = [channel for channel in open_ if channel in saved.values]
            try:
                values = await self.values(place, saved, there)
            except VanishedError:
                break
            for channel, value in values.items():
                seeds[channel].append(value)
        return {channel: (written[channel][::-1], seeds[channel]) for channel in channels}

    # Write

    async def put(
        self,
        place: Place,
        parent: str | None,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        new_versions: Collection[str],
    ) -> None:
        """Store a checkpoint, over one of the same id, with its values: all or nothing.

        Args:
            place: where.
            parent: the id of the one before it, which need not be there.
            checkpoint: it.
            metadata: what `list` finds it by.
            new_versions: the channels whose value is new; the others have the parent's.

        Raises:
            ValueEncodingError: the serializer does not take a part of it.
        """
        known = None if parent is None else self.memory.get(place, parent)
        begins = False
        while True:
            if known is None and parent is not None:
                known = await self._known(place, parent, new_versions)
            draft = Draft(self.serde, place, parent, known, self.memory.dumped, begins=begins)
            draft.fill(checkpoint, metadata, new_versions)
            try:
                *_, item = await self.store.submit(draft.unit(self.store))
                break
            except ConflictError:  # the parent has changed, or another one went on from it
                known, begins = None, True
        draft.saved.version = item.version
        written = draft.written
        if known is not None and len(known.written) <= _MOST_WRITTEN:
            written = known.written | written
        self.memory.put(place, Known(draft.saved, draft.states, written), instead_of=parent)

    async def _known(self, place: Place, id: str, new: Collection[str]) -> Known | None:
        """Read a checkpoint as far as a child with some new values may share it."""
        saved = await self.get(place, id)
        if saved is None:
            return None
        channels = [channel for channel in saved.values if channel in new]
        try:
            await self.values(place, saved, channels, remember=True)
        except VanishedError:
            return None
        return self.memory.get(place, id)

    async def put_writes(
        self,
        place: Place,
        id: str,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        """Store a task's writes beside a checkpoint, which need not be there yet.

        Of a channel with a place of its own, such as an interrupt's, the last one counts; of the
        others the first.

        Raises:
            ValueEncodingError: the serializer does not take a value.
        """
        new: dict[int, Write] = {}
        for index, (channel, value) in enumerate(writes):
            slot = WRITES_IDX_MAP.get(channel, index)
            typed = self._dumped(place, channel, value)
            new[slot] = Write(task_id, slot, channel, typed, task_path)
        await self.put_slots(place, id, task_id, new)

    async def put_slots(
        self, place: Place, id: str, task_id: str, new: Mapping[int, Write]
    ) -> None:
        """Store a task's writes, as the serializer made them, by their places."""
        key = _task_key(id, task_id)

        async def merge(tx: Transaction) -> None:
            found = await tx.get(place.writes, key)
            present = {} if found is None else _slots_of(found, task_id)
            kept = {slot: write for slot, write in present.items() if slot >= 0}
            merged = _packed_slots({**present, **new, **kept})
            tx.put(place.writes, key, merged, ttl=FOREVER, index=False)

        if not new:
            return
        try:
            await self.store.put(
                place.writes, key, _packed_slots(new), ttl=FOREVER, index=False, if_version=0
            )
        except ConflictError:
            await self.store.transact(merge)

    def _dumped(self, place: Place, channel: str, value: Any) -> Typed:
        try:
            typed = self.serde.dumps_typed(value)
            if (state := state_of_message(self.serde, value)) is not None:
                self.memory.add_dumped(state, typed)
            return typed
        except Exception as exc:
            raise ValueEncodingError(
                f"a write in {show(place.writes)} cannot be stored: the serializer does not take "
                f"the value for the channel {channel!r} ({type(exc).__name__}: {exc})"
            ) from exc

    # Upkeep

    async def delete_thread(self, thread: str) -> None:
        """Delete all that belongs to a thread."""
        await self.store.remove(threads(thread), "*", subtree=True)

    async def copy_thread(self, source: str, target: str) -> None:
        """Copy all that belongs to a thread, over what the other has under the same ids.

        Raises:
            ConflictError: the source was pruned meanwhile, time after time.
        """
        if source == target:
            return
        root = len(threads(source))
        for _ in range(_COPY_ATTEMPTS):
            items = [item async for item in self.store.scan(threads(source))]
            if self._lacks_nothing(items):
                break
        else:
            raise ConflictError(f"the thread {source!r} kept being pruned while it was copied")

        def write(tx: Transaction) -> None:
            for item in items:
                namespace = (*threads(target), *item.namespace[root:])
                tx.put(namespace, item.key, item.value, ttl=FOREVER, index=False)

        await self.store.transact(write)

    def _lacks_nothing(self, items: Iterable[Item]) -> bool:
        """Whether the pieces of all checkpoints are among the items."""
        needed: set[tuple[Place, str]] = set()
        there: set[tuple[Place, str]] = set()
        for item in items:
            place = Place.of(item.namespace)
            if item.namespace == place.checkpoints:
                for value in self.saved(item).values.values():
                    needed.update((place, key_of(piece)) for piece in value.pieces)
            elif item.namespace == place.pieces:
                there.add((place, item.key))
        return needed <= there

    async def keep_latest(self, thread: str) -> None:
        """Delete all checkpoints of a thread but the last of each place, and what that needs."""
        doomed: dict[Place, set[str]] = {}
        for place in await self.places(thread):
            ids = await self.store.keys(place.checkpoints)
            doomed[place] = set(ids[:-1])
        await self._delete(doomed)

    async def delete_runs(self, runs: Collection[str]) -> None:
        """Delete the checkpoints of runs, and their writes, unless a later one needs them."""
        doomed: dict[Place, set[str]] = {}
        wanted = {"$or": [{"metadata.run_id": {"$in": list(runs)}}, {"sealed": True}]}
        async for item in self.store.scan(ROOT, filter=wanted):
            place = Place.of(item.namespace)
            if self.saved(item).metadata.get("run_id") in runs:
                doomed.setdefault(place, set()).add(item.key)
        await self._delete(doomed)

    async def _delete(self, doomed: Mapping[Place, set[str]]) -> None:
        """Delete checkpoints with their writes, in one transaction; then free their pieces."""
        gone: list[tuple[Place, str]] = []
        orphans: list[tuple[Place, str]] = []
        for place, ids in doomed.items():
            remaining, needed = await self._survey(place, ids)
            going = ids - needed
            gone += [(place, id) for id in going]
            orphans += [(place, id) for id, parent in remaining.items() if parent in going]
        tasks = [
            (place, key)
            for place, id in gone
            for key in await self.store.keys(place.writes, escape(_task_key(id, "")) + "*")
        ]

        async def write(tx: Transaction) -> None:
            for place, id in gone:
                tx.delete(place.checkpoints, id)
            for place, key in tasks:
                tx.delete(place.writes, key)
            for place, id in orphans:
                found = await tx.get(place.checkpoints, id)
                if found is not None:
                    tx.put(place.checkpoints, id, orphaned(found.value), ttl=FOREVER, index=False)

        await self.store.transact(write)
        for place in doomed:
            await self.free(place)

    async def _survey(
        self, place: Place, doomed: Collection[str]
    ) -> tuple[dict[str, str | None], set[str]]:
        """Return the checkpoints that stay, with their parents; and which doomed ones they need.

        What a channel holds that stores no more than what is new of each step (LangGraph's
        `DeltaChannel`) is in the writes of the checkpoints back to the last that has its value.
        """
        parents: dict[str, str | None] = {}
        stored: dict[str, frozenset[str]] = {}
        deltas: dict[str, frozenset[str]] = {}
        async for item in self.store.scan(place.checkpoints, subtree=False):
            saved = self.saved(item)
            parents[saved.id] = saved.parent
            stored[saved.id] = frozenset(saved.values)
            deltas[saved.id] = frozenset(saved.metadata.get(_DELTA_COUNTERS) or ())
        needed: set[str] = set()
        for id in parents.keys() - set(doomed):
            missing, at = deltas[id] - stored[id], parents[id]
            path: set[str] = set()
            while missing and at in parents and at not in path:
                path.add(at)
                missing, at = missing - stored[at], parents[at]
            needed |= path
        remaining = {id: at for id, at in parents.items() if id not in doomed or id in needed}
        return remaining, needed & set(doomed)

    async def free(self, place: Place) -> None:
        """Take away the pieces that no checkpoint has."""
        pieces = [piece_of(key) for key in await self.store.keys(place.pieces)]
        if not pieces:
            return
        used: set[Piece] = set()
        least: dict[str, int] = {}  # by series, the number that a child might give next
        async for item in self.store.scan(place.checkpoints, subtree=False):
            saved = self.saved(item)
            used.update(piece for value in saved.values.values() for piece in value.pieces)
            least[saved.series] = min(saved.following, least.get(saved.series, saved.following))
        spare = [piece for piece in pieces if piece not in used]
        for start in range(0, len(spare), _SLICE):
            gone: list[str] = []
            emptied: dict[str, None] = {}
            for piece in spare[start : start + _SLICE]:
                if piece.series in least and least[piece.series] <= piece.number:
                    emptied[key_of(piece)] = None
                else:
                    gone.append(key_of(piece))
            await self.store.delete_many(place.pieces, gone)
            await self.store.put_many(place.pieces, emptied, ttl=FOREVER, index=False)


def _task_key(id: str, task_id: str) -> str:
    """Return the key of a task's writes; no two pairs share one."""
    return f"{len(id)}.{id}.{task_id}"


def _packed_slots(slots: Mapping[int, Write]) -> str:
    return pack([[slot, *write[2:]] for slot, write in sorted(slots.items())])


def _slots_of(item: Item, task_id: str) -> dict[int, Write]:
    try:
        return {
            slot: Write(task_id, slot, channel, (kind, data), task_path)
            for slot, channel, (kind, data), task_path in unpack(item.value)
        }
    except (TypeError, ValueError) as exc:
        raise StoreCorruptError(
            f"the writes {show(item.namespace, item.key)} are damaged; restore them from a backup"
        ) from exc
