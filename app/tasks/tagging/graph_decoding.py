"""Tasks room: Viterbi decoding inside a TensorFlow graph, as `head.decode_sentences` does it on arrays."""

import numpy as np
import tensorflow as tf

from app.tasks.tagging.crf import decode_tags
from app.tasks.tagging.head import DecodingScores

SENTENCES_AT_A_TIME = 256  # bounds memory; sentences of one length are decoded together


class GraphDecoder:
    """Label ids and their posterior probabilities, inside a graph.

    Args:
        scoring: start, transition and end scores, which become constants of the graph.
    """

    def __init__(self, scoring: DecodingScores) -> None:
        self._scoring = scoring

    def __call__(self, emissions: tf.Tensor, begins: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes sentences.

        Args:
            emissions: float32 [words, labels].
            begins: bool [words], true at the first word of each sentence.

        Returns:
            (label ids int32 [words], probability of each chosen label float32 [words]).
        """
        firsts = tf.cast(tf.where(begins)[:, 0], tf.int32)
        lengths = tf.concat([firsts[1:], [tf.size(begins)]], 0)[: tf.size(firsts)] - firsts
        order = tf.argsort(lengths, stable=True)

        def step(at: tf.Tensor, tags: tf.Tensor, chances: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            chosen = order[at : at + SENTENCES_AT_A_TIME]
            places, found, chance = self._decode(emissions, tf.gather(firsts, chosen), tf.gather(lengths, chosen))
            tags = tf.tensor_scatter_nd_update(tags, places, found)
            chances = tf.tensor_scatter_nd_update(chances, places, chance)
            return at + SENTENCES_AT_A_TIME, tags, chances

        words = tf.shape(begins)
        _, tags, chances = tf.while_loop(
            lambda at, *_: at < tf.size(order),
            step,
            (tf.constant(0), tf.zeros(words, tf.int32), tf.zeros(words, tf.float32)),
            parallel_iterations=1,
        )
        return tags, chances

    def _decode(
        self, emissions: tf.Tensor, firsts: tf.Tensor, lengths: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Some sentences as one batch: (word numbers int32 [found, 1], their label ids, their probabilities)."""
        at = tf.range(tf.reduce_max(lengths))
        inside = at < lengths[:, tf.newaxis]  # [sentences, longest]
        words = tf.where(inside, firsts[:, tf.newaxis] + at, 0)
        batch = tf.where(inside[..., tf.newaxis], tf.gather(emissions, words), 0.0)
        start, end = tf.equal(at, 0), tf.equal(at, lengths[:, tf.newaxis] - 1)
        batch += tf.where(start[:, tf.newaxis], self._scoring.start, 0.0)
        batch += tf.where(end[..., tf.newaxis], self._scoring.end, 0.0)
        tags = decode_tags(batch, lengths, self._scoring.transitions)
        marginals = self._scoring.find_marginals(batch, lengths)
        chances = tf.gather(marginals, tags, batch_dims=2)
        return (
            tf.boolean_mask(words, inside)[:, tf.newaxis],
            tf.boolean_mask(tags, inside),
            tf.boolean_mask(chances, inside),
        )


# Viterbi decoding of packed rows, in operations every TFLite runtime has and for any batch and length.


NEVER = -1e9  # score of what cannot be; far below any sum of real scores of a row
UNTAGGED = -1  # tag of a position that is not the first piece of a word


def decode_rows(logits: tf.Tensor, word_starts: tf.Tensor, boundaries: tf.Tensor, transitions: np.ndarray) -> tf.Tensor:
    """Most probable label ids of the words of each row.

    First pieces of words and sentence boundaries form one chain, as in training. A boundary is known to be `O` (label
    0), which makes the sentences left and right of it independent: the tags are those of each sentence by itself.
    Other positions are passed over. Rows without a word start are not decoded, so that logits alone cost no decoding.

    Args:
        logits: float32 [batch, length, labels].
        word_starts: bool [batch, length], true at the first piece of each word to tag.
        boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.
        transitions: float32 [labels, labels], from row to column, constraints included.

    Returns:
        int32 [batch, length], `UNTAGGED` where there is no word start.
    """
    count = logits.shape[-1]
    batch, length = tf.unstack(tf.shape(logits)[:2])
    outside = tf.one_hot([[0]], count, on_value=0.0, off_value=NEVER)  # [1, 1, labels]
    emissions = tf.where(tf.expand_dims(boundaries, -1), outside, logits)
    emissions = tf.transpose(emissions, [1, 0, 2])  # [length, batch, labels]
    in_chain = tf.transpose(tf.cast(boundaries | word_starts, tf.int32))  # [length, batch]
    steps = length * tf.reduce_max(tf.cast(word_starts, tf.int32))
    labels = tf.constant(np.arange(count, dtype=np.int32)[np.newaxis])  # [1, labels]
    columns = tf.reshape(tf.range(length), [1, 1, -1])
    scores_between = tf.constant(transitions[np.newaxis])

    def step(at: tf.Tensor, best: tf.Tensor, paths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        scores = tf.expand_dims(best, -1) + scores_between  # [batch, from, to]
        reached = tf.reduce_max(scores, axis=1) + tf.gather(emissions, at)
        reached -= tf.reduce_max(reached, axis=1, keepdims=True)  # keeps float32 exact enough in long rows
        active = tf.expand_dims(tf.gather(in_chain, at), -1) > 0  # [batch, 1]
        before = tf.where(active, tf.argmax(scores, axis=1, output_type=tf.int32), labels)
        paths = tf.gather(paths, before, batch_dims=1)  # [batch, labels, length]
        paths = tf.where(tf.equal(columns, at), tf.expand_dims(labels, -1), paths)
        return at + 1, tf.where(active, reached, best), paths

    start = tf.zeros(tf.stack([batch, 1])) + outside[0]
    _, best, paths = tf.while_loop(
        lambda at, *_: at < steps,
        step,
        (tf.constant(0), start, tf.zeros(tf.stack([batch, count, length]), tf.int32)),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, count]),
            tf.TensorShape([None, count, None]),
        ),
    )
    tags = tf.gather(paths, tf.argmax(best, axis=1, output_type=tf.int32), batch_dims=1)
    return tf.where(word_starts, tags, UNTAGGED)
