"""The tree of errors that is drawn in the docstring is the tree of classes."""

from __future__ import annotations

import builtins
import re

import pytest

from kvstore import errors
from kvstore.errors import StoreError

_BRANCH = re.compile(r"^    (│   )?[├└]── (\w+)(?: \((\w+)\))? +\S", re.MULTILINE)

CLASSES = {name: getattr(errors, name) for name in errors.__all__}


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    drawing = errors.__doc__ or ""
    assert "\n    StoreError\n" in drawing
    drawn: dict[str, tuple[type, ...]] = {}
    outer: type = StoreError
    for is_below, name, builtin in _BRANCH.findall(drawing):
        parent = outer if is_below else StoreError
        drawn[name] = (parent, getattr(builtins, builtin)) if builtin else (parent,)
        outer = outer if is_below else CLASSES[name]
    assert drawn == {
        name: error.__bases__ for name, error in CLASSES.items() if error is not StoreError
    }


def test_every_class_of_the_module_is_listed() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert set(errors.__all__) == defined


@pytest.mark.parametrize("error", CLASSES.values(), ids=CLASSES)
def test_every_error_has_one_root_and_says_what_it_means(error: type[StoreError]) -> None:
    assert issubclass(error, StoreError)
    assert (vars(error)["__doc__"] or "").strip()
    assert str(error("what was wrong")) == "what was wrong"
