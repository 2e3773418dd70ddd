"""Where the vectors of an item are: each of its codes (`kvstore.index_plan`) has a slot."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.errors import StoreCorruptError
from kvstore.index_plan import CODE_BYTES, Wanted, codes_in

__all__ = [
    "FREE",
    "ITEM_BITS",
    "ITEM_MASK",
    "Entries",
    "codes_held",
    "entries_of",
]

# A vector's rowid is the item's id, and above it the slot. In that order, because sqlite-vec 0.1.9
# compares only the low 32 bits of the rowids that a search is restricted to (`_cmp` in its
# sqlite-vec.c): so it confuses but vectors of one item, and all of them are in the list anyway.
ITEM_BITS = 40
ITEM_MASK = (1 << ITEM_BITS) - 1
FREE = bytes(CODE_BYTES)  # in the place of a code: nothing is in the slot


@dataclass(slots=True)
class Entries:
    """What the index is to hold of an item, and what it holds.

    Attributes:
        item: its id; `None`: not there yet.
        path: its namespace.
        wanted: what is to be there.
        slots: the codes in the index; `None`: nothing is.
        length: how many words are.
    """

    item: int | None
    path: str
    wanted: Wanted
    slots: list[bytes] | None
    length: int
    is_pending: bool

    @property
    def is_unchanged(self) -> bool:
        """Whether the index holds just that."""
        held = None if self.slots is None else set(self.slots) - {FREE}
        return not self.is_pending and self.wanted.is_held(held)


def entries_of(
    item: int | None,
    path: str,
    wanted: Wanted,
    slots: bytes | None,
    length: int | None,
    is_pending: int,
) -> Entries:
    """Return what is wanted of an item, and what `index_entries` has of it."""
    held = None if slots is None else codes_held(slots)
    return Entries(item, path, wanted, held, length or 0, bool(is_pending))


def codes_held(slots: bytes) -> list[bytes]:
    """Return the codes that `index_entries` has of an item.

    Raises:
        StoreCorruptError: they are not as they were written.
    """
    if type(slots) is not bytes:
        raise StoreCorruptError(
            "an entry of the search index is damaged; restore the file from a backup"
        )
    return codes_in(slots)
