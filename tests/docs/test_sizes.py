"""A file is short enough to be read at once, and SQL has one home in each backend."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kvstore"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 600
LONGER = {
    *("store.py", "testing.py", "testing_search.py", "testing_sequences.py"),  # the contract
}

ON_TABLES = r"(FROM|JOIN|INTO|UPDATE|TABLE) kvstore_(?!\w+\()"  # and no call of a function

# To begin and end transactions, and to set up a connection, is no statement on our tables.
STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|DROP|ALTER|TRUNCATE)\s")


def strings(path: Path) -> Iterator[str]:
    """Yield the texts of a module that are no docstrings, of an f-string its first part."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            skipped.add(id(node.body[0].value))  # type: ignore[attr-defined]
        elif isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values[1:]}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in skipped
        ):
            yield node.value


@pytest.mark.parametrize(("backend", "tables"), [("sqlite", ""), ("postgres", ON_TABLES)])
def test_statements_are_where_statements_belong(backend: str, tables: str) -> None:
    """On PostgreSQL those on our tables; a session asks of itself where it is written."""
    found = [
        f"{path.name}: {' '.join(text.split())}"
        for path in sorted((PACKAGE / backend).rglob("*.py"))
        if not path.stem.endswith("statements")
        for text in strings(path)
        if STATEMENT.match(text) and re.search(tables, text)
    ]
    assert not found, "\n".join(found)


def test_no_file_is_longer_than_can_be_read() -> None:
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in MODULES
    }
    long = {name: length for name, length in lengths.items() if length > MOST_LINES}
    assert long.keys() <= LONGER, long
