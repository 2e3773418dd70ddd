"""What a checkpoint shares with the one before it: pure functions.

A channel's value is mostly a list that grows at its end. So a large list or dict is cut into
pieces, and a piece that the parent checkpoint has as well is not stored again: what a checkpoint
holds of such a channel are the numbers of its pieces, as runs, of which an append-only list has
one, however long it is.

Pieces are numbered within a series, which one writer after the other continues; two that continue
it from the same checkpoint part ways, and one of them begins a series of its own.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple

import ormsgpack

from kvstore.integrations.langgraph_dictionary import DICTIONARY_1

__all__ = [
    "Piece",
    "Run",
    "Typed",
    "joined",
    "matched",
    "pack",
    "pieces_of",
    "runs_of",
    "split",
    "unpack",
]

Typed = tuple[str, bytes]  # what a serializer makes of a value: its kind, and the bytes


class Piece(NamedTuple):
    """Where a piece is: in a series, the how many-th."""

    series: str
    number: int


Run = Sequence[Any]  # series, first piece, the one after the last

# Packing

# What the bytes of a checkpoint begin with: how they are packed.
_PLAIN: Final = b"\0"
_DEFLATED: Final = b"\1"  # with the dictionary of that number

_WORTH_BYTES: Final = 96  # below this, deflating saves nothing
_SHORT_BYTES: Final = 4096  # what is deflated by a copy of `_DEFLATE`, whose window it fits with
_DEFLATE: Final = zlib.compressobj(level=4, wbits=13, memLevel=5, zdict=DICTIONARY_1)


def pack(content: Any) -> str:
    """Return content of plain types and bytes as a short text, which JSON takes as it is."""
    data = ormsgpack.packb(content)
    packed = _PLAIN + data
    if len(data) >= _WORTH_BYTES:
        if len(data) <= _SHORT_BYTES:  # a copy has a tenth of the memory to fill, and of the cache
            deflate = _DEFLATE.copy()
        else:
            deflate = zlib.compressobj(level=6, zdict=DICTIONARY_1)
        short = deflate.compress(data) + deflate.flush()
        if len(short) < len(data):
            packed = _DEFLATED + short
    return binascii.b2a_base64(packed, newline=False).decode("ascii")


def unpack(text: str) -> Any:
    """Return what `pack` was given, tuples as lists.

    Raises:
        ValueError: this is no text that `pack` made.
    """
    data = binascii.a2b_base64(text, strict_mode=True)
    how, body = data[:1], data[1:]
    if how == _DEFLATED:
        inflate = zlib.decompressobj(zdict=DICTIONARY_1)
        try:
            body = inflate.decompress(body) + inflate.flush()
        except zlib.error as exc:
            raise ValueError(str(exc)) from exc
        if not inflate.eof:
            raise ValueError("the data is cut off")
    elif how != _PLAIN:
        raise ValueError(f"packed in a way that this version does not know: {how!r}")
    return ormsgpack.unpackb(body)


# Pieces of a value

_SMALL_TEXT: Final = 32  # characters
_GROUP: Final = 64  # small elements in one piece, at most
_SMALL: Final = frozenset((str, int, float, bool, NoneType))


def split(value: Any) -> tuple[str, list[Any]]:
    """Cut a value into pieces; return what it is made of them by, for `joined`, and the pieces.

    Only what is exactly a list, or a dict with text for keys, is cut; all else is one piece.
    """
    if type(value) is list:
        return "list", _grouped(value)
    if type(value) is dict and all(type(key) is str for key in value):
        return "dict", [[[key, element]] for key, element in value.items()]
    return "whole", [value]


def _grouped(elements: list[Any]) -> list[list[Any]]:
    """Return the elements in lists of one, or of more where they are small."""
    if _SMALL.isdisjoint(map(type, elements)):  # a chat, mostly
        return [[element] for element in elements]
    groups: list[list[Any]] = []
    small: list[Any] = []
    for element in elements:
        if not _is_small(element):
            small = []
            groups.append([element])
            continue
        if not small or len(small) == _GROUP:
            small = []
            groups.append(small)
        small.append(element)
    return groups


def _is_small(element: Any) -> bool:
    kind = type(element)
    return len(element) <= _SMALL_TEXT if kind is str else kind in _SMALL


def joined(kind: str, pieces: Sequence[Any]) -> Any:
    """Return the value that `split` has cut."""
    if kind == "list":
        return [element for piece in pieces for element in piece]
    if kind == "dict":
        return {key: element for piece in pieces for key, element in piece}
    (whole,) = pieces
    return whole


# What two values share


def matched(
    states: list[bytes], known: list[bytes], where: Sequence[Piece]
) -> tuple[int, list[Piece | None]]:
    """Find where the pieces of a value are stored already.

    Args:
        states: of the pieces of a value.
        known: of the pieces that the parent's value has.
        where: where these are.

    Returns:
        How many pieces it begins with that are all of the parent's; and of each of the others,
        where the same one is; `None`: nowhere.
    """
    same = at = len(known) if states[: len(known)] == known else 0  # mostly, it has grown
    found: list[Piece | None] = []
    places: dict[bytes, int] | None = None
    for state in states[at:]:
        if at < len(known) and known[at] == state:
            found.append(where[at])
            at += 1
            continue
        if places is None:
            places = {each: index for index, each in enumerate(known)}
        index = places.get(state)
        if index is None:
            found.append(None)
        else:
            found.append(where[index])
            at = index + 1
    return same, found


def runs_of(pieces: Iterable[Piece], before: Iterable[Run] = ()) -> list[Run]:
    """Return pieces as runs of consecutive ones, which go on from those of others."""
    runs = [*before]
    for series, number in pieces:
        if runs and runs[-1][0] == series and runs[-1][2] == number:
            runs[-1] = (series, runs[-1][1], number + 1)
        else:
            runs.append((series, number, number + 1))
    return runs


def pieces_of(runs: Iterable[Run]) -> list[Piece]:
    """Return the pieces that runs are of."""
    return [Piece(series, number) for series, start, stop in runs for number in range(start, stop)]
