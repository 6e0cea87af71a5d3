"""Text room: words to sentences inside a TensorFlow graph, the same as `words.split_sentences` finds.

Whether a word begins a sentence depends on what the words since the last beginning left behind: one of eight states.
Each word is a map from the state before it to the state after it, and the states before all words come out of one
parallel prefix composition of these maps (Hillis & Steele 1986), in as many steps as the number of words has binary
digits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import tensorflow as tf

from app.text import lines as rules
from app.text import words as raw_text
from app.text.characters import character_tables
from app.text.graph_words import TextWords, changes

_ENDINGS = ("", "weak", "full", "wide")  # how the sentence before a word ends
_STATES = [(quoted, ending) for quoted in (False, True) for ending in _ENDINGS]
_DASHES = ("--",)  # openers of more than one character


class GraphSentences:
    """Finds where sentences begin, inside a graph."""

    def __init__(self) -> None:
        self._flags = character_tables().flags
        self._lines = GraphLines()
        self._titles = "|".join(sorted(f"{title}[.]" for title in raw_text.TITLES))
        self._starters = f"(?:{raw_text.any_case(sorted(raw_text.STARTERS))})"

    def __call__(self, words: TextWords, spelled: tf.Tensor) -> tf.Tensor:
        """Which words begin a sentence: bool [words].

        Args:
            words: of the texts.
            spelled: string [words].
        """
        first_of_text = changes(words.texts)
        endings, closer, quote = self._endings(words, spelled)
        always = self._lines(words)
        when = self._breaks(words, spelled, endings)
        breaks, following = [], []
        for quoted, ending in _STATES:
            begins = first_of_text | always
            if ending:
                begins |= when[ending] & ~when["unless quoted"] if quoted else when[ending]
            breaks.append(begins)
            kept = tf.where(begins, 0, _ENDINGS.index(ending))
            after = tf.where(endings > 0, endings, tf.where(closer, kept, 0))
            odd = tf.math.logical_xor(~begins & quoted, quote)
            following.append(tf.cast(odd, tf.int32) * len(_ENDINGS) + after)
        states = _states_before(tf.stack(following, axis=1), _longest_run(words.texts))
        return tf.gather(tf.stack(breaks, axis=1), states, batch_dims=1)

    def _flag(self, name: str, types: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._flags[name], types)

    def _endings(self, words: TextWords, spelled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """As `words._ending` says: index into _ENDINGS; whether the word only closes; whether it is a quote."""
        lengths = words.ends - words.starts
        one = tf.equal(lengths, 1)
        first = tf.gather(words.types, words.starts)
        dot = tf.equal(tf.gather(words.codes, words.ends - 1), ord("."))
        weak = (lengths > 1) & dot & ~self._flag("digit", first) & ~tf.strings.regex_full_match(spelled, self._titles)
        full = (one & self._flag("terminal", first)) | tf.strings.regex_full_match(spelled, r"(?s)\.\..*")
        endings = tf.where(weak, 1, 0)
        endings = tf.where(one & self._flag("wide", first), 3, endings)
        endings = tf.where(full, 2, endings)
        quote = tf.equal(spelled, '"')
        return endings, (one & self._flag("closer", first)) | quote, quote

    def _breaks(self, words: TextWords, spelled: tf.Tensor, endings: tf.Tensor) -> dict[str, tf.Tensor]:
        """As `words._begins_sentence` says: which words begin one after each ending."""
        starts, ends = words.starts, words.ends
        before = tf.concat([starts[:1], ends[:-1]], 0)  # the end of the word before; of no interest at a text's first
        before = tf.minimum(before, starts)
        types = tf.gather(words.types, starts)
        one, gap = tf.equal(ends - starts, 1), starts > before
        opener = (one & self._flag("opener", types)) | _is_one_of(spelled, _DASHES)
        never = (one & self._flag("closer", types) & ~opener) | (endings >= 2)
        mark = _is_one_of(spelled, ("'", '"'))
        never |= mark & ~gap
        upper, lower, starter = self._first_that_opens_nothing(words, spelled, opener)
        allowed = {
            "": tf.zeros_like(never),
            "weak": gap & upper & starter,
            "full": gap & ~lower,
            "wide": ~lower,
        }
        return {name: each & ~never for name, each in allowed.items()} | {"unless quoted": mark}

    def _first_that_opens_nothing(
        self, words: TextWords, spelled: tf.Tensor, opener: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of each word and the two behind it, the first that is no opener, else the word itself.

        Returns:
            (begins with an upper-case letter, begins with a lower-case letter, usually begins sentences), bool [words].
        """
        types = tf.gather(words.types, words.starts)
        starter = tf.strings.regex_full_match(spelled, self._starters)
        number = tf.range(tf.size(words.texts))
        chosen = number
        for step in (2, 1, 0):
            there = tf.minimum(number + step, tf.maximum(tf.size(number) - 1, 0))
            inside = tf.equal(tf.gather(words.texts, there), words.texts) & tf.equal(there, number + step)
            chosen = tf.where(inside & ~tf.gather(opener, there), there, chosen)
        return tuple(
            tf.gather(column, chosen) for column in (self._flag("upper", types), self._flag("lower", types), starter)
        )


def number_parts(begins: tf.Tensor, longest: int) -> tf.Tensor:
    """Which words begin a part of at most `longest` words of a sentence, bool [words]; `begins` as of sentences."""
    number = tf.range(tf.size(begins))
    starts = tf.cast(tf.where(begins)[:, 0], tf.int32)
    at = number - tf.gather(starts, tf.cumsum(tf.cast(begins, tf.int32)) - 1)
    return tf.equal(at % longest, 0)


def _longest_run(owners: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(tf.concat([[1], tf.unique_with_counts(owners).count], 0))


def _is_one_of(spelled: tf.Tensor, words: Iterable[str]) -> tf.Tensor:
    return tf.reduce_any([tf.equal(spelled, word) for word in words], axis=0)


def _states_before(following: tf.Tensor, longest: tf.Tensor) -> tf.Tensor:
    """The state before each word, int32 [words], when the state before the first is 0.

    Args:
        following: int32 [words, states], the state after a word for each state before it.
        longest: after at most so many words comes one whose state after does not depend on the one before.
    """

    def step(reach: tf.Tensor, maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        composed = tf.gather(maps[reach:], maps[:-reach], batch_dims=1)
        return 2 * reach, tf.concat([maps[:reach], composed], 0)

    shape = tf.TensorShape([None, len(_STATES)])
    reach = tf.constant(1)
    _, maps = tf.while_loop(
        lambda reach, maps: reach < tf.minimum(longest, tf.shape(maps)[0]),
        step,
        (reach, following),
        shape_invariants=(reach.shape, shape),
    )
    return tf.concat([tf.zeros_like(maps[:1, 0]), maps[:-1, 0]], 0)


# Which lines begin a sentence, inside a TensorFlow graph, the same as `lines.find_line_boundaries` finds.
#
# Lines are flat tensors over all texts, as words are; only those that hold more than blanks and `>` are looked at.


@dataclass(frozen=True)
class _Lines:
    """Lines with content, as `lines._Line` describes them.

    Attributes:
        start, first, end, run: int32 [lines], places in the characters.
        joins: bool [lines], whether each belongs to the paragraph of the line before.
        opens, has_columns: bool [lines].
    """

    start: tf.Tensor
    first: tf.Tensor
    end: tf.Tensor
    run: tf.Tensor
    joins: tf.Tensor
    opens: tf.Tensor
    has_columns: tf.Tensor


class GraphLines:
    """Finds the words that begin a sentence because a line does, inside a graph."""

    def __init__(self) -> None:
        self._flags = character_tables().flags

    def __call__(self, words: TextWords) -> tf.Tensor:
        """Which words are the first of a line that begins a sentence: bool [words].

        In texts of one line each there is nothing to look at.
        """
        breaks = self._flag("line_end", words.types)
        return tf.cond(
            tf.reduce_any(breaks),
            lambda: self._first_words(words, breaks),
            lambda: tf.zeros_like(words.texts, tf.bool),
        )

    def _flag(self, name: str, types: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._flags[name], types)

    def _first_words(self, words: TextWords, breaks: tf.Tensor) -> tf.Tensor:
        codes = words.codes
        # The line feed of \r\n ends the line; the return before it is a blank at its end.
        returns = tf.equal(codes[:-1], ord("\r")) & tf.equal(codes[1:], ord("\n"))
        after_break = tf.concat([[False], breaks[:-1] & ~returns], 0)
        begins_text = _marks_at(words.text_starts, tf.size(codes))
        line_starts = tf.cast(tf.where(after_break | begins_text)[:, 0], tf.int32)
        lines, number = self._lines(words, line_starts, begins_text)
        begins = ~lines.joins | ~self._goes_on(words, lines, begins_text)
        own = tf.gather(tf.concat([begins, [False]], 0), number)  # of all lines
        line = tf.searchsorted(line_starts, words.starts, side="right") - 1
        return changes(line) & tf.gather(own, line)

    def _lines(
        self, words: TextWords, line_starts: tf.Tensor, begins_text: tf.Tensor
    ) -> tuple[_Lines, tf.Tensor]:
        """The lines with content, and the number of each line among them, or their count: int32 [all lines]."""
        codes, types = words.codes, words.types
        total = tf.size(codes)
        blank, quote = self._flag("blank", types), tf.equal(codes, ord(">"))
        stops = tf.concat([line_starts[1:], [total]], 0)
        first = tf.minimum(_next(~(blank | quote), line_starts, total), stops)
        kept = first < stops
        quoted = _count(quote, line_starts, first)
        before = tf.gather(codes, tf.maximum(line_starts - 1, 0))
        parted = tf.gather(begins_text, line_starts) | _has_code(before, rules.PARAGRAPH_ENDS)
        follows = tf.concat([[False], kept[:-1] & tf.equal(quoted[1:], quoted[:-1])], 0) & ~parted

        first, starts, stops = (tf.boolean_mask(column, kept) for column in (first, line_starts, stops))
        end = _last(~blank, stops) + 1
        run = tf.minimum(_next(blank, first, total), end)
        marks = tf.equal(_count(self._flag("mark", types), first, run), run - first)
        rule = marks & tf.equal(run, end)
        parts = tf.reduce_any([_ends_of(codes, mark) for mark in rules.COLUMNS], axis=0)
        found = _Lines(
            start=starts,
            first=first,
            end=end,
            run=run,
            joins=tf.boolean_mask(follows, kept) & ~rule & ~_before(rule),
            opens=marks | self._opens(words, first, run),
            has_columns=_count(parts, first, end) > 0,
        )
        number = tf.cumsum(tf.cast(kept, tf.int32)) - 1
        return found, tf.where(kept, number, tf.size(first))

    def _opens(self, words: TextWords, first: tf.Tensor, run: tf.Tensor) -> tf.Tensor:
        """Whether what stands before the first blank of a line is a bullet, a number, or a word with a colon."""
        types, size = words.types, run - first
        code_first, code_last = tf.gather(words.codes, first), tf.gather(words.codes, run - 1)
        digits = _count(self._flag("list_digit", types), first, run)
        letter = self._flag("capital", types) | self._flag("small", types)
        closed = _has_code(code_last, ")")
        number = tf.equal(digits, size - 1) & (closed | _has_code(code_last, "."))
        number |= tf.equal(digits, size - 2) & _has_code(code_first, "([") & _has_code(code_last, ")]")
        number &= (digits > 0) & (digits <= rules.MOST_DIGITS)
        alone = tf.equal(size, 2) | (tf.equal(size, 3) & _has_code(code_first, "("))
        point = closed & alone & tf.gather(letter, tf.maximum(run - 2, 0))
        key = self._flag("capital", tf.gather(types, first)) & _has_code(code_last, ":")
        return self._flag("bullet", tf.gather(types, first)) | number | point | key

    def _goes_on(self, words: TextWords, lines: _Lines, begins_text: tf.Tensor) -> tf.Tensor:
        """Which lines go on with what the line before has begun: bool [lines]."""
        types, codes = words.types, words.codes
        size = lines.end - lines.start
        ascii_run = _all_of_the_last((codes > 0x20) & (codes < 0x7F), rules.UNBROKEN)
        inside = tf.minimum(lines.first + rules.UNBROKEN - 1, lines.end)
        unbroken = _count(ascii_run, inside, lines.end) > 0
        paragraph = tf.cumsum(tf.cast(~lines.joins, tf.int32)) - 1
        width = tf.gather(tf.math.segment_max(tf.where(unbroken, 0, size), paragraph), paragraph)
        small = self._flag("small", tf.gather(types, lines.first))
        letter = self._flag("capital", types) | self._flag("small", types)
        hyphen = _has_code(tf.gather(codes, lines.end - 1), rules.HYPHENS)
        hyphen &= (lines.end - lines.first > 1) & tf.gather(letter, tf.maximum(lines.end - 2, 0))
        full = (_before(size) + 1 + lines.run - lines.first > width) | (_before(hyphen) & small)
        full &= (width >= rules.NARROWEST) & (width <= rules.WIDEST) & lines.joins
        full &= ~(lines.opens | lines.has_columns | _before(lines.has_columns))

        block = tf.cumsum(tf.cast(~full, tf.int32)) - 1
        blank_before = tf.concat([[True], self._flag("blank", types[:-1]) | tf.equal(codes[:-1], ord(">"))], 0)
        blank_before |= begins_text
        numbers = [
            tf.math.segment_sum(_count(self._flag(name, types) & blank_before, lines.first, lines.end), block)
            for name in ("small", "capital")
        ]
        goes_on, breaks = (tf.math.segment_sum(tf.cast(marks, tf.int32), block) for marks in (full & small, full))
        width = tf.math.segment_max(width, block)
        part, whole = rules.PROSE
        prose = (numbers[0] > 0) & (whole * numbers[0] >= part * (numbers[0] + numbers[1]))
        prose &= (width >= rules.WIDE) | (3 * goes_on >= breaks)
        return full & tf.gather(prose, block)


def _count(marks: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """How many marks stand between two places, int32."""
    total = tf.concat([[0], tf.cumsum(tf.cast(marks, tf.int32))], 0)
    return tf.gather(total, ends) - tf.gather(total, starts)


def _next(marks: tf.Tensor, places: tf.Tensor, none: tf.Tensor) -> tf.Tensor:
    """The first mark at or after each place, else `none`."""
    marked = tf.concat([tf.cast(tf.where(marks)[:, 0], tf.int32), [none]], 0)
    return tf.gather(marked, tf.searchsorted(marked[:-1], places - 1, side="right"))


def _last(marks: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """The last mark before each place; there must be one."""
    marked = tf.cast(tf.where(marks)[:, 0], tf.int32)
    return tf.gather(marked, tf.searchsorted(marked, places - 1, side="right") - 1)


def _all_of_the_last(marks: tf.Tensor, count: int) -> tf.Tensor:
    """Whether a place and those before it, `count` together, are all marked."""
    total = tf.concat([[0], tf.cumsum(tf.cast(marks, tf.int32))], 0)
    number = tf.range(tf.size(marks))
    return tf.equal(total[1:] - tf.gather(total, tf.maximum(number + 1 - count, 0)), count)


def _ends_of(codes: tf.Tensor, mark: str) -> tf.Tensor:
    """Where a mark of one character, repeated or not, ends: bool [characters]."""
    found = tf.equal(codes, ord(mark[0]))
    return _all_of_the_last(found, len(mark)) if len(mark) > 1 else found


def _has_code(codes: tf.Tensor, characters: str) -> tf.Tensor:
    return tf.reduce_any([tf.equal(codes, ord(character)) for character in characters], axis=0)


def _before(column: tf.Tensor) -> tf.Tensor:
    """What the line before has; of no interest at the first."""
    return tf.concat([column[:1], column[:-1]], 0)


def _marks_at(places: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """True at the places, bool [size]; places beyond it are left out."""
    return tf.scatter_nd(places[:, tf.newaxis], tf.ones_like(places), [size + 1])[:-1] > 0
