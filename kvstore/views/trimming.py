"""The end of a chat that a model can take: pure functions over messages of any framework.

A model refuses a tool's result without the call that it answers, and a call without its result. So
what is cut off in the middle of such a pair goes as a whole, at both ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from kvstore.arguments import check_count

__all__ = ["rough_tokens", "trimmed"]

T = TypeVar("T")

_CHARACTERS: Final = 4  # of a token, on average in English
_FRAME: Final = 4  # tokens that say whose a message is


def rough_tokens(message: Any) -> int:
    """Return about how many tokens a message takes: its characters, written as JSON, by four.

    A model's own tokenizer is exact, and good to have where room is short.
    """
    written = message if isinstance(message, str) else json.dumps(message, default=_plain)
    return _FRAME + -(-len(written) // _CHARACTERS)


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # pydantic's
    return dump(mode="json", exclude_none=True) if callable(dump) else repr(value)


def trimmed(
    messages: Sequence[T],
    *,
    count: int | None = None,
    tokens: int | None = None,
    count_tokens: Callable[[T], int] = rough_tokens,
) -> list[T]:
    """Return the last messages that fit, without halves of calls and results of tools.

    Known are messages, as mappings or objects, of chat completions (`tool_calls`,
    `tool_call_id`), of OpenAI's responses (`function_call`, `function_call_output`), of
    Anthropic (`tool_use`, `tool_result`) and of LangChain. What is stored stays whole: this
    chooses what to send.

    Args:
        messages: a chat, the oldest first.
        count: how many at most; `None`: any number.
        tokens: how many tokens at most, in all; `None`: any number.
        count_tokens: those of one message.

    Raises:
        InvalidArgumentError: `count` or `tokens` is no number from 0 on.
    """
    most = len(messages) if count is None else check_count(count, "count")
    room = None if tokens is None else check_count(tokens, "tokens")
    kept: list[T] = []
    for message in reversed(messages):
        if len(kept) == most:
            break
        if room is not None:
            room -= count_tokens(message)
            if room < 0:
                break
        kept.append(message)
    return _whole(kept[::-1])


def _whole(messages: list[T]) -> list[T]:
    """Leave out calls without all of their results, and results without their call."""
    while True:
        called: set[str] = set()
        answered: set[str] = set()
        for message in messages:
            answered |= {id for id in _answers(message) if id in called}
            called.update(_calls(message))
        kept = [
            message
            for message in messages
            if all(id in answered for id in (*_calls(message), *_answers(message)))
        ]
        if len(kept) == len(messages):
            return kept
        messages = kept


def _calls(message: Any) -> Iterator[str]:
    """Yield the ids of the calls that a message makes."""
    for call in _of(message, "tool_calls") or ():
        yield str(_of(call, "id"))
    if _of(message, "type") in ("function_call", "custom_tool_call"):
        yield str(_of(message, "call_id"))
    for block in _blocks(message, "tool_use"):
        yield str(_of(block, "id"))


def _answers(message: Any) -> Iterator[str]:
    """Yield the ids of the calls that a message has results of."""
    if (id := _of(message, "tool_call_id")) is not None:
        yield str(id)
    if _of(message, "type") in ("function_call_output", "custom_tool_call_output"):
        yield str(_of(message, "call_id"))
    for block in _blocks(message, "tool_result"):
        yield str(_of(block, "tool_use_id"))


def _blocks(message: Any, kind: str) -> Iterator[Any]:
    content = _of(message, "content")
    if isinstance(content, (list, tuple)):
        yield from (block for block in content if _of(block, "type") == kind)


def _of(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)
