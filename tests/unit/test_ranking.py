"""Fusion, on rankings that are written down."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kvstore.filters import ALL
from kvstore.ranking import Hit, Ranking, Search, page_of


def ranking(scores: Mapping[str, float]) -> Ranking:
    """Return a ranking of keys with these scores."""
    hits = [Hit(score, ("", key), 0) for key, score in scores.items()]
    return lambda wanted: hits[:wanted]


def fused(
    meant: Mapping[str, float], said: Mapping[str, float], limit: int = 10, context: int = 0
) -> dict[str, float]:
    """Return the scores of the best keys by both, in their order."""
    asked = Search(ALL, limit, 0, False, None, b"vector", ("word",), context)
    return {hit.place[1]: hit.score for hit in page_of(asked, ranking(meant), ranking(said))}


NEAR = {f"m{at}": 0.9 - at / 50 for at in range(30)}


def test_a_score_is_the_better_of_both_and_no_more_than_the_one_before() -> None:
    assert fused({"a": 0.8, "b": 0.4}, {"a": 0.7, "c": 0.2}) == {"a": 0.8, "c": 0.2, "b": 0.2}
    assert fused({"a": 0.3}, {"a": 0.7}) == {"a": 0.7}
    assert fused({"a": 0.3}, {}) == {"a": 0.3}  # the only one there is, and hardly an answer
    assert fused({"a": -0.3}, {}) == {"a": 0.0}
    assert fused({}, {"a": 0.7, "b": 0.1}) == {"a": 0.7, "b": 0.1}


def test_words_that_answer_all_decide_and_stray_ones_bring_nothing_up() -> None:
    assert next(iter(fused(NEAR, {"all": 0.9}))) == "all"
    assert next(iter(fused(NEAR, {"stray": 0.3}))) == "m0"
    assert next(iter(fused(NEAR, {"m25": 0.45}))) == "m0"  # far down by meaning


def test_neighbours_words_do_not_decide_alone() -> None:
    said = {"x": 1.0, "m0": 0.99}
    assert next(iter(fused(NEAR, said))) == "x"
    assert next(iter(fused(NEAR, said, context=1))) == "m0"


def test_equals_have_one_rank_and_the_other_ranking_tells_them_apart() -> None:
    said = dict.fromkeys(["a", "b", "c"], 0.8)
    scores = fused({"c": 0.9, "b": 0.8, "z": 0.1}, said)
    assert next(iter(scores)) == "c"
    assert scores["a"] == scores["b"]  # of meaning, the upper part of three is one


def test_what_is_not_fused_follows_in_the_order_of_meaning() -> None:
    scores = fused(NEAR, {"m0": 0.5}, limit=30)
    assert list(scores) == list(NEAR)
    assert scores == pytest.approx(NEAR)


def test_a_page_is_cut_from_one_ranking() -> None:
    said = {f"m{at}": 0.8 - at / 50 for at in range(0, 30, 3)}
    whole = list(fused(NEAR, said, limit=30))
    for limit in range(1, 30):
        assert list(fused(NEAR, said, limit)) == whole[:limit]


def test_one_ranking_without_hits_leaves_the_other() -> None:
    assert list(fused(NEAR, {}, limit=30)) == list(NEAR)
    assert list(fused({}, {"a": 0.5, "b": 0.1})) == ["a", "b"]
    assert fused({}, {}) == {}
