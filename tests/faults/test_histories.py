"""Histories of several processes on one file, killed at random, and the judge of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.faults.histories import run_round
from tests.faults.list_append import Transaction, faults_of

SECONDS = 12.0


@pytest.mark.slow
def test_processes_that_are_killed_see_one_order(tmp_path: Path) -> None:
    outcome = run_round(tmp_path / "store.db", 1, seconds=SECONDS, pause=1.0)
    assert outcome.faults == []
    assert outcome.kills >= 3
    assert outcome.acknowledged > 100  # enough to be worth judging, on a machine as busy as any


# The judge


def append(name: str, began: float, ended: float, element: int, **more: object) -> Transaction:
    return Transaction(name, began, ended, appends=[("a", element)], **more)  # type: ignore[arg-type]


def read(name: str, began: float, ended: float, *seen: int) -> Transaction:
    return Transaction(name, began, ended, reads=[("a", seen)])


def judge(*transactions: Transaction, **final: tuple[int, ...]) -> str:
    return "\n".join(faults_of(transactions, final))


ONE = append("one", 0, 1, 1)
TWO = append("two", 2, 3, 2)


def test_a_sound_history_has_no_faults() -> None:
    unknown = append("killed", 4, math.inf, 3)
    assert judge(ONE, TWO, read("read", 2.5, 2.6, 1), unknown, a=(1, 2, 3)) == ""
    assert judge(ONE, TWO, read("read", 2.5, 2.6, 1, 2), unknown, a=(1, 2)) == ""


@pytest.mark.parametrize(
    ("transactions", "final", "said"),
    [
        ([ONE, TWO], (1,), "lost 2, which was acknowledged"),
        ([ONE, TWO], (2, 1), "cycle"),  # broken order
        ([ONE, TWO], (1, 2, 2), "holds 2 2 times"),
        ([ONE, TWO], (1, 2, 7), "which nobody appended"),
        ([ONE, TWO, read("stale", 4, 5, 1)], (1, 2), "cycle"),
        ([ONE, TWO, read("early", 0.5, 1.5, 1, 2)], (1, 2), "cycle"),  # from the future
        ([ONE, TWO, read("other", 2, 3, 2)], (1, 2), "no prefix"),
        ([ONE, append("failed", 2, 3, 2, has_failed=True)], (1, 2), "of a call that failed"),
    ],
)
def test_what_cannot_be_is_told(
    transactions: list[Transaction], final: tuple[int, ...], said: str
) -> None:
    assert said in judge(*transactions, a=final)


def test_a_write_skew_is_a_cycle() -> None:
    one = Transaction("one", 0, 9, appends=[("a", 1)], reads=[("b", ())])
    other = Transaction("other", 0, 9, appends=[("b", 2)], reads=[("a", ())])
    assert "cycle" in judge(one, other, a=(1,), b=(2,))


def test_a_lost_update_is_told() -> None:
    one = Transaction("one", 0, 9, appends=[("a", 1)], reads=[("a", ())])
    other = Transaction("other", 0, 9, appends=[("a", 2)], reads=[("a", ())])
    assert "lost 2" in judge(one, other, a=(1,))
