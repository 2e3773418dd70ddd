"""Histories of concurrent calls, and whether they are linearizable.

A history is linearizable when its calls could have happened one after another, each at some instant
between its beginning and its end, with the same answers. What was cancelled may have happened, at
any time after it began, or not at all; what failed must not have happened.

Source: Wing and Gong, "Testing and verifying concurrent objects", 1993; the memory of visited
configurations is Lowe's, "Testing for linearizability", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call", "History", "State", "apply", "explain", "is_linearizable"]

State = tuple[tuple[str, Any], ...]  # sorted pairs of key and value; lists are tuples
_IMPOSSIBLE: Any = object()


@dataclass(slots=True)
class Call:
    """A call: `name(*args)`, when it began and ended, and what it answered."""

    name: str
    args: tuple[Any, ...]
    began: int
    ended: float = math.inf
    answer: Any = None
    is_certain: bool = False  # it answered; else it may have happened or not
    has_failed: bool = False  # it said so: it must not have happened

    @property
    def may_have_changed(self) -> bool:
        """Whether it is no read, and has not failed."""
        return not self.has_failed and self.name not in {"get", "get_many", "keys"}


@dataclass
class History:
    """Calls in the order in which they began."""

    calls: list[Call] = field(default_factory=list)
    instant: int = 0

    def begin(self, name: str, *args: Any) -> Call:
        self.instant += 1
        call = Call(name, args, self.instant)
        self.calls.append(call)
        return call

    def answered(self, call: Call, answer: Any) -> None:
        self.instant += 1
        call.ended = self.instant
        call.answer = freeze(answer)
        call.is_certain = True

    def failed(self, call: Call) -> None:
        self.instant += 1
        call.ended = self.instant
        call.has_failed = True

    def until(self, instant: int) -> History:
        """Return the history as it was known at an instant."""
        known = History(instant=instant)
        for call in self.calls:
            if call.began <= instant:
                is_over = call.ended <= instant
                known.calls.append(
                    call if is_over else Call(call.name, call.args, call.began, is_certain=False)
                )
        return known


def freeze(value: Any) -> Any:
    """Return a value with tuples for its lists and pairs for its objects, to be compared."""
    if isinstance(value, list | tuple):
        return tuple(map(freeze, value))
    if isinstance(value, dict):
        return tuple(sorted((key, freeze(each)) for key, each in value.items()))
    return value


# What each call means: from the state and its arguments to the new state and the answer.


def _put(state: dict[str, Any], key: str, value: Any) -> Any:
    state[key] = value


def _get(state: dict[str, Any], key: str) -> Any:
    return state.get(key)


def _delete(state: dict[str, Any], key: str) -> bool:
    return state.pop(key, _IMPOSSIBLE) is not _IMPOSSIBLE


def _create(state: dict[str, Any], key: str, value: Any) -> bool:
    if key in state:
        return False
    state[key] = value
    return True


def _replace(state: dict[str, Any], key: str, old: Any, new: Any) -> bool:
    if state.get(key) != old:
        return False
    state[key] = new
    return True


def _increment(state: dict[str, Any], key: str, amount: int) -> int:
    state[key] = state.get(key, 0) + amount
    total: int = state[key]
    return total


def _append(state: dict[str, Any], key: str, *values: Any) -> int:
    state[key] = (*state.get(key, ()), *values)
    return len(state[key])


def _pop(state: dict[str, Any], key: str) -> Any:
    if not state.get(key):
        return None
    first, *rest = state[key]
    state[key] = tuple(rest)
    return first


def _put_many(state: dict[str, Any], pairs: Any) -> None:
    state.update(pairs)


def _get_many(state: dict[str, Any], *keys: str) -> Any:
    return tuple((key, state[key]) for key in sorted(keys) if key in state)


def _delete_many(state: dict[str, Any], *keys: str) -> int:
    return sum(_delete(state, key) for key in keys)


def _keys(state: dict[str, Any], head: str) -> Any:
    return tuple(key for key in sorted(state) if key.startswith(head))


def _swap(state: dict[str, Any], one: str, other: str) -> Any:
    if one not in state or other not in state:
        return None
    state[one], state[other] = state[other], state[one]
    return (state[one], state[other])


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__.removeprefix("_"): call
    for call in (
        _put, _get, _delete, _create, _replace, _increment, _append, _pop, _put_many, _get_many,
        _delete_many, _keys, _swap,
    )
}  # fmt: skip


def apply(state: State, call: Call) -> tuple[State, Any]:
    """Return the state after a call, and what it answers."""
    items = dict(state)
    answer = CALLS[call.name](items, *call.args)
    return tuple(sorted(items.items())), answer


def is_linearizable(history: History, state: State = ()) -> bool:
    """Whether the calls could have happened one after another, beginning with a state."""
    calls = [call for call in history.calls if call.is_certain or call.may_have_changed]
    everything = sum(1 << index for index, call in enumerate(calls) if call.is_certain)
    seen: set[tuple[int, State]] = set()
    pending = [(0, state)]
    while pending:
        configuration = pending.pop()
        if configuration in seen:
            continue
        seen.add(configuration)
        done, state = configuration
        if done & everything == everything:
            return True
        for index in sorted(_next(calls, done), key=lambda index: calls[index].is_certain):
            call = calls[index]  # the likely ones are tried first
            after, answer = apply(state, call)
            if not call.is_certain or answer == call.answer:
                pending.append((done | 1 << index, after))
    return False


def _next(calls: Sequence[Call], done: int) -> list[int]:
    """Return the calls that may come next: those that began before any other one has ended."""
    first_end = math.inf
    for index, call in enumerate(calls):
        if call.began > first_end:
            break
        if not done >> index & 1 and call.is_certain:
            first_end = min(first_end, call.ended)
    return [
        index
        for index, call in enumerate(calls)
        if not done >> index & 1 and call.began < first_end
    ]


def explain(history: History) -> str:
    """Return a history to be read, a line for each call."""
    lines = []
    for call in history.calls:
        what = "FAILED" if call.has_failed else repr(call.answer) if call.is_certain else "?"
        arguments = ", ".join(map(repr, call.args))
        lines.append(f"{call.began:4}-{call.ended:<4} {call.name}({arguments}) -> {what}")
    return "\n".join(lines)
