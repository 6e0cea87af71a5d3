"""Training room: the losses of distillation, each summed over what it compares.

Soft labels: Hinton et al. 2015. Hidden states: Jiao et al. 2020 (TinyBERT). Self-attention relations: Wang et al. 2021
(MiniLMv2). Whole tag sequences: `compute_chain_divergence` (tagging/crf.py).
"""

import math
from collections.abc import Sequence

import tensorflow as tf


def compute_soft_loss(
    teachers: Sequence[tf.Tensor],
    student: tf.Tensor,
    words: tf.Tensor,
    temperature: float,
    *,
    independent: bool = False,
) -> tf.Tensor:
    """Divergence of the student's label probabilities from the teachers' mean, times the squared temperature, summed.

    Args:
        teachers: logits float32 [batch, length, labels] each.
        student: logits float32 [batch, length, labels].
        words: bool [batch, length], what is compared.
        temperature: divides all logits; the square keeps gradients at one size (Hinton et al. 2015, section 2).
        independent: whether each label is decided for itself: the divergences of all labels are added up.
    """
    if independent:
        divergence = _compare_independent([each / temperature for each in teachers], student / temperature)
        return temperature**2 * tf.reduce_sum(tf.where(words, divergence, 0.0))
    if len(teachers) == 1:
        log_mean = tf.nn.log_softmax(teachers[0] / temperature)
    else:
        logs = tf.stack([tf.nn.log_softmax(logits / temperature) for logits in teachers])
        log_mean = tf.reduce_logsumexp(logs, axis=0) - math.log(len(teachers))
    ours = tf.nn.log_softmax(student / temperature)
    divergence = tf.reduce_sum(tf.exp(log_mean) * (log_mean - ours), axis=-1)  # [batch, length]
    return temperature**2 * tf.reduce_sum(tf.where(words, divergence, 0.0))


def _compare_independent(teachers: Sequence[tf.Tensor], student: tf.Tensor) -> tf.Tensor:
    """Divergences of yes and no at each label, added up: logits float32 [..., labels] -> float32 [...].

    As cross-entropy less the teachers' own entropy, whose gradient is right also where a probability rounds to 0 or 1.
    """
    mean = tf.add_n([tf.sigmoid(each) for each in teachers]) / len(teachers)
    cross = tf.nn.sigmoid_cross_entropy_with_logits(mean, student)
    entropy = -tf.math.xlogy(mean, mean) - tf.math.xlogy(1.0 - mean, 1.0 - mean)
    return tf.reduce_sum(cross - entropy, axis=-1)


def compute_hidden_loss(teacher: tf.Tensor, student: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """Squared difference of hidden states, mean over the width and summed over real pieces.

    Args:
        teacher: float [batch, length, width].
        student: float [batch, length, width].
        windows: int32 [batch, length], 0 at padding.
    """
    difference = tf.cast(student, tf.float32) - tf.cast(teacher, tf.float32)
    squares = tf.reduce_mean(tf.square(difference), axis=-1)
    return tf.reduce_sum(tf.where(windows > 0, squares, 0.0))


def compute_relation_loss(teacher: tf.Tensor, student: tf.Tensor, windows: tf.Tensor, *, heads: int) -> tf.Tensor:
    """Divergence of self-attention relations, mean over relation heads and summed over real pieces.

    A relation head is a part of the vectors, whose scaled products with each other go through a softmax over the pieces
    of the window: the networks may differ in width and in number of attention heads (Wang et al. 2021, section 3.1).

    Args:
        teacher: queries, keys or values, float [batch, length, width]; the width is a multiple of `heads`.
        student: likewise, of any width that is a multiple of `heads`.
        windows: int32 [batch, length], the window of each piece, 0 at padding.
        heads: relation heads.
    """
    same = tf.equal(windows[:, tf.newaxis, :, tf.newaxis], windows[:, tf.newaxis, tf.newaxis, :])

    def log_relations(vectors: tf.Tensor) -> tf.Tensor:
        batch, length = tf.unstack(tf.shape(vectors)[:2])
        size = vectors.shape[-1] // heads
        parts = tf.reshape(tf.cast(vectors, tf.float32), [batch, length, heads, size])
        parts = tf.transpose(parts, [0, 2, 1, 3]) / size**0.25  # [batch, heads, length, size]
        return tf.nn.log_softmax(tf.where(same, tf.matmul(parts, parts, transpose_b=True), -1e9))

    theirs, ours = log_relations(teacher), log_relations(student)  # [batch, heads, length, length]
    divergence = tf.reduce_mean(tf.reduce_sum(tf.exp(theirs) * (theirs - ours), axis=-1), axis=1)
    return tf.reduce_sum(tf.where(windows > 0, divergence, 0.0))
