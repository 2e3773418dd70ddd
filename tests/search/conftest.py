"""Search, by what is asked of it; a file's name begins with the question.

- `test_conformance`: the whole contract, of each backend.
- `test_found_*`: is just that found which should be, by filters and in small namespaces?
- `test_ordered_*`: in which order?
- `test_scored_*`: with which score, and the same everywhere?
- `test_kept_*`: is the index still right after writes, other stores, older files and damage?
- `test_model_*`: what becomes of a text on its way to a model and back?

What is one backend's own stands in `tests/sqlite` and `tests/postgres`.
"""

from __future__ import annotations

import pytest

from kvstore.testing_search import RecordingEmbeddings


@pytest.fixture
def model() -> RecordingEmbeddings:
    return RecordingEmbeddings()
