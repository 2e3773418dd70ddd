"""An adapter says which version of its framework it needs, as the extra that brings it does."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

import kvstore
from kvstore.integrations.requirements import needing

PACKAGE = Path(kvstore.__file__).parent
PROJECT = PACKAGE.parent / "pyproject.toml"

# What each adapter asks for: its module, the distribution, the version, the extra.
ASKED = [
    (path.stem, *(ast.literal_eval(each) for each in call.args[1:]), call.keywords[0].value)
    for path in sorted((PACKAGE / "integrations").glob("*.py"))
    for call in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "needing"
]


def test_all_adapters_ask() -> None:
    assert {name for name, *_ in ASKED} == {
        "deepagents",
        "google_adk",
        "haystack",
        "key_value",
        "langchain",
        "langgraph",
        "langgraph_checkpointer",
        "llama_index",
        "mcp",
        "openai_agents",
        "opentelemetry",
    }


@pytest.mark.parametrize(("name", "distribution", "least", "extra"), ASKED)
def test_the_extra_brings_what_is_asked_for(
    name: str, distribution: str, least: str, extra: ast.Constant
) -> None:
    extras = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    assert f"{distribution}>={least}" in extras[str(extra.value)]


@pytest.mark.parametrize(
    ("there", "is_enough"),
    [
        ("4.0", True),
        ("4.0.0", True),
        ("10.1", True),
        ("4.0rc1", True),
        ("3.9.9", False),
        ("4", True),
    ],
)
def test_an_old_one_is_named(monkeypatch: pytest.MonkeyPatch, there: str, is_enough: bool) -> None:
    monkeypatch.setattr("kvstore.integrations.requirements.version", lambda name: there)
    if is_enough:
        with needing("Adapter", "frame-work", "4.0", extra="some"):
            pass
        return
    with (
        pytest.raises(
            kvstore.MissingDependencyError,
            match=re.escape(
                f"Adapter needs frame-work 4.0 or newer, and {there} is installed: "
                "pip install 'agent-kvstore[some]', or pip install 'frame-work>=4.0'"
            ),
        ),
        needing("Adapter", "frame-work", "4.0", extra="some"),
    ):
        raise AssertionError("it is not imported")


def test_one_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(
            kvstore.MissingDependencyError, match=r"frame-work 4\.0 or newer: pip"
        ) as told,
        needing("Adapter", "frame-work", "4.0", extra="some"),
    ):
        import frame_work  # type: ignore[import-not-found]  # noqa: F401
    assert isinstance(told.value.__cause__, ModuleNotFoundError)


def test_one_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "5.0")
    with (
        pytest.raises(
            kvstore.MissingDependencyError, match=r"import fails .*cannot import name 'x'"
        ),
        needing("Adapter", "pytest", "1.0", extra="some"),
    ):
        from pytest import x  # type: ignore[attr-defined]  # noqa: F401, PT013
