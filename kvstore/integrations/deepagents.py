"""Files of deepagents in a kvstore: `KVFilesBackend`, over the view `kvstore.views.Files`."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from kvstore.errors import InvalidArgumentError, StoreError
from kvstore.integrations.access import Access, Target, Work
from kvstore.integrations.requirements import needing
from kvstore.namespace import check_namespace
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.views import FileInfo as Info
from kvstore.views import Files

with needing("kvstore.integrations.deepagents", "deepagents", "0.7.10", extra="deepagents"):
    from deepagents.backends.protocol import (
        BackendProtocol,
        DeleteResult,
        EditResult,
        FileData,
        FileDownloadResponse,
        FileInfo,
        FileUploadResponse,
        GlobResult,
        GrepMatch,
        GrepResult,
        LsResult,
        ReadResult,
        WriteResult,
    )
    from deepagents.backends.utils import (
        InvalidGlobPatternError,
        compile_grep_include_glob,
        perform_string_replacement,
        slice_read_response,
    )
    from langgraph.runtime import get_runtime

__all__ = ["KVFilesBackend"]

P = ParamSpec("P")
T = TypeVar("T")

_LINES: Final = 2_000


class KVFilesBackend(Recipe, BackendProtocol):  # type: ignore[misc, unused-ignore]
    """A backend for `create_deep_agent(backend=...)`, alone or in a `CompositeBackend`.

    Files last beyond a thread and a process, and any number of agents may share them: an edit is
    atomic, and each folder a namespace, so that a listing costs by what is in it. Text is stored as
    it is, and what is no text as bytes. Both halves work at once, as with `LangGraphCheckpointer`.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        namespace: where the files are; or a function that tells it from LangGraph's runtime, such
            as `lambda runtime: ("files", runtime.context.user)`, which is called within a graph.
    """

    def __init__(
        self,
        target: Target,
        *,
        namespace: Sequence[str] | Callable[[Any], Sequence[str]] = ("files",),
    ) -> None:
        self._access = Access(target, type(self).__name__)
        self._namespace = namespace if callable(namespace) else check_namespace(namespace)

    async def aclose(self) -> None:
        """Close the store if this object opened it."""
        await self._access.close()

    def close(self) -> None:
        """Close the store if a sync call opened it."""
        self._access.close_sync()

    # Awaited

    async def als(self, path: str) -> LsResult:
        """List a folder."""
        return await self._access.run(self._work(_ls, path))

    async def aread(self, file_path: str, offset: int = 0, limit: int = _LINES) -> ReadResult:
        """Return lines of a file; of one that holds no text all of it, in base64."""
        return await self._access.run(self._work(_read, file_path, offset, limit))

    async def agrep(
        self,
        pattern: str,
        path: str | None = None,
        glob: str | None = None,
        *,
        max_count: int | None = None,
    ) -> GrepResult:
        """Find the lines that hold a text."""
        return await self._access.run(self._work(_grep, pattern, path, glob, max_count))

    async def aglob(self, pattern: str, path: str | None = None) -> GlobResult:
        """Find files by their paths, the latest first."""
        return await self._access.run(self._work(_glob, pattern, path))

    async def awrite(self, file_path: str, content: str) -> WriteResult:
        """Make a file, over one that is there."""
        return await self._access.run(self._work(_write, file_path, content))

    async def aedit(
        self, file_path: str, old_string: str, new_string: str, replace_all: bool = False
    ) -> EditResult:
        """Replace a text in a file, atomically."""
        work = self._work(_edit, file_path, old_string, new_string, replace_all)
        return await self._access.run(work)

    async def adelete(self, file_path: str) -> DeleteResult:
        """Delete a file, or a folder with all that is below it, at once."""
        return await self._access.run(self._work(_delete, file_path))

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Store files, each by itself."""
        return await self._access.run(self._work(_upload, files))

    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Return what is in files."""
        return await self._access.run(self._work(_download, paths))

    # From sync code

    def ls(self, path: str) -> LsResult:
        """List a folder."""
        return self._access.run_sync("ls", self._work(_ls, path))

    def read(self, file_path: str, offset: int = 0, limit: int = _LINES) -> ReadResult:
        """Return lines of a file; see `aread`."""
        return self._access.run_sync("read", self._work(_read, file_path, offset, limit))

    def grep(
        self,
        pattern: str,
        path: str | None = None,
        glob: str | None = None,
        *,
        max_count: int | None = None,
    ) -> GrepResult:
        """Find the lines that hold a text."""
        return self._access.run_sync("grep", self._work(_grep, pattern, path, glob, max_count))

    def glob(self, pattern: str, path: str | None = None) -> GlobResult:
        """Find files by their paths, the latest first."""
        return self._access.run_sync("glob", self._work(_glob, pattern, path))

    def write(self, file_path: str, content: str) -> WriteResult:
        """Make a file, over one that is there."""
        return self._access.run_sync("write", self._work(_write, file_path, content))

    def edit(
        self, file_path: str, old_string: str, new_string: str, replace_all: bool = False
    ) -> EditResult:
        """Replace a text in a file, atomically."""
        work = self._work(_edit, file_path, old_string, new_string, replace_all)
        return self._access.run_sync("edit", work)

    def delete(self, file_path: str) -> DeleteResult:
        """Delete a file, or a folder with all that is below it, at once."""
        return self._access.run_sync("delete", self._work(_delete, file_path))

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Store files, each by itself."""
        return self._access.run_sync("upload_files", self._work(_upload, files))

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Return what is in files."""
        return self._access.run_sync("download_files", self._work(_download, paths))

    def _work(
        self,
        do: Callable[Concatenate[Files, P], Awaitable[T]],
        *args: P.args,
        **options: P.kwargs,
    ) -> Work[T]:
        """Return what does something with the files that the caller may see."""
        labels = self._namespace(_runtime()) if callable(self._namespace) else self._namespace

        async def work(store: Store) -> T:
            return await do(Files(store, labels), *args, **options)

        return work


def _runtime() -> Any:
    try:
        return get_runtime()
    except (RuntimeError, KeyError) as exc:
        raise InvalidArgumentError(
            "the namespace of this KVFilesBackend depends on LangGraph's runtime, which there is "
            "within a graph alone; outside of one give it a namespace"
        ) from exc


# What is done: a refusal is a result, which the model reads.


async def _ls(files: Files, path: str) -> LsResult:
    try:
        return LsResult(entries=[_info(each) for each in await files.ls(path)])
    except StoreError as exc:
        return LsResult(error=f"Error: {exc}")


async def _read(files: Files, path: str, offset: int, limit: int) -> ReadResult:
    try:
        content = await files.content(path)
    except StoreError as exc:
        return ReadResult(error=f"Error: {exc}")
    if isinstance(content, str):
        return slice_read_response(FileData(content=content, encoding="utf-8"), offset, limit)
    encoded = base64.standard_b64encode(content).decode("ascii")
    return ReadResult(file_data=FileData(content=encoded, encoding="base64"))


async def _grep(
    files: Files, text: str, path: str | None, glob: str | None, max_count: int | None
) -> GrepResult:
    matches: list[GrepMatch] = []
    try:
        takes = compile_grep_include_glob(glob) if glob else None
        async for info, inner, content in files.walk(path or "/"):
            if isinstance(content, bytes) or (takes is not None and not takes(inner)):
                continue
            for number, line in enumerate(content.split("\n"), 1):
                if text not in line:
                    continue
                if len(matches) == max_count:
                    return GrepResult(matches=matches, truncated=True)
                matches.append(GrepMatch(path=info.path, line=number, text=line))
    except (InvalidGlobPatternError, StoreError) as exc:
        return GrepResult(error=str(exc))
    return GrepResult(matches=matches)


async def _glob(files: Files, pattern: str, path: str | None) -> GlobResult:
    try:
        takes = compile_grep_include_glob(pattern)
        found = [info async for info, inner, _ in files.walk(path or "/") if takes(inner)]
    except (InvalidGlobPatternError, StoreError) as exc:
        return GlobResult(error=str(exc))
    matches = sorted(map(_info, found), key=lambda each: each["modified_at"], reverse=True)
    return GlobResult(matches=matches)


async def _write(files: Files, path: str, content: str) -> WriteResult:
    try:
        await files.write(path, content, overwrite=True)
    except StoreError as exc:
        return WriteResult(error=f"Error: {exc}")
    return WriteResult(path=path)


async def _edit(files: Files, path: str, old: str, new: str, replace_all: bool) -> EditResult:
    occurrences = 0

    def replaced(text: str) -> str:
        nonlocal occurrences
        outcome = perform_string_replacement(text, old, new, replace_all)
        if isinstance(outcome, str):
            raise _RefusedError(outcome)
        text, occurrences = outcome
        return text

    try:
        await files.change(path, replaced)
    except _RefusedError as exc:
        return EditResult(error=str(exc))
    except StoreError as exc:
        return EditResult(error=f"Error: {exc}")
    return EditResult(path=path, occurrences=occurrences)


class _RefusedError(Exception):
    """The text to replace is not there, or not just once."""


async def _delete(files: Files, path: str) -> DeleteResult:
    try:
        if await files.delete(path, recursive=True):
            return DeleteResult(path=path)
    except StoreError as exc:
        return DeleteResult(error=f"Error: {exc}")
    return DeleteResult(error=f"Error: file {path} not found, and nothing below it")


async def _upload(files: Files, given: Sequence[tuple[str, bytes]]) -> list[FileUploadResponse]:
    answers = []
    for path, data in given:
        content: str | bytes = data
        with contextlib.suppress(UnicodeDecodeError):  # it is no text
            content = data.decode("utf-8")
        try:
            await files.write(path, content, overwrite=True)
            answers.append(FileUploadResponse(path=path))
        except InvalidArgumentError:
            answers.append(FileUploadResponse(path=path, error="invalid_path"))
    return answers


async def _download(files: Files, paths: Sequence[str]) -> list[FileDownloadResponse]:
    answers = []
    for path in paths:
        try:
            content = await files.content(path)
            data = content if isinstance(content, bytes) else content.encode("utf-8")
            answers.append(FileDownloadResponse(path=path, content=data))
        except StoreError:
            answers.append(FileDownloadResponse(path=path, error="file_not_found"))
    return answers


def _info(info: Info) -> FileInfo:
    at = "" if info.modified_at is None else info.modified_at.isoformat()
    return FileInfo(path=info.path, is_dir=info.is_folder, size=info.size, modified_at=at)
