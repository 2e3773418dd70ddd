"""mypy and pyright know the types of typed namespaces, and tell what is none of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SAMPLE = """
from dataclasses import dataclass
from typing import TypedDict, assert_type

from pydantic import BaseModel

import kvstore
from kvstore import Item


class User(BaseModel):
    name: str


@dataclass
class Point:
    x: int


class Options(TypedDict):
    size: int


async def use(store: kvstore.Store) -> None:
    users = store.typed(("users",), User)
    assert_type(await users.put("a", User(name="Ann"), ttl=60), Item[User])
    found = await users.get("a")
    assert_type(found, Item[User] | None)
    if found is not None:
        assert_type(found.value, User)
        assert_type(found.value.name, str)
    assert_type(await users.get_many(["a"]), dict[str, Item[User]])
    assert_type(await users.search(filter={"name": "Ann"}), list[Item[User]])
    assert_type(await users.update("a", lambda user: user), Item[User])
    assert_type(await users.keys(), list[str])
    assert_type(await users.count(), int)
    assert_type(await users.delete("a"), bool)
    async for item in users.scan():
        assert_type(item, Item[User])
    points = store.typed(("points",), Point)
    assert_type((await points.put("p", Point(1))).value, Point)
    options = store.typed(("options",), Options)
    assert_type(await options.put_many({"o": {"size": 1}}), list[Item[Options]])


def use_blocking(store: kvstore.SyncStore) -> None:
    points = store.typed(("points",), Point)
    assert_type(points.put("p", Point(1)), Item[Point])
    assert_type(points.get("p"), Item[Point] | None)
    for item in points.scan():
        assert_type(item.value, Point)
"""

WRONG = """

async def misuse(store: kvstore.Store, blocking: kvstore.SyncStore) -> None:
    users = store.typed(("users",), User)
    await users.put("a", Point(1))  # WRONG
    await users.put_many({"a": 1})  # WRONG
    (await users.search())[0].value.size  # WRONG
    await users.update("a", lambda user: Point(1))  # WRONG
    (await users.get("a")).value  # WRONG: there may be none
    blocking.typed(("points",), Point).put("p", User(name="Ann"))  # WRONG
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.py"
    path.write_text(SAMPLE + WRONG, "utf-8")
    return path


def wrong(path: Path) -> set[int]:
    lines = path.read_text("utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if "# WRONG" in line}


@pytest.mark.slow
def test_mypy_tells_what_is_wrong_and_nothing_else(sample: Path) -> None:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--output=json"]
    cache = f"--cache-dir={sample.parent / 'cache'}"
    done = subprocess.run(
        [*command, cache, str(sample)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    found = {each["line"] for each in told if each["severity"] == "error"}
    assert found == wrong(sample), (done.stdout, done.stderr)


@pytest.mark.slow
def test_pyright_tells_what_is_wrong_and_nothing_else(sample: Path) -> None:
    if importlib.util.find_spec("basedpyright") is None:  # which brings its own Node.js
        pytest.skip("basedpyright is not installed")
    config = {
        "typeCheckingMode": "standard",
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "include": [str(sample)],
        "reportUnusedExpression": "none",
        "reportUnusedCoroutine": "none",
    }
    (sample.parent / "pyrightconfig.json").write_text(json.dumps(config), "utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson"]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable, "-p", str(sample.parent)],
        cwd=sample.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    told = json.loads(done.stdout)["generalDiagnostics"]
    found = {each["range"]["start"]["line"] + 1 for each in told if each["severity"] == "error"}
    assert found == wrong(sample), told
