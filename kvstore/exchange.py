"""Items outside a store: the lines of an export, and the spool that an import is staged in.

An export is JSON lines in UTF-8: a header, one line for each item, and a footer with their
number, by which a file that was cut off is told. A value stands in it as `codec` writes it.

    {"kvstore":"export","format":1}
    {"namespace":["users","alice"],"key":"theme","version":4711,"created_at":"...",
     "updated_at":"...","value":{"name":"dark"}}                    (on one line)
    {"kvstore":"end","items":1}

A file without a header is taken, too: lines of objects with `namespace`, `key` and `value`.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson

from kvstore import codec
from kvstore.distribution import NAME
from kvstore.errors import (
    InvalidArgumentError,
    InvalidKeyError,
    InvalidNamespaceError,
    StoreAccessError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    ValueEncodingError,
    ValueTooLargeError,
)
from kvstore.instants import to_datetime
from kvstore.namespace import address, check_key, decode_namespace, show
from kvstore.operations import Record
from kvstore.types import EPOCH

__all__ = ["Intake", "Sink", "Spool", "file_errors", "open_file", "partial_file", "whole_path"]

FORMAT = 1
_CHUNK = 1 << 20  # bytes of a file that are read or written at once
_MAX_VERSION = 2**53
_BITMAP = 1 << 15  # versions that one piece of the bitmap tells apart
_MICROSECOND = timedelta(microseconds=1)
_TIMES = ("created_at", "updated_at", "expires_at")


@contextmanager
def file_errors(what: object) -> Iterator[None]:
    """Raise the operating system's errors about a file as ours.

    Raises:
        StoreFullError: no room.
        StoreAccessError: anything else.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as exc:
        kind = StoreFullError if exc.errno in _FULL else StoreAccessError
        raise kind(f"{what}: {exc.strerror or exc}") from exc


def _full_errnos() -> frozenset[int]:
    import errno

    return frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


_FULL = _full_errnos()


def whole_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that stays the same whatever the working directory becomes."""
    return Path(path).absolute()


def open_file(path: Path) -> IO[bytes]:
    """Open a file to read from.

    Raises:
        StoreAccessError: it cannot be read.
    """
    with file_errors(path):
        return path.open("rb")


@contextmanager
def partial_file(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Give a new, empty file beside `path`; it takes the name at the end, if all went well.

    So the name never stands for half a file. What a killed process leaves is called
    `<name>.partial-...` and may be deleted.

    Args:
        path: the name to be.
        mode: the permissions of the file; `None`: as the process's umask has it.
    """
    partial = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
    with file_errors(path):
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
        handle = os.open(partial, flags, 0o666 if mode is None else 0o600)
        os.close(handle)
        try:
            if mode is not None:
                partial.chmod(mode)
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def _sync_folder(folder: Path) -> None:
    """Make a new name last; where a directory cannot be opened (Windows), it does so by itself."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Sink:
    """Writes an export to a file object, of text or of bytes."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file
        with file_errors("the export cannot be written"):
            try:
                file.write(b"")
                self._is_text = False
            except TypeError:
                self._is_text = True
        self.count = 0

    def begin(self) -> None:
        """Write the header."""
        self._write(_line({"kvstore": "export", "format": FORMAT}))

    def add(self, records: Iterable[Record]) -> None:
        """Write items."""
        lines = [_item_line(record) for record in records]
        self.count += len(lines)
        self._write(b"".join(lines))

    def end(self) -> None:
        """Write the footer."""
        self._write(_line({"kvstore": "end", "items": self.count}))
        self._file.flush()

    def _write(self, data: bytes) -> None:
        with file_errors("the export cannot be written"):
            self._file.write(data.decode() if self._is_text else data)


def _line(content: dict[str, Any]) -> bytes:
    return orjson.dumps(content) + b"\n"


def _item_line(record: Record) -> bytes:
    content: dict[str, Any] = {
        "namespace": decode_namespace(record.path),
        "key": record.key,
        "version": record.version,
        "created_at": to_datetime(record.created_at),
        "updated_at": to_datetime(record.updated_at),
    }
    if record.expires_at is not None:
        content["expires_at"] = to_datetime(record.expires_at)
    if record.ttl is not None:
        content["ttl"] = record.ttl / 1_000_000
    if record.indexing is not None:
        content["index"] = list(record.indexing) or False
    return orjson.dumps(content)[:-1] + b',"value":' + record.data + b"}\n"


class Spool:
    """Records in a temporary file, in the order in which they came."""

    def __init__(self) -> None:
        with file_errors("a temporary file cannot be made"):
            self._file = tempfile.TemporaryFile(prefix="kvstore-")  # noqa: SIM115
        self.count = 0

    def add(self, records: Iterable[Record]) -> None:
        """Write records at the end."""
        lines = [
            orjson.dumps(
                (
                    record.path,
                    record.key,
                    record.version,
                    record.created_at,
                    record.updated_at,
                    record.expires_at,
                    record.ttl,
                    record.indexing,
                )
            )
            + b"\t"  # JSON holds no raw TAB
            + record.data
            + b"\n"
            for record in records
        ]
        with file_errors("a temporary file cannot be written"):
            self._file.write(b"".join(lines))
        self.count += len(lines)

    def records(self) -> Iterator[Record]:
        """Read them all from the beginning."""
        self._file.seek(0)
        for line in self._file:
            head, _, data = line.partition(b"\t")
            path, key, version, created_at, updated_at, expires_at, ttl, indexing = orjson.loads(
                head
            )
            paths = None if indexing is None else tuple(indexing)
            yield Record(
                path, key, data[:-1], version, created_at, updated_at, expires_at, ttl, paths
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


class Intake:
    """Reads an export from a file object and checks it, piece by piece.

    Args:
        file: of text or of bytes.
        now: the times of items that come without, in microseconds.
        max_value_bytes: the longest encoded value that is accepted.
    """

    def __init__(self, file: IO[Any], now: int, max_value_bytes: int) -> None:
        self._file = file
        self._now = now
        self._max_value_bytes = max_value_bytes
        self._number = 0
        self._items = 0
        self._has_header = False
        self._has_footer = False
        self._versions = _Versions()

    def read(self) -> list[Record]:
        """Return the next records, an empty list at the end.

        Raises:
            InvalidArgumentError: the file is no export, or is cut off; names the line.
            StoreError: a namespace, key or value in it is none; names the line.
        """
        while True:
            with file_errors("the import cannot be read"):
                lines = self._file.readlines(_CHUNK)
            if not lines:
                self._finish()
                return []
            found = [record for line in lines if (record := self._parse(line)) is not None]
            if found:
                return found

    def _finish(self) -> None:
        if self._has_header and not self._has_footer:
            raise InvalidArgumentError(
                f"the import is cut off after line {self._number}: its last line is missing; "
                "nothing was imported"
            )

    def _parse(self, line: str | bytes) -> Record | None:
        self._number += 1
        where = f"line {self._number} of the import"
        if not line.strip():
            return None
        try:
            content = orjson.loads(line)
        except ValueError:
            raise InvalidArgumentError(f"{where} is not JSON; nothing was imported") from None
        if not isinstance(content, dict):
            raise InvalidArgumentError(f"{where} is no object; nothing was imported")
        if "kvstore" in content:
            self._mark(content, where)
            return None
        if self._has_footer:
            raise InvalidArgumentError(f"{where} stands after the last line of an export")
        try:
            record = self._record(content)
        except (InvalidNamespaceError, InvalidKeyError, InvalidArgumentError) as exc:
            raise type(exc)(f"{where}: {exc}; nothing was imported") from exc
        except (StoreCorruptError, ValueEncodingError) as exc:
            raise ValueEncodingError(f"{where}: its value is not one of kvstore's") from exc
        self._items += 1
        return record

    def _mark(self, content: dict[str, Any], where: str) -> None:
        """Take the header or the footer."""
        if content["kvstore"] == "export" and self._number == 1:
            if content.get("format") != FORMAT:
                raise InvalidArgumentError(
                    f"the import has format {content.get('format')!r}, and this version of "
                    f"kvstore reads {FORMAT}: pip install --upgrade {NAME}"
                )
            self._has_header = True
        elif content["kvstore"] == "end" and self._has_header and not self._has_footer:
            if content.get("items") != self._items:
                raise InvalidArgumentError(
                    f"the import holds {self._items} items, and its last line speaks of "
                    f"{content.get('items')!r}; nothing was imported"
                )
            self._has_footer = True
        else:
            raise InvalidArgumentError(f"{where} is neither an item nor in its place")

    def _record(self, content: dict[str, Any]) -> Record:
        missing = [name for name in ("namespace", "key", "value") if name not in content]
        if missing:
            raise InvalidArgumentError(f"it has no {missing[0]!r}")
        labels, path = address(content["namespace"])
        key = check_key(content["key"])
        data = orjson.dumps(content["value"])
        if b'$bytes"' in data:
            codec.decode(data)  # raises for a tag without base64
        if len(data) > self._max_value_bytes:
            raise ValueTooLargeError(
                f"line {self._number} of the import: the value of {show(labels, key)} takes "
                f"{len(data):,} bytes, and this store's max_value_bytes is "
                f"{self._max_value_bytes:,}"
            )
        times = [_micros(content.get(name), name) for name in _TIMES]
        created_at, updated_at, expires_at = times
        return Record(
            path,
            key,
            data,
            self._version(content),
            self._now if created_at is None else created_at,
            self._now if updated_at is None else updated_at,
            expires_at,
            _ttl(content.get("ttl")),
            _indexing(content.get("index")),
        )

    def _version(self, content: dict[str, Any]) -> int:
        """Return the version of a line of an export; 0 in a file without header."""
        if not self._has_header:
            return 0
        version = content.get("version")
        if type(version) is not int or not 0 < version < _MAX_VERSION:
            raise InvalidArgumentError("its version is no positive int")
        if not self._versions.add(version):
            raise InvalidArgumentError(f"its version {version} stands in the file twice")
        return version


class _Versions:
    """A set of versions in little memory: a bitmap in pieces."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytearray] = {}

    def add(self, version: int) -> bool:
        """Add one; whether it is new."""
        number, rest = divmod(version, _BITMAP)
        piece = self._pieces.get(number)
        if piece is None:
            piece = self._pieces[number] = bytearray(_BITMAP // 8)
        bit = 1 << (rest & 7)
        if piece[rest >> 3] & bit:
            return False
        piece[rest >> 3] |= bit
        return True


def _micros(text: object, name: str) -> int | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)  # type: ignore[arg-type]
        return (instant - EPOCH) // _MICROSECOND
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgumentError(
            f"its {name} is no ISO 8601 time with an offset, such as 2026-01-31T12:00:00+00:00"
        ) from None


def _ttl(seconds: object) -> int | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise InvalidArgumentError("its ttl is no positive number of seconds")
    return max(1, round(seconds * 1_000_000))


def _indexing(index: object) -> tuple[str, ...] | None:
    if index is None:
        return None
    if index is False:
        return ()
    if isinstance(index, list) and all(isinstance(path, str) for path in index):
        return tuple(index)
    raise InvalidArgumentError("its index is neither false nor a list of paths")
