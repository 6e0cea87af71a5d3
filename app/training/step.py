"""Training room: one training step, and the structure of pruned and clustered weights that it can keep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from app.config import TrainingConfig
from app.one_keras import keras
from app.training.optimizers import build_optimizer

# Weights that were pruned stay 0, weights that share a value go on sharing it.
# An optimizer that starts without momentum moves weights of equal value and equal gradient alike, to the bit. So it is
# enough to make the gradients alike, and no weight has to be repaired after a step.

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


# One training step, the same on one device, several replicas and several machines.
#
# What is learnt is up to the classes that extend it.


Batch = dict[str, tf.Tensor]
Keep = Callable[[list[tf.Tensor]], list[tf.Tensor]]


class StepTuner(keras.Model):
    """Wraps a network for `keras.Model.fit`: global count, accumulation, clipping, moving averages of the weights.

    The loss is a sum over the terms of the batch divided by their *global* count: over all replicas and all
    accumulated slices. So is the gradient, whatever the number of devices. A class that extends this says what the
    terms are: `_words`, `_weight`, `_terms` and `_loss`.

    Args:
        network: features -> outputs; also what is evaluated and saved.
        config: the training section.
        name: of the Keras model.
        keep: gradients -> gradients that leave a structure of the weights as it is (`kept_structure.py`), or None.
    """

    def __init__(self, network: keras.Model, *, config: TrainingConfig, name: str, keep: Keep | None = None) -> None:
        super().__init__(name=name)
        self.distribute_reduction_method = "first"  # every replica returns the same numbers; Keras would add them up
        self.network = network
        self.config = config
        self._keep = keep
        self.loss_mean = keras.metrics.Mean(name="loss")
        self.words_seen = keras.metrics.Sum(name="words", dtype="float64")
        self.averages = self.make_averages() if config.average_weights_decay > 0 else []

    def make_averages(self) -> list[tf.Variable]:
        """A copy of the trainable weights, which `update_averages` moves."""
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return [tf.Variable(v, trainable=False, aggregation=first) for v in self.network.trainable_variables]

    def make_optimizer(
        self, config: TrainingConfig, *, total_steps: int, depths: Sequence[int], precision: str
    ) -> keras.optimizers.Optimizer:
        """The configured optimizer with all its slots: one that is restored before they exist silently loses them."""
        variables = self.network.trainable_variables
        optimizer = build_optimizer(
            config, total_steps=total_steps, variables=variables, depths=depths, precision=precision
        )
        getattr(optimizer, "inner_optimizer", optimizer)._create_all_weights(variables)
        return optimizer

    def read_weights(self) -> list[np.ndarray]:
        """All weights of the network, in a fixed order."""
        return [variable.numpy() for variable in self.network.variables]

    def write_weights(self, values: Sequence[np.ndarray]) -> None:
        """Puts what `read_weights` returned back."""
        for variable, value in zip(self.network.variables, values, strict=True):
            variable.assign(value)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_mean, self.words_seen]

    def call(self, inputs: dict[str, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        return self.network(inputs, training=training)

    @tf.autograph.experimental.do_not_convert  # no step branches on a tensor, and translating one takes a second
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        replicas = tf.distribute.get_replica_context()
        weight = self._weight(batch)
        terms = self._terms(batch)
        total = replicas.all_reduce(tf.distribute.ReduceOp.SUM, terms)
        variables = self.network.trainable_variables
        loss, gradients = self._gradients(batch, tf.maximum(total, 1.0))
        loss = replicas.all_reduce(tf.distribute.ReduceOp.SUM, loss)
        gradients = replicas.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if self._keep:
            gradients = self._keep(gradients)
        if self.config.clip_norm > 0:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.clip_norm)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True), experimental_aggregate_gradients=False)
        # Every replica holds the global mean; metrics add up over replicas.
        self.loss_mean.update_state(loss, sample_weight=weight)
        self.words_seen.update_state(self._words(batch))
        return {"loss": self.loss_mean.result(), "step_loss": loss, "words": self.words_seen.result()}

    def _words(self, batch: Batch) -> tf.Tensor:
        """What speed is counted in, a float32 scalar."""
        raise NotImplementedError

    def _weight(self, batch: Batch) -> tf.Tensor:
        """Number of terms of this replica's loss, a float32 scalar."""
        raise NotImplementedError

    def _terms(self, batch: Batch) -> tf.Tensor:
        """What this replica adds to the global counts that the parts of the loss are divided by."""
        return self._weight(batch)

    def _loss(self, batch: Batch, total: tf.Tensor) -> tf.Tensor:
        """This replica's part of the loss of some rows, a float32 scalar; `total` is the global `_terms`."""
        raise NotImplementedError

    def _gradients(self, batch: Batch, total: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Loss and gradients of this replica's share, slice by slice; their sums do not depend on the slicing."""
        slices = self.config.accumulation_steps
        parts = {name: tf.split(value, slices) for name, value in batch.items()} if slices > 1 else None
        loss = tf.constant(0.0)
        sums: list[tf.Tensor] = []
        variables = self.network.trainable_variables
        for number in range(slices):
            part = {name: values[number] for name, values in parts.items()} if parts else batch
            # Without the order, TensorFlow computes parts side by side, and no memory is saved.
            with tf.control_dependencies(sums), tf.GradientTape() as tape:
                part_loss = self._loss(part, total)
                scaled = part_loss
                if isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer):
                    scaled = self.optimizer.get_scaled_loss(part_loss)
            found = tape.gradient(scaled, variables, unconnected_gradients="zero")
            # A dense gradient keeps to the optimizer's fused kernel, and structure is kept weight by weight.
            if self._keep or not self.config.lazy_embeddings:
                found = [tf.convert_to_tensor(gradient) for gradient in found]
            sums = found if not sums else [_add(a, b) for a, b in zip(sums, found, strict=True)]
            loss += part_loss
        sums = [_with_unique_rows(gradient) for gradient in sums]
        if isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer):
            sums = self.optimizer.get_unscaled_gradients(sums)
        return loss, sums

    def update_averages(self, steps_per_epoch: int | None = None) -> None:
        """Moves the averages towards the weights if this step's turn has come; to be called after each step.

        An exponential moving average whose decay a step rises with the steps, as in TensorFlow's own. It moves once in
        `average_weights_every_steps`, by as much as that many steps would, since each update passes over all weights.

        Args:
            steps_per_epoch: steps after which the averages are scored or kept; None if they are not.
        """
        step = int(self.optimizer.iterations.numpy())
        every = self.config.average_weights_every_steps
        if steps_per_epoch:
            every = shorten_interval(every, steps_per_epoch)
        if self.averages and step % every == 0:
            decay = min(self.config.average_weights_decay, (1.0 + step) / (10.0 + step))
            self._move_averages(tf.constant(1.0 - decay**every))

    @tf.function(autograph=False)
    def _move_averages(self, part: tf.Tensor) -> None:
        for average, variable in zip(self.averages, self.network.trainable_variables, strict=True):
            average.assign_sub(part * (average - variable))

    def swap_averages(self) -> None:
        """Exchanges the weights with their averages, if there are any; a second call undoes it."""
        if not self.averages:
            return
        for average, variable in zip(self.averages, self.network.trainable_variables, strict=True):
            value = variable.numpy()
            variable.assign(average)
            average.assign(value)


def shorten_interval(every: int, steps_per_epoch: int) -> int:
    """Steps between two moves of the averages: `every`, or so few that each epoch has two moves.

    Otherwise the first epochs of a small corpus would score, and a short run would keep, untrained weights. It depends
    on nothing but the length of an epoch, so that a run that resumes moves its averages at the same steps.
    """
    return min(every, max(1, steps_per_epoch // 2))


def _add(a: tf.Tensor | tf.IndexedSlices, b: tf.Tensor | tf.IndexedSlices) -> tf.Tensor | tf.IndexedSlices:
    if not isinstance(a, tf.IndexedSlices):
        return a + b
    values, indices = tf.concat([a.values, b.values], axis=0), tf.concat([a.indices, b.indices], axis=0)
    return tf.IndexedSlices(values, indices, a.dense_shape)


def _with_unique_rows(gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor | tf.IndexedSlices:
    """Sums the rows of a sparse gradient that share an index: a norm would count them one by one."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    indices, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.shape(indices)[0])
    return tf.IndexedSlices(values, indices, gradient.dense_shape)
