"""Notes, found by what they say: run it with `python -m kvstore.examples.notes_search`.

The model runs here, with no key and no network (extra `local`); where it is not installed,
`HashingEmbeddings` stands in, which finds shared words and parts of words.
"""

from __future__ import annotations

import asyncio
import sys

import kvstore
from kvstore.embeddings import HashingEmbeddings, LocalEmbeddings

NOTES = {
    "bread": {"text": "Sourdough: feed the starter the evening before baking.", "tag": "kitchen"},
    "bike": {"text": "The bicycle's rear brake squeaks; new pads are ordered.", "tag": "garage"},
    "tax": {"text": "Tax return is due at the end of July; receipts are in the blue box."},
    "soup": {"text": "Tomato soup: roast the tomatoes first, then cook slowly.", "tag": "kitchen"},
    "tokyo": {"text": "東京の天気は十月が一番いい。", "tag": "travel"},
}


async def main(path: str) -> None:
    """Store the notes, and search them."""
    model: HashingEmbeddings | LocalEmbeddings
    try:
        model = LocalEmbeddings()
    except kvstore.MissingDependencyError as error:
        print(error)
        model = HashingEmbeddings()
    index = kvstore.IndexConfig(model, fields=["text"])
    async with kvstore.open(path, index=index) as store:
        await store.put_many(("notes",), NOTES)
        await show(store, "cooking tomatoes", "semantic")
        await show(store, "bakery", "semantic", filter={"tag": "kitchen"})
        await show(store, "braking", "text")
        await show(store, "天気", "text")
        await show(store, "when are taxes due?", "hybrid")


async def show(store: kvstore.Store, query: str, mode: str, **options: object) -> None:
    """Print the best two answers."""
    print(f"{query!r} ({mode})")
    for item in await store.search(("notes",), query, mode=mode, limit=2, **options):  # type: ignore[arg-type]
        print(f"  {item.score:.2f}  {item.key}: {item.value['text']}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "memory://"))
