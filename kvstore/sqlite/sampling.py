"""A sample of the vectors of a subtree, to be drawn; not for searching."""

from __future__ import annotations

from kvstore.sqlite import driver
from kvstore.sqlite import index_statements as sql
from kvstore.sqlite.connection import snapshot
from kvstore.sqlite.index_file import describe

__all__ = ["sample_vectors"]

_FLOAT_BYTES = 4


def sample_vectors(
    connection: driver.Connection, path: str, limit: int
) -> list[tuple[str, str, bytes]]:
    """Return path, key and a vector of at most so many items, from all over the subtree.

    It reads the tables in which sqlite-vec keeps its vectors, so that the extension need not be
    there. Where the items are many, those are taken whose number a step divides.
    """
    found: list[tuple[str, str, bytes]] = []
    with snapshot(connection):
        description = describe(connection)
        if description is None or description.dimensions is None:
            return []
        size = description.dimensions * _FLOAT_BYTES
        (items,) = driver.run(connection, sql.count_items(path)).fetchone()
        every = max(1, items // limit)
        for table in sql.VECTOR_TABLES:
            chunks: dict[int, bytes] = {}
            sample = sql.sample_vectors(table, path, every, limit - len(found))
            rows = driver.run(connection, sample).fetchall()
            for there, key, chunk, place in sorted(rows, key=lambda row: row[2]):
                if chunk not in chunks:
                    held = connection.execute(sql.chunk_of(table), (chunk,)).fetchone()
                    chunks = {chunk: held[0]}
                found.append((there, key, chunks[chunk][place * size : (place + 1) * size]))
    return found
