"""What docs/frameworks.md shows of frameworks that not every clone has, where they are there."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest

import kvstore
from tests.docs.pages import ROOT, Block, fences_of
from tests.running import python

SHOWN = [code for kind, code in fences_of(ROOT / "docs" / "frameworks.md") if kind == "py"]
ADAPTERS = [re.findall(r"kvstore\.integrations\.(\w+)", code)[0] for code in SHOWN]


def test_each_framework_is_shown() -> None:
    assert ADAPTERS == ["deepagents", "openai_agents", "llama_index", "haystack", "google_adk"]


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "code"), [*zip(ADAPTERS, SHOWN, strict=True)], ids=ADAPTERS)
def test_what_it_shows_is_so(adapter: str, code: str, tmp_path: Path) -> None:
    try:
        import_module(f"kvstore.integrations.{adapter}")
    except kvstore.MissingDependencyError as exc:
        pytest.skip(str(exc))
    done = python(
        str(ROOT / "tests" / "docs" / "console.py"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        input=json.dumps([asdict(Block("typed", code))]),
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == code.count("  # -> ") > 0
