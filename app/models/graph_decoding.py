"""Models room: Viterbi decoding inside a TensorFlow graph, as `heads.decode_sentences` does it on arrays."""

import tensorflow as tf

from app.models.crf import compute_marginals, decode_tags
from app.models.heads import DecodingScores

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
        marginals = compute_marginals(batch, lengths, self._scoring.transitions)
        chances = tf.gather(marginals, tags, batch_dims=2)
        return (
            tf.boolean_mask(words, inside)[:, tf.newaxis],
            tf.boolean_mask(tags, inside),
            tf.boolean_mask(chances, inside),
        )
