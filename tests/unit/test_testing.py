"""`kvstore.testing` itself: what it needs, and that it finds what is wrong with a store."""

from __future__ import annotations

import subprocess
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kvstore.testing import ManualClock, StoreConformance
from tests.running import python


def run(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return python(*args, cwd=folder)


@pytest.mark.parametrize("package", ["pytest", "pytest_asyncio"])
def test_without_its_packages_the_import_names_the_extra(package: str, tmp_path: Path) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; import kvstore.testing"
    done = run("-c", script, folder=tmp_path)
    assert "MissingDependencyError" in done.stderr
    assert "'agent-kvstore[test]', or pip install pytest" in done.stderr


def test_kvstore_itself_does_not_need_them(tmp_path: Path) -> None:
    script = "import sys; sys.modules['pytest'] = None; import kvstore, kvstore.flow"
    assert run("-c", script, folder=tmp_path).returncode == 0


def test_the_class_is_no_test_by_itself() -> None:
    assert not StoreConformance.__name__.startswith("Test")


def test_the_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(100.5)
    assert clock() == clock() == 100.5
    clock.advance(0.25)
    assert clock() == 100.75
    assert clock.now == datetime(1970, 1, 1, 0, 1, 40, 750_000, tzinfo=UTC)


SUITE = """
    import asyncio
    from dataclasses import replace

    import pytest

    from kvstore import ConflictError, Store
    from kvstore.filters import ALL
    from kvstore.memory import InMemoryBackend
    from kvstore.operations import Delete, Put
    from kvstore.patterns import compile_pattern
    from kvstore.testing import StoreConformance


    class Sound(InMemoryBackend):
        pass


    class LosesWritesOfOthers(InMemoryBackend):
        async def apply(self, ops):
            await asyncio.sleep(0)
            rows = dict(self._rows)
            await asyncio.sleep(0)
            self._rows, self._is_sorted = rows, False
            return await super().apply(ops)


    class TestsConditionsTooEarly(InMemoryBackend):
        async def apply(self, ops):
            for op in ops:
                if isinstance(op, Put | Delete) and op.expected is not None:
                    row = self._live(op.path, op.key, self.now())
                    if op.expected != (row.version if row else 0):
                        raise ConflictError("another version")
                    op.expected = None
            await asyncio.sleep(0)
            return await super().apply(ops)


    class WritesHalfOfAUnit(InMemoryBackend):
        async def apply(self, ops):
            return [(await InMemoryBackend.apply(self, (op,)))[0] for op in ops]


    class ReusesVersions(InMemoryBackend):
        def _carry_out(self, effects):
            super()._carry_out(effects)
            if effects.drops:
                self._version -= 2


    class ShowsExpiredItems(InMemoryBackend):
        async def count(self, path, pattern, subtree):
            return sum(pattern.matches(key) for at, key in self._rows if at == path) or (
                await super().count(path, pattern, subtree)
            )


    class FoldsCase(InMemoryBackend):
        async def keys(self, span, limit):
            pattern = compile_pattern(span.pattern.text.lower())
            return await super().keys(replace(span, pattern=pattern), limit)


    class FindsSiblings(InMemoryBackend):
        async def select(self, path, selection):
            return await super().select(path.rstrip(chr(9)), selection)

        def _range(self, path, subtree, *bounds):
            for address, row in super()._range("", True, *bounds):
                if address[0].startswith(path) and (subtree or address[0].rstrip(chr(9)) == path):
                    yield address, row


    class ForgetsOnClose(InMemoryBackend):
        async def close(self):
            self._rows, self._order = {}, []


    class FiltersAfterTheLimit(InMemoryBackend):
        async def page(self, span, filter, limit):
            return await super().page(span, ALL, limit)


    class IgnoresLifetimes(InMemoryBackend):
        def now(self):
            return 0


    def suite(store):
        class Suite(StoreConformance):
            @pytest.fixture
            def store_factory(self):
                return lambda **options: Store(store(), **options)

        Suite.__qualname__ = "Suite"
        return Suite


    import os

    TestStore = suite(globals()[os.environ["STORE"]])


    class TestWithoutFactory(StoreConformance):
        pass
"""

FAULTY = [
    *("LosesWritesOfOthers", "TestsConditionsTooEarly", "WritesHalfOfAUnit", "ReusesVersions"),
    *("ShowsExpiredItems", "FoldsCase", "FindsSiblings", "ForgetsOnClose", "FiltersAfterTheLimit"),
    "IgnoresLifetimes",
]  # fmt: skip


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(textwrap.dedent(SUITE))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    return tmp_path


def run_suite(
    suite: Path, store: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("STORE", store)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the one that is needed is quick
    options = ("-q", "-x", "--tb=line", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin")
    return run("-m", "pytest", *options, f"test_it.py::{name}", folder=suite)


@pytest.mark.slow
def test_a_sound_store_passes_in_the_strict_mode_of_pytest_asyncio(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_suite(suite, "Sound", "TestStore", monkeypatch)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("store", FAULTY)
def test_a_faulty_store_fails(suite: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_suite(suite, store, "TestStore", monkeypatch)
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout


@pytest.mark.slow
def test_a_suite_without_its_fixture_is_told_so(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_suite(suite, "Sound", "TestWithoutFactory", monkeypatch)
    assert done.returncode == 1
    assert "store_factory" in done.stdout
