"""Text files for agents, over namespaces: a folder is a namespace, a file an item in it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kvstore.arguments import check_count
from kvstore.errors import InvalidArgumentError, ValueTypeError
from kvstore.instants import FOREVER
from kvstore.namespace import address, check_namespace
from kvstore.operations import Delete, Operation, Remove
from kvstore.patterns import EVERY_KEY
from kvstore.store import Store
from kvstore.transaction import Transaction
from kvstore.types import Item, Namespace

__all__ = ["FileInfo", "Files", "GrepMatch"]

_LINES: Final = 2_000  # that one read gives; what agents' file tools are used to


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is in a folder.

    Attributes:
        path: from the root, with a `/` at the end if it is a folder.
        size: characters of a text, bytes of what is none; 0 of a folder.
        modified_at: when a file was last written, an aware UTC `datetime`.
    """

    path: str
    size: int = 0
    modified_at: datetime | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.endswith("/")


@dataclass(frozen=True, slots=True)
class GrepMatch:
    """A line that `grep` has found; lines count from 1."""

    path: str
    line: int
    text: str


class Files:
    """Files under paths such as `/notes/today.md`, for the file tools of an agent.

    A file is an item whose value is its text, or bytes, under its name, in a namespace that has a
    label for each folder: search, watch and the command line see it. Items with other values are
    no files, and not listed. Folders are there as long as they hold something. Paths begin at the
    root, with or without `/`; `.`, `..` and empty parts are refused, so none leads elsewhere.

    Args:
        store: an open store.
        namespace: the root: a user's, an agent's or a session's.

    Every method raises `InvalidArgumentError` for a path that is none.
    """

    def __init__(self, store: Store, namespace: Sequence[str] = ("files",)) -> None:
        self._store = store
        self._root = check_namespace(namespace)

    async def ls(self, path: str = "/") -> list[FileInfo]:
        """List a folder, by name: its files, and its folders."""
        folder = self._folder(path)
        depth = len(folder)
        below = await self._store.list_namespaces(folder, max_depth=depth + 1)
        found = [FileInfo(self._path(each) + "/") for each in below if len(each) > depth]
        scan = self._store.scan(folder, subtree=False)
        found += [self._entry(item) async for item in scan if _is_file(item)]
        return sorted(found, key=lambda each: each.path)

    async def read(self, path: str, *, offset: int = 0, limit: int = _LINES) -> str:
        """Return lines of a file as they are.

        Args:
            path: which file.
            offset: how many lines to leave out first.
            limit: how many at most.

        Raises:
            InvalidArgumentError: there is no such file, or it ends before `offset`.
        """
        check_count(offset, "offset")
        check_count(limit, "limit")
        folder, name = self._address(path)
        lines = _text(await self._store.get(folder, name), path).splitlines(keepends=True)
        if offset and offset >= len(lines):
            raise InvalidArgumentError(f"{path} has {len(lines)} lines: none behind {offset}")
        return "".join(lines[offset : offset + limit])

    async def content(self, path: str) -> str | bytes:
        """Return all that is in a file.

        Raises:
            InvalidArgumentError: there is no such file.
        """
        folder, name = self._address(path)
        item = _there(await self._store.get(folder, name), path)
        return item.value if isinstance(item.value, bytes) else _text(item, path)

    async def write(self, path: str, text: str | bytes, *, overwrite: bool = False) -> Item:
        """Make a file.

        Args:
            path: which.
            text: all of it; bytes, if it is no text.
            overwrite: whether one that is there is replaced.

        Raises:
            ConflictError: it is there, and `overwrite` is not given.
        """
        if not isinstance(text, (str, bytes)):
            raise InvalidArgumentError(f"a file holds text or bytes, not {type(text).__name__}")
        folder, name = self._address(path)
        expected = None if overwrite else 0
        return await self._store.put(folder, name, text, ttl=FOREVER, if_version=expected)

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        """Replace a text in a file, atomically; return how often it was there.

        Args:
            path: which file.
            old: what is to go; there just once, unless `replace_all`.
            new: what comes in its place.
            replace_all: replace it wherever it is.

        Raises:
            InvalidArgumentError: there is no such file, or `old` is not in it, or more than once.
        """
        if not old:
            raise InvalidArgumentError("edit takes the text to replace; this one is empty")
        count = 0

        def replaced(text: str) -> str:
            nonlocal count
            count = text.count(old)
            if not count:
                raise InvalidArgumentError(f"the text to replace is not in {path}; read it again")
            if count > 1 and not replace_all:
                raise InvalidArgumentError(
                    f"the text to replace is in {path} {count} times: give more of what is around "
                    "it, or replace_all=True"
                )
            return text.replace(old, new)

        await self.change(path, replaced)
        return count

    async def change(self, path: str, change: Callable[[str], str]) -> None:
        """Give a file the text that a function makes of the one it has, atomically.

        Args:
            path: which file.
            change: pure and quick; may be called several times. What it raises passes, and nothing
                is written.

        Raises:
            InvalidArgumentError: there is no such file.
        """
        folder, name = self._address(path)

        async def write(tx: Transaction) -> None:
            text = change(_text(await tx.get(folder, name), path))
            tx.put(folder, name, text, ttl=FOREVER)

        await self._store.transact(write)

    async def delete(self, path: str, *, recursive: bool = False) -> bool:
        """Delete a file; return whether it was there.

        Args:
            path: which file.
            recursive: or folder, with all that is below it, at once.
        """
        if not recursive:
            return await self._store.delete(*self._address(path))
        folder = self._folder(path)
        gone: list[Operation] = [Remove(*address(folder), EVERY_KEY, True)]
        if len(folder) > len(self._root):
            gone.insert(0, Delete(*address(folder[:-1]), folder[-1]))
        return any(await self._store.apply(gone))

    async def glob(self, pattern: str, path: str = "/") -> list[FileInfo]:
        """Return the files below a folder whose paths from there match, by path.

        Args:
            pattern: `*` and `?` within a name, `[...]` one of some characters, `**` any folders.
            path: which folder.
        """
        matches = _compiled(pattern)
        below = self.walk(path)
        found = [info async for info, inner, _ in below if matches.fullmatch(inner)]
        return sorted(found, key=lambda each: each.path)

    async def grep(self, text: str, path: str = "/", *, glob: str | None = None) -> list[GrepMatch]:
        """Return the lines below a folder, or of a file, that hold a text, taken literally.

        Args:
            text: what to look for.
            path: which folder, or file.
            glob: only in files whose names, or paths from there if it has a `/`, match.
        """
        if not text:
            raise InvalidArgumentError("grep takes the text to look for; this one is empty")
        matches = None if glob is None else _compiled(glob if "/" in glob else f"**/{glob}")
        return [
            GrepMatch(info.path, number, line)
            async for info, inner, content in self.walk(path)
            if isinstance(content, str) and (matches is None or matches.fullmatch(inner))
            for number, line in enumerate(content.splitlines(), 1)
            if text in line
        ]

    async def walk(self, path: str = "/") -> AsyncIterator[tuple[FileInfo, str, str | bytes]]:
        """Yield the files below a folder, or the one file: what, its path from there, its content.

        No lock is held meanwhile.
        """
        folder = self._folder(path)
        if len(folder) > len(self._root):
            item = await self._store.get(folder[:-1], folder[-1])
            if item is not None and _is_file(item):
                yield self._entry(item), item.key, item.value
        async for item in self._store.scan(folder):
            if _is_file(item):
                inner = "/".join((*item.namespace[len(folder) :], item.key))
                yield self._entry(item), inner, item.value

    # Paths

    def _folder(self, path: str) -> Namespace:
        return (*self._root, *_parts(path))

    def _address(self, path: str) -> tuple[Namespace, str]:
        parts = _parts(path)
        if not parts or path.endswith("/"):
            raise InvalidArgumentError(f"{path!r} names a folder, and no file")
        return (*self._root, *parts[:-1]), parts[-1]

    def _path(self, namespace: Namespace, *key: str) -> str:
        return "/" + "/".join((*namespace[len(self._root) :], *key))

    def _entry(self, item: Item) -> FileInfo:
        path = self._path(item.namespace, item.key)
        return FileInfo(path, len(item.value), item.updated_at)


def _parts(path: str) -> list[str]:
    if not isinstance(path, str):
        raise InvalidArgumentError(f"a path is a text, not {type(path).__name__}")
    inner = path.removeprefix("/").removesuffix("/")
    parts = inner.split("/") if inner else []
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidArgumentError(f"{path!r} is no path: '.', '..' and empty parts lead nowhere")
    return parts


def _is_file(item: Item) -> bool:
    return isinstance(item.value, (str, bytes))


def _there(item: Item | None, path: str) -> Item:
    if item is None:
        raise InvalidArgumentError(f"file {path} not found; ls() tells what there is")
    return item


def _text(item: Item | None, path: str) -> str:
    value: Any = _there(item, path).value
    if not isinstance(value, str):
        raise ValueTypeError(f"{path} is no text file: it holds a {type(value).__name__}")
    return value


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a glob over paths as an expression."""
    said = ""
    rest = pattern.removeprefix("/")
    while rest:
        if rest.startswith("**/"):
            said, rest = said + "(?:[^/]+/)*", rest[3:]
        elif rest.startswith("**"):
            said, rest = said + ".*", rest[2:]
        elif rest[0] == "[" and (found := re.match(r"\[([!^]?)(\]?[^\]]*)\]", rest)):
            negated = "^/" if found[1] else ""
            said += f"[{negated}{_escaped_set(found[2])}]"
            rest = rest[found.end() :]
        else:
            said += {"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0]))
            rest = rest[1:]
    try:
        return re.compile(said, re.DOTALL)
    except re.error as exc:
        raise InvalidArgumentError(f"the pattern {pattern!r} does not parse: {exc}") from exc


def _escaped_set(inside: str) -> str:
    return re.sub(r"[\\\[\]^&~|]", lambda found: "\\" + found[0], inside)
