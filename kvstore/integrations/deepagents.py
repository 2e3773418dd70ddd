"""Files of deepagents in a kvstore: `KVFilesBackend`, over the view `kvstore.views.Files`."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from kvstore.errors import InvalidArgumentError, StoreError
from kvstore.integrations.access import Access, Adapter, Target, Work, halves
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

T = TypeVar("T")

_LINES: Final = 2_000


class _RefusedError(Exception):
    """The text to replace is not there, or not just once."""


class KVFilesBackend(Recipe, Adapter, BackendProtocol):  # type: ignore[misc, unused-ignore]
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

    def _on_files(self, work: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> Work[T]:
        """Return what does something with the files that the caller may see."""
        labels = self._namespace(_runtime()) if callable(self._namespace) else self._namespace

        async def on_files(store: Store) -> T:
            return await work(self, Files(store, labels), *args, **kwargs)

        return on_files

    # A refusal is a result, which the model reads.

    async def _ls(self, files: Files, path: str) -> LsResult:
        """List a folder."""
        try:
            return LsResult(entries=[_info(each) for each in await files.ls(path)])
        except StoreError as exc:
            return LsResult(error=f"Error: {exc}")

    ls, als = halves(_ls, _on_files)

    async def _read(
        self, files: Files, file_path: str, offset: int = 0, limit: int = _LINES
    ) -> ReadResult:
        """Return lines of a file; of one that holds no text all of it, in base64."""
        try:
            content = await files.content(file_path)
        except StoreError as exc:
            return ReadResult(error=f"Error: {exc}")
        if isinstance(content, str):
            return slice_read_response(FileData(content=content, encoding="utf-8"), offset, limit)
        encoded = base64.standard_b64encode(content).decode("ascii")
        return ReadResult(file_data=FileData(content=encoded, encoding="base64"))

    read, aread = halves(_read, _on_files)

    async def _grep(
        self,
        files: Files,
        pattern: str,
        path: str | None = None,
        glob: str | None = None,
        *,
        max_count: int | None = None,
    ) -> GrepResult:
        """Find the lines that hold a text."""
        matches: list[GrepMatch] = []
        try:
            takes = compile_grep_include_glob(glob) if glob else None
            async for info, inner, content in files.walk(path or "/"):
                if isinstance(content, bytes) or (takes is not None and not takes(inner)):
                    continue
                for number, line in enumerate(content.split("\n"), 1):
                    if pattern not in line:
                        continue
                    if len(matches) == max_count:
                        return GrepResult(matches=matches, truncated=True)
                    matches.append(GrepMatch(path=info.path, line=number, text=line))
        except (InvalidGlobPatternError, StoreError) as exc:
            return GrepResult(error=str(exc))
        return GrepResult(matches=matches)

    grep, agrep = halves(_grep, _on_files)

    async def _glob(self, files: Files, pattern: str, path: str | None = None) -> GlobResult:
        """Find files by their paths, the latest first."""
        try:
            takes = compile_grep_include_glob(pattern)
            found = [info async for info, inner, _ in files.walk(path or "/") if takes(inner)]
        except (InvalidGlobPatternError, StoreError) as exc:
            return GlobResult(error=str(exc))
        matches = sorted(map(_info, found), key=lambda each: each["modified_at"], reverse=True)
        return GlobResult(matches=matches)

    glob, aglob = halves(_glob, _on_files)

    async def _write(self, files: Files, file_path: str, content: str) -> WriteResult:
        """Make a file, over one that is there."""
        try:
            await files.write(file_path, content, overwrite=True)
        except StoreError as exc:
            return WriteResult(error=f"Error: {exc}")
        return WriteResult(path=file_path)

    write, awrite = halves(_write, _on_files)

    async def _edit(
        self,
        files: Files,
        file_path: str,
        old_string: str,
        new_string: str,
        replace_all: bool = False,
    ) -> EditResult:
        """Replace a text in a file, atomically."""
        occurrences = 0

        def replaced(text: str) -> str:
            nonlocal occurrences
            outcome = perform_string_replacement(text, old_string, new_string, replace_all)
            if isinstance(outcome, str):
                raise _RefusedError(outcome)
            text, occurrences = outcome
            return text

        try:
            await files.change(file_path, replaced)
        except _RefusedError as exc:
            return EditResult(error=str(exc))
        except StoreError as exc:
            return EditResult(error=f"Error: {exc}")
        return EditResult(path=file_path, occurrences=occurrences)

    edit, aedit = halves(_edit, _on_files)

    async def _delete(self, files: Files, file_path: str) -> DeleteResult:
        """Delete a file, or a folder with all that is below it, at once."""
        try:
            if await files.delete(file_path, recursive=True):
                return DeleteResult(path=file_path)
        except StoreError as exc:
            return DeleteResult(error=f"Error: {exc}")
        return DeleteResult(error=f"Error: file {file_path} not found, and nothing below it")

    delete, adelete = halves(_delete, _on_files)

    async def _upload(
        self, found: Files, files: list[tuple[str, bytes]]
    ) -> list[FileUploadResponse]:
        """Store files, each by itself."""
        answers = []
        for path, data in files:
            content: str | bytes = data
            with contextlib.suppress(UnicodeDecodeError):  # it is no text
                content = data.decode("utf-8")
            try:
                await found.write(path, content, overwrite=True)
                answers.append(FileUploadResponse(path=path))
            except InvalidArgumentError:
                answers.append(FileUploadResponse(path=path, error="invalid_path"))
        return answers

    upload_files, aupload_files = halves(_upload, _on_files)

    async def _download(self, files: Files, paths: list[str]) -> list[FileDownloadResponse]:
        """Return what is in files."""
        answers = []
        for path in paths:
            try:
                content = await files.content(path)
                data = content if isinstance(content, bytes) else content.encode("utf-8")
                answers.append(FileDownloadResponse(path=path, content=data))
            except StoreError:
                answers.append(FileDownloadResponse(path=path, error="file_not_found"))
        return answers

    download_files, adownload_files = halves(_download, _on_files)


def _runtime() -> Any:
    try:
        return get_runtime()
    except (RuntimeError, KeyError) as exc:
        raise InvalidArgumentError(
            "the namespace of this KVFilesBackend depends on LangGraph's runtime, which there is "
            "within a graph alone; outside of one give it a namespace"
        ) from exc


def _info(info: Info) -> FileInfo:
    at = "" if info.modified_at is None else info.modified_at.isoformat()
    return FileInfo(path=info.path, is_dir=info.is_folder, size=info.size, modified_at=at)
