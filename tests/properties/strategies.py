"""What random tests draw: texts, values, paths, filters and patterns that have broken stores."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st

from kvstore import escape
from kvstore.testing import ADVERSARIAL_TEXTS

texts = st.sampled_from(ADVERSARIAL_TEXTS) | st.text(max_size=8)
labels = texts.filter(bool)
namespaces = st.lists(labels, max_size=4).map(tuple)
any_text = st.text(st.characters(), max_size=8)  # lone surrogates, too

# Names of object members, few enough that paths meet them.
names = st.sampled_from(
    ["a", "b", "", "a.b", "[0]", '"', "\\", "$", "$bytes", "$$bytes", "é", "\x00", "\n", "'", "*"]
)
integers = (
    st.integers(-3, 3)
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([0, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**53) - 1])
)
floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 1.0, 1.5, 2.0**53, 2.0**63, 2.0**64, 0.30000000000000004, 5e-324, 1e23]
)
scalars = (
    st.none()
    | st.booleans()
    | integers
    | floats
    | st.sampled_from(["", "a", "A", "ab", "1", "a\x00b", "\x00", "é", "🙂", "\ufffe", "$bytes"])
    | texts
    | st.binary(max_size=4)
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=3)


json_values = st.recursive(scalars, _containers, max_leaves=8)
objects = st.dictionaries(names, json_values, max_size=4)
deep_values = st.integers(1, 200).map(lambda depth: orjson.loads(b"[" * depth + b"]" * depth))
stored_values = json_values | objects | deep_values


def write_path(segments: list[str | int]) -> str:
    """Write a path that leads through these names and indexes."""
    written = ""
    for segment in segments:
        if isinstance(segment, int):
            written += f"[{segment}]"
        else:
            is_plain = segment.isidentifier()
            name = segment if is_plain else orjson.dumps(segment).decode()
            written += f".{name}" if written else name
    return written


path_segments = st.lists(names | st.integers(-3, 3), min_size=1, max_size=3)
paths = path_segments.map(write_path)

_comparisons = st.dictionaries(
    st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains"]),
    json_values,
    min_size=1,
    max_size=2,
)
_choices = st.dictionaries(
    st.sampled_from(["$in", "$nin"]), st.lists(json_values, max_size=4), min_size=1, max_size=1
)
_existence = st.booleans().map(lambda wanted: {"$exists": wanted})
_plain = json_values.filter(
    lambda value: not isinstance(value, dict) or not any(key.startswith("$") for key in value)
)
_conditions = st.recursive(
    _comparisons | _choices | _existence,
    lambda inner: inner.map(lambda condition: {"$not": condition}),
    max_leaves=2,
)


def _combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3).map(lambda parts: {"$and": parts})
        | st.lists(inner, max_size=3).map(lambda parts: {"$or": parts})
        | inner.map(lambda part: {"$not": part})
        | st.dictionaries(paths, _conditions, max_size=2)
    )


filters: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(paths, _conditions | _plain, max_size=2), _combined, max_leaves=4
)

pattern_texts = st.text(st.sampled_from("*?[]^-ab\\!é🙂\ue000\U0010ffff\n"), max_size=8) | st.text()
_pattern_parts = st.sampled_from(
    ["*", "?", "a", "b", "A", "[a-z]", "[^a]", "[]*]", "[^\x00]", "\x00", "[\ufffe]", "\ufffd", "é"]
)
patterns = (
    st.lists(_pattern_parts, min_size=1, max_size=4).map("".join)
    | pattern_texts
    | texts.map(escape)
    | texts.map(lambda text: escape(text[:1]) + "*")
)
