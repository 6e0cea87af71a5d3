"""Data room: words to sentences inside a TensorFlow graph, the same as `raw_text.split_sentences` finds.

Whether a word begins a sentence depends on what the words since the last beginning left behind: one of eight states.
Each word is a map from the state before it to the state after it, and the states before all words come out of one
parallel prefix composition of these maps (Hillis & Steele 1986), in as many steps as the number of words has binary
digits.
"""

from collections.abc import Iterable

import tensorflow as tf

from app.data import raw_text
from app.data.characters import character_tables
from app.data.graph_lines import GraphLines
from app.data.graph_words import TextWords, changes

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
        """As `raw_text._ending` says: index into _ENDINGS; whether the word only closes; whether it is a quote."""
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
        """As `raw_text._begins_sentence` says: which words begin one after each ending."""
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
