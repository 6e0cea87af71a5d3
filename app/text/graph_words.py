"""Text room: raw text to words inside a TensorFlow graph, the same words as `words.split_words` finds.

A text is translated into its sketch, two ASCII characters for each of its own: the symbol of its kind, and a sign that
says what stands to its left and right. Upon that, the rules of `words.py` need no look-ahead and no look-behind, and
RE2 can apply them: one op cuts all texts of a batch into words, in linear time. All operations are on flat tensors over
all texts; TensorFlow Serving's stock image links every one of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

from app.text import characters as of
from app.text import words as raw_text
from app.text.characters import LEFT, NEXT, character_tables
from app.text.shapes import MAX_CHARACTERS, SHAPE_NAMES

# What stands to the right of a character: NEXT, where "joint" is left only before a letter, and two more.
RIGHT = (*NEXT, "space_letter", "space_decimal")
_IN_WORD = {"letter", "upper", "decimal", "number_in_word", "in_word"}
_NUMBERS = {"decimal", "number_in_word", "number"}
_LETTERS = {"letter", "upper"}
_FIRST_SIGN = 0x21


def _class(symbols: Iterable[str], *, negated: bool = False) -> str:
    """Pattern of one of the symbols; a range such as `a-z` stands as it is."""
    inner = "".join(symbol if len(symbol) > 1 else f"\\x{ord(symbol):02x}" for symbol in symbols)
    return f"[^{inner}]" if negated else f"[{inner}]"


def _sign(right: str | Iterable[str], left: str | Iterable[str]) -> str:
    """Pattern of the signs of a character between such neighbours."""
    rights = set(RIGHT if right == "any" else right)
    lefts = set(LEFT if left == "any" else left)
    if len(rights) == len(RIGHT) and len(lefts) == len(LEFT):
        return "."
    codes = (
        _FIRST_SIGN + len(RIGHT) * j + i
        for i, after in enumerate(RIGHT)
        for j, before in enumerate(LEFT)
        if after in rights and before in lefts
    )
    return _class(map(chr, codes))


def _one(symbols: Iterable[str], *, right: Any = "any", left: Any = "any", negated: bool = False) -> str:
    """Pattern of one character of a text: one of the symbols, between such neighbours."""
    return _class(symbols, negated=negated) + _sign(right, left)


def _word(word: str) -> str:
    return "".join(_one(character) for character in word)


def _any_case(words: Iterable[str], *, right: Any = "any") -> str:
    """Words in any case; `right` is what may stand behind them."""
    spelled = []
    for word in words:
        ends = [_one({c.lower(), c.upper()}, right=right if i == len(word) - 1 else "any") for i, c in enumerate(word)]
        spelled.append("".join(ends))
    return f"(?:{'|'.join(spelled)})"


def _alternatives(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(_word, sorted(words)))})"


_CAPITALS = {"A-Z", of.UPPER}
_LETTER_SYMBOLS = {*_CAPITALS, "a-z", of.LETTER, of.HAN_LETTER}
_WORD_SYMBOLS = {*_CAPITALS, "a-z", of.LETTER, "0-9", of.DECIMAL, of.NUMBER}  # letters and numbers, Han not
_DECIMALS = {"0-9", of.DECIMAL}
_BLANKS = {" ", "\n", of.BLANK, of.SOFT_HYPHEN, of.NON_JOINER, of.JOINER, of.EMOJI_TAG}
_APOSTROPHES = {"'", of.APOSTROPHE}
_INNER_MARKS = {of.MARK, of.SOFT_HYPHEN, of.NON_JOINER, of.JOINER}
_MARKS = f"(?:{_one({of.MARK})})*"
_LETTER = f"{_one(_WORD_SYMBOLS)}(?:{_one(_INNER_MARKS)})*"
_RUN = f"(?:{_LETTER})+"
_NAME = f"(?:{_one({'A-Z', 'a-z', '0-9', '-'})}){{1,63}}"
_TAIL_CHARACTER = _one({*_BLANKS, "<", ">", '"', of.QUOTE}, negated=True)
_NOT_AFTER_SITE = _IN_WORD | {"joint"}
_DRAWN = {of.MARK, of.NON_JOINER, of.EMOJI_TONE, of.EMOJI_TAG}


def _address() -> str:
    begin = f"(?:{_word('http')}(?:{_one('s')})?|{_word('ftp')}){_word(':/')}"
    ahead = f"(?:{begin}{_one('/', right=_IN_WORD)}|{_word('www')}{_one('.', right=_IN_WORD)})"
    return f"{ahead}(?:{_TAIL_CHARACTER})*"


def _site() -> str:
    dot, free = _one("."), set(RIGHT) - _NOT_AFTER_SITE
    domains = _any_case(raw_text.DOMAINS, right=free)
    return f"{_NAME}(?:{dot}{_NAME}){{0,3}}?{dot}{domains}(?:{_one('/')}(?:{_TAIL_CHARACTER})*)?"


def _token_patterns() -> list[str]:
    """The rules of `raw_text._TOKEN` in their order."""
    dot, letters_or_numbers = _one("."), _LETTERS | _NUMBERS
    titles = raw_text.TITLES | {title.upper() for title in raw_text.TITLES}
    mail_name = _one({*_LETTER_SYMBOLS, "0-9", of.DECIMAL, of.NUMBER, of.HAN_NUMBER, *"._%+-"})
    joined = "|".join(
        [
            _one({"-", of.HYPHEN, "_", *_APOSTROPHES}) + _RUN,
            _one("&", left={"upper"}, right={"upper"}) + _RUN,
            _one(".,:/", left={"decimal"}, right={"decimal"}) + _RUN,
        ]
    )
    before_number = {"decimal", "space_decimal"}
    before_name = {*_LETTERS, ")", "space_letter"}
    picture = _one({of.PICTURE})
    drawn = f"(?:{_one(_DRAWN)})*"
    return [
        f"(?:{_one(_BLANKS)})+",
        _address(),
        f"(?:{mail_name}){{1,64}}{_one('@')}(?:{_NAME}{dot}){{1,8}}{_NAME}",
        _site(),
        f"(?:{_one(_LETTER_SYMBOLS)}{_MARKS}{dot}){{2,}}(?:{_one('-')}{_RUN})*",
        f"{_one(_CAPITALS)}{_MARKS}{_one('.', right=before_name)}",
        _alternatives(titles) + _one(".", right=set(RIGHT) - _NUMBERS),
        _alternatives(raw_text.ENDINGS) + dot,
        _alternatives(raw_text.BEFORE_NUMBERS) + _one(".", right=before_number),
        f"{_one(_DECIMALS, left={'line_start'})}(?:{_one(_DECIMALS)}){{0,2}}"
        + _one(".", right={"space", "space_letter", "space_decimal"}),
        _one(_APOSTROPHES) + _any_case(raw_text.SUFFIXES, right=set(RIGHT) - letters_or_numbers),
        f"{_one('@#', right=_LETTERS)}{_RUN}(?:{_one('_')}{_RUN})*",
        f"(?:{_word('US')}|{_one('ACSRTZ')}|{_word('NZ')}|{_word('HK')})?{_one('$')}",
        f"(?:{_one('+')}|{_one('.', left={'line_start', 'open'}, right={'decimal'})})?{_RUN}(?:{joined})*",
        *(f"(?:{_one(mark)}){{2,}}" for mark in ".-=*_~"),
        f"(?:{_one({of.FLAG})}){{1,2}}",
        f"(?:{picture}(?:{drawn}{_one({of.JOINER})}{picture})*|(?s:.).)(?:{_one({*_DRAWN, of.JOINER})})*",
    ]


@dataclass(frozen=True)
class TextWords:
    """The words of a batch of texts, as flat tensors.

    Attributes:
        codes: int32 [characters], the code points of all texts, one text after the other.
        types: int32 [characters], see `CharacterTables`.
        text_starts: int32 [texts + 1], where each text begins in `codes`.
        starts: int32 [words]; ends: int32 [words], the words as slices of `codes`, in order.
        texts: int32 [words], the text each word belongs to.
    """

    codes: tf.Tensor
    types: tf.Tensor
    text_starts: tf.Tensor
    starts: tf.Tensor
    ends: tf.Tensor
    texts: tf.Tensor


class GraphWords:
    """Splits texts into words inside a graph."""

    def __init__(self) -> None:
        tables = character_tables()
        self._pattern = f"^(?:{'|'.join(_token_patterns())})"
        self._kept = f"(?s){_class(_BLANKS, negated=True)}.*"
        self._address = f"{_address()}|{_site()}"
        self._type_of = tables.type_of
        self._symbol = tables.symbol.astype("int32")
        self._following, self._preceding = tables.following, tables.preceding
        self._tail = tables.flags["tail"]
        joint, space = (NEXT.index(name) for name in ("joint", "space"))
        # right[what follows][what follows that] is an index into RIGHT
        self._right = [[i] * len(NEXT) for i in range(len(NEXT))]
        for j, name in enumerate(NEXT):
            if name not in _IN_WORD:
                self._right[joint][j] = NEXT.index("other")
            if name in _LETTERS:
                self._right[space][j] = RIGHT.index("space_letter")
            elif name == "decimal":
                self._right[space][j] = RIGHT.index("space_decimal")

    def __call__(self, texts: tf.Tensor) -> TextWords:
        """Splits texts into words.

        Args:
            texts: string [texts], UTF-8; what is not UTF-8 becomes U+FFFD.
        """
        decoded = tf.strings.unicode_decode(texts, "UTF-8", errors="replace")
        codes, owners = decoded.flat_values, tf.cast(decoded.value_rowids(), tf.int32)
        text_starts = tf.cast(decoded.row_splits, tf.int32)
        types = tf.cast(tf.gather(self._type_of, codes), tf.int32)
        tokens, begins, ends = tf_text.regex_split_with_offsets(
            self._sketch(types, owners, decoded.row_splits), self._pattern, self._kept
        )
        offsets = tf.gather(text_starts, begins.value_rowids())
        starts = tf.cast(begins.flat_values, tf.int32) // 2 + offsets
        stops = tf.cast(ends.flat_values, tf.int32) // 2 + offsets
        is_address = tf.strings.regex_full_match(tokens.flat_values, self._address)
        cuts = tf.concat(
            [
                self._address_tails(types, tf.boolean_mask(starts, is_address), tf.boolean_mask(stops, is_address)),
                *_contractions(codes, tf.boolean_mask(starts, ~is_address), tf.boolean_mask(stops, ~is_address)),
            ],
            axis=0,
        )
        starts, stops = _sorted(tf.concat([starts, cuts], 0), codes), _sorted(tf.concat([stops, cuts], 0), codes)
        return TextWords(codes, types, text_starts, starts, stops, tf.gather(owners, starts))

    def _sketch(self, types: tf.Tensor, owners: tf.Tensor, row_splits: tf.Tensor) -> tf.Tensor:
        """Two ASCII characters for each character of a text: string [texts]."""
        same = tf.equal(owners[1:], owners[:-1])
        none = tf.zeros_like(owners[:1], tf.bool)
        following = tf.gather(self._following, types)
        after = _shifted(following, same, none)
        after_next = _shifted(after, same, none)
        before = tf.gather(self._preceding, types)
        start = tf.zeros_like(before[:1]) + LEFT.index("line_start")
        left = tf.concat([start, tf.where(same, before[:-1], LEFT.index("line_start"))], 0)[: tf.size(before)]
        right = tf.gather_nd(self._right, tf.stack([after, after_next], axis=1))
        sign = _FIRST_SIGN + len(RIGHT) * left + right
        both = tf.reshape(tf.stack([tf.gather(self._symbol, types), sign], axis=1), [-1])
        return tf.strings.unicode_encode(tf.RaggedTensor.from_row_splits(both, 2 * row_splits, validate=False), "UTF-8")

    def _address_tails(self, types: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
        """Where the punctuation behind web addresses is cut, int32 [cuts]."""
        places = tf.ragged.range(starts, ends)
        flat, address = places.flat_values, places.value_rowids()
        in_tail = tf.gather(self._tail, tf.gather(types, flat))
        last = tf.math.unsorted_segment_max(tf.where(in_tail, -1, flat), address, tf.size(starts))
        return tf.boolean_mask(flat, flat > tf.gather(last, address))


def _shifted(kinds: tf.Tensor, same: tf.Tensor, none: tf.Tensor) -> tf.Tensor:
    """What stands one place further on in the same text, else the kind "other"."""
    ahead = tf.concat([kinds[1:], tf.zeros_like(kinds[:1])], 0)
    return tf.where(tf.concat([same, none], 0)[: tf.size(kinds)], ahead, NEXT.index("other"))


def _sorted(places: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
    """Different places in the characters, in order."""
    marks = tf.scatter_nd(places[:, tf.newaxis], tf.ones_like(places), [tf.size(codes) + 1])
    return tf.cast(tf.where(marks > 0)[:, 0], tf.int32)


def _contractions(codes: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> Sequence[tf.Tensor]:
    """Where `n't`, `'ve` and their like are cut off the words they end, twice at most: int32 [cuts] each."""
    cuts = []
    for _ in range(2):
        sizes = _contraction_sizes(codes, ends)
        split = (sizes > 0) & (ends - sizes > starts)
        starts, ends = tf.boolean_mask(starts, split), tf.boolean_mask(ends - sizes, split)
        cuts.append(ends)
    return cuts


def _contraction_sizes(codes: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Characters of the contraction before each place, 0 where there is none."""
    third, second, last = (tf.gather(codes, tf.maximum(ends - i, 0)) for i in (3, 2, 1))

    def is_in(code: tf.Tensor, letters: str) -> tf.Tensor:
        return tf.reduce_any([tf.equal(code, ord(letter)) for letter in letters], axis=0)

    negation = is_in(third, "nN") & is_in(second, "'’") & is_in(last, "tT")
    pairs = [word for word in raw_text.CONTRACTED if len(word) == 2]
    longer = [is_in(second, w[0] + w[0].upper()) & is_in(last, w[1] + w[1].upper()) for w in pairs]
    letters = "".join(word + word.upper() for word in raw_text.CONTRACTED if len(word) == 1)
    short = is_in(second, "'’") & is_in(last, letters)
    three = negation | (is_in(third, "'’") & tf.reduce_any(longer, axis=0))
    return tf.where(three, 3, tf.where(short, 2, 0))


def changes(owners: tf.Tensor) -> tf.Tensor:
    """Where a flat tensor of owners begins a new one, bool of the same length."""
    return tf.concat([tf.ones_like(owners[:1], tf.bool), tf.not_equal(owners[1:], owners[:-1])], 0)[: tf.size(owners)]


# Word shapes inside a TensorFlow graph, the same as `shapes.word_shape` gives.
#
# A word becomes a string of one ASCII character for each of its own, and RE2 tries the patterns of `shapes.py` on
# that.


_UPPER, _LOWER, _TITLE = "[AT]m*", "(?:am*)", "[AT]m*(?:am*)*"
_SHAPE_LETTER = "[ATao]"
_PUNCTUATION = r"p'\-.&"  # inside a class
_PART = "[ATaom01n'.]+"
# The patterns of `shapes.py`, without what they look ahead for, and whether the word must hold an upper-case letter.
_PATTERNS: dict[str, tuple[str, str]] = {
    "lower": (f"'?{_LOWER}(?:['\\-]?{_LOWER})*", ""),
    "single_capital": (_UPPER, ""),
    "title": (f"{_UPPER}{_LOWER}+", ""),
    "upper_short": (f"(?:{_UPPER}){{2,3}}", ""),
    "upper": (f"(?:{_UPPER}){{4,}}", ""),
    "capitals_with_periods": (rf"(?:{_UPPER}\.)+(?:{_UPPER})?(?:-(?:{_SHAPE_LETTER}m*)+)?|{_UPPER}{_LOWER}+\.", ""),
    "hyphenated_capitals": (f"{_TITLE}(?:'?{_TITLE})*(?:-{_TITLE}(?:'?{_TITLE})*)+", ""),
    "hyphenated_mixed": (f"(?:{_PART}-)+{_PART}", "upper"),
    "mixed": (rf"'?(?:{_SHAPE_LETTER}m*['.&]?)+", "upper"),
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
