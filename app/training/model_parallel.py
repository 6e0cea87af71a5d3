"""Training room: which weights of a network are cut over the devices of a mesh, and along which axis.

Attention is cut by heads and the feed-forward network by columns, so that each pair of products needs one sum between
devices (Shoeybi et al. 2019, Megatron-LM). Embedding tables are cut by columns: DTensor cannot look up rows in a table
whose rows are shared out. Layer norms and the biases behind a sum lie whole on every device; they are small.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf
from keras_nlp.models import BertBackbone
from tensorflow.experimental import dtensor

from app.config import InputError, TrainingConfig
from app.encoder.bert import SlimBertBackbone
from app.encoder.parts import find_path
from app.encoder.relative import relative_bias_of
from app.one_keras import keras
from app.training.fine_tuner import SpecialIds
from app.training.masked_lm import Batch, MaskedLmTuner
from app.training.optimizers import Treatments, build_schedule, compute_rates
from app.training.strategy import split_processor
from app.training.workers import read_cluster

# Attribute paths of variables, as regular expressions -> for each axis, whether it is cut.
_CUTS = {
    r"(token|segment)_embedding\.embeddings": (False, True),  # [rows, width]
    r"position_embedding\.position_embeddings": (False, True),
    **{find_path(f"attention.{name}.kernel"): (False, True, False) for name in ("query", "key", "value")},
    **{find_path(f"attention.{name}.bias"): (True, False) for name in ("query", "key", "value")},
    find_path("attention.output.kernel"): (True, False, False),  # [heads, size, width]
    find_path("inner.kernel"): (False, True),  # [width, inner width]
    find_path("inner.bias"): (True,),
    find_path("outer.kernel"): (True, False),
}


def layout_scope(mesh: dtensor.Mesh) -> AbstractContextManager[None]:
    """A scope in which networks are built with their variables on the mesh; others than encoders' lie there whole."""
    layouts = keras.dtensor.experimental.LayoutMap(mesh=mesh)
    (axis,) = mesh.dim_names
    for path, cuts in _CUTS.items():
        layouts[path] = dtensor.Layout([axis if cut else dtensor.UNSHARDED for cut in cuts], mesh)
    return layouts.scope()


def check_cuts(model: BertBackbone, devices: int) -> None:
    """Raises InputError if an encoder cannot be cut into so many equal parts."""
    if relative_bias_of(model) is not None:
        raise InputError("pretrain.model_parallel needs a BERT backbone, received an MPNet")
    if isinstance(model, SlimBertBackbone):
        raise InputError("pretrain.model_parallel needs layers of one size, received a pruned backbone")
    sizes = {"heads": model.num_heads, "width": model.hidden_dim, "feed-forward width": model.intermediate_dim}
    unequal = [f"{name} {size}" for name, size in sizes.items() if size % devices]
    if unequal:
        raise InputError(
            f"pretrain.model_parallel must divide {', '.join(unequal)} of the backbone, received {devices}"
        )


# One network over several devices, each with a part of every large weight (`tf.experimental.dtensor`).
#
# Weights, moments of the optimizer and averages are cut alike, as `find_cut` says; all devices see the whole
# batch. TensorFlow inserts the sums between devices. What stays on the host is plain: batches, schedule,
# checkpoints.


AXIS = "model"  # the one dimension of the mesh


def build_mesh(devices: int) -> dtensor.Mesh:
    """A mesh over the first GPUs, or over parts of the processor if there are not enough of them.

    Call it before anything computes with TensorFlow.

    Raises:
        InputError: the run is one of several workers.
    """
    workers = len(read_cluster().addresses)
    if workers > 1:
        raise InputError(f"pretrain.model_parallel works in one process, received {workers} workers in TF_CONFIG")
    kind = "GPU" if len(tf.config.list_physical_devices("GPU")) >= devices else "CPU"
    if kind == "CPU":
        split_processor(devices)
    dtensor.initialize_accelerator_system(kind)
    return dtensor.create_mesh([(AXIS, devices)], devices=[f"{kind}:{number}" for number in range(devices)])


def to_mesh(value: tf.Tensor, mesh: dtensor.Mesh) -> tf.Tensor:
    """The same tensor on every device."""
    return dtensor.copy_to_mesh(value, dtensor.Layout.replicated(mesh, rank=value.shape.rank))


def _cut_axis(layout: dtensor.Layout) -> int | None:
    return layout.sharding_specs.index(AXIS) if AXIS in layout.sharding_specs else None


def put(variable: dtensor.DVariable, value: np.ndarray) -> None:
    """Assigns a whole array; each device receives its part only."""
    axis, devices = _cut_axis(variable.layout), variable.layout.mesh.size
    parts = [value] * devices if axis is None else np.split(value, devices, axis=axis)
    variable.assign(dtensor.pack([tf.constant(part, variable.dtype) for part in parts], variable.layout))


def fetch(variable: dtensor.DVariable) -> np.ndarray:
    """The whole array, put together from its parts."""
    parts = [part.numpy() for part in dtensor.unpack(variable.read_value())]
    axis = _cut_axis(variable.layout)
    return parts[0] if axis is None else np.concatenate(parts, axis=axis)


def count_device_bytes(variables: Sequence[dtensor.DVariable]) -> list[int]:
    """Bytes of these variables on each device, counted from what lies there."""
    parts = [[part.numpy().nbytes for part in dtensor.unpack(variable.read_value())] for variable in variables]
    return [sum(device) for device in zip(*parts, strict=True)]


class MeshBatches:
    """Batches of a dataset, each copied to all devices; read like the dataset itself."""

    def __init__(self, batches: tf.data.Dataset, mesh: dtensor.Mesh) -> None:
        self._batches, self._mesh = batches, mesh
        self.element_spec = batches.element_spec

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield {name: to_mesh(value, self._mesh) for name, value in batch.items()}


class MeshAdamW(keras.optimizers.Adam):
    """The AdamW of `optimizers.py` with moments cut like the weights; its rate is set before each step.

    Args:
        mesh: the devices.
        config: decay, moments, epsilon.
        treatments: of all variables; their rates are multiples of the optimizer's.
    """

    def __init__(self, mesh: dtensor.Mesh, config: TrainingConfig, treatments: Treatments) -> None:
        # XLA would need a whole network that it can compile, sums between the devices included.
        super().__init__(0.0, beta_2=config.beta_2, epsilon=config.epsilon, jit_compile=False, mesh=mesh)
        self._treatments, self._decay = treatments, config.weight_decay

    def update_step(self, gradient: tf.Tensor, variable: dtensor.DVariable) -> None:
        index = self._index_dict[self._var_key(variable)]
        first, second = self._momentums[index], self._velocities[index]
        treatment = self._treatments[variable]
        rate = tf.cast(self.learning_rate, variable.dtype) * treatment.rate
        step = tf.cast(self.iterations + 1, variable.dtype)
        corrected = rate * tf.sqrt(1.0 - tf.pow(self.beta_2, step)) / (1.0 - tf.pow(self.beta_1, step))
        # Read first, then assign: on a mesh, reading a variable after its assignment in one step gave wrong numbers.
        mean = first + (gradient - first) * (1.0 - self.beta_1)
        square = second + (gradient * gradient - second) * (1.0 - self.beta_2)
        change = corrected * mean / (tf.sqrt(square) + self.epsilon)
        if self._decay and treatment.decays:
            change += rate * self._decay * variable
        first.assign(mean)
        second.assign(square)
        variable.assign_sub(change)


class MeshMaskedLmTuner(MaskedLmTuner):
    """`MaskedLmTuner` for a network whose variables lie on a mesh.

    Args:
        network: see `MaskedLmTuner`; built inside `layout_scope`.
        mesh: the devices.
        special: piece ids.
        config: the training section.
        seed: of whatever the step draws.
    """

    def __init__(
        self, network: keras.Model, mesh: dtensor.Mesh, *, special: SpecialIds, config: TrainingConfig, seed: int
    ) -> None:
        super().__init__(network, special=special, config=config, seed=seed)
        self._mesh = mesh
        self.loss_mean = keras.metrics.Mean(name="loss", mesh=mesh)
        self.words_seen = keras.metrics.Sum(name="words", dtype="float64", mesh=mesh)

    train_function: Callable[[Any], dict[str, tf.Tensor]] | None

    def make_averages(self) -> list[tf.Variable]:
        return [dtensor.DVariable(v.read_value(), trainable=False) for v in self.network.trainable_variables]

    def make_optimizer(
        self, config: TrainingConfig, *, total_steps: int, depths: Sequence[int], precision: str
    ) -> MeshAdamW:
        self._schedule = build_schedule(config, total_steps=total_steps)
        variables = self.network.trainable_variables
        optimizer = MeshAdamW(self._mesh, config, Treatments(variables, compute_rates(config, depths)))
        optimizer.build(variables)
        return optimizer

    def make_train_function(self, force: bool = False) -> Callable[[Any], dict[str, tf.Tensor]]:
        """Batch and rate go to the devices, numbers come back; between them is the step of `FineTuner`."""
        if self.train_function is None or force:
            step = tf.function(self.train_step, autograph=False)

            def train(iterator: Iterator[Batch]) -> dict[str, tf.Tensor]:
                batch = {name: to_mesh(value, self._mesh) for name, value in next(iterator).items()}
                rate = self._schedule(tf.constant(self.optimizer.iterations.numpy()))
                self.optimizer.learning_rate.assign(to_mesh(tf.cast(rate, tf.float32), self._mesh))
                return {name: dtensor.unpack(value)[0] for name, value in step(batch).items()}

            self.train_function = train
        return self.train_function

    def read_weights(self) -> list[np.ndarray]:
        return [fetch(variable) for variable in self.network.variables]

    def write_weights(self, values: Sequence[np.ndarray]) -> None:
        for variable, value in zip(self.network.variables, values, strict=True):
            put(variable, value)

    def swap_averages(self) -> None:
        for average, variable in zip(self.averages, self.network.trainable_variables, strict=False):
            value = fetch(variable)
            variable.assign(average.read_value())
            put(average, value)

    def device_bytes(self) -> list[int]:
        """Bytes of weights, moments and averages on each device."""
        return count_device_bytes([*self.network.variables, *self.optimizer.variables, *self.averages])
