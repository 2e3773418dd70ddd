"""The exceptions of kvstore, all of them.

    StoreError
    ├── InvalidNamespaceError (ValueError)    a namespace is not a sequence of non-empty labels
    ├── InvalidKeyError (ValueError)          a key is not a string, or holds a lone surrogate
    ├── InvalidPatternError (ValueError)      a wildcard pattern does not parse
    ├── InvalidFilterError (ValueError)       a filter does not parse
    ├── InvalidTTLError (ValueError)          a lifetime is not a positive, finite duration
    ├── InvalidArgumentError (ValueError)     any other argument outside its domain
    ├── ValueEncodingError (TypeError)        a value could not come back unchanged
    ├── ValueTooLargeError (ValueError)       a value is longer than the store's limit
    ├── ValueTypeError (TypeError)            increment of a string, append to a number
    ├── LeaseLostError                        the job is not the caller's any more
    ├── ConflictError                         the item is not at the version that was asked for
    ├── StoreClosedError                      used before opening or after closing
    ├── WrongLoopError (RuntimeError)         used from another event loop than its own
    ├── StoreBusyError                        another process kept the lock past `busy_timeout`
    ├── StoreReplacedError                    the open file was removed, renamed or replaced
    ├── StoreFullError                        the disk, a quota or a file-size limit is full
    ├── StoreCorruptError                     not a database, or damaged
    ├── StoreAccessError (OSError)            the file cannot be opened or written
    │   └── ReadOnlyError                     a write to what may only be read
    ├── SchemaError                           written by a newer version, or not a kvstore file
    ├── IndexMismatchError                    the index was made by another model
    ├── EmbeddingError                        the embedding model failed
    ├── WatchExpiredError                     the changes that a watch asks for are no longer kept
    ├── HistoryExpiredError                   what is asked for was trimmed, or is older than kept
    └── MissingDependencyError (ImportError)  an optional package is needed for this

A caller's mistake also derives from the builtin that it specialises. A missing key is `None`,
not an error. Messages name namespaces, keys and paths, never a stored value or a password.
"""

__all__ = [
    "ConflictError",
    "EmbeddingError",
    "HistoryExpiredError",
    "IndexMismatchError",
    "InvalidArgumentError",
    "InvalidFilterError",
    "InvalidKeyError",
    "InvalidNamespaceError",
    "InvalidPatternError",
    "InvalidTTLError",
    "LeaseLostError",
    "MissingDependencyError",
    "ReadOnlyError",
    "SchemaError",
    "StoreAccessError",
    "StoreBusyError",
    "StoreClosedError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreReplacedError",
    "ValueEncodingError",
    "ValueTooLargeError",
    "ValueTypeError",
    "WatchExpiredError",
    "WrongLoopError",
]


class StoreError(Exception):
    """The root of every error that kvstore raises on purpose."""


class InvalidNamespaceError(StoreError, ValueError):
    """A namespace is not a sequence of non-empty strings."""


class InvalidKeyError(StoreError, ValueError):
    """A key is not a string, or holds a lone surrogate."""


class InvalidPatternError(StoreError, ValueError):
    """A wildcard pattern does not parse."""


class InvalidFilterError(StoreError, ValueError):
    """A filter does not parse: an unknown operator, a malformed path, a wrong operand."""


class InvalidTTLError(StoreError, ValueError):
    """A lifetime is not a positive, finite number of seconds or a positive `timedelta`."""


class InvalidArgumentError(StoreError, ValueError):
    """Any other argument outside its domain, such as a negative limit or an unknown mode."""


class ValueEncodingError(StoreError, TypeError):
    """A value could not come back unchanged; the message names the path of the culprit."""


class ValueTooLargeError(StoreError, ValueError):
    """A value's encoded form is longer than the store's `max_value_bytes`."""


class ValueTypeError(StoreError, TypeError):
    """An atomic operation met a value of another type, such as `increment` a string."""


class ConflictError(StoreError):
    """The item is not at the version that was asked for, or retries ran out."""


class LeaseLostError(StoreError):
    """A job is not the caller's any more: its lease ran out, or it was done, retried or deleted."""


class StoreClosedError(StoreError):
    """The store was used before it was opened or after it was closed."""


class WrongLoopError(StoreError, RuntimeError):
    """The store was used from another event loop than the one that opened it."""


class StoreBusyError(StoreError):
    """Another process kept the write lock for longer than `busy_timeout`."""


class StoreReplacedError(StoreError):
    """The file was removed, renamed or replaced under the open store, or its log taken away."""


class StoreFullError(StoreError):
    """There is no room to write: a full disk, a quota, or a file-size limit."""


class StoreCorruptError(StoreError):
    """The file is not a database, or it is damaged."""


class StoreAccessError(StoreError, OSError):
    """The file cannot be opened or written: a missing directory, permissions, read-only."""


class ReadOnlyError(StoreAccessError):
    """A write to what may only be read: a store with `read_only=True`, a write-protected file."""


class SchemaError(StoreError):
    """The file was written by a newer version of kvstore, or by another program."""


class IndexMismatchError(StoreError):
    """The search index was made by another model, or has other dimensions."""


class EmbeddingError(StoreError):
    """The embedding model failed, or returned something that is no embedding."""


class WatchExpiredError(StoreError):
    """The history that a watch wants to resume from is no longer kept."""


class HistoryExpiredError(StoreError):
    """What is asked for was trimmed away, or is older than what is kept."""


class MissingDependencyError(StoreError, ImportError):
    """An optional package is needed for this; the message names what to install."""
