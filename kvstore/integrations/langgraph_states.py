"""What tells the pieces of a checkpoint's values apart, and what messages are made from again.

LangGraph's serializer asks a message for its fields, writes them, and makes them into a message
again when they are read: for a long chat, at each step. The state of a message, which is what
pydantic keeps in it, says the same in a tenth of the time. So pieces are compared by their states,
and a message that has been read once is made from its state; states are never stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import ormsgpack
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from ormsgpack import MsgpackEncodeError, packb, unpackb

__all__ = ["has_states", "remade", "state_of_message", "states", "when_sure"]

_MOST_KEPT: Final = 2_048  # bytes of a state; of a longer one there is a digest

# What a state begins with: what it is.
_MESSAGE: Final = b"m"
_PLAIN: Final = b"p"  # a list of plain values
_WRITTEN: Final = b"w"  # what the serializer makes of the piece
_DIGEST: Final = b"d"

_AS_LANGGRAPH: Final = (  # the serializer's own options: what it tells apart is told apart here
    ormsgpack.OPT_NON_STR_KEYS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
    | ormsgpack.OPT_REPLACE_SURROGATES
)
_KINDS: Final[
    dict[str, type[BaseMessage]]
] = {  # exactly these; a class of one's own may write itself in any way
    kind.__name__: kind
    for kind in (
        AIMessage,
        AIMessageChunk,
        ChatMessage,
        FunctionMessage,
        HumanMessage,
        SystemMessage,
        ToolMessage,
    )
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def states(serde: SerializerProtocol, pieces: Iterable[Any]) -> tuple[list[bytes], int]:
    """Return the states of pieces, and their size in all; of one state are the same.

    Raises:
        Exception: whatever the serializer raises.
    """
    serde, is_langgraphs = _in_clear(serde), has_states(serde)
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        state = None
        if is_langgraphs and type(piece) is list:
            try:
                if len(piece) == 1 and (name := _NAMES.get(type(piece[0]))) is not None:
                    state = _of_message(name, piece[0])
                else:
                    state = _PLAIN + packb(piece, None, _AS_LANGGRAPH)
            except MsgpackEncodeError:
                pass  # there is something else in it
        if state is None:
            kind, data = serde.dumps_typed(piece)
            state = b"%s%s\0%s" % (_WRITTEN, kind.encode(), data)
        size += len(state)
        found.append(_kept(state))
    return found, size


def state_of_message(serde: SerializerProtocol, piece: Any) -> bytes | None:
    """Return the state of a piece that is a message, of which the serializer makes but one text."""
    if type(serde) is not JsonPlusSerializer or type(piece) is not list or len(piece) != 1:
        return None
    name = _NAMES.get(type(piece[0]))
    try:
        return None if name is None else _kept(_of_message(name, piece[0]))
    except MsgpackEncodeError:
        return None


def _of_message(name: str, message: Any) -> bytes:
    held = name, message.__dict__, message.__pydantic_extra__
    return _MESSAGE + packb(held, None, _AS_LANGGRAPH)


def _kept(state: bytes) -> bytes:
    if len(state) <= _MOST_KEPT:
        return state
    return _DIGEST + hashlib.blake2b(state, digest_size=16).digest()


def has_states(serde: SerializerProtocol) -> bool:
    """Whether a serializer is LangGraph's own, so that states say what it makes of messages."""
    return type(_in_clear(serde)) is JsonPlusSerializer


def _in_clear(serde: SerializerProtocol) -> SerializerProtocol:
    if type(serde) is EncryptedSerializer:  # it makes other bytes of the same value each time
        return serde.serde
    return serde


def remade(state: bytes) -> list[Any]:
    """Return the piece of a state of which `when_sure` says that it can be made from it."""
    name, fields, extra = unpackb(state[1:], option=ormsgpack.OPT_NON_STR_KEYS)
    kind = _KINDS[name]
    message = kind.__new__(kind)
    message.__setstate__(
        {
            "__dict__": fields,
            "__pydantic_extra__": extra,
            "__pydantic_fields_set__": {*fields, *(extra or ())},
            "__pydantic_private__": None,
        }
    )
    return [message]


def when_sure(pieces: Iterable[Any], found: Iterable[bytes]) -> list[bytes]:
    """Return those states of pieces, just read, from which the very same could be made."""
    sure = []
    for piece, state in zip(pieces, found, strict=True):
        if state.startswith(_MESSAGE):
            (read,), (made,) = piece, remade(state)
            if made.__getstate__() == read.__getstate__():
                sure.append(state)
    return sure
