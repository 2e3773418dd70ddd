"""Runs the examples of a page in the current directory, in order; `pages` says what they are.

As `python -m asyncio` does, it shares names between blocks and lets `await` stand anywhere. Blocks
come as JSON on stdin; the number of promises that were checked goes to stdout.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import fnmatch
import inspect
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_ANYTHING = "..."  # in what a page shows: here stands what differs from run to run


def check(shown: str, printed: str, block: str) -> None:
    """Compare what a page shows with what was printed, line by line."""
    wanted, found = ([line.rstrip() for line in text.splitlines()] for text in (shown, printed))
    patterns = [fnmatch.translate(_escape(line).replace(_ANYTHING, "*")) for line in wanted]
    same = len(wanted) == len(found) and all(map(re.match, patterns, found))
    assert same, f"{block}\nprinted\n{printed}\nand not\n{shown}"


def _escape(line: str) -> str:
    return line.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def run_program(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=120, check=False, env=os.environ
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


async def run_typed(code: str, names: dict[str, Any]) -> tuple[str, int]:
    """Run what is typed; return what it printed, and how many `# ->` were right."""
    lines, checked, said = code.splitlines(), 0, io.StringIO()
    with contextlib.redirect_stdout(said):
        for node in ast.parse(code).body:
            promise = lines[(node.end_lineno or 1) - 1].partition("  # -> ")[2]
            statement: ast.stmt = node
            if promise:
                assert isinstance(node, ast.Expr), f"{ast.unparse(node)} is no expression"
                statement = ast.Assign([ast.Name("_", ast.Store())], node.value)
            module = ast.fix_missing_locations(ast.Module([statement], []))
            compiled = compile(module, "<page>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            done = eval(compiled, names)
            if inspect.iscoroutine(done):
                await done
            if promise:
                checked += 1
                wanted = ast.literal_eval(promise)
                assert names["_"] == wanted, (
                    f"{ast.unparse(node)} gave {names['_']!r}, not {wanted!r}"
                )
    return said.getvalue(), checked


async def run_page(blocks: list[dict[str, str]]) -> int:
    names: dict[str, Any] = {"__name__": "__main__"}
    checked = 0
    sys.path.insert(0, "")  # the page's own files can be imported
    for block in blocks:
        kind, code, shown, name = (block[part] for part in ("kind", "code", "shown", "name"))
        if name:
            Path(name).write_text(code, "utf-8")
        if kind == "typed":
            printed, promises = await run_typed(code, names)
            checked += promises
            check(shown, printed, code)
        elif kind == "program":
            printed = ""
            while True:
                printed += await asyncio.to_thread(run_program, sys.executable, name)
                if printed.count("\n") >= shown.count("\n") or not printed:
                    break  # else the page shows what several runs print
            check(shown, printed, code)
        elif kind == "tests":
            flags = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull]
            flags += ["--rootdir", ".", "-o", "asyncio_mode=auto"]
            flags += ["-o", "asyncio_default_fixture_loop_scope=function"]
            await asyncio.to_thread(run_program, sys.executable, "-m", "pytest", *flags, name)
        elif kind == "shell":
            printed = await asyncio.to_thread(run_program, "bash", "-ec", f"exec 2>&1\n{code}")
            check(shown, printed, code)
    return checked


if __name__ == "__main__":
    print(asyncio.run(run_page(json.load(sys.stdin))))
