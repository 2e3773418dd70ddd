"""A sample of the vectors, for a map of them."""

from __future__ import annotations

from collections import Counter

from kvstore.description import Description
from kvstore.postgres import index_statements as sql
from kvstore.postgres.connection import Connection
from kvstore.postgres.indexing import numbers_of, vectors_table
from kvstore.postgres.keys import decode_key, root_of
from kvstore.postgres.reading import fetch
from kvstore.postgres.session import quoted

__all__ = ["sample_vectors"]


async def sample_vectors(
    connection: Connection, path: str, limit: int
) -> list[tuple[str, str, bytes]]:
    """Return path, key and a vector of at most so many items, from all over a subtree.

    Where the roots have models of their own, it is of those with the commonest length. Where the
    items are many, those are taken whose hash a step divides.
    """
    extension = await connection.fetchrow(sql.GET_EXTENSION)
    rows = await connection.fetch(sql.LIST_DESCRIPTIONS_UNDER, root_of(path))
    lengths: Counter[int] = Counter()
    for text, roots in rows:
        if (length := Description.parse(text).dimensions) is not None:
            lengths[length] += roots
    if extension is None or not lengths:
        return []
    ((length, _),) = lengths.most_common(1)
    table = vectors_table(length)
    if not await connection.fetchval(sql.HAS_TABLE, connection.schema, table):
        return []
    ((count,),) = await fetch(connection, sql.count_vectors(table, path))
    sample = sql.sample_vectors(table, quoted(extension[0]), path, -(-count // limit) or 1, limit)
    found = await fetch(connection, sample)
    return [(there, decode_key(key), numbers_of(sent)) for there, key, sent in found]
