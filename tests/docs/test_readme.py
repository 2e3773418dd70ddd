"""Every python block of README.md runs, in order, and gives what README.md says."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

import kvstore

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Runs blocks as `python -m asyncio` would: names are shared and `await` stands anywhere. An
# expression with `# -> literal` behind it is compared with the literal.
_CONSOLE = """
import ast, asyncio, inspect, json, sys

async def run(blocks):
    names, checked = {}, 0
    for block in blocks:
        lines = block.splitlines()
        for node in ast.parse(block, "README.md").body:
            expected = lines[node.end_lineno - 1].partition("  # -> ")[2]
            if expected:
                assert isinstance(node, ast.Expr), f"{ast.unparse(node)} is no expression"
                node = ast.Assign([ast.Name("_", ast.Store())], node.value)
            module = ast.fix_missing_locations(ast.Module([node], []))
            code = compile(module, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            done = eval(code, names)
            if inspect.iscoroutine(done):
                await done
            if expected:
                checked += 1
                assert names["_"] == ast.literal_eval(expected), (
                    f"{ast.unparse(node.value)} gave {names['_']!r}, not {expected}"
                )
    print(f"checked {checked}", file=sys.stderr)

asyncio.run(run(json.load(sys.stdin)))
"""


@dataclass(frozen=True)
class Block:
    code: str
    output: str  # the text block that follows it, if one does

    @property
    def is_program(self) -> bool:
        """Whether it is a whole program, and not typed at the prompt."""
        return "asyncio.run(" in self.code


def python_blocks() -> list[Block]:
    found = [(kind, body) for kind, body in _BLOCK.findall(README)] + [("", "")]
    return [
        Block(body, after if after_kind == "text" else "")
        for (kind, body), (after_kind, after) in pairwise(found)
        if kind == "python"
    ]


def run(*command: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=cwd,
        env=env,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_the_blocks_run_in_order_and_give_what_the_page_says(tmp_path: Path) -> None:
    blocks = python_blocks()
    programs = [block for block in blocks if block.is_program]
    typed = [block for block in blocks if not block.is_program]
    assert programs
    assert typed
    assert blocks[: len(programs)] == programs, "programs come first, and what is typed follows"

    for block in programs:
        (tmp_path / "program.py").write_text(block.code, "utf-8")
        printed = [run("program.py", cwd=tmp_path).stdout for _ in block.output.splitlines()]
        assert "".join(printed) == block.output

    console = run("-c", _CONSOLE, cwd=tmp_path, stdin=json.dumps([b.code for b in typed]))
    assert console.stdout == "".join(block.output for block in typed)
    promises = sum(block.code.count("# ->") for block in typed)
    assert console.stderr == f"checked {promises}\n"
    assert promises > 10


def test_the_first_program_is_short_and_inside_the_first_screen() -> None:
    first = python_blocks()[0]
    statements = [line for line in first.code.splitlines() if line.strip()]
    assert len(statements) <= 10
    assert README[: README.index(first.output)].count("\n") <= 40


@pytest.mark.parametrize("command", re.findall(r"`make ([a-z-]+)", README))
def test_each_make_target_that_the_page_names_exists(command: str) -> None:
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_each_method_in_the_table_has_the_arguments_that_it_shows() -> None:
    rows = README.partition("| call |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in rows.splitlines()[2:]]
    calls = re.findall(r"`([a-z_]+\(.*?\))`", " ".join(cells))
    assert len(calls) > 15
    for call in calls:
        name = call.partition("(")[0]
        wanted = ast.parse(f"def {call}: ...").body[0]
        assert isinstance(wanted, ast.FunctionDef)
        actual = inspect.signature(getattr(kvstore.Store, name)).parameters
        assert {arg.arg for arg in wanted.args.kwonlyargs} <= {
            parameter.name
            for parameter in actual.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }, call
        for arg, default in zip(wanted.args.kwonlyargs, wanted.args.kw_defaults, strict=True):
            assert default is not None
            assert actual[arg.arg].default == ast.literal_eval(default), call


def test_what_can_be_typed_has_no_blank_line_within_a_block() -> None:
    """A blank line ends a class or a function at the prompt of `python -m asyncio`."""
    typed = [code for kind, code in _BLOCK.findall(README) if kind == "python"]
    for code in typed:
        if "asyncio.run(" not in code:  # a file
            assert not re.search(r"\n\n[ \t]", code), code
