"""Data room: word shapes inside a TensorFlow graph, the same as `shapes.word_shape` gives.

A word becomes a string of one ASCII character for each of its own, and RE2 tries the patterns of `shapes.py` on that.
"""

import tensorflow as tf

from app.data.characters import character_tables
from app.data.shapes import MAX_CHARACTERS, SHAPE_NAMES

_UPPER, _LOWER, _TITLE = "[AT]m*", "(?:am*)", "[AT]m*(?:am*)*"
_LETTER = "[ATao]"
_PUNCTUATION = r"p'\-.&"  # inside a class
_PART = "[ATaom01n'.]+"
# The patterns of `shapes.py`, without what they look ahead for, and whether the word must hold an upper-case letter.
_PATTERNS: dict[str, tuple[str, str]] = {
    "lower": (f"'?{_LOWER}(?:['\\-]?{_LOWER})*", ""),
    "single_capital": (_UPPER, ""),
    "title": (f"{_UPPER}{_LOWER}+", ""),
    "upper_short": (f"(?:{_UPPER}){{2,3}}", ""),
    "upper": (f"(?:{_UPPER}){{4,}}", ""),
    "capitals_with_periods": (rf"(?:{_UPPER}\.)+(?:{_UPPER})?(?:-(?:{_LETTER}m*)+)?|{_UPPER}{_LOWER}+\.", ""),
    "hyphenated_capitals": (f"{_TITLE}(?:'?{_TITLE})*(?:-{_TITLE}(?:'?{_TITLE})*)+", ""),
    "hyphenated_mixed": (f"(?:{_PART}-)+{_PART}", "upper"),
    "mixed": (rf"'?(?:{_LETTER}m*['.&]?)+", "upper"),
    "digits": ("0+", ""),
    "digits_with_punctuation": (f"[01s{_PUNCTUATION}]+", "decimal"),
    "alphanumeric": (f"[ATaom01ns{_PUNCTUATION}]+", "letter and number"),
    "uncased_letters": ("(?:o[mj]*)+", ""),
    "punctuation": (f"[{_PUNCTUATION}]+", ""),
}
_CONDITIONS = {"upper": ".*A.*", "decimal": ".*0.*", "letter": ".*[ATao].*", "number": ".*[01n].*"}


class GraphShapes:
    """Shapes of words inside a graph."""

    def __init__(self) -> None:
        self._shape = character_tables().shape.astype("int32")

    def __call__(self, types: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
        """Shapes of words, int32 [words].

        Args:
            types: int32 [characters].
            starts: int32 [words], where words begin in `types`.
            ends: int32 [words], where they end.
        """
        lengths = ends - starts
        bounded = tf.minimum(ends, starts + MAX_CHARACTERS)
        symbols = tf.ragged.range(starts, bounded)
        symbols = symbols.with_flat_values(tf.gather(self._shape, tf.gather(types, symbols.flat_values)))
        sketches = tf.strings.unicode_encode(symbols, "UTF-8")
        conditions = {name: tf.strings.regex_full_match(sketches, pattern) for name, pattern in _CONDITIONS.items()}
        shape = tf.fill(tf.shape(starts), len(SHAPE_NAMES) - 1)
        for name, (pattern, condition) in reversed(_PATTERNS.items()):
            matches = tf.strings.regex_full_match(sketches, pattern)
            for needed in filter(None, condition.split(" and ")):
                matches &= conditions[needed]
            shape = tf.where(matches, SHAPE_NAMES.index(name), shape)
        return tf.where(lengths > MAX_CHARACTERS, len(SHAPE_NAMES) - 1, shape)
