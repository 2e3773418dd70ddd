"""The data types of the flow node: what a value must be, what is stored of it, what comes back.

| data type | a value of it |
|---|---|
| `text` | a `str` |
| `number` | an `int` or a finite `float` |
| `json` | whatever a store takes |
| `bytes` | `bytes`, or what is like them |
| `content` | a list of parts: a text, `{"type": "text", "text": ...}`, or `{"type": "image"` or `"file", "media_type": "image/png", "data": bytes}`, each with what else belongs to it, such as a `"name"` |
| `segments` | a list of texts, or of objects with a `"text"` |
| `embedding` | a list of numbers, or an array of one dimension |
| `knowledge` | a list of chunks: `{"text": ...}`, with `"metadata"`, an object, and `"vector"`, numbers, if there are; all vectors are equally long |
| `knowledge_db` | a `KnowledgeDB`, or `{"namespace": [...]}`; a `KnowledgeDB` comes back |
| `llm_model` | an object with a `"model"`, and what else configures it |
| `configured_service` | an object that is not empty |

In the last two, secrets are references: see `kvstore.flow.secrets.Secret`. A field is a secret by its
name (`api_key`, `token`, `password`, ...), as a `Secret`, or because the object's own list
`"secrets"` names it. Text and numbers that are no reference are refused there; and so is, anywhere,
a password or key in a URL, and what looks like a key or a token of a service.
"""  # noqa: E501 - a table

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from kvstore.errors import InvalidNamespaceError, ValueTypeError
from kvstore.filters import json_type
from kvstore.flow.knowledge import KnowledgeDB
from kvstore.flow.secrets import Secret, is_named_secret, is_reference, secret_in
from kvstore.namespace import check_namespace

__all__ = ["DATA_TYPES", "DataType"]

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;.*)?")
_SECRETS = "secrets"  # the field of a configuration that names its secrets


class DataType(NamedTuple):
    """What the node does with a value of a type.

    Attributes:
        store: from a value to what is stored.
        load: from what is stored to a value.

    Both raise `ValueTypeError`, which says what a value of the type is.
    """

    store: Callable[[Any], Any]
    load: Callable[[Any], Any]


class _MismatchError(ValueTypeError):
    def __init__(self, what: str, value: Any, where: str = "the value") -> None:
        super().__init__(f"{where} is {_described(value)}, and should be {what}")


def _described(value: Any) -> str:
    try:
        return f"of type {json_type(value)}"
    except TypeError:
        return f"of type {type(value).__name__}"


# The plain ones


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise _MismatchError("a text", value)
    return value


def _number(value: Any, where: str = "the value") -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and not math.isfinite(value)):
        raise _MismatchError("a finite number", value, where)
    return value


def _json(value: Any) -> Any:
    return value  # the store itself refuses what is not JSON


def _bytes(value: Any, where: str = "the value") -> Any:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise _MismatchError("bytes", value, where)
    return bytes(value)


def _segments(value: Any) -> Any:
    return [_with_text(each, where) for each, where in _elements(value, "a list of segments")]


def _with_text(value: Any, where: str) -> Any:
    if not isinstance(value.get("text") if isinstance(value, Mapping) else value, str):
        raise _MismatchError("a text, or an object with a 'text'", value, where)
    return value


def _embedding(value: Any, where: str = "the value") -> Any:
    vector = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(vector, (list, tuple)) or not vector:
        raise _MismatchError("a list of numbers that is not empty", vector, where)
    return [_number(each, f"{where}[{at}]") for at, each in enumerate(vector)]


def _elements(value: Any, what: str) -> Iterable[tuple[Any, str]]:
    if not isinstance(value, (list, tuple)):
        raise _MismatchError(what, value)
    return ((each, f"the value[{at}]") for at, each in enumerate(value))


# Content and knowledge


def _content(value: Any) -> Any:
    return [_part(each, where) for each, where in _elements(value, "a list of parts")]


def _part(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return value
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return _with_text(value, where)
    if kind not in ("image", "file"):
        raise _MismatchError(
            "a text, or an object whose 'type' is text, image or file", value, where
        )
    media = value.get("media_type")
    if not isinstance(media, str) or not _MEDIA_TYPE.fullmatch(media):
        raise _MismatchError("a media type, such as image/png", media, f"{where}.media_type")
    if kind == "image" and not media.startswith("image/"):
        raise ValueTypeError(f"{where} is an image, and its media_type is none of an image")
    return {**value, "data": _bytes(value.get("data"), f"{where}.data")}


def _knowledge(value: Any) -> Any:
    chunks = [_chunk(each, where) for each, where in _elements(value, "a list of chunks")]
    lengths = {len(chunk["vector"]) for chunk in chunks if chunk.get("vector") is not None}
    if len(lengths) > 1:
        raise ValueTypeError(
            f"the vectors of the value have {', '.join(map(str, sorted(lengths)))} numbers, and "
            "should be equally long"
        )
    return chunks


def _chunk(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        raise _MismatchError("an object with a 'text'", value, where)
    chunk = dict(value)
    if not isinstance(chunk.get("metadata", {}), Mapping):
        raise _MismatchError("an object", chunk["metadata"], f"{where}.metadata")
    if chunk.get("vector") is not None:
        chunk["vector"] = _embedding(chunk["vector"], f"{where}.vector")
    return chunk


# A knowledge DB


def _store_db(value: Any) -> Any:
    if isinstance(value, KnowledgeDB):
        return value.reference()
    if not isinstance(value, Mapping) or not isinstance(value.get("namespace"), (list, tuple)):
        raise _MismatchError("a KnowledgeDB, or an object with a 'namespace'", value)
    unknown = value.keys() - {"namespace", "subtree"}
    if unknown or not isinstance(value.get("subtree", False), bool):
        raise ValueTypeError("a knowledge_db has a 'namespace', and a 'subtree' that is a boolean")
    try:
        labels = check_namespace(value["namespace"])
    except InvalidNamespaceError as exc:
        raise ValueTypeError(f"the value.namespace is none: {exc}") from None
    return KnowledgeDB(labels, bool(value.get("subtree", False))).reference()


def _load_db(value: Any) -> Any:
    reference = _store_db(value)
    return KnowledgeDB(tuple(reference["namespace"]), reference["subtree"])


# Configurations


@dataclass(frozen=True, slots=True)
class _Configuration:
    """A type that is an object, with secrets as references."""

    needed: str | None  # a field that is a text

    def store(self, value: Any) -> Any:
        """Return what is stored of a configuration."""
        return self._with(value, str)

    def load(self, value: Any) -> Any:
        """Return the configuration, in which secrets are `Secret`s."""
        return self._with(value, Secret)

    def _with(self, value: Any, made: Callable[[str], Any]) -> Any:
        if not isinstance(value, Mapping) or not value:
            raise _MismatchError("an object that is not empty", value)
        if self.needed is not None:
            name = value.get(self.needed)
            if not isinstance(name, str) or not name:
                raise _MismatchError("a text that is not empty", name, f"the value.{self.needed}")
        marked = value.get(_SECRETS, [])
        if not isinstance(marked, (list, tuple)) or not all(isinstance(m, str) for m in marked):
            raise _MismatchError("a list of names of fields", marked, f"the value.{_SECRETS}")
        return _walk(value, "the value", frozenset(marked), made, is_secret=False)


def _walk(
    value: Any, where: str, marked: frozenset[str], made: Callable[[str], Any], *, is_secret: bool
) -> Any:
    """Return a part of a configuration, with what is made of references to secrets."""
    if isinstance(value, Mapping):
        return {
            name: _walk(
                each,
                f"{where}.{name}",
                marked,
                made,
                is_secret=is_secret or name in marked or is_named_secret(str(name)),
            )
            if name != _SECRETS
            else each
            for name, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            _walk(each, f"{where}[{at}]", marked, made, is_secret=is_secret)
            for at, each in enumerate(value)
        ]
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, bytes, bytearray, int, float)):
        if is_secret and not is_reference(value):
            raise ValueTypeError(
                f"{where} is a secret, and is kept as a reference, such as 'env:NAME' or "
                "'keyring:SERVICE/USER', never as it is"
            )
        if is_reference(value):
            return made(str(value))
        if isinstance(value, str) and (what := secret_in(value)) is not None:
            raise ValueTypeError(
                f"{where} is {what}: leave that out, and keep a reference to it in a field of its "
                "own"
            )
    return value


_MODEL, _SERVICE = _Configuration("model"), _Configuration(None)

DATA_TYPES: Final[dict[str, DataType]] = {
    "text": DataType(_text, _text),
    "number": DataType(_number, _number),
    "json": DataType(_json, _json),
    "bytes": DataType(_bytes, _bytes),
    "content": DataType(_content, _content),
    "segments": DataType(_segments, _segments),
    "embedding": DataType(_embedding, _embedding),
    "knowledge": DataType(_knowledge, _knowledge),
    "knowledge_db": DataType(_store_db, _load_db),
    "llm_model": DataType(_MODEL.store, _MODEL.load),
    "configured_service": DataType(_SERVICE.store, _SERVICE.load),
}
