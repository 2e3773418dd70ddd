"""The public names of kvstore are all there, sorted, documented and complete."""

from __future__ import annotations

import builtins
import subprocess
import sys
from types import ModuleType

import pytest

import kvstore
from kvstore import errors


def test_all_is_sorted_and_without_repeats() -> None:
    constants_first = sorted(set(kvstore.__all__), key=lambda name: (not name.isupper(), name))
    assert kvstore.__all__ == constants_first


def test_all_names_just_what_the_package_defines() -> None:
    defined = {
        name
        for name, value in vars(kvstore).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(kvstore.__all__) - {"__version__"} == defined - {"open"}


def test_a_star_import_replaces_no_builtin() -> None:
    given: dict[str, object] = {}
    exec("from kvstore import *", given)
    del given["__builtins__"]
    assert set(given) == set(kvstore.__all__)
    assert not set(given) & set(dir(builtins))
    assert kvstore.open("memory://")


def test_the_core_is_exported() -> None:
    core = {
        "IndexConfig",
        "InMemoryStore",
        "Item",
        "SQLiteStore",
        "SearchQuery",
        "Store",
        "escape",
    }
    assert core <= set(kvstore.__all__)


def test_every_error_is_exported() -> None:
    assert set(errors.__all__) <= set(kvstore.__all__)


@pytest.mark.parametrize(
    "name", ["open", *(name for name in kvstore.__all__ if name != "__version__")]
)
def test_every_public_name_says_what_it_is(name: str) -> None:
    assert (getattr(kvstore, name).__doc__ or "").strip()


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, member in vars(kvstore.Store).items()
        if not name.startswith("_") and callable(member)
    ],
)
def test_every_method_of_a_store_says_what_it_does(name: str) -> None:
    assert (getattr(kvstore.Store, name).__doc__ or "").strip()


def test_importing_the_package_loads_no_optional_one() -> None:
    optional = (
        "asyncpg fastembed httpx key_value langchain_core langgraph numpy pgvector pytest rich "
        "sentence_transformers textual typer"
    )
    program = (
        "import sys, kvstore\n"
        f"print(*[name for name in {optional.split()!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.split() == []
