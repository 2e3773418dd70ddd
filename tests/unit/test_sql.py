"""Pieces of SQL: the text and its parameters stay together."""

from __future__ import annotations

import pytest

from kvstore.sql import NOTHING, Sql


def test_a_part_is_another_piece_or_a_parameter() -> None:
    inner = Sql("a = ? AND b = ?", (1, 2))
    made = Sql.of("SELECT x FROM t WHERE ? ? AND c IN (?) LIMIT +?", inner, NOTHING, inner, 3)
    text = "SELECT x FROM t WHERE a = ? AND b = ?  AND c IN (a = ? AND b = ?) LIMIT +?"
    assert made == Sql(text, (1, 2, 1, 2, 3))


@pytest.mark.parametrize("parts", [(), (1, 2)])
def test_each_place_has_one_part(parts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="zip"):
        Sql.of("SELECT ?", *parts)
