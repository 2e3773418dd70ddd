"""What is installed: the wheel holds the whole package and works in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest

import kvstore
from kvstore import distribution

ROOT = Path(__file__).parents[2]
DIST = os.environ.get("KVSTORE_TEST_DIST")  # a folder with a wheel and a source archive
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

_PROGRAM = """
import asyncio, sys, kvstore

async def main():
    async with kvstore.open(sys.argv[1]) as store:
        print(await store.increment(("app",), "visits"), kvstore.__file__)

asyncio.run(main())
"""


def run(*command: str | Path, cwd: Path) -> str:
    env: Mapping[str, str] = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_source(to: Path) -> Path:
    """Copy what an installation is made from, and nothing else."""
    to.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to)
    for name in ("kvstore", "migrations"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive, and the wheel from the archive; or take what there is to try."""
    if DIST:
        (built,) = (ROOT / DIST).glob("*.whl")
        return built
    source = copy_source(tmp_path_factory.mktemp("wheel") / "source")
    run(sys.executable, "-m", "build", "--no-isolation", cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    def tree(root: Path, installed: str) -> set[str]:
        return {
            f"{installed}/{path.relative_to(root).as_posix()}"
            for path in root.rglob("*")
            if path.suffix in {".py", ".sql"}
            or path.name == "py.typed"
            or path.parent.name == "static"
        }

    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == tree(ROOT / "kvstore", "kvstore") | tree(
        ROOT / "migrations", "kvstore/migrations"
    )
    assert any(name.endswith(".sql") for name in held)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable", *(["archive"] if DIST else [])])
def test_an_installed_store_opens_and_lasts_in_and_outside_of_a_checkout(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    (python,) = [path for path in (tmp_path / "venv").glob("*/python*") if path.stem == "python"]
    checkout = copy_source(tmp_path / "checkout")
    if kind == "wheel":
        home, what = tmp_path / "venv", [request.getfixturevalue("wheel")]
    elif kind == "archive":
        home, what = tmp_path / "venv", list((ROOT / str(DIST)).glob("*.tar.gz"))
    else:
        home, what = checkout, ["-e", checkout]
    run(python, "-m", "pip", "install", "--quiet", *what, cwd=tmp_path)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # In the checkout its own code comes before what is installed.
    for place, source in ((elsewhere, home), (checkout, checkout)):
        for visit in ("1", "2"):
            count, imported = run(python, "-c", _PROGRAM, "agent.db", cwd=place).split()
            assert count == visit
            assert source in Path(imported).parents
            demo = run(python, "-m", "kvstore.examples.demo", cwd=place)
            assert demo.startswith(f"Run {visit} on demo.db\n")


def test_the_distribution_is_named_in_one_place() -> None:
    assert PROJECT["name"] == distribution.NAME
    assert PROJECT["scripts"][distribution.NAME] == PROJECT["scripts"]["kvstore"]


@pytest.mark.parametrize("path", sorted((ROOT / "kvstore").rglob("*.py")), ids=str)
def test_no_hint_names_the_package_of_somebody_else(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"(?<!agent-)\bkvstore\[[a-z]|pip install[^\n]* kvstore\b", text)
    for extra in re.findall(r"how_to_install\(\s*[\"'](.+?)[\"']", text):
        assert extra in PROJECT["optional-dependencies"], f"{path} names an extra that is not there"


def test_the_changelog_leads_to_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert "Unreleased" not in headings[1:], "what is unreleased comes first"
    assert released[:1] in ([], [kvstore.__version__])
