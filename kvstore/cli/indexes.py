"""Which index a store has, for commands that search it as the programs do that made it."""

from __future__ import annotations

from kvstore.cli.app import open_for
from kvstore.errors import MissingDependencyError
from kvstore.model_id import model_id_of
from kvstore.text import WORDS_REVISION
from kvstore.types import IndexConfig

__all__ = ["index_of"]


async def index_of(url: str) -> IndexConfig | None:
    """Return the index that a store says it has, with its model if that is at hand here.

    `None`: there is none, or one that an older version has made and that opening would change.
    """
    async with open_for(url) as store:
        found = await store.backend.description()
    if found is None or found.words != WORDS_REVISION or not found.fields:
        return None
    from kvstore.embeddings import HashingEmbeddings, LocalEmbeddings  # takes a moment

    for made_by in (LocalEmbeddings, HashingEmbeddings):  # they need no key and no other server
        try:
            model = made_by()
        except MissingDependencyError:
            continue
        if model_id_of(model) == found.model:
            return IndexConfig(model, fields=found.fields)
    return IndexConfig(fields=found.fields)
