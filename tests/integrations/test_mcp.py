"""`kvstore mcp`: a memory for clients of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("mcp.server")

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from kvstore.integrations.mcp import memory_server, memory_tools

pytestmark = pytest.mark.slow  # each starts processes

COMMAND = [sys.executable, "-m", "kvstore", "mcp"]


def field(thing: Any, name: str) -> Any:
    """Return an attribute, which version 1 of the SDK writes in camel case."""
    if hasattr(thing, name):
        return getattr(thing, name)
    first, *words = name.split("_")
    return getattr(thing, first + "".join(map(str.capitalize, words)))


@asynccontextmanager
async def client(path: Path, *options: str) -> AsyncIterator[ClientSession]:
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], str(path), *options])
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session


async def call(session: ClientSession, tool: str, **arguments: Any) -> Any:
    result = await session.call_tool(tool, arguments)
    (content,) = result.content
    assert content.type == "text"
    assert not field(result, "is_error"), content.text
    assert field(result, "structured_content") is None
    return json.loads(content.text)


async def refusal(session: ClientSession, tool: str, **arguments: Any) -> str:
    result = await session.call_tool(tool, arguments)
    (content,) = result.content
    assert content.type == "text"
    assert field(result, "is_error")
    return content.text


async def test_a_memory(tmp_path: Path) -> None:
    async with client(tmp_path / "m.db") as session:
        made = await call(session, "remember", text="Alice likes tea", tags=["alice", "food"])
        assert made["replaced"] is False
        assert await call(
            session, "remember", text="Tea is hot; ü€漢", key="a/b*[c]", tags='["food"]'
        ) == {
            "key": "a/b*[c]",
            "replaced": False,
        }
        again = await call(session, "remember", text="Tea is cold", key="a/b*[c]", tags=["food"])
        assert again["replaced"] is True
        found = await call(session, "search", query="who likes tea?", tags=["alice"])
        assert [item["key"] for item in found["items"]] == [made["key"]]
        assert found["items"][0]["tags"] == ["alice", "food"]
        assert len((await call(session, "search", query="tea"))["items"]) == 2
        assert len((await call(session, "search", query="tea", limit=1))["items"]) == 1
        assert (await call(session, "search", query="zebra")) == {"items": []}
        listed = await call(session, "list", prefix="a/b*")
        assert [item["text"] for item in listed["items"]] == ["Tea is cold"]
        assert (await call(session, "list", limit=1))["more"] == 1
        assert (await call(session, "recall", key="a/b*[c]"))["text"] == "Tea is cold"
        assert (await call(session, "forget", key="a/b*[c]"))["forgotten"] is True
        assert (await call(session, "forget", key="a/b*[c]"))["forgotten"] is False
    async with client(tmp_path / "m.db") as session:  # another process
        assert (await call(session, "recall", key=made["key"]))["text"] == "Alice likes tea"


async def test_what_clients_see_of_it(tmp_path: Path) -> None:
    async with client(tmp_path / "m.db") as session:
        tools = (await session.list_tools()).tools
        assert [tool.name for tool in tools] == ["remember", "recall", "search", "list", "forget"]
        shapes = {
            tool.name: {
                name: (each["type"], each.get("items"), each.get("default", "needed"))
                for name, each in field(tool, "input_schema")["properties"].items()
            }
            for tool in tools
        }
        texts = {"type": "string"}
        assert shapes == {
            "remember": {
                "text": ("string", None, "needed"),
                "key": ("string", None, ""),
                "tags": ("array", texts, []),
            },
            "recall": {"key": ("string", None, "needed")},
            "search": {
                "query": ("string", None, "needed"),
                "limit": ("integer", None, 5),
                "tags": ("array", texts, []),
            },
            "list": {"prefix": ("string", None, ""), "limit": ("integer", None, 50)},
            "forget": {"key": ("string", None, "needed")},
        }
        for tool in tools:
            assert field(tool, "input_schema")["type"] == "object"
            assert "anyOf" not in json.dumps(field(tool, "input_schema"))
            assert field(tool, "output_schema") is None
            assert tool.description
        (resource,) = (await session.list_resources()).resources
        read = await session.read_resource(resource.uri)
        assert '"count": 0' in read.contents[0].text  # type: ignore[union-attr]


async def test_the_namespace_is_fixed_and_may_be_read_only(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    async with client(path, "--namespace", "team/notes") as session:
        await call(session, "remember", text="for the team", key="k")
    async with client(path) as session:
        assert (await call(session, "list"))["items"] == []
    async with kvstore.open(path) as store:
        item = await store.get(("team", "notes"), "k")
        assert item is not None
        assert item.value == {"text": "for the team", "tags": []}
    async with client(path, "--namespace", "team/notes", "--read-only") as session:
        tools = [tool.name for tool in (await session.list_tools()).tools]
        assert tools == ["recall", "search", "list"]
        found = await call(session, "search", query="team")
        assert [item["key"] for item in found["items"]] == ["k"]


async def test_bad_calls_are_told_and_do_no_harm(tmp_path: Path) -> None:
    async with client(tmp_path / "m.db") as session:
        assert "empty" in await refusal(session, "remember", text=" ")
        assert "in parts" in await refusal(session, "remember", text="x" * 1_000_000)
        assert "500" in await refusal(session, "remember", text="x", key="k" * 501)
        assert "'none'" in await refusal(session, "recall", key="none")
        assert "limit" in await refusal(session, "search", query="x", limit=0)
        assert "limit" in await refusal(session, "list", limit=10_000)
        assert "text" in await refusal(session, "remember")
        assert "tags" in await refusal(session, "remember", text="x", tags={"a": 1})
        assert await call(session, "list") == {"items": []}


async def test_results_hold_whole_items_and_not_too_much(tmp_path: Path) -> None:
    async with client(tmp_path / "m.db") as session:
        for number in range(10):
            await call(session, "remember", text="long " * 2_500, key=str(number))
        listed = await call(session, "list")
        assert len(json.dumps(listed)) < 70_000
        assert len(listed["items"]) + listed["more"] == 10
        assert {len(item["text"]) for item in listed["items"]} == {12_500}
        await call(session, "remember", text="y" * 50_000, key="x")
        assert len((await call(session, "recall", key="x"))["text"]) == 50_000


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )


def say(server: subprocess.Popen[str], message: Any) -> None:
    assert server.stdin is not None
    line = message if isinstance(message, str) else json.dumps({"jsonrpc": "2.0", **message})
    server.stdin.write(line + "\n")
    server.stdin.flush()


def hello(server: subprocess.Popen[str], version: str = "2024-11-05") -> Any:
    about = {
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    say(server, {"id": 1, "method": "initialize", "params": about})
    assert server.stdout is not None
    answer = json.loads(server.stdout.readline())
    say(server, {"method": "notifications/initialized"})
    return answer["result"]


def test_rubbish_on_the_line_and_old_clients(tmp_path: Path) -> None:
    server = start(tmp_path / "m.db")
    assert hello(server)["protocolVersion"] == "2024-11-05"
    for rubbish in ("", "no json", "[", '{"jsonrpc": "2.0"}', "x" * 1_000_000):
        say(server, rubbish)
    for number, tool in ((2, "none"), (3, "list")):
        say(
            server,
            {"id": number, "method": "tools/call", "params": {"name": tool, "arguments": {}}},
        )
    assert server.stdout is not None
    answers: dict[int, Any] = {}
    while 3 not in answers:
        answer = json.loads(server.stdout.readline())  # nothing else comes there
        if answer.get("id") is not None:
            answers[answer["id"]] = answer
    assert json.loads(answers[3]["result"]["content"][0]["text"]) == {"items": []}
    _, told = server.communicate(timeout=20)
    assert server.returncode == 0, told


def test_it_ends_with_its_client(tmp_path: Path) -> None:
    server = start(tmp_path / "m.db")
    hello(server)
    began = time.monotonic()
    _, told = server.communicate(timeout=20)
    assert (server.returncode, told) == (0, "")
    assert time.monotonic() - began < 5
    server = start(tmp_path / "m.db")
    hello(server)
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdout.close()  # and nobody reads what it says
    say(server, {"id": 2, "method": "ping"})
    server.stdin.close()
    assert server.wait(20) == 0
    assert server.stderr is not None
    server.stderr.close()


def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.db").write_text("no database, but a text of some length " * 9)
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "m.db")],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert "not a database" in done.stderr


@pytest.mark.slow
async def test_eight_clients_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    calls = int(os.environ.get("KVSTORE_MCP_CALLS", "40"))
    rng = random.Random(1)
    acknowledged: set[str] = set()

    async def work(number: int) -> None:
        server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], str(path)])
        async with stdio_client(server) as streams, ClientSession(*streams) as session:
            await session.initialize()
            for at in range(calls):
                key = f"{number}-{at}"
                await call(session, "remember", text=f"fact {key}", key=key)
                acknowledged.add(key)
                if at % 5 == 0:
                    await call(session, "remember", text=f"by {number}", key="shared")

    def victim() -> set[str]:
        """Write without a pause, and be killed."""
        done: set[str] = set()
        server = start(path)
        hello(server)
        assert server.stdout is not None
        for at in range(rng.randrange(5, 30)):
            arguments = {"text": "fact", "key": f"victim-{server.pid}-{at}"}
            say(
                server,
                {
                    "id": at + 2,
                    "method": "tools/call",
                    "params": {"name": "remember", "arguments": arguments},
                },
            )
            if json.loads(server.stdout.readline())["id"] == at + 2:
                done.add(arguments["key"])
        say(
            server,
            {
                "id": 999,
                "method": "tools/call",
                "params": {"name": "remember", "arguments": {"text": "cut off"}},
            },
        )
        server.send_signal(signal.SIGKILL)
        server.communicate()
        return done

    victims = [asyncio.create_task(asyncio.to_thread(victim)) for _ in range(2)]
    await asyncio.gather(*(work(number) for number in range(6)))
    one, two = await asyncio.gather(*victims)
    acknowledged |= one | two
    async with kvstore.open(path) as store:
        keys = set(await store.keys(("memory",)))
        assert acknowledged <= keys
        assert len(one) >= 5
        assert (await store.check()).ok


async def test_it_serves_in_ones_own_program() -> None:
    fastmcp = pytest.importorskip("fastmcp")
    async with kvstore.InMemoryStore() as store:
        own = fastmcp.FastMCP("mine", tools=memory_tools(store, ("notes",)))
        for server in (memory_server(store, ("notes",)), own):
            async with fastmcp.Client(server) as session:
                done = await session.call_tool("remember", {"text": "a fact", "key": "k"})
                assert json.loads(done.content[0].text)["key"] == "k"
                found = await session.call_tool("search", {"query": "fact"})
                assert json.loads(found.content[0].text)["items"][0]["key"] == "k"
        with pytest.raises(kvstore.InvalidNamespaceError):
            memory_server(store, "notes")
