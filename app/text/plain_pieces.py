"""Text room: words to word pieces in plain Python, for a server that must not wait for TensorFlow.

Gives what `WordPieces` gives, piece for piece: tests compare the two on every character of Unicode and on real text.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from app.text.vocabulary import PieceRows, Vocabulary

MOST_BYTES = 100  # of a word; a longer one is `[UNK]`, as BERT has it
_CACHED_WORDS = 2**16
_INNER = "##"  # opens the pieces that do not begin a word
_BLANKS = ("Cc", "Cf", "Zs", "Zl", "Zp")
# First and last of the characters that are never shown (Unicode: Default_Ignorable_Code_Point).
_IGNORABLE = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
# TF Text was built with tables of Unicode older, and newer, than Python's: letters and punctuation that it does not
# know, accents and blanks that only it knows.
_UNKNOWN_LETTERS = frozenset((
    0x2C2F, 0xA7C0, 0xA7C7, 0xA7C9, 0xA7D0, 0xA7D6, 0xA7D8, *range(0xA7F2, 0xA7F6), 0xAB69, *range(0x10570, 0x10596),
    *range(0x10780, 0x107BB), 0x11938, *range(0x1FBF0, 0x1FBFA),
))  # fmt: skip
_UNKNOWN_PUNCTUATION = frozenset((
    0x61D, 0x1B7D, 0x1B7E, *range(0x2E52, 0x2E5E), 0x10EAD, *range(0x10F86, 0x10F8A), 0x1145A, 0x116B9,
    *range(0x11944, 0x11947), 0x12FF1, 0x12FF2,
))  # fmt: skip
_NEW_ACCENTS = frozenset((
    0xECE, *range(0x10EFD, 0x10F00), 0x11241, 0x11F00, 0x11F01, *range(0x11F36, 0x11F3B), 0x11F40, 0x11F42,
    0x13440, *range(0x13447, 0x13456), 0x1E08F, *range(0x1E4EC, 0x1E4F0),
))  # fmt: skip
_NEW_BLANKS = frozenset(range(0x13439, 0x13440))
# First and last of the characters that BERT calls Chinese; each is a word.
_HAN = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class PlainWordPieces(Vocabulary):
    """Splits words into the pieces of one vocabulary, see `Vocabulary`; its answers are those of `WordPieces`."""

    def __init__(self, vocabulary: Sequence[str], *, lowercase: bool) -> None:
        super().__init__(vocabulary, lowercase=lowercase)
        self._ids = {piece: number for number, piece in enumerate(self.vocabulary)}
        self._longest = max(map(len, self.vocabulary))
        self._cached = lru_cache(maxsize=_CACHED_WORDS)(self.encode_word)

    def encode(self, words: Sequence[str]) -> PieceRows:
        """Pieces of each word; a word that leaves no piece (a lone control character) becomes `[UNK]`."""
        found = [self._cached(word) for word in words]
        splits = np.zeros(len(found) + 1, np.int64)
        np.cumsum([len(ids) for ids in found], out=splits[1:])
        ids = np.fromiter((each for ids in found for each in ids), np.int32, count=int(splits[-1]))
        return PieceRows(ids, splits)

    def encode_word(self, word: str) -> tuple[int, ...]:
        """Ids of a word, never empty."""
        found: list[int] = []
        letters: list[str] = []
        for character in word:
            for each in _normalize(character, self.lowercase):
                if each == " " or _stands_alone(each):
                    found += self._split(letters)
                    letters = []
                    if each != " ":
                        found.append(self._ids.get(each, self.unknown_id))
                else:
                    letters.append(each)
        found += self._split(letters)
        return tuple(found) or (self.unknown_id,)

    def _split(self, letters: list[str]) -> list[int]:
        """The longest piece that fits, from left to right; `[UNK]` alone if the rest cannot be spelled."""
        word = "".join(letters)
        if len(word.encode("utf-8")) > MOST_BYTES:
            return [self.unknown_id]
        found, at = [], 0
        while at < len(word):
            opening = _INNER if at else ""
            for end in range(min(len(word), at + self._longest), at, -1):
                number = self._ids.get(opening + word[at:end])
                if number is not None:
                    break
            else:
                return [self.unknown_id]
            found.append(number)
            at = end
        return found


@lru_cache(maxsize=2**14)
def _normalize(character: str, lowercase: bool) -> str:
    """A character as BERT reads it: a blank, nothing, or letters, upper case and accents taken away on request."""
    code = ord(character)
    if lowercase and (_is_ignorable(code) or code in _NEW_ACCENTS):
        return ""
    if unicodedata.category(character) in _BLANKS or code in _NEW_BLANKS:
        return " "
    if not lowercase or code in _UNKNOWN_LETTERS:
        return character
    apart = unicodedata.normalize("NFD", _fold(character))
    return "".join(each for each in apart if unicodedata.category(each) != "Mn")


def _fold(character: str) -> str:
    """Unicode's NFKC_Casefold of a character; it knows no case and no width, and what is never shown is nothing."""
    folded = unicodedata.normalize("NFD", character)
    for _ in range(2):
        folded = unicodedata.normalize("NFKC", folded.casefold())
    return "".join(each for each in folded if not _is_ignorable(ord(each)))


def _is_ignorable(code: int) -> bool:
    return any(first <= code <= last for first, last in _IGNORABLE)


@lru_cache(maxsize=2**14)
def _stands_alone(character: str) -> bool:
    """Whether a character is a word for itself: punctuation, or what BERT calls Chinese."""
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    if code in _UNKNOWN_PUNCTUATION:
        return False
    return unicodedata.category(character).startswith("P") or any(first <= code <= last for first, last in _HAN)
