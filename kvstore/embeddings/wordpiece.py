"""WordPiece, the tokenizer of BERT and its heirs: text to the ids of a vocabulary.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", NAACL 2019, with the uncased rules of its reference code: control characters out,
Chinese characters and punctuation apart, lower case, accents off, then greedy longest match.
No text can write a control token: "[SEP]" in a text is three tokens of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache

__all__ = ["WordPiece"]

_LONGEST_WORD = 100  # characters; a longer one is unknown
_CONTROL = frozenset({"Cc", "Cf", "Co", "Cs"})
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """The tokenizer of one vocabulary.

    Args:
        vocabulary: ids by piece; pieces inside a word begin with `##`. It holds `[UNK]`, `[CLS]`
            and `[SEP]`.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._ids = vocabulary
        self._unknown = vocabulary["[UNK]"]
        self._begin, self._end = vocabulary["[CLS]"], vocabulary["[SEP]"]
        self._pieces = lru_cache(maxsize=20_000)(self._match)

    def encode(self, text: str, limit: int) -> list[int]:
        """Return `[CLS]`, the ids of a text, `[SEP]`: at most `limit` in all, the text cut."""
        return [self._begin, *self._ids_of(text, limit - 2), self._end]

    def encode_pair(self, first: str, second: str, limit: int) -> tuple[list[int], list[int]]:
        """Return the ids of two texts, `[SEP]` after each, and 0 or 1 by the text they are of.

        Of `limit` ids in all, the first text takes at most half; the second is cut to the rest.
        """
        head = self.encode(first, limit // 2)
        tail = [*self._ids_of(second, limit - len(head) - 1), self._end]
        return head + tail, [0] * len(head) + [1] * len(tail)

    def _ids_of(self, text: str, most: int) -> list[int]:
        ids: list[int] = []
        for word in _words(text):
            if len(ids) >= most:
                break
            ids += self._pieces(word)
        return ids[: max(0, most)]

    def _match(self, word: str) -> tuple[int, ...]:
        """Cut a word into the longest pieces that there are, from its beginning."""
        if len(word) > _LONGEST_WORD:
            return (self._unknown,)
        ids: list[int] = []
        begin = 0
        while begin < len(word):
            head = "##" if begin else ""
            for end in range(len(word), begin, -1):
                found = self._ids.get(head + word[begin:end])
                if found is not None:
                    break
            else:
                return (self._unknown,)
            ids.append(found)
            begin = end
        return tuple(ids)


def _words(text: str) -> Iterator[str]:
    """Split a text at white space and around punctuation, folded as the vocabulary is."""
    for chunk in _clean(text).split():
        folded = "".join(
            character
            for character in unicodedata.normalize("NFD", chunk.lower())
            if unicodedata.category(character) != "Mn"
        )
        begin = 0
        for at, character in enumerate(folded):
            if _is_punctuation(character):
                if begin < at:
                    yield folded[begin:at]
                yield character
                begin = at + 1
        if begin < len(folded):
            yield folded[begin:]


def _clean(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_cleaned, text))


@lru_cache(maxsize=10_000)
def _cleaned(character: str) -> str:
    if character in "\t\n\r":
        return " "
    category = unicodedata.category(character)
    if character == "\ufffd" or category in _CONTROL:
        return ""
    if category == "Zs":
        return " "
    code = ord(character)
    return f" {character} " if any(low <= code <= high for low, high in _CJK) else character


@lru_cache(maxsize=10_000)
def _is_punctuation(character: str) -> bool:
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")
