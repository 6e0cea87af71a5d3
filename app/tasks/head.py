"""Tasks room: what stands above an encoder, at its end or at an exit: hidden states to logits, and its doubt."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from app.one_keras import keras


def read_constant(variable: tf.Variable) -> np.ndarray:
    """The value of a weight, also while a graph is being built: exported weights are constants."""
    with tf.init_scope():
        return np.asarray(variable.numpy())


def find_boundaries(token_ids: tf.Tensor, boundary_ids: tuple[int, int]) -> tf.Tensor:
    """Where texts begin and end: int32 [batch, length], ids of `[CLS]` and `[SEP]` -> bool [batch, length]."""
    start, end = boundary_ids
    return tf.equal(token_ids, start) | tf.equal(token_ids, end)


class Head(keras.layers.Layer, ABC):
    """Hidden states of all pieces to logits of all pieces; only those of labelled pieces mean anything."""

    labels: tuple[str, ...]
    # Of a head whose units may leave the network one by one: how many pieces on either side of an unsure one go on with
    # it. None: a row leaves as a whole.
    reach: int | None = None

    @property
    def independent(self) -> bool:
        """Whether each label is decided for itself, by sigmoid, so that there may be several; else one, by softmax."""
        return False

    def connect(
        self, states: tf.Tensor, features: Mapping[str, tf.Tensor], *, training: bool | None = None
    ) -> tf.Tensor:
        """Hidden states [batch, length, width] -> logits float32 [batch, length, labels]."""
        return self(states, training=training)

    @property
    def pools(self) -> bool:
        """Whether a logit depends on the last hidden states of other pieces."""
        return False

    @abstractmethod
    def own_variables(self) -> dict[str, tf.Variable]:
        """All variables, by their names in the file of a bundle."""

    @abstractmethod
    def infer(self, x: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
        """What `call` gives, for export: weights are constants, matrices have two dimensions.

        Args:
            x: last hidden states float32 [batch * length, width].
            same: bool [batch, length, length], true within one window.

        Returns:
            logits float32 [batch * length, labels].
        """

    @abstractmethod
    def compute_loss(self, logits: tf.Tensor, labels: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
        """Summed loss of the labels that are not negative; it is divided by their global count.

        Args:
            logits: float32 [batch, length, labels].
            labels: int32 [batch, length].
            boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.
        """

    def share(self, last: Head) -> None:
        """Makes this the head of an exit, before it is built: what does not depend on the layer is that of the last.

        Nothing by default. The last head has been built.
        """

    def compute_divergence(
        self, last: Head, taught: tf.Tensor, logits: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor
    ) -> tf.Tensor:
        """Summed Kullback-Leibler divergence of this exit's distributions from those of the last head.

        No gradient reaches the last head: "Be Your Own Teacher", Zhang et al. 2019, equation 4.

        Args:
            last: the last head.
            taught: its logits float32 [batch, length, labels].
            logits: this head's.
            units: bool [batch, length], what is compared.
            boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.
        """
        taught = tf.stop_gradient(taught)
        if self.independent:
            softened = tf.nn.sigmoid_cross_entropy_with_logits
            each = softened(tf.sigmoid(taught), logits) - softened(tf.sigmoid(taught), taught)
        else:
            log_taught = tf.nn.log_softmax(taught)
            each = tf.exp(log_taught) * (log_taught - tf.nn.log_softmax(logits))
        return tf.reduce_sum(tf.where(units, tf.reduce_sum(each, axis=-1), 0.0))

    def measure_doubts(self, logits: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
        """How unsure this head is of each unit: the entropy of its labels, 0 (sure) to 1.

        The entropy is divided by the greatest there can be, so that one threshold means the same for any label set
        (Li et al. 2021, equation 3; Xin et al. 2020 for whole texts). A row is as unsure as its least sure unit.

        Args:
            logits: float32 [batch, length, labels].
            units: bool [batch, length], the units that the row is asked for.
            boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.

        Returns:
            float32 [batch, length]; 0 where there is no unit.
        """
        if self.independent:
            log_yes, log_no = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
            entropy = -tf.reduce_mean(tf.exp(log_yes) * log_yes + tf.exp(log_no) * log_no, axis=-1) / math.log(2)
        else:
            entropy = compute_entropy(tf.nn.log_softmax(logits))
        return tf.where(units, entropy, 0.0)

    def infer_doubts(self, logits: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
        """What `measure_doubts` gives, for export: in operations that every TFLite runtime has."""
        return self.measure_doubts(logits, units, boundaries)


def compute_entropy(log_chances: tf.Tensor) -> tf.Tensor:
    """Entropy of distributions [..., outcomes] as a part of the greatest there can be: [...], 0 to 1."""
    entropy = -tf.reduce_sum(tf.exp(log_chances) * log_chances, axis=-1)
    return entropy / math.log(max(2, int(log_chances.shape[-1])))


@dataclass(frozen=True)
class Exit:
    """A head after an inner layer of the encoder, where sure texts leave.

    Attributes:
        layer: the number of layers below it, at least 1.
        head: of the task, with weights of its own.
    """

    layer: int
    head: Any

    @property
    def name(self) -> str:
        """Of its logits among the outputs of a network, and of its weights in a bundle."""
        return f"exit_{self.layer}"
