"""The demo shows a second run that goes on where the first one stopped."""

from __future__ import annotations

import re
from pathlib import Path

from tests.running import python

ROOT = Path(__file__).parents[2]

_LENGTH = re.compile(r" ([\d,]+) lines ")


def demo(cwd: Path, *arguments: str) -> str:
    done = python(
        "-W",
        "error",
        "-m",
        "kvstore.examples.demo",
        *arguments,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def line(output: str, beginning: str) -> str:
    found = next(line for line in output.splitlines() if line.strip().startswith(beginning))
    return found.partition(beginning)[2]


def test_the_second_run_continues_the_first(tmp_path: Path) -> None:
    first, second = demo(tmp_path), demo(tmp_path)

    assert (tmp_path / "demo.db").is_file()
    assert line(first, "Run ") == "1 on demo.db"
    assert line(second, "Run ") == "2 on demo.db"
    assert "new queue" in first
    assert "new queue" not in second
    read = [line(output, "read in this run: ").split(", ") for output in (first, second)]
    assert len(set(read[0] + read[1])) == 16
    assert read[0] + read[1] == sorted(read[0] + read[1])
    assert line(second, "in all runs: ").startswith("16 modules, ")
    assert line(second, "bob likes ") == "short reads (saved in run 1)"
    assert line(second, "temp_* ") == "removed 8 keys; left: keep_me"
    assert line(second, "users / alice").split() == ["1"]
    for user, least, most in (("alice", 800, 10**6), ("bob", 0, 119)):
        rows = second.partition(f"  for {user}: ")[2].partition("  for ")[0].splitlines()
        lengths = [int(found[1].replace(",", "")) for found in map(_LENGTH.search, rows) if found]
        assert lengths
        assert all(least <= length <= most for length in lengths)


def test_it_takes_another_url(tmp_path: Path) -> None:
    assert line(demo(tmp_path, "memory://"), "Run ") == "1 on memory://"
    assert not list(tmp_path.iterdir())
