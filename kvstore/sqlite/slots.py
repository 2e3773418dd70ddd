"""How the texts of an item are told apart in the index: each has a slot, and a hash of 16 bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from kvstore.text import texts_of

__all__ = [
    "FREE",
    "HASH_BYTES",
    "ITEM_BITS",
    "ITEM_MASK",
    "MAX_SLOTS",
    "Entries",
    "codes_of",
    "hashed",
]

# A vector's rowid is the item's id, and above it the slot. In that order, because sqlite-vec 0.1.9
# compares only the low 32 bits of the rowids that a search is restricted to (`_cmp` in its
# sqlite-vec.c): so it confuses but vectors of one item, and all of them are in the list anyway.
ITEM_BITS = 40
ITEM_MASK = (1 << ITEM_BITS) - 1
MAX_SLOTS = 1 << 20
HASH_BYTES = 16
FREE = bytes(HASH_BYTES)  # in the place of a hash: nothing is in the slot


@dataclass(slots=True)
class Entries:
    """What the index is to hold of an item, and what it holds.

    Attributes:
        item: its id; `None`: not there yet.
        path: its namespace.
        texts: by their hashes, in order.
        slots: the hashes in the index; `None`: nothing is.
        length: how many words are.
        vectors: the new ones; `None`: left out.
    """

    item: int | None
    path: str
    texts: dict[bytes, str]
    slots: list[bytes] | None
    length: int
    is_pending: bool
    vectors: dict[bytes, bytes | None] = field(default_factory=dict)

    @property
    def is_unchanged(self) -> bool:
        """Whether the index holds just that."""
        return (
            not self.is_pending
            and (self.slots is not None or not self.texts)
            and self.texts.keys() == set(self.slots or ()) - {FREE}
        )


def hashed(value: Any, fields: Iterable[str]) -> dict[bytes, str]:
    """Return the texts of a value, in order, by their hashes."""
    return {
        blake2b(text.encode(), digest_size=HASH_BYTES).digest(): text
        for text in texts_of(value, fields)
    }


def codes_of(slots: bytes) -> list[bytes]:
    """Return the hashes that `index_entries` has of an item, by their slots."""
    return [slots[at : at + HASH_BYTES] for at in range(0, len(slots), HASH_BYTES)]
