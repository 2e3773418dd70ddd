"""Namespaces: what is a valid one, and how it is joined into one sortable path.

A path is the labels, each followed by a TAB. The characters up to line feed are written inside
a label as a line feed and their caret letter (NUL as `@`, TAB as `I`, line feed as `J`), so

- the encoding is injective: no two namespaces share a path;
- paths sort, byte by byte in UTF-8 or by code point, exactly as the tuples of labels do;
- what lies below a namespace is one contiguous range of paths;
- a path reads well in any SQLite tool, and never holds a NUL.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.caching import Known, cache_short
from kvstore.errors import InvalidKeyError, InvalidNamespaceError
from kvstore.types import Namespace

__all__ = [
    "address",
    "check_key",
    "check_label",
    "check_namespace",
    "decode_namespace",
    "encode_namespace",
    "is_text",
    "is_within",
    "root_of",
    "show",
    "subtree_range",
]

_TERMINATOR = "\t"
_AFTER_TERMINATOR = "\n"  # the least string above every path that begins with the same labels
_ESCAPE = "\n"
_CARET = {code: _ESCAPE + chr(ord("@") + code) for code in range(ord(_ESCAPE) + 1)}


def check_namespace(namespace: Sequence[str]) -> Namespace:
    """Return the namespace as a tuple of labels.

    Raises:
        InvalidNamespaceError: it is a `str`, no sequence, or has a label that is not a
            non-empty string of Unicode text.
    """
    if isinstance(namespace, str):
        raise InvalidNamespaceError(
            f"a namespace is a sequence of labels, not a str: write {(namespace,)!r}"
        )
    if not isinstance(namespace, Sequence) or isinstance(namespace, (bytes, bytearray)):
        raise InvalidNamespaceError(
            "a namespace is a sequence of labels such as ('users', 'alice'), "
            f"not {type(namespace).__name__}"
        )
    for position, label in enumerate(namespace):
        check_label(label, f"label {position} of the namespace")
    return tuple(map(str.__str__, namespace))  # an enum's member becomes the text that it is


def check_label(label: object, what: str) -> None:
    """Raise `InvalidNamespaceError` unless `label` is a non-empty string of Unicode text."""
    if not isinstance(label, str):
        raise InvalidNamespaceError(f"{what} is a {type(label).__name__}, not a str")
    if not label:
        raise InvalidNamespaceError(f"{what} is empty; leave it out")
    if not is_text(label):
        raise InvalidNamespaceError(f"{what}, {label!r}, holds a lone surrogate")


def check_key(key: str) -> str:
    """Return the key as a plain `str`: an enum's member becomes the text that it is.

    Raises:
        InvalidKeyError: it is not a `str`, or holds a lone surrogate.
    """
    if not isinstance(key, str):
        raise InvalidKeyError(f"a key is a str, not {type(key).__name__}")
    if not key.isascii() and not is_text(key):
        raise InvalidKeyError(f"the key {key!r} holds a lone surrogate")
    return key if type(key) is str else str.__str__(key)


def is_text(text: str) -> bool:
    """Whether a string is Unicode text: without lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def address(namespace: Sequence[str]) -> tuple[Namespace, str]:
    """Return the checked namespace and its path.

    Raises:
        InvalidNamespaceError: see `check_namespace`.
    """
    if type(namespace) is tuple:
        try:
            return _ADDRESSES[namespace]
        except TypeError:  # an unhashable label: the check below says so
            pass
    return _address(namespace)


def _address(namespace: Sequence[str]) -> tuple[Namespace, str]:
    labels = check_namespace(namespace)
    return labels, encode_namespace(labels)


_ADDRESSES = Known(_address, 16_384)  # every call passes here


@cache_short(16_384)
def encode_namespace(namespace: Namespace) -> str:
    """Join the labels into a path; `""` for the root."""
    return "".join(label.translate(_CARET) + _TERMINATOR for label in namespace)


@cache_short(16_384)
def decode_namespace(path: str) -> Namespace:
    """Split a path into its labels: the inverse of `encode_namespace`."""
    labels = path.split(_TERMINATOR)[:-1]
    return tuple(_unescape(label) if _ESCAPE in label else label for label in labels)


def _unescape(label: str) -> str:
    head, *escaped = label.split(_ESCAPE)
    return head + "".join(chr(ord(part[0]) - ord("@")) + part[1:] for part in escaped)


def root_of(path: str) -> str:
    """Return the first label of a path with its terminator; `""` for the root namespace."""
    return path[: path.find(_TERMINATOR) + 1]


def subtree_range(path: str) -> tuple[str, str | None]:
    """Return `(low, high)`: a path lies in the subtree if `low <= path < high`.

    `high` is `None` for the root, whose subtree is everything.
    """
    return (path, path[:-1] + _AFTER_TERMINATOR) if path else ("", None)


def is_within(path: str, of: str, subtree: bool) -> bool:
    """Whether a path is that of a namespace or, with `subtree`, lies in its subtree."""
    return path.startswith(of) if subtree else path == of


def show(namespace: Namespace, key: str | None = None) -> str:
    """Write an address for a message: `('users', 'alice') / 'theme'`."""
    return repr(namespace) if key is None else f"{namespace!r} / {key!r}"
