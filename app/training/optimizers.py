"""Training room: AdamW and LAMB with warm-up, decay, weight-decay exclusions and one learning rate a layer.

AdamW is tf-models-official's (Loshchilov & Hutter 2019), LAMB is TensorFlow Addons' (You et al. 2020): both update a
variable with one fused or few ops. Gradients arrive summed and clipped (see `fine_tuner.py`).
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_addons as tfa
from official.modeling.optimization import legacy_adamw, lr_schedule

from app.config import TrainingConfig
from app.one_keras import keras
from app.training.cluster import check_parts

NO_WEIGHT_DECAY = ("bias", "layer_norm", "gamma", "beta", "transitions")


class _RatePerVariable:
    """Scales the learning rate of each variable; mixed into the legacy optimizers, which both read `lr_t`."""

    rates: Mapping[str, float]

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: dict | None = None) -> tf.Operation:
        key = (var.device, var.dtype.base_dtype)
        coefficients = dict((apply_state or {}).get(key) or self._fallback_apply_state(*key))  # type: ignore[attr-defined]
        coefficients["lr_t"] = coefficients["lr_t"] * self.rates.get(var.name, 1.0)
        return super()._resource_apply_dense(grad, var, apply_state={key: coefficients})  # type: ignore[misc]


class AdamW(_RatePerVariable, legacy_adamw.AdamWeightDecay):
    """tf-models-official's AdamW with a learning rate a variable, and lazy where the gradient is sparse."""

    def __init__(self, *args: Any, rates: Mapping[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rates = rates

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: dict | None = None
    ) -> tf.Operation:
        """Updates the rows that have a gradient and leaves all others, and their moments, as they are.

        Known as LazyAdam. Keras has made `indices` unique and summed `grad`, float32 [rows, width], before.
        """
        key = (var.device, var.dtype.base_dtype)
        known = (apply_state or {}).get(key) or self._fallback_apply_state(*key)
        rate = self.rates.get(var.name, 1.0)
        slots = self.get_slot(var, "m"), self.get_slot(var, "v")
        first = known["beta_1_t"] * tf.gather(slots[0], indices) + known["one_minus_beta_1_t"] * grad
        second = known["beta_2_t"] * tf.gather(slots[1], indices) + known["one_minus_beta_2_t"] * grad * grad
        row = tf.gather(var, indices)
        if self._do_use_weight_decay(var.name):
            row -= rate * known["lr_t"] * self.weight_decay_rate * row
        row -= rate * known["lr"] * first / (tf.sqrt(second) + known["epsilon"])
        changes = zip((*slots, var), (first, second, row), strict=True)
        return tf.group(*[changed.scatter_update(tf.IndexedSlices(value, indices)) for changed, value in changes])


class Lamb(_RatePerVariable, tfa.optimizers.LAMB):
    """TensorFlow Addons' LAMB with a learning rate a variable."""

    def __init__(self, *args: Any, rates: Mapping[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rates = rates


def build_schedule(config: TrainingConfig, *, total_steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up from 0, then decay to `end_learning_rate_fraction` of the peak at `total_steps`."""
    warmup_steps = round(config.warmup_fraction * total_steps)
    end = config.end_learning_rate_fraction
    if config.schedule == "cosine":
        after = lr_schedule.CosineDecayWithOffset(
            offset=warmup_steps,
            initial_learning_rate=config.learning_rate,
            decay_steps=max(1, total_steps - warmup_steps),
            alpha=end,
        )
    else:
        after = lr_schedule.PolynomialDecayWithOffset(
            offset=warmup_steps,
            initial_learning_rate=config.learning_rate,
            decay_steps=max(1, total_steps - warmup_steps),
            end_learning_rate=end * config.learning_rate,
            power=config.polynomial_power if config.schedule == "polynomial" else 1.0,
        )
    if not warmup_steps:  # the first step of a warm-up has rate 0
        return after
    return lr_schedule.LinearWarmup(after_warmup_lr_sched=after, warmup_steps=warmup_steps, warmup_learning_rate=0.0)


def compute_rates(config: TrainingConfig, depths: Mapping[str, int]) -> dict[str, float]:
    """Learning rate of each variable as a multiple of the schedule's.

    Layer-wise decay (Howard & Ruder 2018; Clark et al. 2020): a layer `d` below the top learns at `decay ** d`; the
    head at `head_learning_rate_multiplier`.

    Args:
        config: the training section.
        depths: depth of each variable by name, the head deepest.
    """
    top = max(depths.values())
    return {
        name: config.head_learning_rate_multiplier
        if depth == top
        else config.layer_learning_rate_decay ** (top - 1 - depth)
        for name, depth in depths.items()
    }


def build_optimizer(
    config: TrainingConfig, *, total_steps: int, depths: Mapping[str, int], precision: str
) -> keras.optimizers.legacy.Optimizer:
    """The optimizer named by `training.optimizer`, with loss scaling under `mixed_float16`."""
    check_parts(config)
    shared = {
        "learning_rate": build_schedule(config, total_steps=total_steps),
        "beta_2": config.beta_2,
        "epsilon": config.epsilon,
        "rates": compute_rates(config, depths),
    }
    if config.optimizer == "lamb":
        optimizer = Lamb(
            weight_decay=config.weight_decay, exclude_from_weight_decay=list(NO_WEIGHT_DECAY), **shared
        )
    else:
        optimizer = AdamW(
            weight_decay_rate=config.weight_decay,
            exclude_from_weight_decay=list(NO_WEIGHT_DECAY),
            gradient_clip_norm=0.0,
            **shared,
        )
    if precision == "mixed_float16":
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
