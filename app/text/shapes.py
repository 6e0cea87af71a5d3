"""Text room: the shape of a word, what an uncased vocabulary forgets about it."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import regex

_UPPER = r"[\p{Lu}\p{Lt}]\p{M}*+"
_LOWER = r"(?:\p{Ll}\p{M}*+)"
_TITLE = rf"{_UPPER}{_LOWER}*+"
# Tried in order; the first whole match names the shape. Trained weights depend on its place in the list:
# append, never reorder.
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("special", r"(?!)"),  # padding and special pieces; no word has it
    ("lower", rf"['’]?{_LOWER}(?:['’\-‐‑]?{_LOWER})*+"),
    ("single_capital", _UPPER),
    ("title", rf"{_UPPER}{_LOWER}++"),
    ("upper_short", rf"(?:{_UPPER}){{2,3}}"),
    ("upper", rf"(?:{_UPPER}){{4,}}+"),
    (
        "capitals_with_periods",
        rf"(?:{_UPPER}\.)++(?:{_UPPER})?(?:-(?:\p{{L}}\p{{M}}*+)++)?|{_UPPER}{_LOWER}++\.",
    ),
    ("hyphenated_capitals", rf"{_TITLE}(?:['’]?{_TITLE})*+(?:[\-‐‑]{_TITLE}(?:['’]?{_TITLE})*+)++"),
    ("hyphenated_mixed", r"(?=.*\p{Lu})(?:[\p{L}\p{M}\p{N}'’.]++[\-‐‑])++[\p{L}\p{M}\p{N}'’.]++"),
    ("mixed", r"(?=.*\p{Lu})['’]?(?:\p{L}\p{M}*+['’.&/]?)++"),
    ("digits", r"\p{Nd}++"),
    ("digits_with_punctuation", r"(?=.*\p{Nd})[\p{Nd}\p{No}\p{P}\p{S}]++"),
    ("alphanumeric", r"(?=.*\p{N})(?=.*\p{L})[\p{L}\p{M}\p{N}\p{P}\p{S}]++"),
    ("uncased_letters", r"(?:[\p{Lo}\p{Lm}][\p{M}\u200c\u200d]*+)++"),
    ("punctuation", r"\p{P}++"),
    ("other", r".*+"),
)
SHAPE_NAMES: tuple[str, ...] = tuple(name for name, _ in _PATTERNS)
NUM_SHAPES = len(SHAPE_NAMES)
_OTHER = NUM_SHAPES - 1
_SHAPE = regex.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _PATTERNS), regex.DOTALL)
_NUMBERS = {name: number for number, name in enumerate(SHAPE_NAMES)}
MAX_CHARACTERS = 200  # a longer word is no name; bounds the time a word can take


def word_shape(word: str) -> int:
    """Number of the shape of a word, 1 to `NUM_SHAPES - 1`; 0 is kept for padding and special pieces."""
    found = _SHAPE.fullmatch(word) if len(word) <= MAX_CHARACTERS else None
    return _NUMBERS[found.lastgroup] if found and found.lastgroup else _OTHER


_cached_shape = lru_cache(maxsize=2**16)(word_shape)


def word_shapes(words: Sequence[str]) -> np.ndarray:
    """Shapes of many words.

    Returns:
        int32 [words].
    """
    return np.fromiter(map(_cached_shape, words), np.int32, count=len(words))
