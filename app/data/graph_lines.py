"""Data room: which lines begin a sentence, inside a TensorFlow graph, the same as `lines.find_line_boundaries` finds.

Lines are flat tensors over all texts, as words are; only those that hold more than blanks and `>` are looked at.
"""

from dataclasses import dataclass

import tensorflow as tf

from app.data import lines as rules
from app.data.characters import character_tables
from app.data.graph_words import TextWords, changes


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
        parted = tf.gather(begins_text, line_starts) | _is_one_of(before, rules.PARAGRAPH_ENDS)
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
        closed = _is_one_of(code_last, ")")
        number = tf.equal(digits, size - 1) & (closed | _is_one_of(code_last, "."))
        number |= tf.equal(digits, size - 2) & _is_one_of(code_first, "([") & _is_one_of(code_last, ")]")
        number &= (digits > 0) & (digits <= rules.MOST_DIGITS)
        alone = tf.equal(size, 2) | (tf.equal(size, 3) & _is_one_of(code_first, "("))
        point = closed & alone & tf.gather(letter, tf.maximum(run - 2, 0))
        key = self._flag("capital", tf.gather(types, first)) & _is_one_of(code_last, ":")
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
        hyphen = _is_one_of(tf.gather(codes, lines.end - 1), rules.HYPHENS)
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


def _is_one_of(codes: tf.Tensor, characters: str) -> tf.Tensor:
    return tf.reduce_any([tf.equal(codes, ord(character)) for character in characters], axis=0)


def _before(column: tf.Tensor) -> tf.Tensor:
    """What the line before has; of no interest at the first."""
    return tf.concat([column[:1], column[:-1]], 0)


def _marks_at(places: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """True at the places, bool [size]; places beyond it are left out."""
    return tf.scatter_nd(places[:, tf.newaxis], tf.ones_like(places), [size + 1])[:-1] > 0
