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

import codecs
import heapq
import marshal
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import pairwise, starmap
from operator import attrgetter
from typing import IO, Any, Self, TypeVar

import orjson

from kvstore import codec
from kvstore.caching import cache_short
from kvstore.collecting import uncollected
from kvstore.distribution import NAME
from kvstore.errors import (
    InvalidArgumentError,
    StoreError,
    ValueTooLargeError,
)
from kvstore.files import file_errors
from kvstore.instants import EARLIEST, LATEST, duration, micros_of, to_datetime
from kvstore.jobs import DEAD, JobState, SequenceRecord
from kvstore.namespace import address, check_key, decode_namespace, show
from kvstore.operations import Record
from kvstore.rules import encode_values, stored_indexing

__all__ = ["Intake", "Sink", "Spool"]

FORMAT = 1
T = TypeVar("T")

_AT_ONCE = 500  # lines that are checked
_DOLLAR = ord("$")  # a number is found five times as fast as a byte
_CHUNK = 1 << 20  # bytes of a file that are read or written at once
_MAX_VERSION = 2**53
_WRITTEN_OUT = 3  # times as long may a value's text be as what is stored: "\\u00e9" for two bytes
_LINE_HEAD = 1 << 20  # bytes of a line beside its value
_LENGTH_BYTES = 8
_RUN = 1 << 20  # versions that are sorted in memory
_RUN_PIECE = 1 << 16  # bytes of a sorted run that are read at once
_FIELDS = attrgetter(
    "path", "key", "data", "version", "created_at", "updated_at", "expires_at", "ttl", "indexing"
)


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

    def add_sequences(self, sequences: Iterable[SequenceRecord]) -> None:
        """Write logs and queues."""
        self._write(b"".join(map(_sequence_line, sequences)))

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


_JOB_FIELDS = ("position", "state", "due", "span", "attempt", "name", "error")


def _sequence_line(record: SequenceRecord) -> bytes:
    content: dict[str, Any] = {
        "kvstore": record.kind,
        "namespace": decode_namespace(record.path),
        "last": record.last,
    }
    if record.trimmed:
        content["trimmed"] = record.trimmed
    if record.jobs:
        jobs = ({name: getattr(job, name) for name in _JOB_FIELDS} for job in record.jobs)
        content["jobs"] = [{name: it for name, it in job.items() if it} for job in jobs]
    return _line(content)


class Spool:
    """Records in a temporary file, in the order in which they came; may be iterated again."""

    def __init__(self) -> None:
        with file_errors("a temporary file cannot be made"):
            self._file = tempfile.TemporaryFile(prefix="kvstore-")  # noqa: SIM115
        self.count = 0

    def add(self, records: Sequence[Record]) -> None:
        """Write records at the end."""
        with uncollected():
            piece = marshal.dumps(list(map(_FIELDS, records)))
        with file_errors("a temporary file cannot be written"):
            self._file.write(len(piece).to_bytes(_LENGTH_BYTES))
            self._file.write(piece)
        self.count += len(records)

    def pieces(self) -> Iterator[list[Record]]:
        """Yield the records as they were added."""
        with file_errors("a temporary file cannot be read"):
            self._file.seek(0)
            read = 0
            while read < self.count:
                # Whole: `marshal.load` reads each number and each text by a call of its own.
                length = int.from_bytes(self._file.read(_LENGTH_BYTES))
                piece = marshal.loads(self._file.read(length))  # noqa: S302 - nobody else has it
                yield list(starmap(Record, piece))
                read += len(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Intake:
    """Reads an export from a file object and checks it, piece by piece.

    What it lets through could have been put: it goes through the code that `put` uses. Memory
    holds a piece of the file and one line, which is refused when it is longer than any line of an
    item that the store takes.

    Args:
        file: of text or of bytes; UTF-8 or, as a byte order mark has it, UTF-16.
        now: the times of items that come without, in microseconds.
        max_value_bytes: the longest encoded value that is accepted.

    Attributes:
        sequences: the logs and queues that were read so far.
    """

    def __init__(self, file: IO[Any], now: int, max_value_bytes: int) -> None:
        self._lines = _Lines(file, _WRITTEN_OUT * max_value_bytes + _LINE_HEAD)
        self._now = now
        self._max_value_bytes = max_value_bytes
        self._items = 0
        self._has_header = False
        self._has_footer = False
        self._versions = _Versions()
        self.sequences: list[SequenceRecord] = []

    def read(self) -> list[Record]:
        """Return the next records, an empty list at the end.

        Raises:
            InvalidArgumentError: the file is no export, or is cut off; names the line.
            StoreError: a namespace, key or value in it is none; names the line.
        """
        while True:
            lines = self._lines.read()
            if not lines:
                self._finish()
                return []
            found: list[Record] = []
            with uncollected():
                for begin in range(0, len(lines), _AT_ONCE):
                    found += self._parse(lines[begin : begin + _AT_ONCE])
            if found:
                return found

    def close(self) -> None:
        """Release what it holds beside the file."""
        self._versions.close()

    def _finish(self) -> None:
        twice = self._versions.twice()
        if twice is not None:
            raise InvalidArgumentError(
                f"the version {twice} stands in the file twice; nothing was imported"
            )
        if self._has_header and not self._has_footer:
            raise InvalidArgumentError(
                f"the import is cut off after line {self._lines.number}: its last line is missing; "
                "nothing was imported"
            )

    def _parse(self, lines: list[bytes]) -> list[Record]:
        """Check lines all at once; one by one where something is not as usual."""
        records = None
        with suppress(StoreError, ValueError):
            contents = codec.parse_all(lines)
            if set(map(type, contents)) == {dict} and not any("kvstore" in it for it in contents):
                records = None if self._has_footer else self._records(contents, lines)
        if records is None:
            return [record for line in lines for record in self._parse_one(line)]
        self._lines.number += len(lines)
        return records

    def _parse_one(self, line: bytes) -> list[Record]:
        self._lines.number += 1
        if not line or line.isspace():
            return []
        where = f"line {self._lines.number} of the import"
        try:
            content = codec.parse_json(line)
        except ValueError:
            raise InvalidArgumentError(f"{where} is not JSON; nothing was imported") from None
        if not isinstance(content, dict):
            raise InvalidArgumentError(f"{where} is no object; nothing was imported")
        kind = content.get("kvstore")
        if kind is not None and kind not in ("log", "queue"):
            self._mark(content, where)
            return []
        if self._has_footer:
            raise InvalidArgumentError(f"{where} stands after the last line of an export")
        try:
            if kind is not None:
                self.sequences.append(self._sequence(content))
                return []
            return self._records([content], [line])
        except StoreError as exc:
            raise type(exc)(f"{where}: {exc}; nothing was imported") from exc

    def _mark(self, content: dict[str, Any], where: str) -> None:
        """Take the header or the footer."""
        if content["kvstore"] == "export" and self._lines.number == 1:
            if content.get("format") != FORMAT:
                raise InvalidArgumentError(
                    f"the import has format {content.get('format')!r:.40}, and this version of "
                    f"kvstore reads {FORMAT}: pip install --upgrade {NAME}"
                )
            self._has_header = True
        elif content["kvstore"] == "end" and self._has_header and not self._has_footer:
            if content.get("items") != self._items:
                raise InvalidArgumentError(
                    f"the import holds {self._items} items, and its last line speaks of "
                    f"{content.get('items')!r:.40}; nothing was imported"
                )
            self._has_footer = True
        else:
            raise InvalidArgumentError(f"{where} is neither an item nor in its place")

    def _sequence(self, content: dict[str, Any]) -> SequenceRecord:
        place, last = content.get("namespace"), content.get("last")
        labels, path = address(tuple(place) if type(place) is list else place)  # type: ignore[arg-type]
        jobs = content.get("jobs", [])
        numbers = [last, content.get("trimmed", 0)]
        if type(jobs) is not list or not all(type(job) is dict for job in jobs):
            raise InvalidArgumentError(f"the jobs of {show(labels)} are no list of objects")
        for job in jobs:
            numbers += [job.get(name, 0) for name in _JOB_FIELDS[:5]]
            texts = [job.get(name) for name in _JOB_FIELDS[5:]]
            if not all(each is None or type(each) is str for each in texts):
                raise InvalidArgumentError(f"a job of {show(labels)} has a name that is no text")
        if not all(type(each) is int and 0 <= each < _MAX_VERSION for each in numbers):
            raise InvalidArgumentError(f"the numbers of {show(labels)} are no positions and times")
        if numbers[1] > numbers[0]:
            raise InvalidArgumentError(f"{show(labels)} is trimmed beyond its last position")
        states = [
            JobState(path, **{name: job[name] for name in _JOB_FIELDS if name in job})
            for job in jobs
            if job.get("position") and job.get("state", 0) <= DEAD
        ]
        kind: Any = content["kvstore"]
        return SequenceRecord(path, kind, numbers[0], numbers[1], tuple(states))

    def _records(self, contents: list[dict[str, Any]], lines: list[bytes]) -> list[Record]:
        """Return the items of lines.

        Raises:
            StoreError: one of them is none; of several it is not said which.
        """
        try:
            places, keys, values = (
                [content[name] for content in contents] for name in ("namespace", "key", "value")
            )
        except KeyError as exc:
            raise InvalidArgumentError(f"it has no {exc.args[0]!r}") from None
        addresses = _changed(places, lambda it: address(tuple(it) if type(it) is list else it))
        keys = list(map(check_key, keys))
        values = [
            codec.untag(value) if _DOLLAR in line else value
            for value, line in zip(values, lines, strict=True)
        ]
        datas = encode_values(values, addresses[0][0], keys, self._max_value_bytes)

        def column(name: str, change: Callable[[Any], Any]) -> list[Any]:
            given = [content.get(name) for content in contents]
            return given if given.count(None) == len(given) else _changed(given, change)

        now = self._now
        created, updated, expires = (
            column(name, partial(_micros, name=name))
            for name in ("created_at", "updated_at", "expires_at")
        )
        ttls = column("ttl", lambda ttl: None if ttl is None else duration(ttl))
        for at, ttl in enumerate(ttls):
            if ttl is not None and expires[at] is None:  # a line of one's own, as `put` has it
                expires[at] = now + ttl
        indexings = column("index", stored_indexing)
        versions = self._versions_of(contents)
        self._items += len(contents)
        paths = [path for _, path in addresses]
        created = [now if instant is None else instant for instant in created]
        updated = [now if instant is None else instant for instant in updated]
        times = created, updated, expires, ttls
        return list(map(Record, paths, keys, datas, versions, *times, indexings))

    def _versions_of(self, contents: list[dict[str, Any]]) -> Sequence[int]:
        """Return the versions of lines of an export; 0 in a file without header."""
        if not self._has_header:
            return [0] * len(contents)
        versions: list[Any] = [content.get("version") for content in contents]
        if {*map(type, versions)} != {int} or min(versions) <= 0 or max(versions) >= _MAX_VERSION:
            raise InvalidArgumentError("its version is no positive int")
        self._versions.add(versions)
        return versions


def _changed(column: Sequence[Any], change: Callable[[Any], T]) -> list[T]:
    """Change each; those that follow each other and are alike, as most do, once."""
    changed: list[T] = []
    before: Any = object()  # of a type that no other has
    for each in column:
        if each is not before and (type(each) is not type(before) or each != before):
            before, after = each, change(each)
        changed.append(after)
    return changed


class _Lines:
    """Cuts a file object into lines, whatever they are long, and makes UTF-8 of them.

    Attributes:
        number: of the line that is at work; whoever takes a line counts it.
    """

    def __init__(self, file: IO[Any], longest: int) -> None:
        self._file = file
        self._longest = longest
        self._decode: Callable[..., str] | None = None  # where it is not UTF-8
        self._is_begun = self._is_done = False
        self._rest: list[bytes] = []  # of a line that has not ended yet
        self._rest_bytes = 0
        self.number = 0

    def read(self) -> list[bytes]:
        """Return the next lines without their ends, an empty list at the end.

        Raises:
            InvalidArgumentError: a line is too long, or the file is no text; names the line.
        """
        while not self._is_done:
            with file_errors("the import cannot be read"):
                chunk = self._file.read(_CHUNK)
            if not chunk:
                self._is_done = True
            head, newline, tail = self._utf8(chunk).rpartition(b"\n")
            lines = []
            if newline:
                lines = b"".join((*self._rest, head)).split(b"\n")
                self._rest, self._rest_bytes = [], 0
            self._rest.append(tail)
            self._rest_bytes += len(tail)
            if self._is_done and self._rest_bytes:  # the last line has no end
                lines.append(b"".join(self._rest))
            for at, line in enumerate(lines):
                self._require_short(len(line), at)
            self._require_short(self._rest_bytes, len(lines))
            if lines:
                return lines
        return []

    def _require_short(self, length: int, lines_before: int) -> None:
        if length > self._longest:
            raise ValueTooLargeError(
                f"line {self.number + lines_before + 1} of the import is longer than "
                f"{self._longest:,} bytes, as no item can be by this store's max_value_bytes; "
                "nothing was imported"
            )

    def _utf8(self, chunk: str | bytes) -> bytes:
        if isinstance(chunk, str):
            if not self._is_begun:
                chunk = chunk.removeprefix("\ufeff")
                self._is_begun = True
            return chunk.encode("utf-8", "surrogatepass")  # what is no text is no JSON either
        if not self._is_begun and chunk:
            self._is_begun = True
            if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                self._decode = codecs.getincrementaldecoder("utf-16")().decode
            elif chunk[:2].count(0) == 1:  # the brace that begins a line, without a mark
                name = "utf-16-le" if chunk[1] == 0 else "utf-16-be"
                self._decode = codecs.getincrementaldecoder(name)().decode
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        if self._decode is None:
            return chunk
        try:
            return self._decode(chunk, not chunk).encode()
        except UnicodeDecodeError:
            raise InvalidArgumentError(
                f"the import is not UTF-16, as its beginning has it, after line {self.number}; "
                "nothing was imported"
            ) from None


class _Versions:
    """Finds out whether a version comes twice, in little memory: sorted runs, in files, merged."""

    def __init__(self) -> None:
        self._run = array("q")
        self._files: list[IO[bytes]] = []

    def add(self, versions: Iterable[int]) -> None:
        """Take note of some."""
        self._run.extend(versions)
        if len(self._run) >= _RUN:
            self._write_run()

    def twice(self) -> int | None:
        """Return a version that came twice, or `None`."""
        runs: list[Iterable[int]] = [sorted(self._run)]
        runs += map(_read_run, self._files)
        return next((one for one, other in pairwise(heapq.merge(*runs)) if one == other), None)

    def close(self) -> None:
        """Remove the files."""
        for file in self._files:
            file.close()

    def _write_run(self) -> None:
        with file_errors("a temporary file cannot be written"):
            file = tempfile.TemporaryFile(prefix="kvstore-")  # noqa: SIM115
            self._files.append(file)
            array("q", sorted(self._run)).tofile(file)
        self._run = array("q")


def _read_run(file: IO[bytes]) -> Iterator[int]:
    file.seek(0)
    while piece := file.read(_RUN_PIECE):
        yield from array("q", piece)


def _micros(text: object, name: str) -> int | None:
    if text is None:
        return None
    try:
        micros = _instant(text)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgumentError(
            f"its {name} is no ISO 8601 time with an offset, such as 2026-01-31T12:00:00+00:00"
        ) from None
    if not EARLIEST <= micros <= LATEST:
        raise InvalidArgumentError(f"its {name} lies outside the years 1 to 9999 of UTC")
    return micros


@cache_short(64)  # what one call wrote has one time, and most items have two that are equal
def _instant(text: Any) -> int:
    return micros_of(datetime.fromisoformat(text))
