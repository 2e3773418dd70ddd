"""Messages are told apart, and made again, by their state as LangGraph's serializer does it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph.graph")

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from kvstore.integrations.langgraph import LangGraphCheckpointer
from kvstore.integrations.langgraph_states import remade, states, when_sure

LANGGRAPHS = JsonPlusSerializer()
CALL: Any = {"name": "look", "args": {"n": 1, "deep": [{"x": None}]}, "id": "c1"}

CHUNK: Any = {"name": "f", "args": "{", "id": "1", "index": 0}

MESSAGES: list[Any] = [
    HumanMessage("hello"),
    HumanMessage("hello", id="1"),
    HumanMessage("hello", id="1", name="al"),
    HumanMessage("hello", response_metadata={"n": 1}),
    HumanMessage("hello", response_metadata={"n": 1.0}),
    HumanMessage("hello", response_metadata={"n": True}),
    HumanMessage("hello", extra_of_mine=[1, 2]),
    HumanMessage([{"type": "text", "text": "hello"}, "x"]),
    SystemMessage("hello"),
    ChatMessage(content="hello", role="judge"),
    FunctionMessage(content="hello", name="f"),
    ToolMessage("hello", tool_call_id="c1"),
    ToolMessage("hello", tool_call_id="c1", status="error"),
    ToolMessage("hello", tool_call_id="c1", artifact={"rows": [1, "\ud83d\ude00"]}),
    AIMessage("hello"),
    AIMessage("", tool_calls=[CALL]),
    AIMessage("", tool_calls=[{**CALL, "id": "c2"}]),
    AIMessage("x", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    AIMessage("", invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": "bad"}]),
    AIMessageChunk(
        content="hello", tool_call_chunks=[{"name": "f", "args": "{", "id": "1", "index": 0}]
    ),
    "hello",
    ["hello"],
    {"hello": 1},
    {"hello": True},
    Document("hello"),
    {1, 2},
    b"hello",
    None,
]


def as_read(message: Any) -> Any:
    return LANGGRAPHS.loads_typed(LANGGRAPHS.dumps_typed([message]))


class Cipher(CipherProtocol):
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        noise = os.urandom(8)
        return "own", noise + plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return ciphertext[:7:-1]


@pytest.mark.parametrize("serde", [LANGGRAPHS, EncryptedSerializer(Cipher(), LANGGRAPHS)])
def test_what_the_serializer_tells_apart_has_another_state(serde: Any) -> None:
    found, _ = states(serde, [[message] for message in MESSAGES])
    for one, state in zip(MESSAGES, found, strict=True):
        for other, others_state in zip(MESSAGES, found, strict=True):
            is_same = LANGGRAPHS.dumps_typed([one]) == LANGGRAPHS.dumps_typed([other])
            assert (state == others_state) == is_same, (one, other)


@pytest.mark.parametrize("message", MESSAGES[:20], ids=lambda each: type(each).__name__)
def test_a_message_is_made_again_as_it_was_read(message: Any) -> None:
    read = as_read(message)
    found, _ = states(LANGGRAPHS, [read])
    assert when_sure([read], found) == found
    (made,) = remade(found[0])
    assert type(made) is type(read[0])
    assert made.__getstate__() == read[0].__getstate__()
    assert LANGGRAPHS.dumps_typed(made) == LANGGRAPHS.dumps_typed(read[0])
    assert states(LANGGRAPHS, [[made]])[0] == found


def test_of_what_is_no_plain_message_nothing_is_made() -> None:
    class Own(HumanMessage):
        pass

    pieces = [
        [Own(content="hello")],
        [HumanMessage("x" * 10_000)],
        ["hello"],
        [HumanMessage("y")] * 2,
    ]
    found, size = states(LANGGRAPHS, pieces)
    assert size > 10_000 > sum(map(len, found))
    assert when_sure(pieces, found) == []


def test_another_serializer_is_asked() -> None:
    class Other:
        def dumps_typed(self, value: Any) -> tuple[str, bytes]:
            return "repr", repr(value).encode()

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            raise NotImplementedError

    found, _ = states(Other(), [[(1,)], [[1]]])
    assert found == [b"wrepr\0[(1,)]", b"wrepr\0[[1]]"]


def test_a_message_changed_in_place_is_stored_anew(tmp_path: Path) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    messages = [HumanMessage(f"{n} " + "long " * 200) for n in range(3)]
    with LangGraphCheckpointer(tmp_path / "a.db") as saver:
        for step in range(4):
            if step == 1:
                messages[1].content = "other words " * 80
            if step == 2:
                messages[0].additional_kwargs["seen"] = True
            versions: Any = {"messages": f"{step:032}.0"}
            checkpoint: Any = {
                "v": 4,
                "id": f"{step}",
                "ts": "2026-11-28T00:00:00+00:00",
                "channel_values": {"messages": messages},
                "channel_versions": versions,
                "versions_seen": {},
            }
            config = saver.put(config, checkpoint, {"step": step}, versions)
            found = saver.get_tuple({"configurable": {"thread_id": "t"}})
            assert found is not None
            assert found.checkpoint["channel_values"]["messages"] == messages
            for message in found.checkpoint["channel_values"]["messages"]:
                message.content = "what a reader does with it is its own affair"
            again = saver.get_tuple({"configurable": {"thread_id": "t"}})
            assert again is not None
            assert again.checkpoint["channel_values"]["messages"] == messages
