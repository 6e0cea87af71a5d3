"""Data room: words to windows of word pieces inside a TensorFlow graph, the same as `packing.py` cuts.

Everything is flat: the pieces of all documents form one stream, `[SEP]` after each sentence, and words, sentences and
windows are places in it. Loops run over the windows of the longest document, all documents at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf
import tensorflow_text as tf_text

from app.data.encoding import Encoder


@dataclass(frozen=True)
class Stream:
    """The pieces of all words. `ids`, `shapes`: int32 [pieces]; `starts`: int32 [words + 1], where each word begins."""

    ids: tf.Tensor
    shapes: tf.Tensor
    starts: tf.Tensor


@dataclass(frozen=True)
class Windows:
    """Words [left, right) are read, words [core_left, core_right) are scored: int32 [windows] each."""

    left: tf.Tensor
    core_left: tf.Tensor
    core_right: tf.Tensor
    right: tf.Tensor


class GraphRows:
    """Turns words into windows and windows into rows of a batch, inside a graph."""

    def __init__(self, encoder: Encoder) -> None:
        pieces = encoder.pieces
        self._tokenizer = tf_text.FastBertTokenizer(
            vocab=pieces.vocabulary, token_out_type=tf.int32, lower_case_nfd_strip_accents=pieces.lowercase
        )
        self._start_id, self._end_id = pieces.start_id, pieces.end_id
        self._pad_id, self._unknown_id = pieces.pad_id, pieces.unknown_id
        self._capacity, self._context = encoder.max_length - 1, encoder.overlap
        self._longest_word = encoder.max_pieces_per_word

    def encode(self, spelled: tf.Tensor, shapes: tf.Tensor, begins: tf.Tensor) -> Stream:
        """The stream of pieces.

        Args:
            spelled: string [words].
            shapes: int32 [words].
            begins: bool [words], true at the first word of each sentence.
        """
        found = self._tokenizer.tokenize(spelled)
        found = found.merge_dims(1, -1) if found.ragged_rank > 1 else found
        lengths = tf.cast(found.row_lengths(), tf.int32)
        firsts = tf.cast(found.row_splits[:-1], tf.int32)
        kept = tf.clip_by_value(lengths, 1, self._longest_word)
        ends = tf.concat([begins[1:], tf.ones_like(begins[:1])], 0)[: tf.size(begins)]
        sizes = kept + tf.cast(ends, tf.int32)
        starts = tf.concat([[0], tf.cumsum(sizes)], 0)
        word = tf.repeat(tf.range(tf.size(sizes)), sizes)
        inside = tf.range(starts[-1]) - tf.gather(starts, word)
        is_end = tf.equal(inside, tf.gather(kept, word))
        known = tf.concat([found.flat_values, [self._unknown_id]], 0)
        unknown = tf.equal(tf.gather(lengths, word), 0)
        last = tf.size(known) - 1
        ids = tf.gather(known, tf.where(unknown, last, tf.minimum(tf.gather(firsts, word) + inside, last)))
        return Stream(tf.where(is_end, self._end_id, ids), tf.where(is_end, 0, tf.gather(shapes, word)), starts)

    def cut(self, stream: Stream, begins: tf.Tensor, begins_document: tf.Tensor) -> Windows:
        """The windows of all documents, as `packing.cut_windows` cuts each.

        Args:
            stream: from `encode`.
            begins: bool [words], true at the first word of each sentence.
            begins_document: bool [words], likewise of each document.
        """
        words = tf.size(begins)
        firsts = tf.cast(tf.where(begins_document)[:, 0], tf.int32)  # [documents]
        unit_firsts = self._units(stream.starts, begins)
        unit_ends = tf.concat([unit_firsts, [words]], 0)[1:]
        core_left, core_right = self._cores(stream.starts, firsts, unit_firsts, unit_ends)
        if not self._context:
            return Windows(core_left, core_left, core_right, core_right)
        ends = tf.concat([firsts, [words]], 0)[1:]
        document = tf.searchsorted(firsts, core_left, side="right") - 1
        return self._widen(stream.starts, core_left, core_right, tf.gather(firsts, document), tf.gather(ends, document))

    def _units(self, starts: tf.Tensor, begins: tf.Tensor) -> tf.Tensor:
        """First words of the units: sentences, and runs of words of sentences that are too long. int32 [units]."""
        limit = self._capacity - self._context
        left = tf.cast(tf.where(begins)[:, 0], tf.int32)
        ends = tf.concat([left, [tf.size(begins)]], 0)[1:]

        def too_long(left: tf.Tensor) -> tf.Tensor:
            return tf.gather(starts, ends) - tf.gather(starts, left) > limit

        def step(left: tf.Tensor, marks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            fits = tf.searchsorted(starts, tf.gather(starts, left) + limit, side="right") - 1
            right = tf.where(too_long(left), tf.maximum(fits, left + 1), left)
            return right, tf.tensor_scatter_nd_update(marks, right[:, tf.newaxis], tf.ones_like(right, tf.bool))

        # A last word too long by itself would mark the end of all words, which begins nothing.
        marks = tf.concat([begins, [False]], 0)
        _, marks = tf.while_loop(lambda left, _: tf.reduce_any(too_long(left)), step, (left, marks))
        return tf.cast(tf.where(marks[:-1])[:, 0], tf.int32)

    def _cores(
        self, starts: tf.Tensor, firsts: tf.Tensor, unit_firsts: tf.Tensor, unit_ends: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """First word and end of the cores, in the order of the documents: int32 [windows] each."""
        first_units = _first_at_least(unit_firsts, firsts)
        end_units = tf.concat([first_units, [tf.size(unit_firsts)]], 0)[1:]
        unit_starts, unit_stops = tf.gather(starts, unit_firsts), tf.gather(starts, unit_ends)
        half, last = self._context // 2, tf.maximum(tf.size(unit_firsts) - 1, 0)

        def end_of(unit: tf.Tensor) -> tf.Tensor:
            """The unit after the core that begins with a unit, [documents]."""
            here, is_first = tf.minimum(unit, last), tf.equal(unit, first_units)
            begin = tf.gather(unit_starts, here)
            room = self._capacity - tf.where(is_first, half, self._context)
            room_at_end = self._capacity - tf.where(is_first, 0, half)
            end = tf.searchsorted(unit_stops, begin + room, side="right")
            end = tf.minimum(tf.maximum(end, unit + 1), end_units)
            rest = tf.gather(unit_stops, end_units - 1) - begin
            return tf.where(tf.equal(end, end_units - 1) & (rest <= room_at_end), end_units, end)

        def step(
            i: tf.Tensor, unit: tf.Tensor, lefts: tf.TensorArray, rights: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray, tf.TensorArray]:
            end = tf.where(unit < end_units, end_of(unit), unit)
            return i + 1, end, lefts.write(i, unit), rights.write(i, end)

        empty = [tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=[None]) for _ in range(2)]
        _, _, lefts, rights = tf.while_loop(
            lambda i, unit, *_: tf.equal(i, 0) | tf.reduce_any(unit < end_units),
            step,
            (tf.constant(0), first_units, *empty),
        )
        left, right = tf.transpose(lefts.stack()), tf.transpose(rights.stack())  # [documents, steps]
        used = left < right
        left, right = tf.boolean_mask(left, used), tf.boolean_mask(right, used)
        return tf.gather(unit_firsts, left), tf.gather(unit_ends, right - 1)

    def _widen(self, starts: tf.Tensor, left: tf.Tensor, right: tf.Tensor, first: tf.Tensor, end: tf.Tensor) -> Windows:
        """Context on both sides of the cores, as `packing._widened` adds it."""
        at_left, at_right = tf.gather(starts, left), tf.gather(starts, right)
        spare = self._capacity - (at_right - at_left)
        before, after = at_left - tf.gather(starts, first), tf.gather(starts, end) - at_right
        take_before = tf.minimum(before, tf.maximum(spare // 2, spare - after))
        outer_left = _first_at_least(starts, at_left - take_before)
        take_after = tf.minimum(spare - (at_left - tf.gather(starts, outer_left)), after)
        outer_right = tf.searchsorted(starts, at_right + take_after, side="right") - 1
        return Windows(outer_left, left, right, outer_right)

    def sizes(self, stream: Stream, windows: Windows) -> tf.Tensor:
        """Pieces of each window, `[CLS]` included, int32 [windows]."""
        return tf.gather(stream.starts, windows.right) - tf.gather(stream.starts, windows.left) + 1

    def batch(
        self, stream: Stream, windows: Windows, chosen: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Some of the windows as a batch as long as the longest of them.

        Returns:
            (features int32 [windows, length], words int32 [scored], places int32 [scored, 2] of their first pieces).
        """
        left = tf.gather(stream.starts, tf.gather(windows.left, chosen))
        size = tf.gather(self.sizes(stream, windows), chosen)
        at = tf.range(tf.reduce_max(size) - 1)
        inside = at < size[:, tf.newaxis] - 1
        source = tf.where(inside, left[:, tf.newaxis] + at, 0)
        features = {
            "token_ids": tf.pad(
                tf.where(inside, tf.gather(stream.ids, source), self._pad_id), [[0, 0], [1, 0]],
                constant_values=self._start_id,
            ),
            "shape_ids": tf.pad(tf.where(inside, tf.gather(stream.shapes, source), 0), [[0, 0], [1, 0]]),
            "padding_mask": tf.pad(tf.cast(inside, tf.int32), [[0, 0], [1, 0]], constant_values=1),
        }  # fmt: skip
        words = tf.ragged.range(tf.gather(windows.core_left, chosen), tf.gather(windows.core_right, chosen))
        row = tf.cast(words.value_rowids(), tf.int32)
        place = tf.gather(stream.starts, words.flat_values) - tf.gather(left, row) + 1
        return features, words.flat_values, tf.stack([row, place], axis=1)


def _first_at_least(ascending: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Places of the first numbers that are not smaller, int32; `side="left"`, which TFLite lacks, by `side="right"`."""
    return tf.searchsorted(ascending, values - 1, side="right")


# How the rows of many windows are computed.

PIECES_AT_A_TIME = 512  # padding included; small batches fit the caches of a CPU (docs/results.md)
BATCHES_AT_A_TIME = 4  # while one waits for memory, another computes
WINDOWS_AT_A_TIME = 256

# features, places int32 [scored, 2] as window and piece, windows ascending -> logits float32 [scored, labels]
Network = Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]


def run_words(
    rows: GraphRows, stream: Stream, windows: Windows, network: Network, *, words: tf.Tensor, labels: int
) -> tf.Tensor:
    """Logits of the first piece of every word, float32 [words, labels]."""
    return _run(rows, stream, windows, network, units=words, labels=labels, by_window=False)


def run_windows(rows: GraphRows, stream: Stream, windows: Windows, network: Network, *, labels: int) -> tf.Tensor:
    """Logits of each window, float32 [windows, labels], from a network that is asked for one place in each."""
    count = tf.size(windows.left)
    return _run(rows, stream, windows, network, units=count, labels=labels, by_window=True)


def _run(
    rows: GraphRows,
    stream: Stream,
    windows: Windows,
    network: Network,
    *,
    units: tf.Tensor,
    labels: int,
    by_window: bool,
) -> tf.Tensor:
    """Windows of about one length go together through the network."""
    sizes = rows.sizes(stream, windows)
    order = tf.argsort(sizes, stable=True)
    sizes = tf.gather(sizes, order)

    def step(at: tf.Tensor, emissions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ahead = sizes[at : at + WINDOWS_AT_A_TIME]
        pieces = ahead * (1 + tf.range(tf.size(ahead)))  # of a batch that ends with each
        end = at + tf.maximum(1, tf.reduce_sum(tf.cast(pieces <= PIECES_AT_A_TIME, tf.int32)))
        features, words, places = rows.batch(stream, windows, order[at:end])
        found = network(features, places)
        scored = order[at:end] if by_window else words
        return end, tf.tensor_scatter_nd_update(emissions, scored[:, tf.newaxis], found)

    _, emissions = tf.while_loop(
        lambda at, _: at < tf.size(order),
        step,
        (tf.constant(0), tf.zeros([units, labels])),
        parallel_iterations=BATCHES_AT_A_TIME,
    )
    return emissions
