"""Training room: words that stop being computed at exits while training, as they do in prediction.

A network that has only seen every word at every layer reads, once words leave it one by one, states that it does not
know: those in which others stopped. So part of the rows are halted by the network's own doubts (the second stage of
Li et al. 2021, "Accelerating BERT Inference for Sequence Labeling via Early-Exit", section 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from app.config import TrainingConfig
from app.encoder.forward import run_layers
from app.tasks.exits import list_steps
from app.tasks.network import LOGITS, TaskModel, run_features

LOWEST, HIGHEST = 0.02, 0.8  # thresholds of doubt, drawn evenly by their logarithms
Draw = Callable[[tf.Tensor], tf.Tensor]  # a shape int32 [axes] -> float32 of that shape, evenly from [0, 1)


@dataclass(frozen=True)
class HaltingNetwork:
    """What the whole network gives in training, with units that have left some of its rows.

    At every exit each of these rows loses the units whose doubt is below its own threshold, and the pieces about them
    that no other needs (`Head.reach`). They keep their states and answers; nothing is saved by it in training.

    Attributes:
        model: with exits, whose units leave one by one.
        fraction: of the rows that are halted.
    """

    model: TaskModel
    fraction: float

    @classmethod
    def of(cls, model: TaskModel, config: TrainingConfig) -> HaltingNetwork | None:
        """None where nothing is to be halted, or something stands in place of layers (simulated rounding)."""
        fraction = config.exit_halting_fraction
        if not (fraction and model.exits and model.head.reach is not None):
            return None
        whole = {id(layer) for layer in model.whole.layers}
        as_they_are = all(id(layer) in whole for layer in model.backbone.model.transformer_layers)
        return cls(model, fraction) if as_they_are else None

    @tf.autograph.experimental.do_not_convert
    def __call__(
        self, features: Mapping[str, tf.Tensor], units: tf.Tensor, boundaries: tf.Tensor, *, draw: Draw
    ) -> dict[str, tf.Tensor]:
        """The outputs of `TaskModel.whole`, of the units; what they are of other pieces means nothing.

        Args:
            features: int32 [batch, length].
            units: bool [batch, length], what has to be sure.
            boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.
            draw: random numbers.
        """
        thresholds = self.draw_thresholds(tf.shape(units)[0], draw)[:, tf.newaxis]
        return self.run(features, units, boundaries, thresholds)

    def draw_thresholds(self, rows: tf.Tensor, draw: Draw) -> tf.Tensor:
        """Those of rows, float32 [rows]; 0 = all of the row goes through all layers."""
        halted, height = tf.unstack(draw(tf.stack([2, rows])))
        return tf.where(halted < self.fraction, LOWEST * (HIGHEST / LOWEST) ** height, 0.0)

    @tf.autograph.experimental.do_not_convert
    def run(
        self, features: Mapping[str, tf.Tensor], units: tf.Tensor, boundaries: tf.Tensor, thresholds: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """`__call__` at given thresholds, float32 [batch, 1]."""
        windows, steps = features["padding_mask"], list_steps(self.model)
        names = [*(each.name for each in self.model.exits), LOGITS]
        states = run_features(self.model, features, depth=steps[0].layer, training=True)[-1]
        logits = steps[0].head.connect(states, features, training=True)
        found, outputs = logits, {names[0]: logits}
        asked, going = units, windows > 0
        for name, below, step in zip(names[1:], steps, steps[1:], strict=False):
            doubts = below.head.measure_doubts(tf.stop_gradient(logits), units, boundaries)
            asked &= doubts >= thresholds
            going &= self._about(asked) | tf.equal(thresholds, 0)
            states = run_layers(
                self.model.backbone.model,
                states,
                windows,
                begin=below.layer,
                depth=step.layer,
                replace=lambda layer, going=going: _Halting(layer, going),
                training=True,
            )[-1]
            moved = step.head.connect(states, features, training=True)
            logits = tf.where(going[..., tf.newaxis], moved, logits)  # what doubts are measured by
            found = tf.where(asked[..., tf.newaxis], moved, found)  # a unit that has left keeps its answer
            outputs[name] = found
        return outputs

    def _about(self, asked: tf.Tensor) -> tf.Tensor:
        """The units that are asked for and the pieces near them, bool [batch, length]."""
        near = tf.cast(asked, tf.float32)[..., tf.newaxis]
        return tf.nn.max_pool1d(near, 2 * self.model.head.reach + 1, strides=1, padding="SAME")[..., 0] > 0


@dataclass(frozen=True)
class _Halting:
    """A transformer layer that moves some pieces, and leaves the others as they are."""

    layer: Any
    going: tf.Tensor

    def __call__(self, x: tf.Tensor, **options: Any) -> tf.Tensor:
        return tf.where(self.going[..., tf.newaxis], self.layer(x, **options), x)
