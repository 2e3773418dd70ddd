"""The write side of the search index: an item and its entries change in one transaction.

Every writer goes by the description of the root (kvstore/postgres/index_setup.py). One that has
not the index's model leaves an item's new texts without vectors, and marks the item for `reindex`.

- `kvstore_entries` has a row for each indexed item: a hash of each text, so that only what has
  changed is embedded and written, and its words (kvstore/text.py, as in the other backends), with
  a GIN index. They are kept as an array of hashes and not as a `tsvector`, which refuses more than
  1 MB of words, and words of more than 2 KB.
- `kvstore_terms` and `kvstore_roots` have the numbers that BM25 needs, so that a ranking is the
  one that the other backends give.
- `kvstore_vectors_of_N` has a row for each distinct text of an item whose vector has N numbers. It
  has an HNSW index from the beginning.
- `kvstore_facts` makes filters by equality quick among many vectors: see
  kvstore/postgres/codes.py.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from struct import pack
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

from kvstore import codec
from kvstore.description import Description, IndexSetup
from kvstore.index_plan import (
    VectorFinder,
    Wanted,
    adopt,
    codes_in,
    complete,
    require_adopted,
)
from kvstore.operations import Reindex
from kvstore.paths import Path
from kvstore.plan import Vectors
from kvstore.postgres import index_statements as sql
from kvstore.postgres.codes import Terms, scalars_of
from kvstore.postgres.connection import Connection
from kvstore.postgres.keys import Address
from kvstore.postgres.session import quoted
from kvstore.rules import unpack_indexing

__all__ = [
    "Entry",
    "IndexChanges",
    "Indexer",
    "Setup",
    "embeds",
    "numbers_of",
    "vectors_table",
]

_ROWS_AT_ONCE = 500


class Entry(NamedTuple):
    """An item that is about to be written, as the search index has to know it."""

    path: str
    key: str  # encoded
    data: bytes
    indexing: tuple[str, ...] | None
    vectors: Vectors | None
    keeps_own: bool = False  # it is as it was, with the vectors that it was put with


def vectors_table(length: int) -> str:
    """Return the name of the table that holds vectors of a length."""
    return f"kvstore_vectors_of_{length}"


def embeds(description: Description) -> bool:
    """Whether the texts of an index have vectors."""
    return description.model is not None and not description.is_own


@dataclass(slots=True)
class Setup(IndexSetup):
    """What one store brings along for the index.

    Attributes:
        schema: where pgvector is; empty: not known yet.
        lengths: of the vectors for which there are tables, as far as that is known.
        declared: the paths whose scalars are kept in order, and their fields.
    """

    schema: str = ""
    lengths: set[int] = field(default_factory=set)
    declared: dict[Path, str] = field(default_factory=dict)

    @property
    def has_vectors(self) -> bool:
        """Whether there are some in the index, as far as that is known."""
        return bool(self.lengths or self.dimensions)

    def forget_tables(self) -> set[int]:
        """Forget what was known of tables and pgvector, and return for which lengths they were."""
        known = self.lengths | ({self.dimensions} if self.dimensions else set())
        self.schema, self.lengths = "", set()
        return known


class _Held(NamedTuple):
    """What the index holds of an item: the hashes of its texts (`None`: no entry), its scalars."""

    texts: frozenset[bytes] | None = None
    scalars: list[int] | None = None
    is_pending: bool = False

    @property
    def hashes(self) -> frozenset[bytes]:
        """Those of its texts, if it has an entry."""
        return self.texts or frozenset()


_NOTHING = _Held()


@dataclass(slots=True)
class _Indexed:
    """An item in the index, and what is to be there at the transaction's end.

    Attributes:
        stored: in the tables.
        held: as of now.
        words: to be written; `None`: they are as they were.
        vectors: to be written, by the hashes of their texts.
    """

    stored: _Held = _NOTHING
    held: _Held = _NOTHING
    words: Terms | None = None
    vectors: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Plan:
    """What the index is to hold of an item.

    Attributes:
        scalars: of its value, if it has vectors.
    """

    address: Address
    wanted: Wanted
    scalars: list[int] | None


class Indexer:
    """The search index under one root, in one transaction: what is written, it indexes first.

    Units are planned and applied to a picture of what the tables hold; `take_changes` gives what
    has become of it.

    Args:
        description: of the index, as `kvstore_roots` has it.
        setup: of the store, if it has an index.
    """

    def __init__(self, description: str, setup: Setup | None) -> None:
        self._description = Description.parse(description)
        self._text = self._description.text
        self._setup = setup
        self._states: dict[Address, _Indexed] = {}
        self._changed: dict[Address, _Indexed] = {}

    def learn(
        self, path: str, key: str, texts: bytes | None, scalars: list[int] | None, is_pending: bool
    ) -> None:
        """Take note of what the index holds of an item."""
        held = _Held(None if texts is None else frozenset(codes_in(texts)), scalars, is_pending)
        self._states[path, key] = _Indexed(held, held)

    @property
    def is_changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self._changed) or self._description.text != self._text

    @property
    def has_vectors(self) -> bool:
        """Whether vectors are among that."""
        has_model = self._description.model is not None
        return any(
            state.vectors or (has_model and state.stored.hashes - state.held.hashes)
            for state in self._changed.values()
        )

    # Units

    def plan(
        self,
        entries: Sequence[Entry],
        refused: Collection[str] = (),
        *,
        leaves_vectors: bool = False,
    ) -> list[_Plan]:
        """Find out what the index is to hold of the items that a unit puts.

        Args:
            entries: the items.
            refused: texts that the model does not take.
            leaves_vectors: to `reindex`, as if the store had no model.

        Raises:
            UnembeddedError: some of their texts need vectors.
        """
        finder = VectorFinder(self._description, None if leaves_vectors else self._setup)
        plans = []
        for entry in entries:
            plan = self._plan(entry)
            if plan is not None:
                plans.append(plan)
                held = self._states[plan.address].held.hashes
                finder.find(plan.wanted, held, entry.vectors, refused)
        finder.require_all()
        return plans

    def _plan(self, entry: Entry) -> _Plan | None:
        description = self._description
        value = codec.decode(entry.data)
        # What was not looked up is an entry of a log, or a job: a key that was never there
        held = self._states.setdefault((entry.path, entry.key), _Indexed()).held
        kept = held.hashes if entry.keeps_own else ()
        wanted = Wanted.of_row(value, entry.indexing, description, entry.vectors, kept)
        has_scalars = wanted.own or (wanted.texts and embeds(description))
        scalars = scalars_of(value) if has_scalars else None
        if not held.is_pending and wanted.is_held(held.texts) and scalars == held.scalars:
            return None
        return _Plan((entry.path, entry.key), wanted, scalars)

    def put(self, planned: Any) -> None:
        """Apply what was planned for a unit."""
        for plan in planned:
            state = self._states[plan.address]
            wanted = plan.wanted
            all_codes = set(wanted.codes)
            codes = frozenset(
                code for code in all_codes if wanted.vectors.get(code, b"") is not None
            )
            held = state.held
            if held.texts is None or held.is_pending or held.texts != all_codes:
                state.words = Terms.of(wanted.texts.values(), plan.address[0])
            for code, vector in wanted.vectors.items():
                if vector:
                    state.vectors[code] = vector
            texts, is_pending = codes if all_codes else None, len(codes) < len(all_codes)
            state.held = _Held(texts, plan.scalars, is_pending)
            self._changed[plan.address] = state

    def delete(self, path: str, key: str) -> None:
        """Apply that an item is deleted."""
        state = self._states[path, key]
        if state.held.texts is None and not state.held.is_pending:
            return
        state.held, state.words = _NOTHING, None
        self._changed[path, key] = state

    def take_changes(self) -> IndexChanges:
        """Return what is to be written, which is taken for written from now on."""
        changed, self._changed = self._changed, {}
        vectors = [
            (address, code, vector)
            for address, state in changed.items()
            for code, vector in state.vectors.items()
            if code in state.held.hashes
        ]
        stale = [
            (address, code)
            for address, state in changed.items()
            for code in state.stored.hashes - state.held.hashes
        ]
        self._learn(vectors)
        description = self._description
        text = None if description.text == self._text else description.text
        self._text = description.text
        arguments = _arguments(changed) if changed else IndexChanges.NONE
        for state in changed.values():
            state.stored, state.words, state.vectors = state.held, None, {}
        if description.model is None or description.dimensions is None:
            return IndexChanges(text, arguments)
        table = vectors_table(description.dimensions)
        schema = "" if self._setup is None else self._setup.schema
        return IndexChanges(text, arguments, table, schema, vectors, stale)

    def _learn(self, vectors: Sequence[tuple[Address, bytes, bytes]]) -> None:
        """Describe what the first vectors make of an index that had none."""
        if not vectors:
            return
        description = self._description
        if description.model is None:
            assert self._setup is not None
            description.model = self._setup.own
            description.has_all_vectors = True
        if description.dimensions is None:
            description.dimensions = len(vectors[0][2]) // 4

    # Reindexing

    def adopt(self) -> tuple[str | None, bool]:
        """Make the description the store's own.

        Returns:
            The table from which the root's vectors are to be dropped, if they are, and whether all
            its items are to be marked.
        """
        description = self._description
        if self._setup is None:
            return None, False
        length = description.dimensions
        is_dropped, is_marked = adopt(description, self._setup)
        return vectors_table(length) if is_dropped and length else None, is_marked

    def reindex(self, rows: Sequence[Any], op: Reindex) -> list[Address]:
        """Index marked items as they are in their table.

        Args:
            rows: of `index_statements.GET_PENDING`, without the place.
            op: by which this is done.

        Returns:
            Those that stay marked, as the model does not take their texts.

        Raises:
            UnembeddedError: some of their texts need vectors, and nothing is done.
            IndexMismatchError: the index has become another store's.
        """
        assert self._setup is not None
        require_adopted(self._description, self._setup)
        entries = []
        for path, key, value, indexing, *held in rows:
            self.learn(path, key, *held)
            if value is None:  # the item is gone
                self.delete(path, key)
                continue
            paths = unpack_indexing(indexing)
            entries.append(Entry(path, key, value.encode(), paths, op.vectors, True))
        plans = self.plan(entries, op.refused)
        self.put(plans)
        return [plan.address for plan in plans if plan.wanted.has_one_of(op.refused)]

    def complete(self) -> None:
        """Have it described that nothing is left to be indexed."""
        if self._setup is not None:
            require_adopted(self._description, self._setup)
            complete(self._description, self._setup)


@dataclass(slots=True)
class IndexChanges:
    """What is to be written to the index of a root.

    Attributes:
        description: the new one; `None`: it stays.
        arguments: those of `kvstore_write` from `gone_paths` on.
        table: of the vectors.
        schema: of pgvector.
        vectors: to be put: address, code, vector.
        stale: whose vectors go, as far as they have any.
    """

    NONE: ClassVar[Sequence[Any]] = (None,) * 22

    description: str | None
    arguments: Sequence[Any]
    table: str = ""
    schema: str = ""
    vectors: Sequence[tuple[Address, bytes, bytes]] = ()
    stale: Sequence[tuple[Address, bytes]] = ()

    async def write_vectors(self, connection: Connection, root: str) -> None:
        """Write what is no part of the call."""
        if self.stale:
            delete = sql.DELETE_VECTOR.format(table=self.table)
            gone = [(root, *address, code) for address, code in self.stale]
            await connection.executemany(delete, gone)
        if self.vectors:
            await _teach_vectors(connection, self.schema)
        put = sql.PUT_VECTORS.format(table=self.table, schema=quoted(self.schema))
        for at in range(0, len(self.vectors), _ROWS_AT_ONCE):
            addresses, codes, vectors = zip(*self.vectors[at : at + _ROWS_AT_ONCE], strict=True)
            await connection.execute(put, root, *_columns(addresses), codes, vectors)


def _arguments(changed: Mapping[Address, _Indexed]) -> Sequence[Any]:
    """Return what changes in words, scalars and marks; lists of lists go as one, and their ends."""
    gone, gone_scalars = [], []
    entries: dict[Address, Terms] = {}
    scalars: dict[Address, list[int]] = {}
    for at, state in changed.items():
        stored, held = state.stored, state.held
        if stored.texts is not None and (held.texts is None or state.words is not None):
            gone.append(at)
        if held.texts is not None and state.words is not None:
            entries[at] = state.words
        if held.scalars is None and stored.scalars is not None:
            gone_scalars.append(at)
        if held.scalars is not None and held.scalars != stored.scalars:
            scalars[at] = held.scalars
    marked = [at for at, each in changed.items() if each.held.is_pending > each.stored.is_pending]
    unmarked = [at for at, each in changed.items() if each.stored.is_pending > each.held.is_pending]
    numbers = Counter(chain.from_iterable(terms.numbers for terms in entries.values()))
    return (
        *_columns(gone),
        *_columns(entries),
        [b"".join(sorted(changed[at].held.hashes)) for at in entries],
        [terms.length for terms in entries.values()],
        *_joined([terms.numbers for terms in entries.values()]),
        *_joined([terms.counts for terms in entries.values()]),
        *_columns(gone_scalars),
        *_columns(scalars),
        *_joined(list(scalars.values())),
        *_columns(marked),
        *_columns(unmarked),
        list(numbers),
        list(numbers.values()),
    )


def _columns(addresses: Collection[Address]) -> tuple[list[str] | None, list[str] | None]:
    """Return addresses as the columns path and key; `None` spares the driver an empty one."""
    if not addresses:
        return None, None
    return [path for path, _ in addresses], [key for _, key in addresses]


def _joined(lists: Sequence[list[int]]) -> tuple[list[int] | None, list[int] | None]:
    """Return the lists as one, and where each ends."""
    if not lists:
        return None, None
    return list(chain.from_iterable(lists)), list(accumulate(map(len, lists)))


_TAUGHT: WeakSet[Any] = WeakSet()  # connections
_SENT_HEAD = 4  # bytes of a vector, as pgvector sends and receives it, before its numbers


async def _teach_vectors(connection: Connection, schema: str) -> None:
    """Have the driver send vectors as they are; it knows no such type by itself."""
    if connection not in _TAUGHT:
        await connection.set_type_codec(
            "vector", schema=schema, encoder=_packed, decoder=bytes, format="binary"
        )
        _TAUGHT.add(connection)


def _packed(vector: bytes) -> bytes:
    """Return a vector as pgvector receives it: two numbers of 16 bits, then floats, big-endian."""
    return pack(">HH", len(vector) // 4, 0) + _swapped(vector)


def numbers_of(sent: bytes) -> bytes:
    """Return the numbers of a vector as pgvector sends it: float32, as this machine has them."""
    return _swapped(sent[_SENT_HEAD:])


def _swapped(floats: bytes) -> bytes:
    """Turn floats of 32 bits from this machine's order of bytes to the network's, or back."""
    numbers = array("f", floats)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()
