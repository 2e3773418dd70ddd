"""The runtime reaches tools without being passed to them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import kvstore
from kvstore.runtime import RuntimeAwareTool, ToolRuntime, current, use


class Remember(RuntimeAwareTool):
    name = "remember"
    description = "Remember a fact about the user."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {"fact": {"type": "string"}},
        "required": ["fact"],
    }

    async def call_with_runtime(self, args: Mapping[str, Any], runtime: ToolRuntime) -> Any:
        if runtime.store is None:
            return "nothing to remember it with"
        number = await runtime.store.append(("facts",), "user", args["fact"])
        return f"fact {number}"


async def deep_down(fact: str) -> Any:
    """A function that knows nothing of any store."""
    return await Remember()({"fact": fact})


async def test_a_tool_reaches_the_store_of_the_runtime_in_use() -> None:
    async with kvstore.InMemoryStore() as store:
        with use(ToolRuntime(store=store, tool_call_id="call_1")) as runtime:
            assert current() is runtime
            assert await deep_down("likes tea") == "fact 1"
            assert await deep_down("has a cat") == "fact 2"
        item = await store.get(("facts",), "user")
        assert item is not None
        assert item.value == ["likes tea", "has a cat"]


async def test_without_a_runtime_there_is_no_store() -> None:
    assert current() == ToolRuntime()
    assert current().store is None
    assert await deep_down("likes tea") == "nothing to remember it with"


async def test_a_tool_may_be_given_a_runtime_by_hand() -> None:
    assert await Remember().call_with_runtime({"fact": ""}, ToolRuntime()) == (
        "nothing to remember it with"
    )


async def test_concurrent_tasks_have_runtimes_of_their_own() -> None:
    async def work(number: int) -> list[Any]:
        seen = []
        with use(ToolRuntime(state=number)):
            for _ in range(5):
                await asyncio.sleep(0)
                seen.append(current().state)
        return seen

    results = await asyncio.gather(*map(work, range(20)))
    assert results == [[number] * 5 for number in range(20)]
    assert current().state is None


async def test_what_a_runtime_starts_inherits_it() -> None:
    async def state() -> Any:
        return current().state

    with use(ToolRuntime(state="inner")):
        task = asyncio.create_task(state())
        assert await asyncio.to_thread(lambda: current().state) == "inner"
    assert await task == "inner"


def test_other_threads_have_none() -> None:
    with use(ToolRuntime(state="main")), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: current().state).result() is None


def test_runtimes_nest_and_end_after_an_error() -> None:
    with use(ToolRuntime(state="outer")):
        with contextlib.suppress(KeyError), use(ToolRuntime(state="inner")):
            assert current().state == "inner"
            raise KeyError
        assert current().state == "outer"
    assert current().state is None


def test_a_runtime_does_not_change() -> None:
    runtime = ToolRuntime(store=None, state={}, config={}, tool_call_id="1", stream_writer=print)
    with pytest.raises(dataclasses.FrozenInstanceError):
        runtime.store = 1  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        runtime.other = 1  # type: ignore[attr-defined]


def test_only_a_runtime_can_be_used() -> None:
    with pytest.raises(TypeError, match="ToolRuntime"), use(None):  # type: ignore[arg-type]
        pass


def test_a_tool_must_do_something() -> None:
    class Idle(RuntimeAwareTool):
        name = "idle"

    with pytest.raises(TypeError, match="call_with_runtime"):
        Idle()  # type: ignore[abstract]
