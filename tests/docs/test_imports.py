"""Imports point one way, drivers stay in their backends and frameworks in the integrations."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kvstore"

# A module imports from its own layer and the layers before it. Backends do not know each other.
LAYERS = (
    "alarm caching collecting distribution errors",
    "codec files instants lifecycle misuse positions recipe schema showing",
    "observing waiting",
    "types",
    "model_id",
    "embedding filters namespace paths patterns ranking report rules sql text",
    "arguments context ordering own_vectors reranking sequences value_changes",
    "description past",
    "jobs",
    "operations",
    "plan",
    "index_plan",
    "exchange feed",
    "backend",
    "bulk log memory_filters memory_index past_view queue typed",
    "memory_past watching",
    "transaction",
    "store",
    "memory_jobs memory_rows",
    "memory sqlite postgres",
    "opening embeddings transfer",
    "testing testing_history testing_search testing_sequences",
    "driving sync",
    "flow runtime views",
    "studio",
    "integrations cli __main__ __pyinstaller",
)
BACKENDS = {"memory", "sqlite", "postgres"}
EXAMPLES = "examples"  # sees the public modules alone, as a user does
EXAMPLES_IMPORT = {"", "embeddings", "integrations", "runtime", "views"}

# Where packages that are not needed everywhere may be imported at all.
HOMES = {
    "agents": {"integrations"},
    "aiosqlite": {"sqlite"},
    "asyncpg": {"postgres"},
    "deepagents": {"integrations"},
    "fastembed": {"embeddings"},
    "onnxruntime": {"embeddings"},
    "opentelemetry": {"integrations"},
    "google": {"integrations"},
    "haystack": {"integrations"},
    "httpx": {"embeddings"},
    "key_value": {"integrations"},
    "keyring": {"flow"},
    "langchain_core": {"integrations"},
    "langgraph": {"integrations"},
    "PyInstaller": {"__pyinstaller"},
    "llama_index": {"integrations"},
    "mcp": {"integrations"},
    "ormsgpack": {"integrations"},
    "pysqlite3": {"sqlite"},
    "pydantic": {"typed"},
    "pydantic_core": {"typed"},
    "pytest": {"testing", "testing_history", "testing_search", "testing_sequences"},
    "pytest_asyncio": {"testing", "testing_history", "testing_search", "testing_sequences"},
    "rich": {"cli"},
    "sentence_transformers": {"embeddings"},
    "sqlite3": {"sqlite"},
    "sqlite_vec": {"sqlite"},
    "starlette": {"studio"},
    "textual": {"cli"},
    "typer": {"cli"},
    "typing_extensions": {"types"},
    "uvicorn": {"studio"},
}
EVERYWHERE = {"orjson"}
SHOWN = {  # by the examples
    "agents",
    "deepagents",
    "fastmcp",
    "google",
    "haystack",
    "langchain_core",
    "langgraph",
    "llama_index",
    "mcp",
    "openai",
}

MODULES = sorted(PACKAGE.rglob("*.py"))
IDS = [path.relative_to(PACKAGE).as_posix() for path in MODULES]


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def imports(path: Path) -> set[str]:
    """Return the full names of what a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in NAMES else node.module)
    return found


def part(name: str) -> str:
    """Return the first part of a module's name below the package: `kvstore.sqlite.x`: `sqlite`."""
    return name.split(".")[1] if "." in name else ""


def layer(name: str) -> int:
    found = [rank for rank, parts in enumerate(LAYERS) if part(name) in parts.split()]
    assert found, f"{name} has no layer: give it one in LAYERS"
    return found[0]


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_imports_point_to_earlier_layers(path: Path) -> None:
    name = name_of(path)
    ours = {imported for imported in imports(path) if imported.split(".")[0] == "kvstore"}
    if part(name) == EXAMPLES:
        assert all(part(imported) in EXAMPLES_IMPORT for imported in ours)
    elif name != "kvstore":
        for imported in ours:
            assert imported != "kvstore", f"{name} imports the whole package"
            assert layer(imported) <= layer(name), f"{name} imports {imported}"
            if part(name) in BACKENDS and part(imported) in BACKENDS:
                assert part(imported) == part(name), f"{name} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_packages_are_imported_only_in_their_homes(path: Path) -> None:
    for imported in imports(path):
        package = imported.split(".")[0]
        if part(name_of(path)) == EXAMPLES and package in SHOWN:
            continue
        if package in HOMES:
            assert part(name_of(path)) in HOMES[package], f"{path} imports {imported}"
        elif package not in {"kvstore", "numpy", *EVERYWHERE}:
            assert package in sys.stdlib_module_names, f"{path} imports {imported}"


def test_no_two_modules_import_each_other() -> None:
    TopologicalSorter({name_of(path): imports(path) & NAMES for path in MODULES}).prepare()
