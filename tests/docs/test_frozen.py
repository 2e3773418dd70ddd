"""A program that PyInstaller froze, without any options, opens files and searches by meaning."""

from __future__ import annotations

import importlib.metadata
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from kvstore import distribution
from kvstore.sqlite import driver
from tests.running import python

PROGRAM = """
import asyncio, sys
import kvstore
from kvstore.embeddings import HashingEmbeddings

async def main():
    index = kvstore.IndexConfig(HashingEmbeddings()) if "semantic" in sys.argv else None
    async with kvstore.open("app.db", index=index) as store:
        await store.put(("notes",), "a", "the cat sat on the mat")
        await store.put(("notes",), "b", "interest rates rose")
        if index is not None:
            found = await store.search(("notes",), "cat on a mat", mode="semantic", limit=1)
            print(found[0].key)
    with kvstore.KeyValueStore("app.db") as facade:
        print(facade.increment("visits"), kvstore.__version__)

asyncio.run(main())
"""

# What `pyinstaller app.py` and `pyinstaller --onefile app.py` do, with one analysis for both.
SPEC = """
found = Analysis(["app.py"])
pyz = PYZ(found.pure)
EXE(pyz, found.scripts, found.binaries, found.datas, name="one-file")
folder = EXE(pyz, found.scripts, exclude_binaries=True, name="app")
COLLECT(folder, found.binaries, found.datas, name="folder")
"""


def is_registered() -> bool:
    """Whether this package is installed, so that PyInstaller finds its hook by itself."""
    try:
        importlib.metadata.distribution(distribution.NAME)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(find_spec("PyInstaller") is None, reason="PyInstaller is not installed")
@pytest.mark.skipif(not is_registered(), reason=f"{distribution.NAME} is not installed")
def test_a_frozen_program_opens_files_and_searches_by_meaning(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    (tmp_path / "both.spec").write_text(SPEC)
    built = python("-m", "PyInstaller", "--noconfirm", "both.spec", cwd=tmp_path, timeout=550)
    assert built.returncode == 0, built.stderr[-3_000:]
    can_search = driver.CAN_LOAD_EXTENSIONS and find_spec("sqlite_vec") is not None
    for visit, program in enumerate(("folder/app", "one-file", "one-file"), 1):
        done = subprocess.run(
            [tmp_path / "dist" / program, *(["semantic"] if can_search else [])],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        expected = [*(["a"] if can_search else []), str(visit), distribution.VERSION]
        assert done.stdout.split() == expected, f"{program}: {done.stderr}"
