"""Tasks room: the head of text classification, on top of any backbone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from app.tasks.whole_text import PooledHead


class TextHead(PooledHead):
    """Dropout and a dense layer over `[CLS]`, or over the mean of the window that `[CLS]` opens.

    Args:
        labels: label names.
        pooling: `cls` or `mean`.
        dropout: fraction of the input dropped while training.
        label_sets: with several labels to a text, the sets of label numbers that training texts have; a training label
            is the number of a set. Empty: a text has one label, and a training label is its number.
        multi_label: whether a text has several labels, so that each is decided for itself.
        label_smoothing: part of the probability that is spread evenly.
        class_weights: of each label in the loss; empty = 1.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        pooling: str,
        dropout: float,
        multi_label: bool = False,
        label_sets: Sequence[Sequence[int]] = (),
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(labels, pooling=pooling, dropout=dropout, **kwargs)
        self.multi_label = multi_label
        self._targets = _make_targets(len(labels), label_sets, multi_label=multi_label, smoothing=label_smoothing)
        self._weights = np.asarray(class_weights or np.ones(len(labels)), np.float32)

    @property
    def independent(self) -> bool:
        return self.multi_label

    def compute_loss(self, logits: tf.Tensor, labels: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
        """Summed loss of the texts that have a label; `boundaries` mean nothing here.

        Cross-entropy, or for several labels the sum of the binary cross-entropies of all of them (Goodfellow et al.
        2016, section 6.2.2).
        """
        targets = tf.gather(tf.constant(self._targets), tf.maximum(labels, 0))  # [batch, length, labels]
        if self.multi_label:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits) * self._weights
        else:
            losses = -targets * tf.nn.log_softmax(logits) * self._weights
        return tf.reduce_sum(tf.where(labels >= 0, tf.reduce_sum(losses, axis=-1), 0.0))


def _make_targets(
    count: int, label_sets: Sequence[Sequence[int]], *, multi_label: bool, smoothing: float
) -> np.ndarray:
    """What is to be predicted for each training label: probabilities float32 [training labels, labels]."""
    if not multi_label:
        return (np.eye(count) * (1 - smoothing) + smoothing / count).astype(np.float32)
    targets = np.zeros((max(1, len(label_sets)), count), np.float32)
    for row, numbers in enumerate(label_sets):
        targets[row, list(numbers)] = 1.0
    return targets * (1 - smoothing) + smoothing / 2
