"""What `make release` is about to publish is what the repository says; see KVSTORE_TEST_DIST."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tomllib

import pytest

from kvstore.distribution import NAME, VERSION
from tests.docs.pages import ROOT

DIST = os.environ.get("KVSTORE_TEST_DIST")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
STEM = f"{NAME.replace('-', '_')}-{VERSION}"

of_a_release = pytest.mark.skipif(not DIST, reason="nothing is about to be published")


def git(*command: str) -> str:
    return subprocess.run(
        ["git", *command], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    ).stdout.strip()


@of_a_release
def test_there_are_a_wheel_and_a_source_archive_of_this_version() -> None:
    files = sorted(path.name for path in (ROOT / str(DIST)).iterdir())
    assert files == [f"{STEM}-py3-none-any.whl", f"{STEM}.tar.gz"]
    with tarfile.open(ROOT / str(DIST) / f"{STEM}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "migrations/sqlite/0001_items.sql"} <= names


@of_a_release
def test_the_changelog_gives_the_version_a_day() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    first = re.search(r"^## (.*)$", changelog, re.MULTILINE)
    assert first is not None
    assert re.fullmatch(rf"\[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d", first[1]), first[1]


@of_a_release
def test_it_is_made_of_what_is_committed_and_not_yet_published() -> None:
    assert git("status", "--porcelain") == ""
    assert f"v{VERSION}" not in git("tag").split()


@of_a_release
def test_its_urls_are_those_of_this_repository() -> None:
    origin = re.sub(r"^git@([^:]+):", r"https://\1/", git("config", "remote.origin.url"))
    assert PROJECT["urls"]["Repository"] == origin.removesuffix(".git")


def test_the_urls_are_all_of_one_repository() -> None:
    home = PROJECT["urls"]["Repository"]
    assert all(url.startswith(home) for url in PROJECT["urls"].values())


def test_the_classifiers_name_pythons_that_are_tried() -> None:
    found = re.search(r'VERSIONS="(.*)"', (ROOT / ".ci" / "run").read_text("utf-8"))
    assert found is not None
    tried = {f"Programming Language :: Python :: {version}" for version in found[1].split()}
    named = {each for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)}
    assert named
    assert named <= tried
