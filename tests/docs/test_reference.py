"""The reference names everything that is public, and every option of every constructor."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import kvstore
from tests.docs.pages import ROOT

NAMED = re.findall(
    r"^::: ([\w.]+)",
    "\n".join(page.read_text("utf-8") for page in (ROOT / "docs" / "api").glob("*.md")),
    re.MULTILINE,
)
CONSTRUCTORS = [
    kvstore.Store,
    kvstore.SQLiteStore,
    kvstore.InMemoryStore,
    kvstore.SyncStore,
    kvstore.KeyValueStore,
    kvstore.AsyncKeyValueStore,
    kvstore.KeyValueStoreNode,
    kvstore.FlowScope,
    kvstore.IndexConfig,
    kvstore.ToolRuntime,
]


@pytest.mark.parametrize("name", sorted({*kvstore.__all__, "open"} - {"__version__", "FOREVER"}))
def test_each_public_name_has_a_place(name: str) -> None:
    home = inspect.getmodule(getattr(kvstore, name))
    assert home is not None
    own = getattr(kvstore, name).__name__
    places = {f"kvstore.{name}", home.__name__, f"{home.__name__}.{own}"}
    assert places & set(NAMED)


def test_each_place_is_named_once() -> None:
    assert len(NAMED) == len(set(NAMED))


@pytest.mark.parametrize("made", CONSTRUCTORS, ids=lambda made: made.__name__)
def test_each_option_of_a_constructor_is_described(made: Any) -> None:
    described = set(re.findall(r"^ {4,8}(\w+): ", made.__doc__ or "", re.MULTILINE))
    options = {
        name
        for name, parameter in inspect.signature(made).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    }
    assert options <= described


def test_the_options_of_postgres_are_described() -> None:
    pytest.importorskip("asyncpg")
    from kvstore.postgres import PostgresStore

    test_each_option_of_a_constructor_is_described(PostgresStore)
