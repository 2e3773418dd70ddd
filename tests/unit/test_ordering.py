"""The first items in an order are the beginning of all of them, sorted by the last name first."""

from __future__ import annotations

from random import Random

import pytest

from kvstore.ordering import COLUMNS, first_items, parse_order
from kvstore.types import Item

VALUES = [{"s": 1}, {"s": 2.5}, {"s": None}, {"s": "x"}, {"s": True}, {"s": []}, {}]
ORDERS = ["key", "-key", "$.s", "-$.s", ["-$.s", "key"], ["key", "$.s"], ["-version", "$.s"]]


@pytest.mark.parametrize("order_by", ORDERS, ids=str)
def test_the_first_are_those_that_a_sort_would_put_first(order_by: str | list[str]) -> None:
    chance = Random(7)
    orders = parse_order(order_by)
    for _ in range(100):
        items = [
            Item(("n",), f"k{chance.randrange(9)}", chance.choice(VALUES), version=at % 5)
            for at in range(chance.randrange(40))
        ]
        whole = first_items(items, orders, len(items))
        assert sorted(map(id, whole)) == sorted(map(id, items))
        for order in orders:
            if order.by in COLUMNS and order is orders[0]:
                said = [getattr(item, str(order.by)) for item in whole]
                assert said == sorted(said, reverse=order.descends)
        for most in (0, 1, 3, 50):
            first = first_items(items, orders, most)
            assert list(map(id, first)) == list(map(id, whole[:most]))
