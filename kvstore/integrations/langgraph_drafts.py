"""Checkpoints as a saver knows them: those about to be written, and those it remembers.

A draft says what is new of a checkpoint, and what it shares with its parent.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from langgraph.checkpoint.serde.base import SerializerProtocol

from kvstore.errors import ValueEncodingError
from kvstore.instants import FOREVER
from kvstore.integrations.langgraph_parts import (
    Piece,
    Typed,
    matched,
    pack,
    pieces_of,
    runs_of,
    split,
    unpack,
)
from kvstore.integrations.langgraph_states import states
from kvstore.lifecycle import remember
from kvstore.namespace import address, is_text, show
from kvstore.operations import Check, Operation
from kvstore.store import Store
from kvstore.types import Namespace

__all__ = [
    "ROOT",
    "Draft",
    "Known",
    "Memory",
    "Place",
    "Saved",
    "Value",
    "key_of",
    "orphaned",
    "piece_of",
    "threads",
]

ROOT: Final = ("langgraph", "threads")

_INLINE_BYTES: Final = 512  # a value up to this size lies in each checkpoint that has it
_MOST_CHECKED: Final = 8  # new pieces; more of them begin a series of their own
_SERIES_BYTES: Final = 3  # of a series' random name; two of one name would not harm each other
_LITTLE: Final = frozenset((bool, int, float))
_APART: Final = ("id", "channel_values", "channel_versions")  # stored by themselves


class Place(NamedTuple):
    """Whose checkpoints: a thread's, of its graph or of a subgraph."""

    thread: str
    ns: str

    @property
    def checkpoints(self) -> Namespace:
        """Where the checkpoints are."""
        return (*ROOT, _label(self.thread), _label(self.ns))

    @property
    def writes(self) -> Namespace:
        """Where the writes are."""
        return (*self.checkpoints, "writes")

    @property
    def pieces(self) -> Namespace:
        """Where the pieces are."""
        return (*self.checkpoints, "pieces")

    @classmethod
    def of(cls, namespace: Sequence[str]) -> Place:
        """Return whose checkpoints, writes or pieces a namespace holds."""
        thread, ns = namespace[len(ROOT) : len(ROOT) + 2]
        return cls(_unlabel(thread), _unlabel(ns))


def _label(text: str) -> str:
    """Return a label for any text, an empty one too."""
    return "\0" + text if not text or text[0] == "\0" else text


def _unlabel(label: str) -> str:
    return label[1:] if label[0] == "\0" else label


def threads(thread: str | None = None) -> Namespace:
    """Return where all is that belongs to a thread, or to any."""
    return ROOT if thread is None else (*ROOT, _label(thread))


def key_of(piece: Piece) -> str:
    """Return the key of a piece."""
    return f"{piece.series}.{piece.number}"


def piece_of(key: str) -> Piece:
    """Return the piece of a key."""
    series, number = key.rsplit(".", 1)
    return Piece(series, int(number))


class Value(NamedTuple):
    """A channel's value as a checkpoint has it: small and whole, or in pieces, also as runs."""

    inline: Typed | None
    kind: str = ""
    pieces: Sequence[Piece] = ()
    runs: Sequence[Sequence[Any]] = ()

    def packed(self) -> Any:
        """Return it for `pack`."""
        return [self.kind, self.runs, None] if self.inline is None else self.inline

    @classmethod
    def unpacked(cls, stored: Sequence[Any]) -> Value:
        """Return what `packed` gave."""
        if len(stored) == 2:
            kind, data = stored
            return cls((kind, data))
        kind, runs, _ = stored
        return cls(None, kind, pieces_of(runs), runs)


@dataclass(slots=True)
class Saved:
    """A checkpoint as it is stored.

    Attributes:
        record: the checkpoint without its id and its channels.
        series: what the pieces of a child go on with, at the number `following`.
        version: of its item; 0 for one that is not stored yet.
    """

    id: str
    parent: str | None
    metadata: dict[str, Any]
    record: Typed
    versions: dict[str, Any]
    values: dict[str, Value]
    series: str
    following: int
    version: int = 0


@dataclass(slots=True)
class Known:
    """A stored checkpoint as far as a child may share it.

    Attributes:
        states: of its pieces, by channel.
        written: what the serializer made of those that were written and not read since.
    """

    saved: Saved
    states: dict[str, list[bytes]]
    written: dict[Piece, Typed]


class Draft:
    """A checkpoint to be written.

    Args:
        serde: the serializer.
        place: where the checkpoint belongs.
        parent: the id of the one before it.
        known: that one, if it is there.
        dumped: what the serializer made of messages lately, by their states.
        begins: whether new pieces begin a series of their own.

    Attributes:
        saved: what it says.
        states: of the pieces of its large values, by channel.
        written: what the serializer made of the new pieces.
    """

    saved: Saved

    def __init__(
        self,
        serde: SerializerProtocol,
        place: Place,
        parent: str | None,
        known: Known | None,
        dumped: Mapping[bytes, Typed],
        *,
        begins: bool,
    ) -> None:
        self.states: dict[str, list[bytes]] = {}
        self.written: dict[Piece, Typed] = {}
        self._serde = serde
        self._already = dumped
        self._place = place
        self._parent = parent
        self._known = known
        self._begins = begins
        self._item: dict[str, Any] = {}
        self._values: dict[str, Value] = {}
        self._cut: list[tuple[str, str, list[bytes], int, list[Piece | None]]] = []
        self._fresh: dict[bytes, tuple[str, Any]] = {}  # new pieces by state
        self._added: dict[str, str] = {}  # and by key, as they are stored
        self._leans = False  # shares pieces with its parent, or goes on with its series

    def fill(
        self,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        new_versions: Collection[str],
    ) -> Self:
        """Say what the checkpoint is; the arguments and errors are those of `Checkpoints.put`."""
        versions = dict(checkpoint.get("channel_versions") or {})
        values = checkpoint.get("channel_values") or {}
        for channel, version in versions.items():
            if channel not in new_versions and self._takes_over(channel, version):
                continue
            if channel in values:
                self._add(channel, values[channel])
        series, following = self._number()
        beside = {name: part for name, part in checkpoint.items() if name not in _APART}
        record = self._dumped("what it says beside its channels", beside)
        is_json = _is_json(metadata)
        sealed = None if is_json else self._dumped("its metadata", dict(metadata))
        packed = {channel: value.packed() for channel, value in self._values.items()}
        parts = [self._parent, record, versions, packed, series, following, sealed]
        self._item = {"data": pack(parts)}
        self._item |= {"metadata": dict(metadata)} if is_json else {"sealed": True}
        self.saved = Saved(
            checkpoint["id"],
            self._parent,
            dict(metadata),
            record,
            versions,
            self._values,
            series,
            following,
        )
        return self

    def _takes_over(self, channel: str, version: Any) -> bool:
        """Take the parent's value of a channel, or that it has none, if the version is the same."""
        if self._known is None or self._known.saved.versions.get(channel) != version:
            return False
        value = self._known.saved.values.get(channel)
        if value is not None:
            self._values[channel] = value
            self._leans |= bool(value.pieces)
            if channel in self._known.states:
                self.states[channel] = self._known.states[channel]
        return True

    def _add(self, channel: str, value: Any) -> None:
        """Take in a new value of a channel."""
        what = f"the value of the channel {channel!r}"
        if value is None or type(value) in _LITTLE:
            self._values[channel] = Value(self._dumped(what, value))
            return
        kind, pieces = split(value)
        try:
            found, size = states(self._serde, pieces)
        except Exception as exc:
            raise self._refusal(what, exc) from exc
        if size <= _INLINE_BYTES:
            self._values[channel] = Value(self._dumped(what, value))
            return
        same, places = matched(found, *self._parents_pieces(channel))
        self._leans |= same > 0
        for index, place in enumerate(places, same):
            if place is None:
                self._fresh.setdefault(found[index], (what, pieces[index]))
            else:
                self._leans = True
        self._cut.append((channel, kind, found, same, places))

    def _parents_pieces(self, channel: str) -> tuple[list[bytes], Sequence[Piece]]:
        if self._known is None or channel not in self._known.states:
            return [], ()
        return self._known.states[channel], self._known.saved.values[channel].pieces

    def _number(self) -> tuple[str, int]:
        """Give the new pieces their numbers; return the series and what follows in it."""
        parent = None if self._known is None else self._known.saved
        series, following = ("", 0) if parent is None else (parent.series, parent.following)
        if self._fresh:
            if self._begins or not series or len(self._fresh) > _MOST_CHECKED:
                series, following = secrets.token_hex(_SERIES_BYTES), 0
            else:
                self._leans = True
        numbered: dict[bytes, Piece] = {}
        for state, (what, piece) in self._fresh.items():
            numbered[state] = at = Piece(series, following)
            typed = self._already.get(state) or self._dumped(what, piece)
            self.written[at] = typed
            self._added[key_of(at)] = pack(typed)
            following += 1
        for channel, kind, found, same, places in self._cut:
            pieces = [at or numbered[state] for state, at in zip(found[same:], places, strict=True)]
            if same:  # all of the parent's
                assert parent is not None
                value = parent.values[channel]
                runs = runs_of(pieces, value.runs)
                self._values[channel] = Value(None, kind, [*value.pieces, *pieces], runs)
            else:
                self._values[channel] = Value(None, kind, pieces, runs_of(pieces))
            self.states[channel] = found
        return series, following

    def _dumped(self, what: str, value: Any) -> Typed:
        try:
            return self._serde.dumps_typed(value)
        except Exception as exc:
            raise self._refusal(what, exc) from exc

    def _refusal(self, what: str, exc: Exception) -> ValueEncodingError:
        """Return an error that says what the serializer does not take."""
        return ValueEncodingError(
            f"a checkpoint in {show(self._place.checkpoints)} cannot be stored: the serializer "
            f"does not take {what} ({type(exc).__name__}: {exc})"
        )

    def unit(self, store: Store) -> list[Operation]:
        """Return what writes it all, the checkpoint's own item last.

        It fails where the parent whose pieces it shares is not what it was, and where the numbers
        of its pieces are given.
        """
        place, id = self._place, self.saved.id
        unit: list[Operation] = []
        expected = None
        if self._leans:
            assert self._known is not None
            parent = self._known.saved
            if parent.id == id:
                expected = parent.version
            else:
                labels, path = address(place.checkpoints)
                unit.append(Check(labels, path, parent.id, parent.version))
        absent = 0 if len(self._added) <= _MOST_CHECKED else None
        for key, piece in self._added.items():
            unit.append(store.prepare_put(place.pieces, key, piece, FOREVER, False, absent))
        unit.append(store.prepare_put(place.checkpoints, id, self._item, FOREVER, False, expected))
        return unit


def orphaned(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's item without its parent."""
    return {**item, "data": pack([None, *unpack(item["data"])[1:]])}


def _is_json(value: Any) -> bool:
    """Whether a value comes back from JSON as it is, tuples as lists."""
    match value:
        case None | bool():
            return True
        case str():
            return type(value) is str and is_text(value)
        case int():
            return type(value) is int and -(2**63) <= value < 2**63
        case float():
            return type(value) is float and math.isfinite(value)
        case list() | tuple():
            return type(value) in (list, tuple) and all(map(_is_json, value))
        case dict():
            return all(type(key) is str and is_text(key) for key in value) and all(
                map(_is_json, value.values())
            )
    return False


_REMEMBERED: Final = 256  # checkpoints whose pieces are known without reading
_REMEMBERED_BYTES: Final = 16 * 2**20  # of what these are told apart by
_DUMPED: Final = 64  # messages of writes, which the next checkpoint is likely to hold ...
_DUMPED_BYTES: Final = 64 * 2**10  # ... and how long one may be


class Memory:
    """The checkpoints that were written or read last, so that little of them is read again.

    Attributes:
        dumped: what the serializer made of messages in writes lately, by their states.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Place, str], tuple[Known, int]] = OrderedDict()
        self._bytes = 0
        self._sure: OrderedDict[bytes, None] = OrderedDict()
        self._sure_bytes = 0
        self.dumped: OrderedDict[bytes, Typed] = OrderedDict()
        remember(self)

    def cross_fork(self) -> None:
        """Let no lock be held, in a forked child, by a thread of the parent."""
        self._lock = threading.Lock()

    def get(self, place: Place, id: str) -> Known | None:
        """Return one, if it is remembered."""
        with self._lock:
            found = self._known.get((place, id))
        return None if found is None else found[0]

    def put(self, place: Place, known: Known, *, instead_of: str | None = None) -> None:
        """Remember one, in place of another."""
        size = sum(sum(map(len, states)) for states in known.states.values())
        size += sum(len(data) for _, data in known.written.values())
        with self._lock:
            for id in (instead_of, known.saved.id):
                if (there := self._known.pop((place, id or ""), None)) is not None:
                    self._bytes -= there[1]
            self._known[place, known.saved.id] = known, size
            self._bytes += size
            while len(self._known) > _REMEMBERED or self._bytes > _REMEMBERED_BYTES:
                _, (_, gone) = self._known.popitem(last=False)
                self._bytes -= gone

    def add_dumped(self, state: bytes, typed: Typed) -> None:
        """Remember what the serializer made of a message."""
        if len(typed[1]) <= _DUMPED_BYTES:
            with self._lock:
                self.dumped[state] = typed
                if len(self.dumped) > _DUMPED:
                    self.dumped.popitem(last=False)

    def is_sure(self, state: bytes) -> bool:
        """Whether a piece can be made from its state."""
        return state in self._sure

    def add_sure(self, states: Iterable[bytes]) -> None:
        """Remember that pieces can be made from their states."""
        with self._lock:
            for state in states:
                if state not in self._sure:
                    self._sure[state] = None
                    self._sure_bytes += len(state)
            while self._sure_bytes > _REMEMBERED_BYTES:
                gone, _ = self._sure.popitem(last=False)
                self._sure_bytes -= len(gone)
