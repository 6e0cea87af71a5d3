"""Tasks room: raw text to entities inside a TensorFlow graph: the way around the network, and tags to names."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf

from app.data.graph_rows import GraphRows, Stream, Windows, run_words
from app.tasks.tagging import names as rules
from app.tasks.tagging.encoding import SentenceEncoder
from app.tasks.tagging.labels import OUTSIDE
from app.text.characters import character_tables
from app.text.graph_sentences import GraphSentences, number_parts
from app.text.graph_words import GraphShapes, GraphWords, TextWords, changes

_DROPPED = (rules.PICTURE, rules.ADDRESS)


class GraphNames:
    """Puts names together inside a graph.

    Args:
        labels: label names in id order.
        non_names: types that need be no names, see `names.find_names`.
    """

    def __init__(self, labels: Sequence[str], non_names: Collection[str]) -> None:
        types = sorted({label[2:] for label in labels if label != OUTSIDE})
        self._flags = character_tables().flags
        self._types = tf.constant(["", *types])
        self._type_of_label = [0 if label == OUTSIDE else types.index(label[2:]) + 1 for label in labels]
        self._inside = [label.startswith("I-") for label in labels]
        self._is_name = [False, *(kind not in non_names for kind in types)]  # [types]: entities must be names

    def __call__(
        self,
        words: TextWords,
        spelled: tf.Tensor,
        begins: tf.Tensor,
        tags: tf.Tensor,
        chances: tf.Tensor,
        texts: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Names of all texts, padded to the text with the most of them.

        Args:
            words: of the texts.
            spelled: string [words].
            begins: bool [words], true at the first word of each sentence.
            tags: int32 [words], label ids.
            chances: float32 [words], probability of each tag.
            texts: number of texts.

        Returns:
            as `GraphTagger.__call__`. The score is the smallest probability among the words that the model tagged.
        """
        kinds = self._kinds(words, spelled, tags)
        types = tf.gather(self._type_of_label, tags)
        types = tf.where(tf.gather(self._is_name, types) & _is_one_of(kinds, _DROPPED), 0, types)
        partner = _bracket_pairs(words, begins)
        types = self._without_single_brackets(words, begins, tags, types, partner)
        run, count = self._runs(types, tags, begins)

        label, left, right, kept = self._trimmed(types, kinds, run, count)
        number = tf.range(tf.size(tags))
        sure = (run >= 0) & (number >= _of_run(left, run)) & (number <= _of_run(right, run))
        score = tf.math.unsorted_segment_min(tf.boolean_mask(chances, sure), tf.boolean_mask(run, sure), count)
        label, left, right, score = (tf.boolean_mask(column, kept) for column in (label, left, right, score))

        last = tf.maximum(tf.size(tags) - 1, 0)
        opened, closed = (tf.gather(partner, tf.clip_by_value(at, 0, last)) for at in (left - 1, right + 1))
        start = tf.gather(words.starts, left - tf.cast((opened > left) & (opened <= right), tf.int32))
        end = tf.gather(words.ends, right + tf.cast((closed >= left) & (closed < right), tf.int32))
        text = tf.gather(words.texts, left)
        kept = ~(self._in_path(words, text, start, end) & tf.gather(self._is_name, label))
        offset = tf.gather(words.text_starts, text)
        found = {
            "label": tf.gather(self._types, label),
            "start": start - offset,
            "end": end - offset,
            "score": tf.minimum(score, 1.0),
        }
        text = tf.boolean_mask(text, kept)
        rows, size = tf.cast(text, tf.int64), tf.cast(texts, tf.int64)
        padded = {
            name: tf.RaggedTensor.from_value_rowids(
                tf.boolean_mask(column, kept), rows, size, validate=False
            ).to_tensor()
            for name, column in found.items()
        }
        return {"count": tf.math.bincount(text, minlength=texts, maxlength=texts), **padded}

    def _kinds(self, words: TextWords, spelled: tf.Tensor, tags: tf.Tensor) -> tf.Tensor:
        """As `names.word_kind` says, of the words that are tagged: int32 [words]."""
        chosen = tf.cast(tf.where(tf.gather(self._type_of_label, tags) > 0)[:, 0], tf.int32)
        starts, ends, spelled = (tf.gather(column, chosen) for column in (words.starts, words.ends, spelled))
        letters = tf.ragged.range(starts, ends)
        types = tf.gather(words.types, letters.flat_values)

        def are_all(name: str) -> tf.Tensor:
            others = tf.cast(~tf.gather(self._flags[name], types), tf.int32)
            return tf.equal(tf.math.unsorted_segment_sum(others, letters.value_rowids(), tf.size(starts)), 0)

        def match(pattern: str) -> tf.Tensor:
            return tf.strings.regex_full_match(spelled, f"(?s)(?:{pattern})")

        number = are_all("numeric") | match(rules.NUMBER_PATTERN)
        number |= match(rules.HASH_PATTERN) & match(rules.HASH_DIGITS)
        kinds = tf.where(match(rules.CALENDAR_PATTERN), rules.CALENDAR, rules.NAME)
        kinds = tf.where(number, rules.NUMBER, kinds)
        kinds = tf.where(match(rules.ADDRESS_PATTERN), rules.ADDRESS, kinds)
        kinds = tf.where(are_all("sign"), rules.SIGN, kinds)
        picture = tf.gather(self._flags["picture"], tf.gather(words.types, starts))
        kinds = tf.where(picture, rules.PICTURE, kinds)
        return tf.scatter_nd(chosen[:, tf.newaxis], kinds, [tf.size(tags)])

    def _runs(self, types: tf.Tensor, tags: tf.Tensor, begins: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs of tags as `labels.spans` reads them: the number of each word's run, -1 outside, and how many."""
        same = tf.concat([tf.zeros_like(begins[:1]), tf.equal(types[1:], types[:-1])], 0)[: tf.size(types)]
        goes_on = tf.gather(self._inside, tags) & same & ~begins
        firsts = tf.cast((types > 0) & ~goes_on, tf.int32)
        return tf.where(types > 0, tf.cumsum(firsts) - 1, -1), tf.reduce_sum(firsts)

    def _without_single_brackets(
        self, words: TextWords, begins: tf.Tensor, tags: tf.Tensor, types: tf.Tensor, partner: tf.Tensor
    ) -> tf.Tensor:
        """As `names._without_single_brackets`: int32 [words], the types that are left."""
        run, _ = self._runs(types, tags, begins)
        number, last = tf.range(tf.size(tags)), tf.maximum(tf.size(tags) - 1, 0)
        opener, closer = tf.minimum(number, partner), tf.maximum(number, partner)
        first, end = (tf.gather(run, tf.clip_by_value(at, 0, last)) for at in (opener + 1, closer - 1))
        paired = (partner >= 0) & (opener + 1 < closer) & tf.equal(first, run) & tf.equal(end, run)
        single = tf.not_equal(_brackets(words), 0) & ~paired
        return tf.where(single & tf.gather(self._is_name, types), 0, types)

    def _trimmed(
        self, types: tf.Tensor, kinds: tf.Tensor, run: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of each run its type, its first and last word without signs, and whether it is kept: [runs] each."""
        number, inside = tf.range(tf.size(run)), run >= 0
        solid = inside & ~_is_one_of(kinds, (rules.SIGN, rules.PICTURE))

        def bounds(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            places, runs = tf.boolean_mask(number, chosen), tf.boolean_mask(run, chosen)
            return tf.math.unsorted_segment_min(places, runs, count), tf.math.unsorted_segment_max(places, runs, count)

        def has(kind: int) -> tf.Tensor:
            chosen = tf.boolean_mask(run, inside & tf.equal(kinds, kind))
            return tf.math.unsorted_segment_sum(tf.ones_like(chosen), chosen, count) > 0

        (first, last), (left, right) = bounds(inside), bounds(solid)
        label = tf.gather(types, first)
        is_name, has_solid = tf.gather(self._is_name, label), right >= 0
        non_name = ~has(rules.NAME) & (has(rules.NUMBER) | ~has(rules.CALENDAR))
        kept = tf.where(is_name, has_solid & ~non_name, True)
        return label, tf.where(has_solid, left, first), tf.where(has_solid, right, last), kept

    def _in_path(self, words: TextWords, text: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """As `names.is_in_path`, bool [names]; `start` and `end` are places in the characters of all texts."""
        blanks = tf.cast(tf.where(tf.gather(self._flags["blank"], words.types))[:, 0], tf.int32)
        blanks = tf.concat([[-1], blanks, [tf.size(words.codes)]], 0)
        first = tf.gather(blanks, tf.searchsorted(blanks, start, side="right") - 1) + 1
        first = tf.maximum(first, tf.gather(words.text_starts, text))
        last = tf.gather(blanks, tf.searchsorted(blanks, end - 1, side="right"))
        last = tf.minimum(last, tf.gather(words.text_starts, text + 1))
        first = tf.where(last - first > rules.LONGEST_PATH, last, first)  # too long for a path: nothing
        letters = tf.ragged.range(first, last)
        letters = letters.with_flat_values(tf.gather(words.codes, letters.flat_values))
        spelled = tf.strings.unicode_encode(letters, "UTF-8")
        return tf.strings.regex_full_match(spelled, f"(?s)(?:{rules.PATH_PATTERN})")


def _of_run(column: tf.Tensor, run: tf.Tensor) -> tf.Tensor:
    """What each word's run has; 0 outside."""
    return tf.gather(tf.concat([[0], column], 0), run + 1)


def _is_one_of(kinds: tf.Tensor, chosen: Sequence[int]) -> tf.Tensor:
    return tf.reduce_any([tf.equal(kinds, kind) for kind in chosen], axis=0)


def _brackets(words: TextWords) -> tf.Tensor:
    """The pair a bracket belongs to, negative for closing ones; 0 for other words: int32 [words]."""
    code = tf.where(tf.equal(words.ends - words.starts, 1), tf.gather(words.codes, words.starts), 0)
    found = tf.zeros_like(code)
    for number, pair in enumerate(rules.BRACKETS, start=1):
        found = tf.where(tf.equal(code, ord(pair[0])), number, tf.where(tf.equal(code, ord(pair[1])), -number, found))
    return found


def _bracket_pairs(words: TextWords, begins: tf.Tensor) -> tf.Tensor:
    """As `names._bracket_pairs`: the partner of each bracket, -1 for all other words: int32 [words]."""
    brackets, sentence = _brackets(words), tf.cumsum(tf.cast(begins, tf.int32))
    places = tf.cast(tf.where(tf.not_equal(brackets, 0))[:, 0], tf.int32)
    left, right = places[:-1], places[1:]
    opens = tf.gather(brackets, left) > 0
    pairs = opens & tf.equal(tf.gather(brackets, left), -tf.gather(brackets, right))
    pairs &= tf.equal(tf.gather(sentence, left), tf.gather(sentence, right))
    left, right = tf.boolean_mask(left, pairs), tf.boolean_mask(right, pairs)
    at, partner = tf.concat([left, right], 0), tf.concat([right, left], 0)
    return tf.scatter_nd(at[:, tf.newaxis], partner + 1, [tf.size(brackets)]) - 1


# The way from raw text to entities inside a TensorFlow graph, around a network and a decoder.
#
# The same steps as `--mode=predict` takes on arrays: words, sentences, windows, tags, entities with character offsets.


# features, places int32 [scored, 2] as window and piece, windows ascending -> logits float32 [scored, labels]
Network = Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]
# emissions float32 [words, labels], bool [words] where sentences begin -> (label ids, probabilities) [words]
Decode = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]



# What `GraphTagger` gives.
TEXT_OUTPUTS: dict[str, dict[str, Any]] = {
    "count": {"type": "int32", "shape": ["batch"], "meaning": "entities of each text"},
    "label": {"type": "string", "shape": ["batch", "most"], "meaning": "type; empty after the last entity"},
    "start": {"type": "int32", "shape": ["batch", "most"], "meaning": "first character"},
    "end": {"type": "int32", "shape": ["batch", "most"], "meaning": "one after the last character"},
    "score": {"type": "float32", "shape": ["batch", "most"], "meaning": "probability of its least sure word"},
}


class GraphTagger:
    """Finds the entities of texts inside a graph.

    Args:
        encoder: vocabulary, labels and row length of the model.
        network: the tagger, asked for the first pieces of words alone.
        decode: emissions to label ids.
        split_sentences: whether texts are split into sentences first.
        longest_sentence: words; longer sentences are cut.
        non_names: entity types that need be no names, see `names.find_names`.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        network: Network,
        decode: Decode,
        *,
        split_sentences: bool,
        longest_sentence: int,
        non_names: Collection[str] = (),
    ) -> None:
        self._words, self._sentences, self._shapes = GraphWords(), GraphSentences(), GraphShapes()
        self._rows = GraphRows(encoder)
        self._network, self._decode = network, decode
        self._more = getattr(network, "columns", 0)  # see `EarlyNetwork`
        self._by_document, self._split = encoder.by_document, split_sentences
        self._longest = longest_sentence
        self._labels = encoder.labels
        self._names = GraphNames(encoder.labels, non_names)

    def __call__(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Entities of texts of any length, padded to the text with the most of them.

        Args:
            texts: string [texts].

        Returns:
            `count` int32 [texts]; `label` string, `start` and `end` int32, `score` float32 [texts, entities], padded
            with empty strings and zeros. Offsets count Unicode characters of the text as given. If rows may leave the
            network early, `layer` int32 [texts]: that of the part of the text which went deepest, 0 without words.
        """
        words = self._words(texts)
        letters = tf.ragged.range(words.starts, words.ends)
        letters = letters.with_flat_values(tf.gather(words.codes, letters.flat_values))
        spelled = tf.strings.unicode_encode(letters, "UTF-8")
        first_of_text = changes(words.texts)
        begins = self._sentences(words, spelled) if self._split else first_of_text
        begins = number_parts(begins, self._longest)
        shapes = self._shapes(words.types, words.starts, words.ends)
        stream = self._rows.encode(spelled, shapes, begins)
        windows = self._rows.cut(stream, begins, first_of_text if self._by_document else begins)
        emissions = self._emissions(stream, windows, tf.size(begins))
        tags, chances = self._decode(emissions[:, : len(self._labels)], begins)
        found = self._names(words, spelled, begins, tags, chances, tf.size(texts))
        if self._more:
            layers = tf.cast(emissions[:, -1], tf.int32)
            deepest = tf.math.unsorted_segment_max(layers, words.texts, tf.size(texts))
            found["layer"] = tf.maximum(deepest, 0)  # of a text without words the least integer
        return found

    def _emissions(self, stream: Stream, windows: Windows, words: tf.Tensor) -> tf.Tensor:
        """Logits of the first piece of every word, float32 [words, labels]; with exits one column more, its layer."""
        columns = len(self._labels) + self._more
        return run_words(self._rows, stream, windows, self._network, words=words, labels=columns)
