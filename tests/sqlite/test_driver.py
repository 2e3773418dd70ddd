"""Which SQLite driver is taken, and what is said where it cannot load extensions."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kvstore import MissingDependencyError
from kvstore.sqlite import driver

ROOT = Path(__file__).parents[2]
STOCK = "import sys; sys.modules['pysqlite3'] = None\n"


def test_pysqlite3_is_taken_where_it_is_installed() -> None:
    expected = "pysqlite3" if find_spec("pysqlite3") else "sqlite3"
    assert expected == driver.NAME


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
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", STOCK + script, *args],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_stock_module_is_taken_elsewhere() -> None:
    done = stock(
        "from kvstore.sqlite import driver; print(driver.NAME, driver.CAN_LOAD_EXTENSIONS)"
    )
    can_load = hasattr(sqlite3.Connection, "enable_load_extension")
    assert done.stdout.split() == ["sqlite3", str(can_load)], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(driver.NAME == "sqlite3", reason="the other tests run on the stock module")
def test_the_contract_holds_on_the_stock_module() -> None:
    done = stock(
        "import pytest; sys.exit(pytest.main(sys.argv[1:]))",
        *("-q", "-p", "no:cacheprovider", "--deselect", "tests/conformance/test_memory.py"),
        *("-k", "not FullDurability", "tests/conformance/test_sqlite.py"),
        *("tests/properties/test_filters.py", "tests/properties/test_stores_agree.py"),
    )
    assert done.returncode == 0, done.stdout[-5_000:]
