"""What agents ask of a store, as thin views over an open one.

- `trimmed`: the end of a chat that a model can take, by count and by tokens.
- `delete_session`: a session with all that belongs to it, in one transaction.
- `SemanticCache`: answers to questions that mean the same.
- `Files`: text files, with `ls`, `read`, `write`, `edit`, `glob` and `grep`.
"""

from kvstore.views.files import FileInfo, Files, GrepMatch
from kvstore.views.semantic_cache import SemanticCache
from kvstore.views.sessions import SESSION, SESSION_PLACES, delete_session
from kvstore.views.trimming import rough_tokens, trimmed

__all__ = [
    "SESSION",
    "SESSION_PLACES",
    "FileInfo",
    "Files",
    "GrepMatch",
    "SemanticCache",
    "delete_session",
    "rough_tokens",
    "trimmed",
]
