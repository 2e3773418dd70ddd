"""A checkpoint about to be written: what is new of it, and what it shares with its parent."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from langgraph.checkpoint.serde.base import SerializerProtocol

from kvstore.errors import ValueEncodingError
from kvstore.instants import FOREVER
from kvstore.integrations.langgraph_parts import (
    Piece,
    Typed,
    encrypts,
    fingerprint,
    in_clear,
    matched,
    pack,
    pieces_of,
    runs_of,
    split,
    unpack,
)
from kvstore.namespace import is_text, show
from kvstore.transaction import Transaction
from kvstore.types import Namespace

__all__ = [
    "ROOT",
    "ChangedError",
    "Draft",
    "Known",
    "Place",
    "Saved",
    "TakenError",
    "Value",
    "key_of",
    "orphaned",
    "piece_of",
    "source_of",
    "threads",
]

ROOT: Final = ("langgraph", "threads")

_INLINE_BYTES: Final = 512  # a value up to this size lies in each checkpoint that has it
_MOST_CHECKED: Final = 8  # new pieces; more of them begin a series of their own
_SERIES_BYTES: Final = 3  # of a series' random name; two of one name would not harm each other
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
    """A channel's value as a checkpoint has it: small and whole, or in pieces."""

    inline: Typed | None
    kind: str = ""
    pieces: tuple[Piece, ...] = ()

    def packed(self) -> Any:
        """Return it for `pack`."""
        return [self.kind, runs_of(self.pieces), None] if self.inline is None else self.inline

    @classmethod
    def unpacked(cls, stored: Sequence[Any]) -> Value:
        """Return what `packed` gave."""
        if len(stored) == 2:
            kind, data = stored
            return cls((kind, data))
        return cls(None, stored[0], tuple(pieces_of(stored[1])))


@dataclass(slots=True)
class Saved:
    """A checkpoint as it is stored.

    Attributes:
        record: the checkpoint without its id and its channels.
        series: what the pieces of a child go on with, at the number `following`.
        source: tells one state of the item from another.
    """

    id: str
    parent: str | None
    metadata: dict[str, Any]
    record: Typed
    versions: dict[str, Any]
    values: dict[str, Value]
    series: str
    following: int
    source: bytes


@dataclass(slots=True)
class Known:
    """A stored checkpoint as far as a child may share it: by channel, its pieces' prints."""

    saved: Saved
    prints: dict[str, list[bytes]]


class ChangedError(Exception):
    """The parent is not what it was when the draft was made."""


class TakenError(Exception):
    """Another checkpoint has gone on with the series."""


class Draft:
    """A checkpoint to be written.

    Args:
        serde: the serializer.
        place: where the checkpoint belongs.
        parent: the id of the one before it.
        known: that one, if it is there.
        begins: whether new pieces begin a series of their own.

    Attributes:
        item: the value of the checkpoint's item.
        saved: what it says.
        prints: of the pieces of its large values, by channel.
        stands_alone: whether it is the only item to be written, and shares nothing.
    """

    item: dict[str, Any]
    saved: Saved

    def __init__(
        self,
        serde: SerializerProtocol,
        place: Place,
        parent: str | None,
        known: Known | None,
        *,
        begins: bool,
    ) -> None:
        self.prints: dict[str, list[bytes]] = {}
        self._serde = serde
        self._place = place
        self._parent = parent
        self._known = known
        self._begins = begins
        self._values: dict[str, Value] = {}
        self._cut: list[tuple[str, str, list[bytes], list[Piece | None]]] = []
        self._fresh: dict[bytes, tuple[str, Any, Typed]] = {}  # new pieces by print
        self._added: dict[str, bytes] = {}  # and by key, as they are stored
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
        self.item = {"data": pack(parts)}
        self.item |= {"metadata": dict(metadata)} if is_json else {"sealed": True}
        self.saved = Saved(
            checkpoint["id"],
            self._parent,
            dict(metadata),
            record,
            versions,
            self._values,
            series,
            following,
            source_of(self.item),
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
            if channel in self._known.prints:
                self.prints[channel] = self._known.prints[channel]
        return True

    def _add(self, channel: str, value: Any) -> None:
        """Take in a new value of a channel."""
        what = f"the value of the channel {channel!r}"
        kind, pieces = split(value)
        clear = [self._dumped(what, piece, clear=True) for piece in pieces]
        if sum(len(data) for _, data in clear) <= _INLINE_BYTES:
            self._values[channel] = Value(self._dumped(what, value))
            return
        prints = [fingerprint(each) for each in clear]
        known, where = self._parents_pieces(channel)
        found = matched(prints, known, where)
        for print_, piece, each, at in zip(prints, pieces, clear, found, strict=True):
            if at is None:
                self._fresh.setdefault(print_, (what, piece, each))
            else:
                self._leans = True
        self._cut.append((channel, kind, prints, found))

    def _parents_pieces(self, channel: str) -> tuple[Sequence[bytes], Sequence[Piece]]:
        if self._known is None or channel not in self._known.prints:
            return (), ()
        return self._known.prints[channel], self._known.saved.values[channel].pieces

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
        for print_, (what, piece, clear) in self._fresh.items():
            numbered[print_] = Piece(series, following)
            stored = self._dumped(what, piece) if encrypts(self._serde) else clear
            self._added[key_of(numbered[print_])] = pack(stored)
            following += 1
        for channel, kind, prints, found in self._cut:
            pieces = [at or numbered[print_] for print_, at in zip(prints, found, strict=True)]
            self._values[channel] = Value(None, kind, tuple(pieces))
            self.prints[channel] = prints
        return series, following

    def _dumped(self, what: str, value: Any, *, clear: bool = False) -> Typed:
        try:
            return in_clear(self._serde, value) if clear else self._serde.dumps_typed(value)
        except Exception as exc:
            raise ValueEncodingError(
                f"a checkpoint in {show(self._place.checkpoints)} cannot be stored: the "
                f"serializer does not take {what} ({type(exc).__name__}: {exc})"
            ) from exc

    @property
    def stands_alone(self) -> bool:
        """Whether its item is all that is to be written, and nothing needs to be checked."""
        return not self._added and not self._leans

    async def write(self, tx: Transaction) -> None:
        """Write it all.

        Raises:
            ChangedError: what it shares may be gone.
            TakenError: the numbers of its pieces are given.
        """
        if self._leans:
            assert self._known is not None
            parent = await tx.get(self._place.checkpoints, self._known.saved.id)
            if parent is None or source_of(parent.value) != self._known.saved.source:
                raise ChangedError
        for key, piece in self._added.items():
            if len(self._added) <= _MOST_CHECKED and await tx.get(self._place.pieces, key):
                raise TakenError
            tx.put(self._place.pieces, key, piece, ttl=FOREVER, index=False)
        tx.put(self._place.checkpoints, self.saved.id, self.item, ttl=FOREVER, index=False)


def orphaned(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's item without its parent."""
    return {**item, "data": pack([None, *unpack(item["data"])[1:]])}


def source_of(item: Any) -> bytes:
    """Return what tells one state of a checkpoint's item from another."""
    data = item.get("data") if isinstance(item, dict) else None
    return hashlib.blake2b(data, digest_size=16).digest() if isinstance(data, bytes) else b""


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
