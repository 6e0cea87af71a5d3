"""Models room: linear-chain conditional random field over the words of a sentence, with IOB2's rules built in.

The one place TensorFlow Addons' CRF is used. Lafferty et al. 2001; decoding by Viterbi.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

FORBIDDEN = -1e4  # score of an illegal transition: its probability underflows to exactly 0


def compute_constraints(labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """IOB2's rules as scores: I-X may follow B-X or I-X only.

    Returns:
        (start float32 [labels], transitions float32 [labels, labels], from row to column), 0 or `FORBIDDEN`.
    """
    start = np.array([FORBIDDEN if label.startswith("I-") else 0.0 for label in labels], np.float32)
    transitions = np.zeros((len(labels), len(labels)), np.float32)
    for j, label in enumerate(labels):
        if label.startswith("I-"):
            legal = [before in (label, "B-" + label[2:]) for before in labels]
            transitions[:, j] = np.where(legal, 0.0, FORBIDDEN)
    return start, transitions


def compute_chain_loss(
    logits: tf.Tensor, labels: tf.Tensor, boundaries: tf.Tensor, transitions: tf.Tensor
) -> tf.Tensor:
    """Negative log-likelihood of all chains of a batch of packed rows, summed.

    The first pieces of words and the sentence boundaries of a row form one chain. A boundary is known to be `O`, which
    cuts the chain: the sentences left and right of it are independent, and the boundary stands for start and end.

    Args:
        logits: float32 [batch, length, labels].
        labels: int32 [batch, length], negative where nothing is scored.
        boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.
        transitions: float32 [labels, labels], constraints included; label 0 is `O`.
    """
    in_chain = boundaries | (labels >= 0)
    order, lengths = _chain_order(in_chain)
    chain_logits = tf.gather(_with_boundaries(logits, boundaries), order, batch_dims=1)
    chain_labels = tf.gather(tf.maximum(labels, 0), order, batch_dims=1)
    likelihood, _ = tfa.text.crf_log_likelihood(chain_logits, chain_labels, lengths, transitions)
    return -tf.reduce_sum(tf.where(lengths > 0, likelihood, 0.0))


def _with_boundaries(logits: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
    """Logits that know the boundaries to be `O`."""
    only_outside = tf.one_hot(0, tf.shape(logits)[-1], on_value=0.0, off_value=FORBIDDEN)
    return tf.where(boundaries[..., tf.newaxis], only_outside, logits)


def _chain_order(in_chain: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Positions [batch, length], those of the chain first and in their order; and lengths of the chains [batch]."""
    order = tf.argsort(tf.cast(~in_chain, tf.int32), axis=1, stable=True)
    return order, tf.reduce_sum(tf.cast(in_chain, tf.int32), axis=1)


def compute_chain_divergence(
    teacher: tf.Tensor,
    student: tf.Tensor,
    words: tf.Tensor,
    boundaries: tf.Tensor,
    teacher_transitions: tf.Tensor,
    student_transitions: tf.Tensor,
) -> tf.Tensor:
    """Kullback-Leibler divergence of the student's distribution over tag sequences from the teacher's, summed.

    Chains as in `compute_chain_loss`. With s the score of a sequence y, Z its normalizer and E_T the teacher's mean,
    KL = log Z_S - log Z_T + E_T[s_T(y) - s_S(y)], and the mean needs only the teacher's marginals of words and of
    pairs of neighbours, which are the gradient of log Z_T. The gradient by the student's logits is the difference of
    the marginals (compare Wang et al. 2020, "Structure-Level Knowledge Distillation for Multilingual Sequence
    Labeling", posterior distillation).

    Args:
        teacher: logits float32 [batch, length, labels], already divided by the temperature; no gradient reaches them.
        student: likewise, with a gradient.
        words: bool [batch, length], true at the first piece of each word to compare.
        boundaries: bool [batch, length].
        teacher_transitions: float32 [labels, labels], constraints included.
        student_transitions: likewise.
    """
    order, lengths = _chain_order(boundaries | words)

    def scores_of(logits: tf.Tensor) -> tf.Tensor:
        return tf.gather(_with_boundaries(logits, boundaries), order, batch_dims=1)

    teacher_scores = tf.stop_gradient(scores_of(teacher))
    teacher_transitions = tf.stop_gradient(teacher_transitions)
    with tf.GradientTape() as tape:
        tape.watch([teacher_scores, teacher_transitions])
        teacher_norm = tf.reduce_sum(tfa.text.crf_log_norm(teacher_scores, lengths, teacher_transitions))
    found = tape.gradient(teacher_norm, [teacher_scores, teacher_transitions])
    marginals, pairs = (tf.stop_gradient(each) for each in found)
    student_scores = scores_of(student)
    student_norm = tf.reduce_sum(tfa.text.crf_log_norm(student_scores, lengths, student_transitions))
    gained = tf.reduce_sum(marginals * (teacher_scores - student_scores))
    gained += tf.reduce_sum(pairs * (teacher_transitions - student_transitions))
    return student_norm - tf.stop_gradient(teacher_norm) + gained


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, None], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.float32),
    ]
)
def decode_tags(emissions: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Most probable label ids by Viterbi: int32 [sentences, words], 0 after a sentence's end.

    Args:
        emissions: float32 [sentences, words, labels], start scores already added to the first word.
        lengths: int32 [sentences].
        transitions: float32 [labels, labels], constraints included.
    """
    tags, _ = tfa.text.crf_decode(emissions, transitions, lengths)
    return tags


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, None], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.float32),
    ]
)
def compute_marginals(emissions: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Posterior probability of each label at each word: the gradient of the log partition function by the emissions.

    Arguments as in `decode_tags`; float32 [sentences, words, labels]. (Eisner 2016, "Inside-Outside and
    Forward-Backward Algorithms Are Just Backprop".)
    """
    with tf.GradientTape() as tape:
        tape.watch(emissions)
        total = tf.reduce_sum(tfa.text.crf_log_norm(emissions, lengths, transitions))
    return tape.gradient(total, emissions)
