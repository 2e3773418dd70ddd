"""Vectors that the caller has computed elsewhere, checked: of an item, or of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvstore.embedding import unit_vector
from kvstore.errors import InvalidArgumentError

__all__ = ["Given", "OwnVectors", "item_vectors", "query_vector"]

Given = Any  # one vector, or some: each a sequence of numbers, such as a list or a numpy array


@dataclass(frozen=True, slots=True)
class OwnVectors:
    """The vectors that an item was put with: the model is not asked for it.

    Attributes:
        vectors: distinct, each float32 at unit length, or empty if it has no direction.
        dimensions: how many numbers each of them has.
    """

    vectors: tuple[bytes, ...]
    dimensions: int

    def require_length(self, dimensions: int | None) -> None:
        """Raise `InvalidArgumentError` unless they are as long as those of an index."""
        if dimensions not in (None, self.dimensions):
            raise InvalidArgumentError(
                f"vector has {self.dimensions:,} numbers, and the vectors of the index have "
                f"{dimensions:,}"
            )


def item_vectors(given: Given, fields: Sequence[str], most: int | None) -> OwnVectors:
    """Check the vectors that an item is put with.

    Args:
        given: the item's vector; one for each field, in their order; or by field one vector, or
            several, such as one for each element of a list.
        fields: the paths that are indexed of the item.
        most: how many numbers a vector may have at most; `None`: any number.

    Raises:
        InvalidArgumentError: it is none of these, or a number is not finite.
    """
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in fields]
        if unknown:
            raise InvalidArgumentError(
                f"vector has one for {unknown[0]!r}, and of this item are indexed: {list(fields)}"
            )
        found = [vector for some in given.values() for vector in _each(some)]
    else:
        found = _each(given)
        is_one = len(found) == 1 and found[0] is given
        if not is_one and len(found) != len(fields):
            raise InvalidArgumentError(
                f"vector holds {len(found)} vectors for {len(fields)} fields: give one for the "
                "item, one for each field, or a mapping from fields to vectors"
            )
    if not found:
        raise InvalidArgumentError("vector holds none: leave it out, and the model is asked")
    checked = [query_vector(vector, most) for vector in found]
    lengths = {length for _, length in checked}
    if len(lengths) > 1:
        raise InvalidArgumentError(f"the vectors of an item have {sorted(lengths)} numbers")
    return OwnVectors(tuple(dict.fromkeys(vector for vector, _ in checked)), lengths.pop())


def query_vector(given: Given, most: int | None = None) -> tuple[bytes, int]:
    """Return one vector, as `OwnVectors` has them, and its length.

    Raises:
        InvalidArgumentError: it is none.
    """
    try:
        vector, length = unit_vector(given), len(given)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidArgumentError(f"vector is no vector: {exc}") from None
    if most is not None and length > most:
        raise InvalidArgumentError(
            f"vector has {length:,} numbers, and this store takes at most {most:,}"
        )
    return vector, length


def _each(given: Given) -> list[Any]:
    """Return the vectors in what may be one or several."""
    try:
        first = None if isinstance(given, (str, bytes)) else given[0]
    except (IndexError, KeyError, TypeError):
        return [given]
    return list(given) if hasattr(first, "__len__") else [given]
