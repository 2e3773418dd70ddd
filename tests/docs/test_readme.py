"""README.md: short, with a first success in the first screen; `test_pages` runs its examples."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

import kvstore
from tests.docs.pages import ROOT, blocks_of

README = (ROOT / "README.md").read_text("utf-8")


def test_it_is_short() -> None:
    assert README.count("\n") < 250


def test_the_first_program_is_short_and_inside_the_first_screen() -> None:
    first = blocks_of(ROOT / "README.md")[0]
    assert first.kind == "program"
    statements = [line for line in first.code.splitlines() if line.strip()]
    assert len(statements) <= 10
    assert README[: README.index(first.shown)].count("\n") <= 40


@pytest.mark.parametrize("command", re.findall(r"`make ([a-z-]+)", README))
def test_each_make_target_that_the_page_names_exists(command: str) -> None:
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_each_method_in_the_table_has_the_arguments_that_it_shows() -> None:
    items = (ROOT / "docs" / "basics.md").read_text("utf-8")
    rows = items.partition("| call |")[2].partition("\n\n")[0]
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
