"""What is left of a chat is the longest end that fits, and a model takes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvstore
from kvstore.views import rough_tokens, trimmed


def user(text: str = "hi") -> dict[str, Any]:
    return {"role": "user", "content": text}


def completions(*ids: str) -> list[Any]:
    calls = [{"id": id, "type": "function", "function": {"name": "f"}} for id in ids]
    results = [{"role": "tool", "tool_call_id": id, "content": "ok"} for id in ids]
    return [{"role": "assistant", "tool_calls": calls}, *results]


def responses(*ids: str) -> list[Any]:
    calls = [{"type": "function_call", "call_id": id, "name": "f"} for id in ids]
    return [*calls, *({"type": "function_call_output", "call_id": id} for id in ids)]


def blocks(*ids: str) -> list[Any]:
    used = [{"type": "tool_use", "id": id, "name": "f"} for id in ids]
    results = [{"type": "tool_result", "tool_use_id": id} for id in ids]
    return [{"role": "assistant", "content": used}, {"role": "user", "content": results}]


def objects(*ids: str) -> list[Any]:
    calls = [{"id": id, "name": "f", "args": {}} for id in ids]
    answer = SimpleNamespace(type="ai", content="", tool_calls=calls)
    return [answer, *(SimpleNamespace(type="tool", tool_call_id=id, content="") for id in ids)]


KINDS = [completions, responses, blocks, objects]


@pytest.mark.parametrize("made", KINDS)
def test_a_pair_that_is_cut_goes_whole_at_both_ends(made: Any) -> None:
    pair = made("1", "2")
    chat = [user("a"), *pair, user("b")]
    assert trimmed(chat) == chat
    assert trimmed(chat, count=len(chat)) == chat
    for count in range(1, len(pair) + 1):
        left = trimmed(chat, count=count)
        assert made is responses or left == [user("b")]  # there each call is by itself
        assert trimmed(left) == left
        assert left[-1] == user("b")
    for length in range(len(pair)):  # the run ended before all results were there
        left = trimmed([user("a"), *pair[:length]])
        assert left[0] == user("a")
        assert made is responses or left == [user("a")]


def test_a_result_before_its_call_is_none() -> None:
    call, result = responses("1")
    assert trimmed([result, user(), call]) == [user()]


def test_tokens_are_counted_from_the_end() -> None:
    chat = [user("a" * 400), user("b" * 40), user("c" * 40)]
    each = rough_tokens(chat[2])
    assert trimmed(chat, tokens=2 * each) == chat[1:]
    assert trimmed(chat, tokens=2 * each - 1) == chat[2:]
    assert trimmed(chat, tokens=each - 1) == []
    assert trimmed(chat, tokens=2, count_tokens=lambda _: 1) == chat[1:]
    assert trimmed(chat, tokens=10_000, count=1) == chat[2:]
    assert trimmed(chat, count=0) == []


@pytest.mark.parametrize("wrong", [{"count": -1}, {"tokens": -1}, {"count": "3"}, {"tokens": True}])
def test_bad_numbers_are_refused(wrong: Any) -> None:
    with pytest.raises(kvstore.InvalidArgumentError):
        trimmed([user()], **wrong)


@given(st.lists(st.tuples(st.sampled_from(["user", *range(4)]), st.integers(1, 3))), st.data())
def test_every_cut_is_one_that_a_model_takes(plan: list[Any], data: st.DataObject) -> None:
    chat: list[Any] = []
    for at, (kind, number) in enumerate(plan):
        ids = [f"{at}-{n}" for n in range(number)]
        chat += [user(str(at))] if kind == "user" else KINDS[kind](*ids)
    count = data.draw(st.integers(0, len(chat) + 1))
    kept = trimmed(chat, count=count)
    assert len(kept) <= count
    assert trimmed(kept) == kept
    text = repr(kept)
    for at, (kind, number) in enumerate(plan):
        if kind != "user":
            told = [text.count(f"'{at}-{n}'") for n in range(number)]
            assert all(each in (0, 2) for each in told)
    users = [each for each in chat[max(0, len(chat) - count) :] if each in kept]
    assert [each for each in kept if "user" in repr(each)[:16]] == [
        each for each in users if "user" in repr(each)[:16]
    ]
