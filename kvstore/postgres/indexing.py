"""The write side of the search index: an item and its entries change in one transaction.

The index of a database has one description, kept in `kvstore_state`: the fields, the model, the
length of its vectors. Every writer goes by it, whatever it was opened with, so the index is the
same whoever writes. A writer that has not the index's model leaves an item's new texts without
vectors, and marks the item for `reindex`.

- `kvstore_entries` has a row for each indexed item: a hash of each text, so that only what has
  changed is embedded and written, and its words (kvstore/text.py, as in the other backends), with
  a GIN index. They are kept as an array of hashes and not as a `tsvector`, which refuses more than
  1 MB of words, and words of more than 2 KB.
- `kvstore_terms` and `kvstore_corpus` have the numbers that BM25 needs, so that a ranking is the
  one that the other backends give.
- `kvstore_vectors_N` has a row for each distinct text of an item. N is the description's epoch,
  which grows when vectors are dropped as a whole: so a search that was begun before cannot read
  another model's. It has an HNSW index from the beginning.
- `kvstore_facts` makes filters by equality quick among many vectors: see kvstore/postgres/facts.py.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate, chain
from struct import pack
from typing import Any
from weakref import WeakSet

import orjson

from kvstore import codec
from kvstore.caching import cache_short
from kvstore.description import Description, IndexSetup
from kvstore.errors import (
    MissingDependencyError,
)
from kvstore.index_plan import (
    VectorFinder,
    Wanted,
    Words,
    adopt,
    coded,
    codes_in,
    complete,
    has_own,
    is_as_wanted,
    require_adopted,
)
from kvstore.namespace import decode_namespace, show
from kvstore.operations import Reindex
from kvstore.postgres import index_statements as sql
from kvstore.postgres.connection import Connection, DriverError, snapshot
from kvstore.postgres.facts import facts_of
from kvstore.postgres.keys import Address, decode_key, root_of
from kvstore.postgres.pool import Link
from kvstore.postgres.writing import Entry
from kvstore.report import WAITS
from kvstore.text import WORDS_REVISION

__all__ = [
    "Indexer",
    "Setup",
    "count_pending",
    "find_extension",
    "find_problems",
    "find_waiting",
    "namespace_term",
    "prepare_index",
    "quoted",
    "require_extension",
    "subtree_term",
    "term_of",
    "vectors_table",
]

MAX_INDEXED = 2_000  # of its HNSW index
MAX_HALF_INDEXED = 4_000  # of that over half precision
_ROWS_AT_ONCE = 500
_FIRST_VERSION = (0, 8)  # of pgvector with iterative scans

_CREATE_EXTENSION = (
    "semantic search needs the extension pgvector, 0.8 or newer, which this database {lacks}: have "
    "an administrator install it and run CREATE EXTENSION vector (or ALTER EXTENSION vector "
    "UPDATE) in it; everything else works without: open the store with IndexConfig() or no index"
)


# Description


async def _store(connection: Connection, description: Description) -> None:
    sql_text = "UPDATE kvstore_state SET index = $1, turn = turn + 1 WHERE id = 1"
    await connection.execute(sql_text, description.text)


@dataclass(slots=True)
class Setup(IndexSetup):
    """What one store brings along for the index.

    Attributes:
        schema: where pgvector is; empty: not known yet.
    """

    schema: str = ""


async def prepare_index(connection: Connection, setup: Setup) -> None:
    """Make the index of a database that has none; what it holds already is marked for `reindex`.

    Args:
        connection: in a write transaction.
        setup: of the store that has an index.

    Raises:
        MissingDependencyError: the store has a model, and the database no pgvector.
    """
    if setup.model is not None:
        await require_extension(connection, setup)
    text = await connection.fetchval("SELECT index FROM kvstore_state WHERE id = 1")
    is_new = not await connection.fetchval("SELECT EXISTS (SELECT 1 FROM kvstore_items)")
    if text is None:
        description = Description(setup.fields, setup.model, None, has_all_vectors=is_new)
    else:
        description = Description.parse(text)
        if description.words >= WORDS_REVISION:
            return
        for statement in sql.FORGET_WORDS:
            await connection.execute(statement)
    await connection.execute(sql.MARK_ALL)
    description.has_all_words = is_new
    description.words = WORDS_REVISION
    await _store(connection, description)


async def find_extension(connection: Connection, setup: Setup) -> None:
    """Find out where pgvector is, for a store that may write nothing.

    Raises:
        MissingDependencyError: there is none.
    """
    row = await connection.fetchrow(sql.GET_EXTENSION)
    if row is None:
        raise MissingDependencyError(_CREATE_EXTENSION.format(lacks="lacks"))
    setup.schema = _usable(*row)


async def require_extension(connection: Connection, setup: Setup) -> None:
    """Find out where pgvector is; create the extension if that is allowed.

    Raises:
        MissingDependencyError: there is none.
    """
    row = await connection.fetchrow(sql.GET_EXTENSION)
    if row is None:
        try:
            async with connection.transaction():
                await connection.execute(sql.CREATE_EXTENSION.format(quoted(connection.schema)))
        except DriverError as exc:
            if connection.is_closed():
                raise
            lacks = "lacks, and this user cannot create"
            raise MissingDependencyError(_CREATE_EXTENSION.format(lacks=lacks)) from exc
        row = await connection.fetchrow(sql.GET_EXTENSION)
    setup.schema = _usable(*row)


def _usable(schema: str, version: str) -> str:
    """Return the schema of an extension that is new enough."""
    if tuple(map(int, version.split(".")[:2])) < _FIRST_VERSION:
        raise MissingDependencyError(_CREATE_EXTENSION.format(lacks=f"has in version {version}"))
    return schema


def quoted(name: str) -> str:
    """Return an identifier as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


_TAUGHT: WeakSet[Any] = WeakSet()  # connections


async def _teach_vectors(connection: Connection, schema: str) -> None:
    """Have the driver send vectors as they are; it knows no such type by itself."""
    if connection not in _TAUGHT:
        await connection.set_type_codec(
            "vector", schema=schema, encoder=_packed, decoder=bytes, format="binary"
        )
        _TAUGHT.add(connection)


def _packed(vector: bytes) -> bytes:
    """Return a vector as pgvector receives it: two numbers of 16 bits, then floats, big-endian."""
    numbers = array("f", vector)
    if sys.byteorder == "little":
        numbers.byteswap()
    return pack(">HH", len(numbers), 0) + numbers.tobytes()


def vectors_table(description: Description) -> str:
    """Return the name of the table that holds the vectors."""
    return f"kvstore_vectors_{description.epoch}"


# Words and namespaces as numbers


@cache_short(65_536)
def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)


def namespace_term(path: str) -> int:
    """Return the term of the items of one namespace."""
    return _number("\nn" + path)  # no word has a line feed


def subtree_term(path: str) -> int:
    """Return the term of the items of a namespace and of those below it."""
    return _number("\ns" + path)


@cache_short(4096)
def _namespace_terms(path: str) -> list[int]:
    ends = [0, *(at + 1 for at, char in enumerate(path) if char == "\t")]
    return [namespace_term(path), *(subtree_term(path[:end]) for end in ends)]


def term_of(word: str) -> int:
    """Return the term of a word."""
    return _number(word)


@dataclass(slots=True)
class _Words:
    """The words of an item, as `kvstore_entries` holds them."""

    terms: list[int]
    counts: list[int]
    length: int

    @classmethod
    def of(cls, texts: Iterable[str], path: str) -> _Words:
        words = Words(texts, path)
        return cls(
            [*map(term_of, words.counts), *_namespace_terms(path)],
            list(words.counts.values()),
            words.length,
        )


# Writing


@dataclass(slots=True)
class _State:
    """What the index holds of an item, and what it is to hold at the transaction's end.

    Attributes:
        stored: the hashes of the texts in the tables; `None`: it has no entry there.
        stored_facts: those in the tables.
        was_pending: whether it is marked in the tables.
        texts: the hashes in the index, as of now; `None`: it has no entry.
        facts: as of now.
        is_pending: as of now.
        words: to be written; `None`: they are as they were.
        vectors: to be written, by the hashes of their texts.
    """

    stored: frozenset[bytes] | None = None
    stored_facts: list[int] | None = None
    was_pending: bool = False
    texts: frozenset[bytes] | None = None
    facts: list[int] | None = None
    is_pending: bool = False
    words: _Words | None = None
    vectors: dict[bytes, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: bytes | None, facts: list[int] | None, is_pending: bool) -> _State:
        held = None if texts is None else frozenset(codes_in(texts))
        return cls(held, facts, is_pending, held, facts, is_pending)


@dataclass(slots=True)
class _Plan:
    """What the index is to hold of an item.

    Attributes:
        facts: of its value, if it has vectors.
    """

    address: Address
    wanted: Wanted
    facts: list[int] | None


class Indexer:
    """The search index in one write transaction: what is written, it indexes before the commit.

    Units are planned and applied to a picture of what the tables hold; `flush` writes what has
    become of it, by one statement for each kind of row.

    Args:
        description: of the index, as `kvstore_state` has it.
        setup: of the store, if it has an index.
    """

    def __init__(self, description: str, setup: Setup | None) -> None:
        self._description = Description.parse(description)
        self._setup = setup
        self._states: dict[Address, _State] = {}
        self._changed: dict[Address, _State] = {}

    async def load(self, connection: Connection, addresses: Sequence[Address]) -> None:
        """Read what the index holds of some items."""
        rows = await connection.fetch(sql.LOAD, *_columns(addresses))
        for path, key, texts, facts, is_pending in rows:
            self._states[path, key] = _State.of(texts, facts, is_pending)

    # Units

    def plan(self, entries: Sequence[Entry], refused: Collection[str] = ()) -> list[_Plan]:
        """Find out what the index is to hold of the items that a unit puts.

        Args:
            entries: the items.
            refused: texts that the model does not take.

        Raises:
            UnembeddedError: some of their texts need vectors.
        """
        finder = VectorFinder(self._description, self._setup)
        plans = []
        for entry in entries:
            plan = self._plan(entry)
            if plan is not None:
                plans.append(plan)
                held = self._states[plan.address].texts or ()
                finder.find(plan.wanted, held, entry.vectors, refused)
        finder.require_all()
        return plans

    def _plan(self, entry: Entry) -> _Plan | None:
        description = self._description
        value = codec.decode(entry.data)
        fields = description.fields if entry.indexing is None else entry.indexing
        state = self._states[entry.path, entry.key]
        kept = state.texts or () if entry.keeps_own else ()
        wanted = Wanted.of(coded(value, fields), entry.vectors, kept)
        codes = wanted.codes
        has_facts = wanted.own or (wanted.texts and _embeds(description))
        facts = facts_of(value) if has_facts else None
        if (
            not state.is_pending
            and (state.texts is not None or not codes)
            and set(codes) == (state.texts or frozenset())
            and facts == state.facts
        ):
            return None
        return _Plan((entry.path, entry.key), wanted, facts)

    def put(self, planned: Any) -> None:
        """Apply what was planned for a unit."""
        for plan in planned:
            state = self._states[plan.address]
            wanted = plan.wanted
            all_codes = set(wanted.codes)
            codes = frozenset(
                code for code in all_codes if wanted.vectors.get(code, b"") is not None
            )
            if state.texts is None or state.is_pending or state.texts != all_codes:
                state.words = _Words.of(wanted.texts.values(), plan.address[0])
            for code, vector in wanted.vectors.items():
                if vector:
                    state.vectors[code] = vector
            state.texts = codes if all_codes else None
            state.facts = plan.facts
            state.is_pending = len(codes) < len(all_codes)
            self._changed[plan.address] = state

    def delete(self, path: str, key: str) -> None:
        """Apply that an item is deleted."""
        state = self._states[path, key]
        if state.texts is None and not state.is_pending:
            return
        state.texts = state.facts = state.words = None
        state.is_pending = False
        self._changed[path, key] = state

    async def flush(self, connection: Connection) -> None:
        """Write what has changed."""
        changed, self._changed = self._changed, {}
        if not changed:
            return
        await self._flush_entries(connection, changed)
        if self._description.model is None and any(state.vectors for state in changed.values()):
            await self._take_own_vectors(connection)
        if self._description.model is not None:
            await self._flush_vectors(connection, changed)
        unmarked = [
            at for at, state in changed.items() if state.was_pending and not state.is_pending
        ]
        if unmarked:
            await connection.execute(sql.UNMARK, *_columns(unmarked))
        marked = [at for at, state in changed.items() if state.is_pending > state.was_pending]
        if marked:
            await connection.execute(sql.MARK, *_columns(marked))
        for state in changed.values():
            state.stored, state.stored_facts = state.texts, state.facts
            state.was_pending, state.words = state.is_pending, None
            state.vectors.clear()

    async def _take_own_vectors(self, connection: Connection) -> None:
        """Begin to keep vectors, of an index that has no model."""
        assert self._setup is not None
        self._description.model = self._setup.own
        self._description.has_all_vectors = True
        await _store(connection, self._description)

    async def _flush_entries(
        self, connection: Connection, changed: Mapping[Address, _State]
    ) -> None:
        """Write words and scalars; arrays of arrays go as one array and the ends of its parts."""
        old = [
            at
            for at, state in changed.items()
            if state.stored is not None and (state.texts is None or state.words is not None)
        ]
        if old:
            await connection.execute(sql.DELETE_ENTRIES, *_columns(old))
        gone = [
            at
            for at, state in changed.items()
            if state.facts is None and state.stored_facts is not None
        ]
        if gone:
            await connection.execute(sql.DELETE_FACTS, *_columns(gone))
        entries: dict[Address, _Words] = {}
        facts: dict[Address, list[int]] = {}
        for address, state in changed.items():
            if state.texts is not None and state.words is not None:
                entries[address] = state.words
            if state.facts is not None and state.facts != state.stored_facts:
                facts[address] = state.facts
        if not entries and not facts:
            return
        numbers = Counter(term for words in entries.values() for term in words.terms)
        await connection.execute(
            sql.PUT_ENTRIES,
            *_columns(list(entries)),
            [b"".join(changed[address].texts or ()) for address in entries],
            [words.length for words in entries.values()],
            *_joined([words.terms for words in entries.values()]),
            *_joined([words.counts for words in entries.values()]),
            list(numbers),
            list(numbers.values()),
            *_columns(list(facts)),
            *_joined(list(facts.values())),
        )

    async def _flush_vectors(
        self, connection: Connection, changed: Mapping[Address, _State]
    ) -> None:
        description = self._description
        table = vectors_table(description)
        if description.dimensions is not None:
            gone = [
                (path, key, code)
                for (path, key), state in changed.items()
                for code in (state.stored or frozenset()) - (state.texts or frozenset())
            ]
            if gone:
                paths, keys, codes = zip(*gone, strict=True)
                delete = sql.DELETE_VECTORS.format(table=table)
                await connection.execute(delete, [root_of(path) for path in paths], paths, keys,
                                         codes)  # fmt: skip
        new = [
            (address, code, vector)
            for address, state in changed.items()
            for code, vector in state.vectors.items()
            if code in (state.texts or ())
        ]
        if not new:
            return
        if description.dimensions is None:
            await self._create_vectors(connection, len(new[0][2]) // 4)
        assert self._setup is not None
        put = sql.PUT_VECTORS.format(table=table, schema=quoted(self._setup.schema))
        await _teach_vectors(connection, self._setup.schema)
        for at in range(0, len(new), _ROWS_AT_ONCE):
            addresses, codes, vectors = zip(*new[at : at + _ROWS_AT_ONCE], strict=True)
            await connection.execute(put, *_columns(addresses), codes, vectors)

    async def _create_vectors(self, connection: Connection, dimensions: int) -> None:
        assert self._setup is not None
        schema, table = quoted(self._setup.schema), vectors_table(self._description)
        await connection.execute(
            sql.CREATE_VECTORS.format(table=table, schema=schema, dimensions=dimensions)
        )
        if dimensions <= MAX_HALF_INDEXED:
            index = sql.CREATE_HNSW if dimensions <= MAX_INDEXED else sql.CREATE_HALF_HNSW
            await connection.execute(
                index.format(table=table, schema=schema, dimensions=dimensions)
            )
        self._description.dimensions = dimensions
        await _store(connection, self._description)

    # What is deleted or restored as a whole

    async def dropped(self, connection: Connection, addresses: Sequence[Address]) -> None:
        """Drop the entries of items that were deleted."""
        for at in range(0, len(addresses), _ROWS_AT_ONCE):
            some = addresses[at : at + _ROWS_AT_ONCE]
            self._states.clear()
            await self.load(connection, some)
            for path, key in some:
                self.delete(path, key)
            await self.flush(connection)

    async def restored(self, connection: Connection, first_version: int) -> None:
        """Index what an import has written; its vectors are left to `reindex`."""
        setup, self._setup = self._setup, None
        try:
            async for rows in _slices(connection, sql.GET_SINCE, first_version):
                await self._index_rows(connection, rows)
        finally:
            self._setup = setup

    async def _index_rows(
        self,
        connection: Connection,
        rows: Sequence[Any],
        op: Reindex | None = None,
    ) -> list[_Plan]:
        """Index items as they are in their table.

        Args:
            connection: in a write transaction.
            rows: the items.
            op: by which this is done; `None`: they are new there.

        Raises:
            UnembeddedError: some of their texts need vectors, and nothing is done.
        """
        entries = []
        self._states.clear()
        for path, key, value, indexing, texts, facts, is_pending in rows:
            self._states[path, key] = _State.of(texts, facts, is_pending)
            paths = None if indexing is None else tuple(orjson.loads(indexing))
            vectors = None if op is None else op.vectors
            entries.append(Entry(path, key, value.encode(), paths, vectors, op is not None))
        plans = self.plan(entries, () if op is None else op.refused)
        self.put(plans)
        await self.flush(connection)
        return plans

    # Reindexing

    async def adopt(self, connection: Connection) -> int:
        """Make the index the store's own; return how many items are marked."""
        setup, description = self._setup, self._description
        if setup is None:
            return 0
        table = vectors_table(description)
        is_dropped, is_marked = adopt(description, setup)
        if is_dropped:
            await connection.execute(f"DROP TABLE IF EXISTS {table}")
            await connection.execute("UPDATE kvstore_entries SET texts = ''")
        if is_marked:
            await connection.execute(sql.MARK_ALL)
            await _store(connection, description)
            self._states.clear()
        return await count_pending(connection)

    async def reindex(
        self, connection: Connection, op: Reindex
    ) -> tuple[int, int, list[tuple[str, str]]]:
        """Index marked items, and answer what `Reindex` says.

        Raises:
            UnembeddedError: some of their texts need vectors.
            IndexMismatchError: the index has become another store's.
        """
        setup, description = self._setup, self._description
        if setup is None:
            return 0, 0, []
        require_adopted(description, setup)
        marked = await connection.fetch(sql.GET_PENDING, op.after, op.limit)
        if not marked:
            complete(description, setup)
            await _store(connection, description)
            return 0, 0, []
        rows = [tuple(row)[1:] for row in marked if row["value"] is not None]
        plans = await self._index_rows(connection, rows, op)
        gone = [(row["path"], row["key"]) for row in marked if row["value"] is None]
        if gone:
            await connection.execute(sql.UNMARK, *_columns(gone))
        left = [
            (plan.address[0], decode_key(plan.address[1]))
            for plan in plans
            if plan.wanted.has_one_of(op.refused)
        ]
        return marked[-1]["number"], len(marked), left


async def _slices(connection: Connection, statement: str, *args: Any) -> Any:
    """Yield the rows of a statement in lists, inside a transaction."""
    cursor = await connection.cursor(statement, *args)
    while rows := await cursor.fetch(_ROWS_AT_ONCE):
        yield rows


def _columns(addresses: Sequence[Address]) -> tuple[list[str], list[str], list[str]]:
    """Return addresses as the arrays that statements take."""
    return (
        [root_of(path) for path, _ in addresses],
        [path for path, _ in addresses],
        [key for _, key in addresses],
    )


def _joined(lists: Sequence[list[int]]) -> tuple[list[int], list[int]]:
    """Return the lists as one, and where each ends."""
    return list(chain.from_iterable(lists)), list(accumulate(map(len, lists)))


def _embeds(description: Description) -> bool:
    """Whether the texts of an index have vectors."""
    return description.model is not None and not description.is_own


# Checking


async def count_pending(connection: Connection) -> int:
    """Return how many items are marked for `reindex`."""
    number: int = await connection.fetchval("SELECT count(*) FROM kvstore_pending")
    return number


async def find_waiting(link: Link) -> list[str]:
    """Name items of which the index does not hold everything yet."""
    rows = await link.raw.fetch(sql.FIND_WAITING)
    return [f"{show(decode_namespace(path), decode_key(key))} {WAITS}" for path, key in rows]


async def find_problems(connection: Connection) -> list[str]:
    """Hold the index against the items."""
    async with snapshot(connection):
        text = await connection.fetchval("SELECT index FROM kvstore_state WHERE id = 1")
        if text is None:
            return []
        description = Description.parse(text)
        problems = []
        async for rows in _slices(connection, sql.GET_CHECKED):
            problems += [problem for row in rows if (problem := _problem(row, description))]
        tables = ["kvstore_entries", "kvstore_facts", "kvstore_pending"]
        if description.dimensions is not None:
            tables.append(vectors_table(description))
        for table in tables:
            number = await connection.fetchval(sql.COUNT_ORPHANS.format(table=table))
            if number:
                problems.append(f"index: {number} rows of {table} belong to no item")
        if not await connection.fetchval(sql.IS_COUNTED):
            problems.append("index: the numbers of its words are not those of its entries")
        return problems


def _problem(row: Sequence[Any], description: Description) -> str | None:
    """Say what is wrong with one item's entries."""
    path, key, value, indexing, held, facts, is_pending = row
    if is_pending:
        return None
    fields = description.fields if indexing is None else orjson.loads(indexing)
    decoded = codec.decode(value.encode())
    texts, codes = coded(decoded, fields), codes_in(held or b"")
    where = f"index: {show(decode_namespace(path), decode_key(key))}"
    if not is_as_wanted(codes, texts) or (texts and held is None):
        return f"{where} is not indexed as it is, and not marked for reindex"
    has_facts = has_own(codes) or (texts and _embeds(description))
    if facts != (facts_of(decoded) if has_facts else None):
        return f"{where} has other scalars than the index says"
    return None
