"""`Secret`: where a secret is, in the place of the secret."""

from __future__ import annotations

import os
import re
from typing import Any, Self

from kvstore.distribution import or_install
from kvstore.errors import InvalidArgumentError

__all__ = ["Secret", "is_named_secret", "is_reference"]

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|keyring:[^/\s]+/\S+")
# Names of fields by which they are secrets; `max_tokens` and `token_type` are none.
_NAMES = re.compile(
    r"(.*_)?(api_?key|(access|auth|private|secret|signing|encryption)_?key|(bearer|auth)?_?token"
    r"|secret|password|passwd|pwd|passphrase|credentials?|authorization|cookie)"
)


class Secret(str):
    """A reference to a secret, which is text: `env:OPENAI_API_KEY` or `keyring:SERVICE/USER`.

    It is what a store keeps of a secret. `reveal` reads the secret itself, at that moment.

        Secret("env:OPENAI_API_KEY").reveal()

    Raises:
        InvalidArgumentError: the text is no reference.
    """

    __slots__ = ()

    def __new__(cls, reference: str) -> Self:
        """Make a reference."""
        if not is_reference(reference):
            raise InvalidArgumentError(
                "a Secret is a reference, such as 'env:OPENAI_API_KEY' or 'keyring:service/user', "
                "and never the secret itself"
            )
        return super().__new__(cls, reference)

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"

    def reveal(self) -> str:
        """Return the secret.

        Raises:
            InvalidArgumentError: there is no such variable, or nothing under that name.
            MissingDependencyError: it is in a keyring, and `keyring` is not installed.
        """
        kind, _, name = self.partition(":")
        found = os.environ.get(name) if kind == "env" else _from_keyring(name)
        if found is None:
            what = f"the variable {name} is not set" if kind == "env" else f"no secret is in {self}"
            raise InvalidArgumentError(f"{what}; a store keeps but the reference to it")
        return found


def _from_keyring(name: str) -> str | None:
    with or_install("a secret in a keyring needs keyring", "keyring", "keyring"):
        import keyring
    service, _, user = name.partition("/")
    found: str | None = keyring.get_password(service, user)
    return found


def is_reference(value: Any) -> bool:
    """Whether a value is text that refers to a secret."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def is_named_secret(name: str) -> bool:
    """Whether a field is a secret by its name, such as `api_key` or `Authorization`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return _NAMES.fullmatch(snake.lower().replace("-", "_")) is not None
