"""`Secret`: where a secret is, in the place of the secret."""

from __future__ import annotations

import os
import re
from typing import Any, Self

from kvstore.distribution import or_install
from kvstore.errors import InvalidArgumentError

__all__ = ["Secret", "is_named_secret", "is_reference", "secret_in"]

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|keyring:[^/\s]+/\S+")
# Names of fields by which they are secrets; `max_tokens` and `token_type` are none.
_NAMES = re.compile(
    r"(.*_)?(api_?keys?"
    r"|(access|account|auth|encryption|master|private|secret|signing|storage|subscription)_?keys?"
    r"|(access|api|auth|bearer|id|refresh|session)_?tokens?|_?token|(api|app|client)?_?secret"
    r"|passwords?|passwd|pwd|passphrases?|passcode|credentials?|authorization|cookies?|bearer|jwt"
    r"|(basic|proxy)_auth|(db|mail|proxy|smtp|user)_pass)(_?[0-9]+)?"
)
# What is a secret by its looks, wherever it stands: what headers send, and the keys of services
_SECRET_TEXT = re.compile(
    r"\b(Bearer|Basic)\s+[\w+/=.~-]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(sk-[\w-]{16}|gh[oprsu]_\w{20}|github_pat_\w{20}|glpat-[\w-]{16}|hf_\w{20}"
    r"|xox[abeprs]-[\w-]{10}|AKIA[0-9A-Z]{16}|AIza[\w-]{30}|eyJ[\w-]{8,}\.[\w-]+\.[\w-])"
)
# A colon before a number and a slash is that of a port
_PASSWORD_IN_URL = re.compile(r"[A-Za-z][\w+.-]{,20}://[^/\s:@]*:(?![0-9]+[/?#])[^\s@]+@")
_PAIR = re.compile(r"([\w.-]{1,64})\s*=\s*([^\s&;]+)")
_PAIRS = re.compile(r"\s*([\w.-]+(\s[\w.-]+)*\s*=[^\s;]*([\s;]+|$))+")  # of a connection string


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


def secret_in(text: str) -> str | None:
    """Say what of a text that is no secret itself is one: of a URL, say; `None`: nothing."""
    if _PASSWORD_IN_URL.search(text):
        return "a URL with a password in it"
    if _SECRET_TEXT.search(text):
        return "a text with a key or a token in it"
    if "://" in text or _PAIRS.fullmatch(text):
        for name, value in _PAIR.findall(text):
            if is_named_secret(name) and not is_reference(value) and value[0] not in "{$<":
                return f"a text with a secret in it, {name}="
    return None
