"""The encoding of namespaces is injective, keeps the order, and makes a subtree one range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvstore.namespace import decode_namespace, encode_namespace, subtree_range

from .strategies import labels, namespaces

# Labels of few and dangerous characters, so that a collision would be found.
close_labels = st.text(st.sampled_from("\x00\x01\t\n\x0bIJ@A/ab"), min_size=1, max_size=3)
close_namespaces = st.lists(close_labels, max_size=3).map(tuple)
any_namespaces = namespaces | close_namespaces


@given(any_namespaces)
def test_what_is_encoded_comes_back(namespace: tuple[str, ...]) -> None:
    path = encode_namespace(namespace)
    assert decode_namespace(path) == namespace
    assert "\x00" not in path


@given(any_namespaces, any_namespaces)
def test_no_two_namespaces_share_a_path(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (encode_namespace(one) == encode_namespace(other)) == (one == other)


@given(st.lists(any_namespaces, max_size=20))
def test_paths_sort_as_namespaces_do(many: list[tuple[str, ...]]) -> None:
    in_order = [encode_namespace(namespace) for namespace in sorted(many)]
    assert in_order == sorted(in_order)
    assert in_order == sorted(in_order, key=str.encode)  # as SQLite compares


@given(any_namespaces, any_namespaces)
def test_a_subtree_is_one_range(root: tuple[str, ...], other: tuple[str, ...]) -> None:
    low, high = subtree_range(encode_namespace(root))
    path = encode_namespace(other)
    assert (low <= path and (high is None or path < high)) == (other[: len(root)] == root)


@given(any_namespaces, labels, any_namespaces)
def test_whatever_lies_below_is_in_the_range(
    root: tuple[str, ...], label: str, below: tuple[str, ...]
) -> None:
    low, high = subtree_range(encode_namespace(root))
    path = encode_namespace((*root, label, *below))
    assert low <= path
    assert high is None or path.encode() < high.encode()
