"""`KVFilesBackend` is a backend for the files of deepagents."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("deepagents.backends")

from deepagents.backends import CompositeBackend, StateBackend, StoreBackend
from langgraph.store.memory import InMemoryStore

from kvstore.integrations.deepagents import KVFilesBackend

NAMES = ["/a.md", "/b.txt", "/src/a.py", "/src/deep/b.py", "/src/deep/.hidden", "/x/a b.md"]
TEXTS = ["tea\ncake and tea\n", "one line", "", "  \n", "tea\r\nlong " * 40, "TODO: tea\n\n\nend"]
GLOBS = ["*.md", "**/*.py", "src/**/*.py", "/*.md", "*", "**", "*.{py,md}", "a*", "[ab].md", ".*"]


def calls(rng: random.Random) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return a call that a model might make."""
    name, text = rng.choice(NAMES), rng.choice(TEXTS)
    folder = rng.choice(["/", "/src", "/src/", "/none", "/a.md", None])
    match rng.randrange(7):
        case 0 | 1:
            return "write", (name, text), {}
        case 2:
            old, new = rng.choice(["tea", "cake", "none", "line", ""]), rng.choice(["T", "", "tea"])
            return "edit", (name, old, new, rng.random() < 0.5), {}
        case 3:
            return "read", (name, rng.randrange(-1, 4), rng.randrange(-1, 4)), {}
        case 4:
            glob = rng.choice([None, *GLOBS])
            return "grep", ("tea", folder, glob), {"max_count": rng.choice([None, 1, 3])}
        case 5:
            return "glob", (rng.choice(GLOBS), folder), {}
    return ("ls", (folder or "/",), {}) if rng.random() < 0.6 else ("delete", (name,), {})


def plain(answer: Any) -> Any:
    """Return what two backends agree on: not the words of an error, nor times and order."""
    if answer.error is not None:
        return "error"
    held: dict[str, Any] = dict(vars(answer))
    for name in ("entries", "matches"):
        if held.get(name):
            each = [{k: v for k, v in entry.items() if k != "modified_at"} for entry in held[name]]
            held[name] = sorted(each, key=lambda entry: (entry["path"], entry.get("line", 0)))
    if held.get("file_data"):
        data = held["file_data"]
        held["file_data"] = data["content"], data["encoding"]
    if held.get("truncated"):
        held["matches"] = len(held["matches"])  # which ones is by the order of the files
    return held


@pytest.mark.parametrize("half", ["sync", "async"])
@pytest.mark.parametrize("seed", range(6))
async def test_it_does_what_the_backend_over_langgraphs_store_does(
    tmp_path: Path, half: str, seed: int
) -> None:
    rng = random.Random(seed)
    model = StoreBackend(store=InMemoryStore(), namespace=lambda _: ("files",))
    ours = KVFilesBackend(tmp_path / "a.db")
    for _ in range(150):
        name, args, more = calls(rng)
        expected = getattr(model, name)(*args, **more)
        if half == "sync":
            got = await asyncio.to_thread(getattr(ours, name), *args, **more)
        else:
            got = await getattr(ours, f"a{name}")(*args, **more)
        assert plain(got) == plain(expected), (name, args, more)
    await ours.aclose()


def test_bytes_come_back_and_stand_in_nobodys_way(tmp_path: Path) -> None:
    backend = KVFilesBackend(tmp_path / "a.db")
    picture = bytes(range(256))
    answers = backend.upload_files([("/p.png", picture), ("/t.txt", b"tea"), ("/a/../b", b"")])
    assert [each.error for each in answers] == [None, None, "invalid_path"]
    found = backend.download_files(["/p.png", "/t.txt", "/none"])
    assert [each.content for each in found] == [picture, b"tea", None]
    assert found[2].error == "file_not_found"
    read = backend.read("/p.png")
    assert read.file_data is not None
    assert read.file_data["encoding"] == "base64"
    assert backend.edit("/p.png", "a", "b").error is not None
    assert [(each["path"], each["size"]) for each in backend.ls("/").entries or []] == [
        ("/p.png", 256),
        ("/t.txt", 3),
    ]
    assert [each["path"] for each in backend.grep("tea").matches or []] == ["/t.txt"]
    backend.close()


def test_bad_paths_and_patterns_are_results(tmp_path: Path) -> None:
    backend = KVFilesBackend(tmp_path / "a.db")
    for path in ("/a/../b", "/a//b", "/.", "/\ud800", "/", "/folder/"):
        assert backend.write(path, "x").error, path
        assert backend.read(path).error, path
        assert backend.edit(path, "a", "b").error, path
    assert backend.glob("../*").error
    assert backend.grep("x", glob="../*").error
    assert backend.write("/s", "\ud800").error
    assert backend.delete("/none").error
    assert backend.ls("/").entries == []
    backend.close()


async def test_no_edit_is_lost(tmp_path: Path) -> None:
    backends = [KVFilesBackend(tmp_path / "a.db") for _ in range(4)]
    await backends[0].awrite("/n", "." * 40)
    done = await asyncio.gather(
        *(
            asyncio.to_thread(backend.edit, "/n", "." * 40, ".." * 20 + name)
            for backend, name in zip(backends, "abcd", strict=True)
        ),
        *(backends[at % 4].awrite(f"/d/{at}", "tea") for at in range(20)),
    )
    assert len(done) == 24
    text = await asyncio.to_thread(lambda: (backends[0].read("/n").file_data or {})["content"])
    assert sorted(text) == sorted("." * 40 + "abcd")
    assert len((await backends[0].aglob("*", "/d")).matches or []) == 20
    assert (await backends[1].adelete("/d")).error is None
    assert (await backends[2].als("/")).entries == (await backends[3].als("/")).entries
    for backend in backends:
        await backend.aclose()


async def test_a_namespace_may_be_the_users(tmp_path: Path) -> None:
    from langgraph.graph import END, START, StateGraph
    from langgraph.runtime import Runtime
    from typing_extensions import TypedDict

    class State(TypedDict):
        seen: list[str]

    class Context(TypedDict):
        user: str

    async with kvstore.open(tmp_path / "a.db") as store:
        backend = KVFilesBackend(store, namespace=lambda runtime: ("f", runtime.context["user"]))

        async def node(state: State, runtime: Runtime[Context]) -> State:
            await backend.awrite(f"/{runtime.context['user']}.md", "x")
            return {"seen": [each["path"] for each in (await backend.als("/")).entries or []]}

        graph = StateGraph(State, context_schema=Context)
        graph.add_node("n", node)
        graph.add_edge(START, "n")
        graph.add_edge("n", END)
        compiled: Any = graph.compile()
        for user in ("al", "bo"):
            state = await compiled.ainvoke({"seen": []}, context={"user": user})
            assert state["seen"] == [f"/{user}.md"]
        with pytest.raises(kvstore.InvalidArgumentError, match="within a graph"):
            await backend.als("/")


async def test_it_takes_its_place_among_other_backends(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "a.db") as store:
        backend = CompositeBackend(
            default=StateBackend(), routes={"/memories/": KVFilesBackend(store)}
        )
        assert (await backend.awrite("/memories/a.md", "tea")).path == "/memories/a.md"
        assert await store.keys(("files",)) == ["a.md"]
        found = await backend.agrep("tea", path="/memories/")
        assert [each["path"] for each in found.matches or []] == ["/memories/a.md"]
