"""What a search index holds of an item: decided here once, for every backend.

Each text of an item has a code, by which an index knows what it holds: so only what has changed is
embedded and written. So has each vector that the item was put with, if it was; its texts have other
codes then, as no vector is made of them, but one is as soon as it is put without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from kvstore import codec
from kvstore.description import Description, IndexSetup
from kvstore.errors import IndexMismatchError, ValueTooLargeError
from kvstore.operations import Put, UnembeddedError
from kvstore.own_vectors import OwnVectors
from kvstore.plan import Address, Vectors
from kvstore.ranking import MOST_COUNTED
from kvstore.rules import WORDS_ALONE
from kvstore.text import texts_of, words_of

__all__ = [
    "CODE_BYTES",
    "MOST_TEXTS",
    "LatelyPut",
    "VectorFinder",
    "Wanted",
    "Words",
    "adopt",
    "coded",
    "codes_in",
    "complete",
    "has_own",
    "is_as_wanted",
    "require_adopted",
    "texts_of_put",
    "texts_of_row",
    "unembedded",
]

CODE_BYTES = 16
MOST_TEXTS = 1 << 20  # of one item
_MOST_REMEMBERED = 4096  # items
_OWN = b"\xffvector\xff"  # how the code of a vector begins that an item was put with


def coded(value: Any, fields: Iterable[str]) -> dict[bytes, str]:
    """Return the texts of a value at some paths, by their codes."""
    return {_hash(text.encode(), CODE_BYTES): text for text in texts_of(value, fields)}


def texts_of_row(
    value: Any, indexing: Iterable[str] | None, description: Description
) -> dict[bytes, str]:
    """Return the texts of an item by their codes, of its own paths if it has some."""
    if _is_silent(indexing):
        return _silenced(coded(value, description.fields))
    return coded(value, description.fields if indexing is None else indexing)


def texts_of_put(op: Put, fields: tuple[str, ...]) -> dict[bytes, str]:
    """Return the texts of a put by their codes; they are found once, however often it is tried."""
    if op.indexing is not None:
        fields = op.indexing
    if op.planned is None or op.planned[0] != fields:
        op.planned = fields, coded(codec.decode(op.data), fields)
    return op.planned[1]


class LatelyPut:
    """The texts that a store has put its items with lately: those have their vectors.

    Unless another process has changed them, and then the write itself tells.
    """

    def __init__(self) -> None:
        self._codes: dict[Address, tuple[bytes, ...]] = {}

    def knows(self, puts: Iterable[Put], fields: tuple[str, ...]) -> bool:
        """Whether no text is new; what has no texts goes in the order of the calls, too."""
        known = True
        if len(self._codes) > _MOST_REMEMBERED:
            self._codes.clear()
        for op in puts:
            codes = tuple(texts_of_put(op, fields))
            if codes:
                known &= self._codes.get((op.path, op.key)) == codes
            self._codes[op.path, op.key] = codes
        return known


def codes_in(stored: bytes) -> list[bytes]:
    """Return the codes that stand one after the other."""
    return [stored[at : at + CODE_BYTES] for at in range(0, len(stored), CODE_BYTES)]


def is_as_wanted(held: Collection[bytes], texts: Collection[bytes]) -> bool:
    """Whether the codes that an index holds of an item are those of its texts."""
    own = _own_among(held)
    return set(held) == ({*map(_silent, texts), *own} if own else set(texts))


def has_own(held: Iterable[bytes]) -> bool:
    """Whether an item whose codes those are was put with vectors."""
    return bool(_own_among(held))


def _hash(data: bytes, size: int) -> bytes:
    return blake2b(data, digest_size=size).digest()


def _is_silent(indexing: Iterable[str] | None) -> bool:
    return indexing is not None and tuple(indexing) == WORDS_ALONE


def _silenced(texts: Mapping[bytes, str]) -> dict[bytes, str]:
    """Return texts by the codes that they have where no vector is made of them."""
    return {_silent(code): text for code, text in texts.items()}


def _silent(code: bytes) -> bytes:
    return code[::-1]


def _own_among(codes: Iterable[bytes]) -> list[bytes]:
    return [code for code in codes if code.startswith(_OWN)]


def adopt(description: Description, brought: IndexSetup) -> tuple[bool, bool]:
    """Make the description of an index that of a store.

    Returns:
        Whether the vectors that it has are to be dropped, and whether every item is to be marked.
    """
    has_other_model = brought.mismatch(description) is not None
    has_other_fields = brought.fields != description.fields
    if has_other_model:
        description.model, description.dimensions = brought.model or brought.own, None
        description.epoch += 1
    description.fields = brought.fields
    if has_other_model or has_other_fields:
        description.has_all_vectors = False
        description.has_all_words &= not has_other_fields
    return has_other_model, has_other_model or has_other_fields


def require_adopted(description: Description, brought: IndexSetup) -> None:
    """Raise `IndexMismatchError` if an index that was a store's is not any more."""
    mismatch = brought.mismatch(description)
    if mismatch is not None:
        raise IndexMismatchError(f"another store has changed the index meanwhile: {mismatch}")


def complete(description: Description, brought: IndexSetup) -> None:
    """Have it described that nothing is left to be indexed by a store."""
    description.has_all_words = True
    if description.model == brought.model or description.is_own:
        description.has_all_vectors = True


@dataclass(slots=True)
class Wanted:
    """What an index is to hold of an item.

    Attributes:
        texts: by their codes, in order.
        own: the codes of vectors that it was put with, and what they are, where that is new.
        is_silent: whether no vectors are made of its texts.
        vectors: the new ones, by code; empty: there is none; `None`: it is left out for now, and
            the item marked.
    """

    texts: dict[bytes, str]
    own: dict[bytes, bytes] = field(default_factory=dict)
    vectors: dict[bytes, bytes | None] = field(default_factory=dict)
    is_silent: bool = False

    @classmethod
    def of(
        cls, texts: dict[bytes, str], known: Vectors | None, kept: Iterable[bytes] = ()
    ) -> Wanted:
        """Return what is wanted of an item.

        Args:
            texts: those that it has, by code.
            known: what it is put with.
            kept: codes that the index holds, of an item that is as it was.

        Raises:
            ValueTooLargeError: they are too many.
        """
        own = {}
        if isinstance(known, OwnVectors):
            own = {_OWN + _hash(each, CODE_BYTES - len(_OWN)): each for each in known.vectors}
        elif kept:
            own = dict.fromkeys(_own_among(kept), b"")
        if own:
            texts = _silenced(texts)
        if len(texts) + len(own) > MOST_TEXTS:
            raise ValueTooLargeError(f"an item may have {MOST_TEXTS:,} texts, not {len(texts):,}")
        return cls(texts, own)

    @classmethod
    def of_row(
        cls,
        value: Any,
        indexing: Iterable[str] | None,
        description: Description,
        known: Vectors | None,
        kept: Iterable[bytes] = (),
    ) -> Wanted:
        """As `of`, of an item's value and the paths that are its own, if there are some."""
        wanted = cls.of(texts_of_row(value, indexing, description), known, kept)
        wanted.is_silent = _is_silent(indexing)
        return wanted

    @property
    def codes(self) -> Collection[bytes]:
        """All of them."""
        return [*self.texts, *self.own] if self.own else self.texts.keys()

    def is_held(self, held: Collection[bytes] | None) -> bool:
        """Whether an index that has those codes of an item, or nothing of it, has all and no more.

        There may be an item without any: one whose texts have no words, but none that has no texts.
        """
        codes = self.codes
        return (held is not None or not codes) and set(codes) == set(held or ())

    def has_one_of(self, texts: Collection[str]) -> bool:
        """Whether some texts hold one of its."""
        return any(text in texts for text in self.texts.values())


class VectorFinder:
    """Gives the new codes of the items of one unit their vectors.

    Args:
        description: of the index.
        brought: by the store, if it has an index.

    Attributes:
        missing: texts that need a vector.
    """

    def __init__(self, description: Description, brought: IndexSetup | None) -> None:
        self._description = description
        self._brought = brought
        self._dimensions = description.dimensions
        self._embeds = (
            brought is not None
            and brought.model is not None
            and brought.mismatch(description) is None
        )
        self.missing: dict[str, None] = {}

    def find(
        self,
        wanted: Wanted,
        held: Collection[bytes],
        known: Vectors | None,
        refused: Collection[str] = (),
    ) -> None:
        """Find the vectors of an item's codes, or note that some are missing.

        Args:
            wanted: of the item; gets them.
            held: the codes that the index has of it.
            known: what it is put with.
            refused: texts that the model does not take.

        Raises:
            InvalidArgumentError: the vectors that it is put with are not as long as the others.
            IndexMismatchError: they are of another model than those of the index.
        """
        if isinstance(known, OwnVectors):
            self._require(known)
        if wanted.own or wanted.is_silent or self._description.is_own:
            for code in wanted.codes:
                if code not in held:
                    wanted.vectors[code] = wanted.own.get(code, b"")
        elif self._description.model is not None:
            assert not isinstance(known, OwnVectors)
            self._find(wanted, held, known or {}, refused)

    def _find(
        self,
        wanted: Wanted,
        held: Collection[bytes],
        known: Mapping[str, bytes],
        refused: Collection[str],
    ) -> None:
        for code, text in wanted.texts.items():
            if code in held:
                continue
            vector = None
            if self._embeds and text not in refused:
                vector = known.get(text)
                if vector is None:
                    self.missing[text] = None
                    continue
                if vector and self._dimensions not in (None, len(vector) // 4):
                    vector = None  # the same name, but another model: see `IndexSetup.mismatch`
            wanted.vectors[code] = vector

    def _require(self, own: OwnVectors) -> None:
        """Refuse vectors that the index could not keep beside those that it has."""
        mismatch = None if self._brought is None else self._brought.mismatch(self._description)
        if mismatch is not None:
            raise IndexMismatchError(
                f"{mismatch}, so no vector can be added to it; 'await store.reindex()' makes it "
                "this store's"
            )
        own.require_length(self._dimensions)
        self._dimensions = own.dimensions

    def require_all(self) -> None:
        """Raise `UnembeddedError` if some are missing."""
        if self.missing:
            raise UnembeddedError(list(self.missing))


def unembedded(
    puts: Iterable[Put],
    held: Mapping[Address, Collection[bytes]],
    description: Description,
    brought: IndexSetup,
) -> list[str]:
    """Return the texts of puts that need a vector.

    Args:
        puts: whatever they come to.
        held: the codes that the index has of their items.
        description: of the index.
        brought: by the store.
    """
    finder = VectorFinder(description, brought)
    for op in puts:
        if not isinstance(op.vectors, OwnVectors):
            wanted = Wanted.of(texts_of_put(op, description.fields), op.vectors)
            finder.find(wanted, held.get((op.path, op.key), ()), op.vectors)
    return list(finder.missing)


class Words:
    """The words of an item's texts, as an index counts them.

    Args:
        texts: of the item.
        path: of its namespace.

    Attributes:
        counts: how often each word is there.
        length: how many words there are, and those by which the namespace is found: for itself,
            and for each one in which it lies.
    """

    __slots__ = ("_all", "counts", "length")

    def __init__(self, texts: Iterable[str], path: str) -> None:
        self._all = words_of(texts)
        self.counts = Counter(self._all)
        if len(self._all) > MOST_COUNTED and max(self.counts.values()) > MOST_COUNTED:
            for word, count in self.counts.items():
                self.counts[word] = min(count, MOST_COUNTED)
            self._all = list(self.counts.elements())
        self.length = len(self._all) + 1 + path.count("\t")

    @property
    def text(self) -> str:
        """All of them, with spaces between; their order is of no matter."""
        return " ".join(self._all)
