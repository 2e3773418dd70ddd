"""What the page draws: sizes, when items came and will go, and a map of the vectors.

The charts are of the first `_COUNTED` items of a subtree, the map of `_POINTS` from all over it;
each answer says of how many it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from starlette.requests import Request

from kvstore.distribution import how_to_install
from kvstore.embedding import numpy_or_none
from kvstore.errors import MissingDependencyError
from kvstore.namespace import decode_namespace, encode_namespace
from kvstore.operations import Record
from kvstore.store import Store
from kvstore.studio.asking import PAGE, namespace_of
from kvstore.types import Namespace

__all__ = ["charts", "embeddings", "stats"]

_COUNTED: Final = 20_000  # items
_PIECE: Final = 1_000  # of them in one read
_POINTS: Final = 2_000
_BARS: Final = 24  # of the time between the first and the last write
_SHOWN: Final = 6  # namespaces that have a colour of their own
_EXPIRIES: Final = (  # microseconds from now
    ("within an hour", 3_600 * 10**6),
    ("a day", 86_400 * 10**6),
    ("a week", 7 * 86_400 * 10**6),
    ("a month", 30 * 86_400 * 10**6),
)


async def stats(store: Store, request: Request) -> Any:
    """Return how much there is, and where."""
    found = await store.stats()
    roots = sorted(found.roots.items(), key=lambda entry: -entry[1].bytes)
    by_root = [{"label": root[0] if root else "", **asdict(each)} for root, each in roots[:PAGE]]
    return {**{name: getattr(found, name) for name in found.__dataclass_fields__}, "roots": by_root}


async def charts(store: Store, request: Request) -> Any:
    """Return when the items of a subtree came, how long they are, and when they will go."""
    namespace = namespace_of(request)
    path, after = encode_namespace(namespace), None
    records: list[Record] = []
    while len(records) < _COUNTED:
        piece, after = await store.backend.records(path, after, _PIECE)
        records += piece
        if after is None:
            break
    return {
        "of": len(records),
        "is_more": after is not None,
        "growth": _growth(records, len(namespace)),
        "sizes": _sizes(records),
        "expiry": _expiry(records, store.backend.now()),
    }


def _growth(records: Sequence[Record], depth: int) -> Any:
    """Count items by when they were made, and by the next label of their namespaces."""
    groups = _Groups([decode_namespace(record.path) for record in records], depth)
    if not records:
        return {"begin": None, "end": None, "groups": []}
    begin = min(record.created_at for record in records)
    end = max(record.created_at for record in records)
    span = max(1, end - begin + 1)
    counts = {name: [0] * _BARS for name in groups.names}
    for record, group in zip(records, groups.of_each, strict=True):
        counts[group][(record.created_at - begin) * _BARS // span] += 1
    found = [{"label": name, "counts": each} for name, each in counts.items()]
    return {"begin": begin / 1e6, "end": end / 1e6, "groups": found}


class _Groups:
    """Namespaces by their next label: the most frequent ones, and the rest as one.

    Attributes:
        names: of the groups, the largest first.
        of_each: the name of each namespace's.
    """

    def __init__(self, namespaces: Sequence[Namespace], depth: int) -> None:
        labels = [each[depth] if len(each) > depth else "" for each in namespaces]
        first = [label for label, _ in Counter(labels).most_common(_SHOWN)]
        self.names: list[str | None] = [*first]
        known = set(first)
        self.of_each = [label if label in known else None for label in labels]
        if None in self.of_each:
            self.names.append(None)


def _sizes(records: Sequence[Record]) -> Any:
    """Count values by their lengths, in powers of two."""
    counts = Counter(max(0, (len(record.data) - 1).bit_length()) for record in records)
    if not counts:
        return []
    return [[2**power, counts[power]] for power in range(min(counts), max(counts) + 1)]


def _expiry(records: Sequence[Record], now: int) -> Any:
    """Count items by when they will go."""
    counts = dict.fromkeys([*(name for name, _ in _EXPIRIES), "later", "never"], 0)
    for record in records:
        if record.expires_at is None:
            counts["never"] += 1
            continue
        left = record.expires_at - now
        counts[next((name for name, most in _EXPIRIES if left <= most), "later")] += 1
    return list(counts.items())


async def embeddings(store: Store, request: Request) -> Any:
    """Return a map of vectors in two dimensions: what means the same lies near.

    The axes are those along which the vectors differ most (principal components).
    """
    namespace = namespace_of(request)
    found = await store.backend.sample_vectors(encode_namespace(namespace), _POINTS)
    if not found:
        return {"points": [], "groups": [], "kept": 0}
    spaces = [decode_namespace(path) for path, _, _ in found]
    groups = _Groups(spaces, len(namespace))
    places, kept = await asyncio.to_thread(_flat, [vector for _, _, vector in found])
    points = [
        {"namespace": space, "key": key, "group": groups.names.index(group), "at": place}
        for space, (_, key, _), group, place in zip(
            spaces, found, groups.of_each, places, strict=True
        )
    ]
    return {"points": points, "groups": groups.names, "kept": kept}


def _flat(vectors: Sequence[bytes]) -> tuple[list[list[float]], float]:
    """Return a place from 0 to 1 in both directions for each vector, and how much that tells.

    Source: Pearson, "On lines and planes of closest fit", 1901 (principal components).

    Raises:
        MissingDependencyError: there is no numpy.
    """
    numpy = numpy_or_none()
    if numpy is None:
        raise MissingDependencyError(f"a map needs numpy: {how_to_install('studio', 'numpy')}")
    rows = numpy.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), -1)
    centred = rows.astype("f8") - rows.mean(axis=0, dtype="f8")
    values, axes = numpy.linalg.eigh(centred.T @ centred)
    flat = centred @ axes[:, ::-1][:, :2]
    if flat.shape[1] < 2:
        flat = numpy.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    low, high = flat.min(axis=0), flat.max(axis=0)
    places = (flat - low) / numpy.where(high > low, high - low, 1.0)
    whole = float(values.sum())
    return places.tolist(), float(values[::-1][:2].sum()) / whole if whole > 0 else 1.0
