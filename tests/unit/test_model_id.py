"""The name by which an index knows its model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.model_id import model_id_of

Vectors = list[list[float]]


def embed(texts: list[str], model: str = "small", api_key: str = "") -> Vectors:
    return [[1.0] for _ in texts]


def other(texts: list[str]) -> Vectors:
    return [[2.0] for _ in texts]


def made_for(model: str) -> Callable[[list[str]], Vectors]:
    def inner(texts: list[str]) -> Vectors:
        return embed(texts, model)

    return inner


def logged(function: Callable[..., Vectors]) -> Callable[..., Vectors]:
    @functools.wraps(function)
    def inner(*args: Any) -> Vectors:
        return function(*args)

    return inner


class Model:
    def __init__(self, model: str = "m", **settings: Any) -> None:
        self.model = model
        vars(self).update(settings)

    def embed(self, texts: list[str]) -> Vectors:
        return [[1.0] for _ in texts]


class Wrapper:
    """As LangGraph wraps a function."""

    def __init__(self, func: Any) -> None:
        self.func = func


def lambda_of(model: Any) -> Any:
    return lambda texts: model.embed(list(texts))


DIFFERENT: list[Any] = [
    embed,
    other,
    functools.partial(embed, model="bge"),
    functools.partial(embed, model="e5"),
    functools.partial(functools.partial(embed, model="e5"), api_key="x", model="e6"),
    made_for("bge"),
    made_for("e5"),
    logged(made_for("bge")),
    Model("a"),
    Model("b"),
    Model("a", document_prefix="search_document: "),
    Model("a", encode_kwargs={"normalize_embeddings": True}),
    Model("a").embed,
    Model("b").embed,
    Wrapper(embed),
    Wrapper(other),
    Wrapper(made_for("bge")),
    Wrapper(Model("a")),
    lambda_of(Model("a")),
    lambda_of(Model("b")),
    lambda texts: [[1.0] for _ in texts],
    lambda texts: [[3.0] for _ in texts],
]


def test_what_may_give_other_vectors_has_another_name() -> None:
    names = [model_id_of(model) for model in DIFFERENT]
    assert len(set(names)) == len(names), sorted(names)


@pytest.mark.parametrize(
    "make",
    [
        lambda: functools.partial(embed, model="bge"),
        lambda: made_for("bge"),
        lambda: logged(made_for("bge")),
        lambda: Model("a", document_prefix="x", encode_kwargs={"b": 1, "a": [2]}),
        lambda: lambda_of(Model("a")),
        lambda: Wrapper(Model("a", client=object())),
        lambda: functools.partial(Model("a").embed),
    ],
)
def test_the_same_model_made_anew_has_the_same_name(make: Callable[[], Any]) -> None:
    assert model_id_of(make()) == model_id_of(make())


def test_plain_names_stay_readable() -> None:
    assert model_id_of(Model("all-MiniLM")) == "Model:all-MiniLM"
    assert model_id_of(other) == f"{__name__}.other"
    assert model_id_of(Wrapper(other)) == f"Wrapper:{__name__}.other"


def test_a_secret_is_no_part_of_the_name_and_no_setting_is_readable_in_it() -> None:
    one = functools.partial(embed, model="private-name", api_key="sk-1")
    two = functools.partial(embed, model="private-name", api_key="sk-2")
    assert model_id_of(one) == model_id_of(two)
    assert "private" not in model_id_of(one)
