"""Training room: weights that were pruned stay 0, weights that share a value go on sharing it.

An optimizer that starts without momentum moves weights of equal value and equal gradient alike, to the bit. So it is
enough to make the gradients alike, and no weight has to be repaired after a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

FEWEST_ZEROS = 0.05  # part of a kernel that is 0 by pruning, never by chance
MOST_VALUES = 256  # a kernel with more distinct values has not been clustered


@dataclass(frozen=True)
class KeptStructure:
    """What must not change in each trainable variable; called with their gradients, in order.

    Attributes:
        masks: bool like the variable, false where it stays 0; None where nothing was pruned.
        ties: int32 like the variable, the number of the value each weight shares; None where nothing was clustered.
    """

    masks: tuple[np.ndarray | None, ...]
    ties: tuple[np.ndarray | None, ...]

    @classmethod
    def find(cls, variables: Sequence[tf.Variable]) -> "KeptStructure | None":
        """As `of`; None where there is none."""
        found = cls.of(variables)
        return found if any(each is not None for each in (*found.masks, *found.ties)) else None

    @classmethod
    def of(cls, variables: Sequence[tf.Variable]) -> "KeptStructure":
        """The structure that kernels and embedding tables have now."""
        masks: list[np.ndarray | None] = []
        ties: list[np.ndarray | None] = []
        for variable in variables:
            last = variable.name.rpartition("/")[2]
            values = variable.numpy() if last.startswith(("kernel", "embeddings")) else None
            zeros = 0.0 if values is None else np.mean(values == 0)
            masks.append(values != 0 if values is not None and zeros >= FEWEST_ZEROS else None)
            ties.append(None if values is None else _shared_values(values))
        return cls(tuple(masks), tuple(ties))

    def __call__(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients with 0 for pruned weights and, for weights that share a value, the mean of theirs."""
        kept = []
        for gradient, mask, tie in zip(gradients, self.masks, self.ties, strict=True):
            if tie is not None:
                numbers = tf.constant(tie)
                means = tf.math.unsorted_segment_mean(
                    tf.reshape(gradient, [-1]), tf.reshape(numbers, [-1]), num_segments=int(tie.max()) + 1
                )
                gradient = tf.gather(means, numbers)
            if mask is not None:
                gradient = tf.where(tf.constant(mask), gradient, tf.zeros_like(gradient))
            kept.append(gradient)
        return kept


def _shared_values(values: np.ndarray) -> np.ndarray | None:
    """The number of each weight's value, int32 like the weights; None if the values are too many to be shared."""
    most = min(MOST_VALUES, values.size // 4)
    if len(np.unique(values.ravel()[:4096])) > most:
        return None
    distinct, numbers = np.unique(values, return_inverse=True)
    return numbers.reshape(values.shape).astype(np.int32) if len(distinct) <= most else None
