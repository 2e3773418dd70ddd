"""Private names are no border between modules: hardly anything reaches into another object."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "kvstore"
MOST = 13
PUBLIC = {"_exit", "_replace"}  # of os, and of a named tuple


def accesses(path: Path) -> list[str]:
    """Return where a module reads or writes a private attribute of what is not `self`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Attribute) or node.attr in PUBLIC:
            continue
        if not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        owner = ast.unparse(node.value)
        if owner not in ("self", "cls", "super()", "type(self)"):
            found.append(f"{path.name}:{node.lineno} {owner}.{node.attr}")
    return found


def test_few_accesses_to_private_attributes_of_others() -> None:
    found = [place for path in sorted(PACKAGE.rglob("*.py")) for place in accesses(path)]
    assert len(found) <= MOST, "\n".join(found)
