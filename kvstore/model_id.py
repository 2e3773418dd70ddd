"""The name by which an index knows its model: another name wherever other vectors may come.

What is not a name or a plain setting is no part of it: addresses in memory, clients, and what looks
like a secret. Settings are told by a hash, so that nothing of them stands in the file.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from types import CodeType
from typing import Any

__all__ = ["model_id_of"]

_NAMED_BY = ("model_id", "model_name", "model", "deployment")  # of LangChain's and ours
_WRAPPED_BY = ("func", "afunc", "underlying_embeddings", "__wrapped__")  # of theirs
# Attributes of others' models that change their vectors, where they are set
_SETTINGS = (
    "dimensions", "document_prefix", "query_prefix", "embed_instruction", "query_instruction",
    "encode_kwargs", "query_encode_kwargs", "model_kwargs", "normalize", "pooling", "prompts",
    "default_prompt_name", "task_type", "truncate_dim", "output_dimensionality", "doc_embed_type",
)  # fmt: skip
_SECRETS = ("key", "token", "secret", "password", "auth", "client", "session", "url", "timeout")
_SCALARS = (str, bytes, int, float, bool)
_MOST_DEEP = 4


def model_id_of(embeddings: Any) -> str:
    """Return a name for a model: what it is, and a hash of how it is set up, if it is."""
    name, settings = _name(embeddings), tuple(_settings(embeddings, 0))
    if not settings:
        return name
    said = "\n".join(settings).encode("utf-8", "backslashreplace")
    return f"{name}#{blake2b(said, digest_size=6).hexdigest()}"


def _name(model: Any) -> str:
    if isinstance(model, functools.partial):
        return _name(model.func)
    if inspect.ismethod(model):
        return f"{_name(model.__self__)}.{model.__name__}"
    if inspect.isroutine(model):
        return f"{model.__module__}.{model.__qualname__}"
    kind = type(model).__name__
    for attribute in _NAMED_BY:
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            return f"{kind}:{name}"
    inner = _wrapped(model)
    return kind if inner is None else f"{kind}:{_name(inner)}"


def _wrapped(model: Any) -> Any:
    """Return the model or the function to which an object hands on, if it is a known kind."""
    for attribute in _WRAPPED_BY:
        inner = getattr(model, attribute, None)
        if inner is not None and inner is not model:
            return inner
    return None


def _settings(model: Any, depth: int) -> Iterator[str]:
    """Yield what changes the vectors of a model beside its name, as text."""
    if depth > _MOST_DEEP:
        return
    if isinstance(model, functools.partial):
        yield from _told("arguments", (model.args, model.keywords), depth)
        yield from _settings(model.func, depth + 1)
    elif inspect.ismethod(model):
        yield from _settings(model.__self__, depth + 1)
    elif inspect.isfunction(model):
        yield from _of_function(model, depth)
    elif not inspect.isroutine(model):
        for attribute in () if isinstance(getattr(model, "model_id", None), str) else _SETTINGS:
            yield from _told(attribute, getattr(model, attribute, None), depth)
        inner = _wrapped(model)
        if inner is not None:
            yield from _settings(inner, depth + 1)


def _of_function(function: Any, depth: int) -> Iterator[str]:
    """Yield what a function brings along that others of its name may not."""
    yield from _told("defaults", (function.__defaults__, function.__kwdefaults__), depth)
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # it is not set yet
            continue
        yield from _told(name, value, depth)
    if function.__name__ == "<lambda>":
        yield from _of_code(function.__code__)


def _of_code(code: CodeType) -> Iterator[str]:
    yield from sorted(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # of a comprehension, before Python 3.12
            yield from _of_code(constant)
        elif isinstance(constant, _SCALARS) and "<lambda>" not in str(constant):
            yield repr(constant)


def _told(name: str, value: Any, depth: int) -> Iterator[str]:
    """Yield a setting as text, if it says something that another process would say, too."""
    if value is None or any(secret in name.lower() for secret in _SECRETS) or depth > _MOST_DEEP:
        return
    if isinstance(value, _SCALARS):
        yield f"{name}={value!r}"
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _told(f"{name}.{key}", value[key], depth + 1)
    elif isinstance(value, (list, tuple)):
        for at, element in enumerate(value):
            yield from _told(f"{name}.{at}", element, depth + 1)
    elif callable(value) or any(isinstance(getattr(value, by, None), str) for by in _NAMED_BY):
        yield f"{name}={_name(value)}"
        yield from _settings(value, depth + 1)
