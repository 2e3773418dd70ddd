"""What README.md and the pages of docs/ hold: blocks of code, and how each is to be tried.

- `python`: typed at the prompt of `python -m asyncio`, names shared through the page. A promise
  `# -> literal` stands behind an expression; a `text` block that follows is what it prints.
- `python` whose first line is `# name.py`, or with `asyncio.run(` in it: a file. It is run if it
  starts something, by pytest if its name begins `test_`; otherwise later blocks import it.
- `console`: lines `$ kvstore ...` with what they print, run by bash; `...` stands for anything.
  Those of other programs are not run.
- `py` is read, but not run: it needs a server, a desktop or a window.
- What needs a beginning that readers need not see has it in an HTML comment around such a block.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from tests.running import python

__all__ = ["PAGES", "ROOT", "Block", "blocks_of", "fences_of", "needs_server", "run_page"]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVER = re.compile(r"postgresql://[\w:@]*db\.example/\w+")
_NAME = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Block:
    """An example: what is run, how, and what it is said to print."""

    kind: str  # "typed", "program", "file", "tests" or "shell"
    code: str
    shown: str = ""
    name: str = ""


def fences_of(page: Path) -> list[tuple[str, str]]:
    """Return language and text of each fenced block of a page."""
    return _FENCE.findall(page.read_text("utf-8"))


def blocks_of(page: Path) -> list[Block]:
    """Return what of a page is run."""
    found: list[Block] = []
    for (kind, body), (after_kind, after) in pairwise([*fences_of(page), ("", "")]):
        shown = after if after_kind == "text" else ""
        if kind == "python":
            found.append(_python(body, shown))
        elif kind == "console":
            found += _console(body)
    return found


def needs_server(page: Path) -> bool:
    """Whether what is run opens a PostgreSQL URL."""
    return any(_SERVER.search(block.code) for block in blocks_of(page))


def _python(body: str, shown: str) -> Block:
    named = _NAME.match(body)
    is_program = "asyncio.run(" in body or "__main__" in body
    if named is None and not is_program:
        return Block("typed", body, shown)
    name = named[1] if named else "program.py"
    if name.startswith("test_"):
        return Block("tests", body, shown, name)
    return Block("program" if is_program else "file", body, shown, name)


def _console(body: str) -> list[Block]:
    """Return a block for each command, or none if they are not ours."""
    commands: list[tuple[str, str]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:].partition("  #")[0], ""))
        elif commands:
            command, shown = commands.pop()
            commands.append((command, f"{shown}{line}\n"))
    if not all("kvstore " in command for command, _ in commands):
        return []
    return [Block("shell", command, shown) for command, shown in commands]


def run_page(page: Path, cwd: Path, server: str = "") -> int:
    """Run all of a page's blocks in a directory; return how many promises were checked.

    Args:
        page: the file.
        cwd: an empty directory.
        server: the URL that stands in for those of `db.example`.
    """
    beside = str(Path(sys.executable).parent)
    env = {
        **os.environ,
        "PATH": os.pathsep.join([beside, os.environ.get("PATH", "")]),
        "HOME": str(cwd),
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "PYTHONWARNINGS": "error",
        "COLUMNS": "90",
    }
    blocks = json.dumps([asdict(block) for block in blocks_of(page)])
    done = python(
        str(Path(__file__).with_name("console.py")),
        cwd=cwd,
        env=env,
        input=_SERVER.sub(lambda _: server, blocks),
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
