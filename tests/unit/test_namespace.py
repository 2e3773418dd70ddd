"""What is a namespace, a label and a key; how a path reads; what a message says."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from kvstore import InvalidKeyError, InvalidNamespaceError
from kvstore.namespace import (
    address,
    check_key,
    check_namespace,
    decode_namespace,
    encode_namespace,
    show,
    subtree_range,
)
from kvstore.testing import stable_id


def test_a_path_reads_well() -> None:
    assert encode_namespace(()) == ""
    assert encode_namespace(("users", "alice")) == "users\talice\t"
    assert encode_namespace(("a/b", "ü.*")) == "a/b\tü.*\t"


def test_control_characters_are_written_as_carets() -> None:
    assert encode_namespace(("a\tb\n\x00",)) == "a\nIb\nJ\n@\t"
    assert decode_namespace("a\nIb\nJ\n@\t") == ("a\tb\n\x00",)
    assert encode_namespace(("\x0b\r\x1b",)) == "\x0b\r\x1b\t"


def test_the_subtree_of_the_root_is_everything() -> None:
    assert subtree_range("") == ("", None)
    assert subtree_range("a\t") == ("a\t", "a\n")


def test_an_address_is_the_labels_and_the_path() -> None:
    assert address(("a", "b")) == (("a", "b"), "a\tb\t")
    assert address(["a", "b"]) == (("a", "b"), "a\tb\t")
    assert address(()) == ((), "")


def test_labels_that_are_members_of_an_enum_become_plain_text() -> None:
    class Team(enum.StrEnum):
        RED = "red team"

    class Label(str):
        __slots__ = ()

    for namespace in [(Team.RED,), [Label("red team")], ("red team",)]:
        labels, path = address(namespace)
        assert labels == ("red team",)
        assert [type(label) for label in labels] == [str]
        assert path == "red team\t"


@pytest.mark.parametrize(
    ("namespace", "said"),
    [
        ("users", r"write \('users',\)"),
        ("", r"write \('',\)"),
        (b"users", "not bytes"),
        (None, "not NoneType"),
        ({"users"}, "not set"),
        (("users", ""), "label 1 .* is empty"),
        (("users", 7), "label 1 .* is a int"),
        (("\ud800",), r"label 0 .*'\\ud800'.* lone surrogate"),
        (([],), "label 0 .* is a list"),
        (memoryview(b"ab"), "label 0 .* is a int"),
    ],
    ids=stable_id,
)
def test_what_is_no_namespace_is_refused(namespace: Any, said: str) -> None:
    with pytest.raises(InvalidNamespaceError, match=said):
        check_namespace(namespace)
    with pytest.raises(InvalidNamespaceError, match=said):
        address(namespace)
    with pytest.raises(ValueError, match=said):
        address(namespace)


def test_a_refused_namespace_is_refused_again() -> None:
    for _ in range(2):
        with pytest.raises(InvalidNamespaceError):
            address(("a", ""))


@pytest.mark.parametrize("key", ["", " ", "a", "\x00", "\ufffe", "🙂" * 1000])
def test_any_text_is_a_key(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", [None, 1, b"k", ["k"], "\ud800", "a\udfffb"], ids=repr)
def test_what_is_no_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidKeyError):
        check_key(key)


def test_a_message_shows_an_address_as_it_is_written() -> None:
    assert show(("a", "b")) == "('a', 'b')"
    assert show(("a",), "k'") == "('a',) / \"k'\""
