"""The cache that is bounded in bytes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from kvstore.caching import Known, Same, cache_short
from kvstore.namespace import address, decode_namespace
from kvstore.paths import parse_path


def test_what_is_short_is_computed_once_and_what_is_long_each_time() -> None:
    calls: list[str] = []

    @cache_short(10, 5)
    def double(text: str) -> str:
        calls.append(text)
        return text * 2

    for _ in range(2):
        assert double("abcde") == "abcdeabcde"
        assert double("abcdef") == "abcdefabcdef"
    assert calls == ["abcde", "abcdef", "abcdef"]


def test_what_is_looked_up_in_a_loop_is_bounded_as_well() -> None:
    calls: list[str] = []

    def double(text: str) -> str:
        calls.append(text)
        return text * 2

    known = Known(double, maxsize=2, longest=3)
    words = ["a", "long", "a", "b", "long", "c", "a"]
    assert list(map(known.__getitem__, words)) == [word * 2 for word in words]
    assert calls == ["a", "long", "b", "long", "c", "a"]
    assert list(known) == ["c", "a"]


def test_what_is_made_of_an_object_is_known_by_the_object_itself() -> None:
    calls: list[object] = []

    def write(value: list[Any]) -> str:
        calls.append(value)
        return repr(value)

    written = Same(write, lambda text: len(text) < 10, maxsize=2)
    one: list[Any] = [1]
    true: list[Any] = [True]  # which is equal to it
    long: list[Any] = ["a" * 10]
    for _ in range(2):
        assert (written(one), written(true), written(long)) == ("[1]", "[True]", repr(long))
    assert calls == [one, true, long, long]
    for number in range(50):  # each is forgotten before the next has its place in memory
        assert written([number]) == f"[{number}]"


def test_errors_pass_and_are_not_remembered() -> None:
    @cache_short(10)
    def halve(number: float) -> str:
        return repr(10 / number)

    assert halve(2) == halve(2.0) == "5.0"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            halve(0)


def test_long_names_are_forgotten() -> None:
    tracemalloc.start()
    try:
        for n in range(100):
            long = f"{n}" + "x" * 20_000
            labels, path = address((long,))
            assert decode_namespace(path) == labels == (long,)
            parse_path(long)
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
