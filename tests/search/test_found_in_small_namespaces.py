"""A small namespace is searched by reading vec0's chunks, which must be what vec0 itself reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvstore import IndexConfig, Item, SQLiteStore
from kvstore.filters import ALL
from kvstore.namespace import encode_namespace
from kvstore.ranking import Search
from kvstore.sqlite import driver, index_statements
from kvstore.sqlite.connection import connect
from kvstore.sqlite.index_file import Setup, load_vectors
from kvstore.sqlite.searching import search, search_small
from kvstore.sqlite.vectors import Journal
from kvstore.testing_search import RecordingEmbeddings

pytestmark = pytest.mark.skipif(
    not driver.CAN_LOAD_EXTENSIONS, reason="this SQLite loads no extensions"
)

NOW = 2**50
LONGEST = 2**20
SIZES = {("a",): 1, ("a", "b"): 8, ("c",): 40, ("d",): 120, ("large",): 200, ("empty",): 0}


async def fill(store: SQLiteStore) -> None:
    """Put namespaces of many sizes, and write over and delete some, so that chunks have gaps."""
    for namespace, count in SIZES.items():
        some = {f"k{at}": f"text {at} of {namespace}" for at in range(count + 3)}
        if some:
            await store.put_many(namespace, some)
        await store.delete_many(namespace, [f"k{at}" for at in (0, count // 2 + 1, count + 2)])
        for at in range(1, count, 7):
            await store.update(namespace, f"k{at}", lambda text: f"{text}, again", default="new")


async def both_ways(path: Path) -> dict[tuple[str, ...], tuple[list[Item] | None, list[Item]]]:
    """Search each namespace in the short way and by vec0, for all that it holds."""
    model = RecordingEmbeddings()
    async with SQLiteStore(path, index=IndexConfig(model)) as store:
        assert store.backend.embedder is not None
        setup = Setup(("$",), store.backend.embedder.model_id, journal=Journal())
        vector = await store.backend.embedder.query("text 5")
        asked = Search(ALL, 1000, 0, False, None, vector, None, signed=True)
        connection = connect(path, "ro")
        load_vectors(connection)
        found = {}
        for namespace in SIZES:
            address = encode_namespace(namespace)
            found[namespace] = (
                search_small(connection, setup, address, asked, NOW, LONGEST),
                search(connection, setup, None, address, asked, NOW),
            )
        connection.close()
        return found


@pytest.mark.parametrize("vacuumed", [False, True])
async def test_the_short_way_finds_what_vec0_finds(tmp_path: Path, vacuumed: bool) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path, index=IndexConfig(RecordingEmbeddings())) as store:
        await fill(store)
        await store.remove(("a",), "*")  # so that numbers of chunks are missing
        await store.put(("a",), "k1", "text")
        if vacuumed:
            await store.vacuum()
    for namespace, (short, by_vec0) in (await both_ways(path)).items():
        if namespace == ("large",):
            assert short is None
            continue
        assert short is not None
        assert [item.key for item in short] == [item.key for item in by_vec0]
        scores = [item.score for item in by_vec0]
        assert [item.score for item in short] == pytest.approx(scores, abs=2e-6)
        assert namespace == ("empty",) or short


async def test_a_survey_goes_by_indexes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path, index=IndexConfig(RecordingEmbeddings())) as store:
        await store.put(("a",), "k", "text")
        connection = connect(path, "ro")
        rows = connection.execute(f"EXPLAIN QUERY PLAN {index_statements.SURVEY}", ("a\t", "a\t"))
        plan = [row[3] for row in rows]
        connection.close()
    assert [line for line in plan if line.startswith("SEARCH chunks USING INDEX")]
    assert [line for line in plan if line.startswith("SEARCH held USING INTEGER PRIMARY KEY")]
    assert {line for line in plan if line.startswith("SCAN")} <= {"SCAN index_garbage"}


def test_without_numpy_vec0_finds_the_same(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
sys.modules["numpy"] = None
from tests.search.test_found_in_small_namespaces import both_ways, fill
from kvstore import IndexConfig, SQLiteStore
from kvstore.testing_search import RecordingEmbeddings

async def main():
    path = Path(sys.argv[1])
    async with SQLiteStore(path, index=IndexConfig(RecordingEmbeddings())) as store:
        await fill(store)
    for namespace, (short, by_vec0) in (await both_ways(path)).items():
        assert namespace == ("large",) or short == by_vec0, namespace

asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, tmp_path / "store.db"], cwd=root, check=True)
