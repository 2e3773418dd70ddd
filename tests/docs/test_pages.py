"""README.md and the pages of docs/ are true: their examples run, and what they name is there."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks_of, fences_of, needs_server, run_page

DOCS = ROOT / "docs"
SITE = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
WITH_EXAMPLES = [page for page in PAGES if blocks_of(page)]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_the_examples_run_in_order_and_give_what_the_page_says(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres_url") if needs_server(page) else ""
    promises = sum(block.code.count("  # -> ") for block in blocks_of(page))
    assert run_page(page, tmp_path, server) == promises


@each_page
def test_what_is_not_run_can_be_read(page: Path) -> None:
    for kind, body in fences_of(page):
        if kind in ("py", "python"):
            compile(body, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        elif kind == "json":
            json.loads(body)
        elif kind == "toml":
            tomllib.loads(body)


@each_page
def test_what_can_be_typed_has_a_blank_line_after_a_block_and_none_within(page: Path) -> None:
    """A blank line ends a class or a function at the prompt of `python -m asyncio`."""
    for block in blocks_of(page):
        if block.kind == "typed":
            assert not re.search(r"\n\n[ \t]", block.code), block.code
            for node, following in pairwise(ast.parse(block.code).body):
                is_block = hasattr(node, "body")
                assert not is_block or following.lineno > (node.end_lineno or 0) + 1, block.code


@each_page
def test_the_commands_and_their_options_are_there(page: Path) -> None:
    typer_main = pytest.importorskip("typer.main")
    from kvstore.cli.app import app

    import_module("kvstore.cli.commands")  # makes all commands

    commands = typer_main.get_command(app).commands
    for kind, body in fences_of(page):
        if kind not in ("bash", "console"):
            continue
        for line in body.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\$ )?kvstore ([a-z].*?)(?:  #|[|<>]|$)", line)
            for call in re.split(r" · ", found[1]) if found else ():
                name, *rest = shlex.split(call)
                assert name in commands, line
                command = commands[name]
                while rest and rest[0] in getattr(command, "commands", {}):
                    command = command.commands[rest.pop(0)]
                options = {each for param in command.params for each in param.opts}
                assert {word for word in rest if re.match("--[a-z]", word)} <= options, line


@each_page
def test_what_it_links_to_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path = target.partition("#")[0]
            assert not path or (page.parent / path).exists(), target
            is_outside = page.parent == DOCS and path.startswith("../")
            assert not is_outside, f"{target} leaves the site"


def test_each_page_is_in_the_navigation_once() -> None:
    named = re.findall(r"'([\w./-]+\.md)'", repr(SITE["nav"]))
    pages = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    assert sorted(named) == pages


def test_the_site_asks_nothing_of_other_servers() -> None:
    assert SITE["theme"]["font"] is False
