"""Each loss of distillation against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from app.training.distillation.losses import compute_hidden_loss, compute_relation_loss, compute_soft_loss

rng = np.random.default_rng(5)


def test_the_soft_loss_is_the_divergence_from_the_mean_of_the_teachers_times_the_squared_temperature():
    first, second, ours = rng.normal(size=(3, 2, 6, 5)).astype(np.float32)
    words = rng.random((2, 6)) < 0.6
    mean = (np.exp(log_softmax(first / 2, axis=-1)) + np.exp(log_softmax(second / 2, axis=-1))) / 2
    expected = 4 * (mean * (np.log(mean) - log_softmax(ours / 2, axis=-1))).sum(-1)[words].sum()
    found = compute_soft_loss([tf.constant(first), tf.constant(second)], tf.constant(ours), tf.constant(words), 2.0)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    alone = compute_soft_loss([tf.constant(first)], tf.constant(first), tf.constant(words), 2.0)
    assert float(alone) == 0.0 < float(found)


def test_the_soft_loss_of_independent_labels_is_the_sum_of_the_divergences_of_yes_and_no_at_each():
    first, second, ours = rng.normal(size=(3, 2, 6, 5)).astype(np.float32)
    words = rng.random((2, 6)) < 0.6

    def chances(logits):
        return 1 / (1 + np.exp(-logits.astype(np.float64) / 3))

    mean, own = (chances(first) + chances(second)) / 2, chances(ours)
    both = mean * np.log(mean / own) + (1 - mean) * np.log((1 - mean) / (1 - own))
    tensors = [tf.constant(first), tf.constant(second)], tf.constant(ours), tf.constant(words)
    found = compute_soft_loss(*tensors, 3.0, independent=True)
    assert float(found) == pytest.approx(9 * both.sum(-1)[words].sum(), rel=1e-4)
    certain = tf.constant([[[200.0, -200.0]]])
    alone = compute_soft_loss([certain], certain, tf.constant([[True]]), 1.0, independent=True)
    assert float(alone) == 0.0


def test_the_hidden_loss_is_the_mean_square_over_the_width_summed_over_real_pieces():
    teacher, ours = rng.normal(size=(2, 2, 5, 8)).astype(np.float32)
    windows = np.array([[1, 1, 2, 2, 0], [1, 1, 0, 0, 0]], np.int32)
    expected = np.square(teacher - ours).mean(-1)[windows > 0].sum()
    assert float(compute_hidden_loss(teacher, ours, windows)) == pytest.approx(expected, rel=1e-5)


def test_relations_of_networks_of_two_widths_are_compared_head_by_head_within_windows():
    teacher = rng.normal(size=(2, 5, 12)).astype(np.float32)
    ours = rng.normal(size=(2, 5, 8)).astype(np.float32)
    windows = np.array([[1, 1, 2, 2, 2], [1, 1, 1, 0, 0]], np.int32)
    expected = 0.0
    for row, window in ((0, 1), (0, 2), (1, 1)):
        at = np.flatnonzero(windows[row] == window)
        for head in range(4):
            p, q = (
                log_softmax(part @ part.T / np.sqrt(part.shape[1]), axis=-1)
                for part in (v[row, at].reshape(len(at), 4, -1)[:, head] for v in (teacher, ours))
            )
            expected += (np.exp(p) * (p - q)).sum() / 4
    assert float(compute_relation_loss(teacher, ours, windows, heads=4)) == pytest.approx(expected, rel=1e-4)
