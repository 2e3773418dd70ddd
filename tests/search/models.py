"""Models whose answers the tests of search know, beside `RecordingEmbeddings`."""

from __future__ import annotations

from kvstore.testing_search import RecordingEmbeddings, random_vector


class OtherModel(RecordingEmbeddings):
    """A model whose vectors have another length."""

    def __init__(self, dimensions: int = 5) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.model_id = "other"

    def vector(self, text: str) -> list[float]:
        return random_vector(text, self.dimensions)
