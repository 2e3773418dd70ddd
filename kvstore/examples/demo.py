"""An index of Python's standard library that grows by eight modules a run.

    python -m kvstore.examples.demo [PATH_OR_URL]      (demo.db unless you name another)

Run it twice: the second run goes on where the first one stopped.
"""

from __future__ import annotations

import ast
import asyncio
import platform
import re
import sys
import sysconfig
import tokenize
from pathlib import Path
from typing import Any

import kvstore
from kvstore.embeddings import HashingEmbeddings, LocalEmbeddings

LIBRARY = Path(sysconfig.get_path("stdlib"))
PYTHON = f"python{platform.python_version()}"  # another Python gets a queue and notes of its own
WORK, NOTES, STATS, SCRATCH = ("work",), ("notes", PYTHON), ("stats",), ("scratch",)
QUESTION = "parse what stands on a command line"
MODULES_A_RUN = 8
PREFERENCES = {
    "alice": {"likes": "long reads", "filter": {"lines": {"$gte": 800}}},
    "bob": {"likes": "short reads", "filter": {"lines": {"$lt": 120}}},
}


def module_names() -> list[str]:
    """List the modules of the library that are one file."""
    return sorted(path.stem for path in LIBRARY.glob("[a-z]*.py"))


def read_module(name: str) -> dict[str, Any]:
    """Describe a module by its length and the first line of its docstring."""
    with tokenize.open(LIBRARY / f"{name}.py") as file:
        source = file.read()
    docstring = ast.get_docstring(ast.parse(source)) or "(no words about itself)"
    return {"title": docstring.splitlines()[0], "lines": source.count("\n")}


async def preferences(store: kvstore.Store, run: float) -> None:
    """Keep a namespace for each user."""
    print("\nPREFERENCES")
    for user, wishes in PREFERENCES.items():
        namespace = ("users", user)
        saved = await store.get(namespace, "reading")
        if saved is None:
            saved = await store.put(namespace, "reading", {**wishes, "saved in run": run})
        print(f"  {user} likes {saved.value['likes']} (saved in run {saved.value['saved in run']})")


async def work(store: kvstore.Store) -> None:
    """Take modules off a queue, note what they are about, and count."""
    print("\nQUEUE AND COUNTERS")
    if await store.get(WORK, PYTHON) is None:
        length = await store.append(WORK, PYTHON, *module_names())
        print(f"  new queue: the {length} modules of {PYTHON}")
    done: list[str] = []
    while len(done) < MODULES_A_RUN and (module := await store.pop(WORK, PYTHON)):
        note = read_module(module)
        await store.put(NOTES, module, note)
        await store.put(SCRATCH, f"temp_{module}", "what a run leaves lying about")
        await store.increment(STATS, "lines", note["lines"])
        done.append(module)
    print(f"  read in this run: {', '.join(done) or 'nothing; the queue is empty'}")
    lines = await store.increment(STATS, "lines", 0)
    print(f"  in all runs: {await store.count(NOTES)} modules, {lines:,} lines")


async def wildcards(store: kvstore.Store) -> None:
    """Remove many keys by a pattern."""
    print("\nWILDCARD REMOVE")
    await store.put(SCRATCH, "keep_me", True)
    removed = await store.remove(SCRATCH, "temp_*")
    print(f"  temp_* removed {removed} keys; left: {', '.join(await store.keys(SCRATCH))}")


async def namespaces(store: kvstore.Store) -> None:
    """List what there is."""
    print("\nNAMESPACES             items")
    for namespace in await store.list_namespaces():
        print(f"  {' / '.join(namespace):<22}{await store.count(namespace):>6}")


async def search(store: kvstore.Store) -> None:
    """Find the latest notes that each user would like, by the filter kept for the user."""
    print("\nFILTERED SEARCH")
    async for saved in store.scan(("users",), pattern="reading"):
        print(f"  for {saved.namespace[-1]}: {saved.value['filter']}")
        for note in await store.search(NOTES, filter=saved.value["filter"], limit=3):
            print(f"    {note.key:<16}{note.value['lines']:>6,} lines  {note.value['title'][:56]}")


def choose_model() -> tuple[Any, str]:
    """Return a model that needs no network, and what to say about it."""
    try:
        return LocalEmbeddings(), "by bge-small, in this process"
    except kvstore.MissingDependencyError as error:
        return HashingEmbeddings(), f"by parts of words. {error}"


async def meaning(store: kvstore.Store, model: str) -> None:
    """Find notes by what they say."""
    print("\nSEARCH BY MEANING")
    print(f"  ({model})")
    await store.reindex()  # the store of an earlier run may have had the other model
    print(f"  {QUESTION!r}")
    for note in await store.search(NOTES, QUESTION, limit=3):
        print(f"    {note.key:<16}{note.score:>6.2f}  {note.value['title'][:56]}")


def _shown(url: str) -> str:
    """Leave a password out."""
    return re.sub(r"(?<=://)([^:@/]*):[^@/]*@", r"\1@", url)


async def main(url: str) -> None:
    """Show one run on the store at a path or URL."""
    model, about_model = choose_model()
    index = kvstore.IndexConfig(model, fields=["title"])
    async with kvstore.open(url, index=index) as store:
        run = await store.increment(STATS, "runs")
        print(f"Run {run} on {_shown(url)}")
        await preferences(store, run)
        await work(store)
        await wildcards(store)
        await namespaces(store)
        await search(store)
        await meaning(store, about_model)
    print("\nRun it again: it goes on from here. A new path begins anew.")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "demo.db"))
    except kvstore.StoreError as error:
        sys.exit(f"demo: {error}")
