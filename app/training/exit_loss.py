"""Training room: what the exits of a network learn, beside its last head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tensorflow as tf

from app.config import TrainingConfig
from app.tasks.head import Exit, Head
from app.tasks.network import LOGITS

if TYPE_CHECKING:
    from app.tasks.network import TaskModel


@dataclass(frozen=True)
class ExitLoss:
    """The losses of all exits, each of which learns the labels and what the last head makes of them.

    An exit counts the more the deeper it stands, so that the lower layers serve the last head above all (the weighted
    average by depth of Li et al. 2021, section 3.2). Learning from the last head is the self-distillation of Zhang et
    al. 2019, "Be Your Own Teacher".

    Attributes:
        exits: of the network.
        last: its last head.
        layers: of the encoder.
        weight: of an exit at the last layer; others have their part of it.
        distillation: weight of the divergence from the last head, against 1 for the labels.
    """

    exits: tuple[Exit, ...]
    last: Head
    layers: int
    weight: float
    distillation: float

    @classmethod
    def of(cls, model: TaskModel, config: TrainingConfig) -> ExitLoss | None:
        """None for a network without exits."""
        if not model.exits:
            return None
        layers = len(model.backbone.model.transformer_layers)
        return cls(model.exits, model.head, layers, config.exit_loss_weight, config.exit_distillation_weight)

    def compute(
        self, outputs: Mapping[str, tf.Tensor], labels: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Summed losses of all exits, each already weighted.

        Args:
            outputs: of the whole network, see `TaskModel.whole`.
            labels: int32 [batch, length].
            units: bool [batch, length], where an exit is compared with the last head.
            boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.

        Returns:
            (of the labels, to be divided by their global count; of the divergence, by the global count of units).
        """
        by_labels = by_last = tf.constant(0.0)
        for each in self.exits:
            weight, logits = self.weight * each.layer / self.layers, outputs[each.name]
            by_labels += weight * each.head.compute_loss(logits, labels, boundaries)
            if self.distillation:
                found = each.head.compute_divergence(self.last, outputs[LOGITS], logits, units, boundaries)
                by_last += weight * self.distillation * found
        return by_labels, by_last
