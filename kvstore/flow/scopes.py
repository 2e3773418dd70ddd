"""Which namespace a key of a flow lives in: pure functions over scope, entity and key.

A key is stored as the user writes it, `$session.` and all, so that a wildcard means the same
everywhere. The namespace says where: its second label tells the project's keys, an entity's and a
run's apart, and the labels after it stand at fixed places, so no id can reach another's keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kvstore.errors import InvalidArgumentError, InvalidKeyError
from kvstore.namespace import check_key
from kvstore.patterns import Pattern
from kvstore.sequences import SequenceKind
from kvstore.types import Namespace

__all__ = [
    "ENTITIES",
    "PROJECT",
    "RUNS",
    "FlowScope",
    "check_id",
    "entity_of",
    "namespace_of",
    "namespaces_for",
    "owner_of",
    "sequence_of",
    "visible_namespaces",
]

_ROOT: Final = "flow"
PROJECT: Final = (_ROOT, "project")
ENTITIES: Final = (_ROOT, "entity")
RUNS: Final = (_ROOT, "run")

_SCOPES: Final = ("flow", "session", "run")
_PREFIX = re.compile(r"\$(\w+)\.")


@dataclass(frozen=True, slots=True)
class FlowScope:
    """The ids of what is running: they say whose `$flow.`, `$session.` and `$run.` keys are meant.

    Attributes:
        flow: id of the flow, whatever runs it.
        session: id of the user's session or conversation.
        run: id of this one execution.

    Raises:
        InvalidArgumentError: an id is not a non-empty string of Unicode text.
    """

    flow: str | None = None
    session: str | None = None
    run: str | None = None

    def __post_init__(self) -> None:
        for name in _SCOPES:
            if getattr(self, name) is not None:
                check_id(getattr(self, name), f"the {name} of a FlowScope")


def check_id(text: object, what: str) -> str:
    """Return an id, which is any non-empty text.

    Raises:
        InvalidArgumentError: it is something else.
    """
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{what} is a str, not {type(text).__name__}")
    if not text:
        raise InvalidArgumentError(f"{what} is empty; leave it out, or name one")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{what}, {text!r}, holds a lone surrogate") from None
    return text


def owner_of(entity_id: str | None) -> Namespace:
    """Return the labels that say whose keys they are: the project's, or an entity's."""
    return ("project",) if entity_id is None else ("entity", check_id(entity_id, "entity_id"))


def namespace_of(scope: FlowScope, key: str, entity_id: str | None) -> Namespace:
    """Return where a key lives.

    Raises:
        InvalidKeyError: it is no key, or empty, or begins with a scope that has no id here or
            that does not exist.
        InvalidArgumentError: the entity id is not a non-empty string.
    """
    check_key(key)
    if not key:
        raise InvalidKeyError("the key is empty; name one")
    if entity_id is None and key[0] != "$":
        return PROJECT
    owner = owner_of(entity_id)
    if key[0] != "$" or (name := _scope_in(key)) is None:
        return (_ROOT, *owner)
    if key == f"${name}.":
        raise InvalidKeyError(f"the key {key!r} is empty behind its scope; name one")
    return _scoped(owner, name, _id(scope, name, key))


def sequence_of(scope: FlowScope, kind: SequenceKind, key: str, entity_id: str | None) -> Namespace:
    """Return where the entries of a log, or the jobs of a queue, live that has a key.

    It lies below the namespace of the key, three labels down, where no scope has anything.

    Raises:
        InvalidKeyError, InvalidArgumentError: as `namespace_of`.
    """
    return (*namespace_of(scope, key, entity_id), "sequence", kind, key)


def namespaces_for(scope: FlowScope, pattern: Pattern, entity_id: str | None) -> list[Namespace]:
    """Return the visible namespaces where keys may match a pattern.

    Raises:
        InvalidKeyError: the pattern begins with a scope that has no id here or does not exist.
        InvalidArgumentError: the entity id is not a non-empty string.
    """
    owner = owner_of(entity_id)
    if not pattern.head:
        return visible_namespaces(scope, entity_id)
    if pattern.head[0] != "$":
        return [(_ROOT, *owner)]
    name = _scope_in(pattern.head)
    if name is None:
        return visible_namespaces(scope, entity_id)
    return [_scoped(owner, name, _id(scope, name, pattern.text))]


def visible_namespaces(scope: FlowScope, entity_id: str | None) -> list[Namespace]:
    """Return the namespaces whose keys can be reached: the plain one, and each scope with an id."""
    owner = owner_of(entity_id)
    ids = ((name, getattr(scope, name)) for name in _SCOPES)
    scoped = [_scoped(owner, name, given) for name, given in ids if given is not None]
    return [(_ROOT, *owner), *scoped]


def entity_of(namespace: Namespace) -> str:
    """Return the entity that a namespace of `ENTITIES` or of an entity within a run is for."""
    return namespace[2] if namespace[:2] == ENTITIES else namespace[4]


def _scoped(owner: Namespace, name: str, given: str) -> Namespace:
    """Return where the keys of one scope live; those of a run are together, to go together."""
    return (*RUNS, given, *owner) if name == "run" else (_ROOT, *owner, name, given)


def _scope_in(text: str) -> str | None:
    """Return the scope that a key or a pattern's head begins with, if it does."""
    found = _PREFIX.match(text)
    if found is None:
        return None
    if found[1] not in _SCOPES:
        raise InvalidKeyError(
            f"{found[0]} begins no scope; there are $flow., $session. and $run., and a key that "
            "begins otherwise is the project's"
        )
    return found[1]


def _id(scope: FlowScope, name: str, text: str) -> str:
    given: str | None = getattr(scope, name)
    if given is None:
        raise InvalidKeyError(
            f"{text!r} lives in a {name}, and none is named here: give scope=FlowScope({name}=...)"
            + (", or do it inside 'with keyValueStore.run(run_id=...)'" if name == "run" else "")
        )
    return given
