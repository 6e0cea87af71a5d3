"""Text room: every Unicode character's part in splitting text, as tables that a TensorFlow graph can look up.

TensorFlow's regular expressions (RE2) know another version of Unicode than the `regex` package and neither look ahead
nor behind. So a graph translates a text first: each character becomes two ASCII characters, a symbol of its kind and a
sign of what stands to its left and right (`app/text/graph_words.py`). The kinds come from `regex` itself, so that the
rules in `words.py` and `shapes.py` and the graph see the same alphabet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import regex

from app.text import lines
from app.text import words as raw_text
from app.text.lines import BULLETS, CAPITAL, LINE_ENDS, MARKS, PARAGRAPH_ENDS, SMALL

CODE_POINTS = 0x110000
# Symbols of characters beyond ASCII; printable ASCII stands for itself.
UPPER, LETTER, HAN_LETTER, HAN_NUMBER, DECIMAL, NUMBER, MARK = "\x01\x02\x03\x04\x05\x06\x07"
SOFT_HYPHEN, NON_JOINER, JOINER, EMOJI_TAG, EMOJI_TONE, PICTURE, FLAG = "\x08\x0b\x0c\x0e\x0f\x10\x11"
APOSTROPHE, HYPHEN, QUOTE, BLANK, OTHER = "\x12\x13\x14\x15\x16"
# Later lines win over earlier ones.
_SYMBOLS: tuple[tuple[str, str], ...] = (
    (OTHER, r"[\u0080-\U0010FFFF]"),
    (PICTURE, raw_text.PICTURE),
    (FLAG, r"\p{Regional_Indicator}"),
    (LETTER, r"\p{L}"),
    (UPPER, r"\p{Lu}"),
    (NUMBER, r"\p{N}"),
    (DECIMAL, r"\p{Nd}"),
    (HAN_LETTER, r"[\p{L}&&\p{Han}]"),
    (HAN_NUMBER, r"[\p{N}&&\p{Han}]"),
    (MARK, r"\p{M}"),
    (BLANK, raw_text.BLANK),
    (SOFT_HYPHEN, r"\u00ad"),
    (NON_JOINER, r"\u200c"),
    (JOINER, r"\u200d"),
    (EMOJI_TAG, r"[\U000E0020-\U000E007F]"),
    (EMOJI_TONE, r"[\U0001F3FB-\U0001F3FF]"),
    (APOSTROPHE, "’"),
    (HYPHEN, "[‐‑]"),
    (QUOTE, "[“”]"),
)
# What a character is to the one before it.
NEXT = ("other", "letter", "upper", "decimal", "number_in_word", "number", "in_word", ")", "space", "joint")
_NEXT_PATTERNS: dict[str, str] = {
    "in_word": r"\w",
    "number": r"[\p{N}--\w]",
    "number_in_word": r"[\p{N}&&\w]",
    "decimal": r"\p{Nd}",
    "letter": r"\p{L}",
    "upper": r"\p{Lu}",
    ")": r"\)",
    "space": r"\ ",
    "joint": r"[\-.]",
}
# What a character is to the one after it.
LEFT = ("other", "decimal", "upper", "line_start", "open")
_LEFT_PATTERNS = {"open": r"[\s(]", "line_start": f"[{LINE_ENDS}]", "decimal": r"\p{Nd}", "upper": r"\p{Lu}"}
# What the rules of `lines.py` ask of a character.
_LINE_PATTERNS: dict[str, str] = {
    "blank": raw_text.BLANK,
    "line_end": f"[{LINE_ENDS}]",
    "paragraph_end": f"[{PARAGRAPH_ENDS}]",
    "capital": CAPITAL,
    "small": SMALL,
    "list_digit": r"\p{Nd}",
    "mark": rf"[\{MARKS}]",
    "bullet": f"[{BULLETS}]",
}
# What the rules of `names.py` ask of a character.
_NAME_PATTERNS = {"sign": lines.SIGNS, "picture": lines.PICTURES, "numeric": lines.NUMERIC}
# Symbols of the sketch that word shapes are matched on; later lines win.
_SHAPES: tuple[tuple[str, str], ...] = (
    ("?", r"(?s:.)"),
    ("A", r"\p{Lu}"),
    ("T", r"\p{Lt}"),
    ("a", r"\p{Ll}"),
    ("o", r"[\p{Lo}\p{Lm}]"),
    ("m", r"\p{M}"),
    ("0", r"\p{Nd}"),
    ("1", r"\p{No}"),
    ("n", r"\p{Nl}"),
    ("p", r"\p{P}"),
    ("s", r"\p{S}"),
    ("j", r"[\u200c\u200d]"),
    ("'", "['’]"),
    ("-", r"[\-‐‑]"),
    (".", r"\."),
    ("&", "[&/]"),
)


@dataclass(frozen=True)
class CharacterTables:
    """Characters grouped into types, and what the types are.

    Attributes:
        type_of: uint8 [code points], the type of each character.
        symbol: uint8 [types], ASCII code in the sketch of a text.
        following: int32 [types], index into NEXT.
        preceding: int32 [types], index into LEFT.
        shape: uint8 [types], ASCII code in the sketch of a word.
        flags: bool [types] under each name: `upper`, `lower`, `digit` (as Python's `str` has it); `terminal`, `wide`,
            `closer`, `opener` and `tail` (single characters of the sets in `words.py`); those of `lines.py` and
            `names.py`.
    """

    type_of: np.ndarray
    symbol: np.ndarray
    following: np.ndarray
    preceding: np.ndarray
    shape: np.ndarray
    flags: Mapping[str, np.ndarray]


@cache
def character_tables() -> CharacterTables:
    """The tables, computed once a process (about a second)."""
    everything = "".join(map(chr, range(CODE_POINTS)))

    def members(pattern: str) -> np.ndarray:
        found = np.zeros(CODE_POINTS, bool)
        for match in regex.finditer(f"(?V1)(?:{pattern})+", everything):
            found[match.start() : match.end()] = True
        return found

    symbol = np.arange(CODE_POINTS).astype(np.uint8)
    for name, pattern in _SYMBOLS:
        symbol[members(pattern) & ~_printable_ascii()] = ord(name)
    symbol[[ord(" "), ord("\n")]] = ord(" "), ord("\n")
    following, preceding = np.zeros((2, CODE_POINTS), np.int32)
    for name, pattern in _NEXT_PATTERNS.items():
        following[members(pattern)] = NEXT.index(name)
    for name, pattern in _LEFT_PATTERNS.items():
        preceding[members(pattern)] = LEFT.index(name)
    shape = np.zeros(CODE_POINTS, np.uint8)
    for name, pattern in _SHAPES:
        shape[members(pattern)] = ord(name)
    flags = {
        "upper": np.fromiter(map(str.isupper, everything), bool, CODE_POINTS),
        "lower": np.fromiter(map(str.islower, everything), bool, CODE_POINTS),
        "digit": np.fromiter(map(str.isdigit, everything), bool, CODE_POINTS),
        **{name: members(pattern) for name, pattern in (_LINE_PATTERNS | _NAME_PATTERNS).items()},
        **{
            name: np.isin(np.arange(CODE_POINTS), [ord(character) for character in chosen])
            for name, chosen in raw_text.SINGLE_CHARACTERS.items()
        },
    }
    key = np.zeros(CODE_POINTS, np.int64)
    for column, size in ((symbol, 128), (following, len(NEXT)), (preceding, len(LEFT)), (shape, 128)):
        key = key * size + column
    for column in flags.values():
        key = key * 2 + column
    _, first, type_of = np.unique(key, return_index=True, return_inverse=True)
    if len(first) > 256:
        raise AssertionError(f"{len(first)} types of characters do not fit into a byte")
    return CharacterTables(
        type_of.astype(np.uint8),
        symbol[first],
        following[first],
        preceding[first],
        shape[first],
        {name: column[first] for name, column in flags.items()},
    )


def _printable_ascii() -> np.ndarray:
    codes = np.arange(CODE_POINTS)
    return (codes > 0x20) & (codes < 0x7F)
