"""Export room: Viterbi decoding of packed rows, in operations every TFLite runtime has and for any batch and length."""

import numpy as np
import tensorflow as tf

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
