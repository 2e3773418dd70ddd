"""Files for agents mean what an agent's file tools mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.views import Files, GrepMatch


@pytest.fixture(params=["memory", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[kvstore.Store]:
    target = "memory://" if request.param == "memory" else tmp_path / "a.db"
    async with kvstore.open(target) as store:
        yield store


@pytest.fixture
async def files(store: kvstore.Store) -> Files:
    files = Files(store)
    await files.write("/notes/today.md", "# Today\ntea\ncake and tea\n")
    await files.write("notes/old/may.md", "rain")
    await files.write("/code/a[1].py", "print('tea')\n")
    await files.write("/top.txt", "")
    return files


def paths(found: Any) -> list[str]:
    return [each.path for each in found]


async def test_folders_are_listed(store: kvstore.Store, files: Files) -> None:
    assert paths(await files.ls()) == ["/code/", "/notes/", "/top.txt"]
    old, today = await files.ls("/notes/")
    assert (old.path, old.is_folder, old.size) == ("/notes/old/", True, 0)
    assert (today.path, today.is_folder, today.size) == ("/notes/today.md", False, 25)
    assert today.modified_at is not None
    assert await files.ls("/none") == []
    assert await Files(store, ("files", "notes")).read("today.md", limit=1) == "# Today\n"
    assert await Files(store, ("other",)).ls() == []


async def test_files_are_read_in_parts(files: Files) -> None:
    assert await files.read("/notes/today.md") == "# Today\ntea\ncake and tea\n"
    assert await files.read("/notes/today.md", offset=1, limit=1) == "tea\n"
    assert await files.read("/top.txt") == ""
    with pytest.raises(kvstore.InvalidArgumentError, match="has 3 lines"):
        await files.read("/notes/today.md", offset=3)
    with pytest.raises(kvstore.InvalidArgumentError, match=r"file /notes/none\.md not found"):
        await files.read("/notes/none.md")


async def test_a_file_is_not_overwritten_unasked(files: Files) -> None:
    with pytest.raises(kvstore.ConflictError):
        await files.write("/top.txt", "other")
    assert await files.read("/top.txt") == ""
    await files.write("/top.txt", "other", overwrite=True)
    assert await files.read("/top.txt") == "other"
    assert await files.delete("/top.txt") is True
    assert await files.delete("/top.txt") is False
    with pytest.raises(kvstore.InvalidArgumentError, match="holds text"):
        await files.write("/b", 5)  # type: ignore[arg-type]


async def test_bytes_and_other_values_stand_in_nobodys_way(
    store: kvstore.Store, files: Files
) -> None:
    await files.write("/notes/tea.png", b"tea\xff")
    await store.put(("files", "notes"), "settings", {"tea": 1})
    listed = await files.ls("/notes")
    assert [(each.path, each.size) for each in listed if "." in each.path] == [
        ("/notes/tea.png", 4),
        ("/notes/today.md", 25),
    ]
    assert paths(await files.grep("tea", "/notes")) == ["/notes/today.md"] * 2
    assert paths(await files.glob("tea*", "/notes")) == ["/notes/tea.png"]
    assert await files.content("/notes/tea.png") == b"tea\xff"
    with pytest.raises(kvstore.ValueTypeError, match="no text file"):
        await files.read("/notes/tea.png")
    with pytest.raises(kvstore.ValueTypeError, match="no text file"):
        await files.content("/notes/settings")


async def test_a_folder_goes_with_all_that_is_below_it(files: Files) -> None:
    await files.write("/notes", "a file beside the folder")
    assert await files.delete("/notes/old", recursive=True) is True
    assert await files.delete("/notes/old", recursive=True) is False
    assert paths(await files.ls("/notes")) == ["/notes/today.md"]
    assert await files.delete("/notes", recursive=True) is True
    assert paths(await files.ls()) == ["/code/", "/top.txt"]
    assert await files.delete("/", recursive=True) is True
    assert await files.ls() == []


async def test_edits_are_exact_and_none_is_lost(files: Files) -> None:
    path = "/notes/today.md"
    assert await files.edit(path, "cake and tea", "cake") == 1
    with pytest.raises(kvstore.InvalidArgumentError, match="is not in"):
        await files.edit(path, "coffee", "tea")
    await files.write("/many", "a a a")
    with pytest.raises(kvstore.InvalidArgumentError, match="3 times"):
        await files.edit("/many", "a", "b")
    assert await files.edit("/many", "a", "b", replace_all=True) == 3
    assert await files.read("/many") == "b b b"
    with pytest.raises(kvstore.InvalidArgumentError, match="empty"):
        await files.edit("/many", "", "b")
    await files.write("/count", "".join(f"<{n}>" for n in range(8)))
    await asyncio.gather(*(files.edit("/count", f"<{n}>", f"({n})") for n in range(8)))
    assert await files.read("/count") == "".join(f"({n})" for n in range(8))


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("*", "/", ["/top.txt"]),
        ("**/*.md", "/", ["/notes/old/may.md", "/notes/today.md"]),
        ("**", "/code", ["/code/a[1].py"]),
        ("*.md", "/notes", ["/notes/today.md"]),
        ("**/*.md", "/notes", ["/notes/old/may.md", "/notes/today.md"]),
        ("/notes/*/m?y.md", "/", ["/notes/old/may.md"]),
        ("code/a[[]1[]].py", "/", ["/code/a[1].py"]),
        ("[!n]*/*", "/", ["/code/a[1].py"]),
        ("[a-c]*/*", "/", ["/code/a[1].py"]),
        ("top[.]txt", "/", ["/top.txt"]),
        ("NOTES/*", "/", []),
    ],
)
async def test_globs(files: Files, pattern: str, path: str, found: list[str]) -> None:
    assert paths(await files.glob(pattern, path)) == found


async def test_lines_are_found(files: Files) -> None:
    assert await files.grep("tea", "/notes") == [
        GrepMatch("/notes/today.md", 2, "tea"),
        GrepMatch("/notes/today.md", 3, "cake and tea"),
    ]
    assert paths(await files.grep("tea", glob="*.py")) == ["/code/a[1].py"]
    assert paths(await files.grep("tea", glob="code/*")) == ["/code/a[1].py"]
    assert await files.grep("tea", "/notes/today.md", glob="*.py") == []
    assert len(await files.grep("tea", "/notes/today.md")) == 2
    assert await files.grep("t.a") == []  # literally


@pytest.mark.parametrize("path", ["/", "", "a//b", "../b", "a/./b", "a/", None])
async def test_what_is_no_path_is_refused(files: Files, path: Any) -> None:
    with pytest.raises(kvstore.InvalidArgumentError):
        await files.read(path)


async def test_what_is_no_file_is_told(store: kvstore.Store, files: Files) -> None:
    await store.put(("files",), "number", 5)
    with pytest.raises(kvstore.ValueTypeError, match="no text file"):
        await files.read("/number")
