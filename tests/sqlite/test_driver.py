"""Which SQLite driver is taken, and what is said where it cannot load extensions."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from pathlib import Path

import pytest

from kvstore import MissingDependencyError
from kvstore.sqlite import codes, driver
from tests.running import python

try:  # it may be installed, and blocked
    import pysqlite3  # noqa: F401
except ImportError:
    HAS_PYSQLITE3 = False
else:
    HAS_PYSQLITE3 = True

ROOT = Path(__file__).parents[2]
STOCK = "import sys; sys.modules['pysqlite3'] = None\n"
# What many programs do before anything else, in two ways that go round.
PUT_IN_ITS_PLACE = "import sys, pysqlite3; sys.modules['sqlite3'] = pysqlite3\n"
MOVED_TO_ITS_PLACE = (
    "import sys, pysqlite3; sys.modules['sqlite3'] = sys.modules.pop('pysqlite3')\n"
)
PUTS_AND_GETS = """
import asyncio, sys, kvstore

async def main():
    async with kvstore.open(sys.argv[1]) as store:
        await store.put(("a",), "k", "v")
        print((await store.get(("a",), "k")).value, (await store.check()).ok)

asyncio.run(main())
"""


def test_pysqlite3_is_taken_where_it_is_installed() -> None:
    assert ("pysqlite3" if HAS_PYSQLITE3 else "sqlite3") == driver.NAME


def test_extensions_are_required_by_a_message_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "CAN_LOAD_EXTENSIONS", False)
    with pytest.raises(MissingDependencyError, match="pip install pysqlite3"):
        driver.require_extensions()
    with pytest.raises(ImportError):
        driver.require_extensions()
    monkeypatch.setattr(driver, "CAN_LOAD_EXTENSIONS", True)
    driver.require_extensions()


def test_a_sqlite_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "VERSION", (3, 36, 0))
    with pytest.raises(MissingDependencyError, match="pip install pysqlite3"):
        driver.connect("file:old?mode=memory")


def stock(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script where the stock sqlite3 is all there is."""
    return run(STOCK + script, *args)


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return python(
        "-W", "error", "-c", script, *args, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, timeout=280
    )


def test_the_stock_module_is_taken_elsewhere() -> None:
    done = stock(
        "from kvstore.sqlite import codes, driver; print(driver.NAME, driver.CAN_LOAD_EXTENSIONS)"
    )
    can_load = hasattr(sqlite3.Connection, "enable_load_extension")
    assert done.stdout.split() == ["sqlite3", str(can_load)], done.stderr


@pytest.mark.skipif(not HAS_PYSQLITE3, reason="there is no pysqlite3 to put there")
@pytest.mark.parametrize("swap", [PUT_IN_ITS_PLACE, MOVED_TO_ITS_PLACE])
def test_pysqlite3_in_the_place_of_sqlite3_is_no_matter(swap: str, tmp_path: Path) -> None:
    done = run(swap + PUTS_AND_GETS, str(tmp_path / "a.db"))
    assert done.stdout.split() == ["v", "True"], done.stderr


def test_a_store_works_on_the_stock_module(tmp_path: Path) -> None:
    done = stock(PUTS_AND_GETS, str(tmp_path / "a.db"))
    assert done.stdout.split() == ["v", "True"], done.stderr


def test_the_result_codes_are_those_of_sqlite() -> None:
    ours = {name: getattr(codes, name) for name in codes.__all__}
    assert ours == {name: getattr(sqlite3, name) for name in codes.__all__}


def test_nothing_but_the_driver_imports_sqlite3() -> None:
    package = Path(driver.__file__).parents[1]
    importing = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(
            r"^\s*(import|from) (sqlite3|pysqlite3)\b", path.read_text("utf-8"), re.MULTILINE
        )
    ]
    assert importing == ["sqlite/driver.py"]
