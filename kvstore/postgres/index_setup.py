"""What a search index needs before it can be: a description of it, pgvector, tables for vectors.

The index of a root has one description, kept in `kvstore_roots`: the fields, the model, the length
of its vectors. Every writer goes by it, whatever it was opened with, so the index is the same
whoever writes. New roots begin with that of `kvstore_state`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kvstore.description import Description
from kvstore.errors import MissingDependencyError
from kvstore.operations import Operation
from kvstore.own_vectors import OwnVectors
from kvstore.postgres import index_statements as sql
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection, DriverError
from kvstore.postgres.distributed import distribute_table
from kvstore.postgres.indexing import Setup, vectors_table
from kvstore.postgres.roots import await_roots, lock_root, store_state
from kvstore.postgres.session import quoted
from kvstore.text import WORDS_REVISION

__all__ = [
    "find_extension",
    "lengths_of",
    "make_vectors",
    "prepare_index",
]

FIRST_VERSION = (0, 8)  # of pgvector with iterative scans
MAX_INDEXED = 2_000  # numbers of a vector in an HNSW index
MAX_HALF_INDEXED = 4_000  # in one of half precision

_CREATE_EXTENSION = (
    "semantic search needs the extension pgvector, 0.8 or newer, which this database {lacks}: have "
    "an administrator install it and run CREATE EXTENSION vector (or ALTER EXTENSION vector "
    "UPDATE) in it; everything else works without: open the store with IndexConfig() or no index"
)


async def prepare_index(connection: Connection, setup: Setup) -> None:
    """Make the index of a store that has none; what it holds already is marked for `reindex`.

    Args:
        connection: outside a transaction.
        setup: of the store that has an index.

    Raises:
        MissingDependencyError: the store has a model, and the database no pgvector.
    """
    if setup.model is not None:
        await find_extension(connection, setup, may_create=True)
    async with connection.transaction():
        *_, text = await store_state(connection, statements.LOCK_STATE)
        first = Description(setup.fields, setup.model, None, words=WORDS_REVISION)
        present = first if text is None else Description.parse(text)
        if text is not None and present.words >= WORDS_REVISION and present.has_all_words:
            return
        # That not all roots have it yet is kept as if it lacked words.
        present.words, present.has_all_words = WORDS_REVISION, False
        await connection.execute(statements.SET_INDEX, present.text)
    await await_roots(connection)
    for (root,) in await connection.fetch(statements.LIST_ROOTS_BY_WORDS, WORDS_REVISION):
        async with connection.transaction():
            await _prepare_root(connection, root, present)
    async with connection.transaction():
        *_, text = await store_state(connection, statements.LOCK_STATE)
        if text == present.text:
            present.has_all_words = True
            await connection.execute(statements.SET_INDEX, present.text)


async def _prepare_root(connection: Connection, root: str, first: Description) -> None:
    state = await lock_root(connection, root)
    text, words = state.index, 0
    is_new = not await connection.fetchval(sql.HAS_ITEMS, root)
    if text is None:
        description = replace(first, has_all_vectors=is_new)
    else:
        description = Description.parse(text)
        if description.words >= WORDS_REVISION:
            return
        words = await connection.fetchval(sql.COUNT_WORDS, root)
        for statement in sql.FORGET_WORDS:
            await connection.execute(statement, root)
    if description.fields or description.model is not None:
        await connection.execute(sql.MARK_ALL, root)
    description.has_all_words = is_new
    description.words = WORDS_REVISION
    await connection.execute(sql.SET_ROOT_INDEX, root, description.text)
    await connection.execute(statements.ADVANCE, root, state.version, 0, -words)


async def find_extension(connection: Connection, setup: Setup, *, may_create: bool) -> None:
    """Find out where pgvector is.

    Args:
        connection: outside a transaction, if it may be created.
        setup: which learns it.
        may_create: whether to create the extension where there is none.

    Raises:
        MissingDependencyError: there is none, or none that is new enough.
    """
    row = await connection.fetchrow(sql.GET_EXTENSION)
    if row is None and may_create:
        try:
            async with connection.transaction():
                await connection.execute(sql.CREATE_EXTENSION.format(quoted(connection.schema)))
        except DriverError as exc:
            if connection.is_closed():
                raise
            lacks = "lacks, and this user cannot create"
            raise MissingDependencyError(_CREATE_EXTENSION.format(lacks=lacks)) from exc
        row = await connection.fetchrow(sql.GET_EXTENSION)
    if row is None:
        raise MissingDependencyError(_CREATE_EXTENSION.format(lacks="lacks"))
    schema, version = row
    if tuple(map(int, version.split(".")[:2])) < FIRST_VERSION:
        raise MissingDependencyError(_CREATE_EXTENSION.format(lacks=f"has in version {version}"))
    setup.schema = schema


def lengths_of(ops: Iterable[Operation]) -> set[int]:
    """Return the lengths of the vectors that operations bring along."""
    brought = {id(vectors): vectors for op in ops if (vectors := getattr(op, "vectors", None))}
    lengths = set()
    for vectors in brought.values():  # the operations of one call share theirs
        if isinstance(vectors, OwnVectors):
            lengths.add(vectors.dimensions)
        else:
            lengths |= {len(vector) // 4 for vector in vectors.values() if vector}
    return lengths


async def make_vectors(connection: Connection, setup: Setup, length: int) -> None:
    """Make the table for vectors of a length, with its index, if there is none.

    Items that should have some there, as that table was dropped, are marked for `reindex`.

    Args:
        connection: outside a transaction.
        setup: of the store.
        length: how many numbers each has.
    """
    if not setup.schema:
        await find_extension(connection, setup, may_create=True)
    table = vectors_table(length)
    if not await connection.fetchval(sql.HAS_TABLE, connection.schema, table):
        async with connection.transaction():
            await connection.execute(statements.LOCK_TABLES)
            if not await connection.fetchval(sql.HAS_TABLE, connection.schema, table):
                await _create_vectors(connection, setup, length)
                await _mark_lost(connection, length)
    setup.lengths.add(length)  # only now: whoever finds it there writes at once


async def _create_vectors(connection: Connection, setup: Setup, length: int) -> None:
    table = vectors_table(length)
    names = {"table": table, "schema": quoted(setup.schema), "dimensions": length}
    await connection.execute(sql.CREATE_VECTORS.format(**names))
    if length <= MAX_INDEXED:
        await connection.execute(sql.CREATE_HNSW.format(**names))
    elif length <= MAX_HALF_INDEXED:
        await connection.execute(sql.CREATE_HALF_HNSW.format(**names))
    if connection.is_distributed:
        await distribute_table(connection, table)


async def _mark_lost(connection: Connection, length: int) -> None:
    """Have what an index says of vectors of a length, of which there are none, made true."""
    for root, text in await connection.fetch(sql.LIST_DESCRIPTIONS):
        if Description.parse(text).dimensions != length:
            continue
        state = await lock_root(connection, root)
        description = Description.parse(state.index or text)
        description.has_all_vectors = False
        await connection.execute(sql.FORGET_TEXTS, root)
        await connection.execute(sql.MARK_ALL, root)
        await connection.execute(sql.SET_ROOT_INDEX, root, description.text)
        await connection.execute(statements.ADVANCE, root, state.version, 0, 0)
