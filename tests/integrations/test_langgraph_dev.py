"""Nothing that `langgraph dev` forbids happens on its event loop.

Its server watches the loop with blockbuster, and a node that blocks there fails. What it leaves out
of the watch is left out here, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import python

pytest.importorskip("blockbuster")
pytest.importorskip("langgraph.graph")

PROGRAM = """
import asyncio
import sys
import time

if "stock" in sys.argv:
    sys.modules["pysqlite3"] = None  # as where its author has no wheel

from blockbuster import BlockBuster, BlockingError
from langchain_core.messages import HumanMessage

import kvstore
from kvstore.integrations.langgraph import LangGraphCheckpointer, LangGraphStore

LEFT_OUT = ("os.path.", "os.stat", "os.listdir", "os.remove", "threading.Lock.acquire",
            "io.Buffered", "io.Text")


async def use_plain() -> None:
    async with kvstore.open("plain.db", history=60) as store:
        items = await store.put_many(("a",), {str(number): number for number in range(20)})
        for label in "bcde":
            await store.put((label,), "k", 1)
        for _ in range(3):
            assert len(await store.get_many(("a",), ["1", "2", "none"])) == 2
            assert len(await store.list_namespaces()) == 5
            assert len(await store.keys(("a",), limit=5)) == 5
            assert len(await store.search(("a",), limit=5)) == 5
            assert await store.count(("a",)) == 20
            assert (await store.at(items[-1].version).get(("a",), "1")).value == 1


async def use_store() -> None:
    store = LangGraphStore(kvstore.open("store.db"))  # opened by the first call
    for number in range(20):
        await store.aput(("a", str(number)), "k", {"v": number})
        assert await store.aget(("a", str(number)), "k") is not None
    await asyncio.gather(*(store.aget(("a", str(number)), "k") for number in range(20)))
    await asyncio.gather(*(store.aput(("b",), str(number), {"v": 1}) for number in range(20)))
    assert len(await store.asearch(("a",), limit=50)) == 20
    assert len(await store.alist_namespaces()) == 21
    await store.adelete(("a", "1"), "k")
    await store.aclose()


async def use_checkpointer() -> None:
    saver = LangGraphCheckpointer("checkpoints.db")
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    for number in range(5):
        values = {"messages": [HumanMessage("word " * 300, id=str(each)) for each in range(number)]}
        versions = {"messages": saver.get_next_version(str(number), None)}
        checkpoint = {"v": 4, "id": str(number), "ts": "", "channel_values": values,
                      "channel_versions": versions, "versions_seen": {}, "updated_channels": None}
        config = await saver.aput(config, checkpoint, {}, versions)
        await saver.aput_writes(config, [("messages", "x")], "task")
        assert await saver.aget_tuple(config) is not None
    assert len([found async for found in saver.alist(None)]) == 5
    await saver.acopy_thread("t", "u")
    await saver.aprune(["t"])
    await saver.adelete_thread("t")
    await saver.aclose()


async def main() -> None:
    guard = BlockBuster(excluded_modules=[])
    for name in [name for name in guard.functions if name.startswith(LEFT_OUT)]:
        del guard.functions[name]
    guard.activate()
    try:
        try:
            time.sleep(0.001)
        except BlockingError:
            print("it watches")
        await use_plain()
        await use_store()
        await use_checkpointer()
    finally:
        guard.deactivate()
    print("all done")


asyncio.run(main())
"""


@pytest.mark.parametrize("driver", ["pysqlite3", "stock"])
def test_nothing_blocks_the_loop_that_is_watched(tmp_path: Path, driver: str) -> None:
    done = python("-c", PROGRAM, driver, cwd=tmp_path)
    assert done.stdout.splitlines() == ["it watches", "all done"], done.stderr
