"""Training room: the masked-language-model objective, on the same step and the same fit loop as fine-tuning."""

import tensorflow as tf

from app.config import TrainingConfig
from app.one_keras import keras
from app.training.fine_tuner import FineTuner, SpecialIds


class MaskedLmTuner(FineTuner):
    """Hides pieces anew at every step and asks for them (Devlin et al. 2019; Liu et al. 2019 for the dynamic masks).

    Of the chosen pieces 80 % become `[MASK]`, 10 % a random piece, 10 % stay; special pieces and padding are never
    chosen.

    Args:
        network: see `build_masked_lm`.
        special: piece ids.
        config: its `masked_lm_fraction` is the part of a row's real pieces that is chosen.
        seed: of the masks.
    """

    def __init__(self, network: keras.Model, *, special: SpecialIds, config: TrainingConfig, seed: int) -> None:
        super().__init__(network, _no_tags, special=special, config=config, seed=seed)
        self.vocabulary_size = network.output_shape[-1]

    def _prepared(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Adds positions, targets and weights [batch, hidden] and hides the chosen pieces."""
        pieces = batch["token_ids"]  # [batch, length]
        special = (pieces == self.special.start) | (pieces == self.special.end) | (batch["padding_mask"] == 0)
        real = tf.reduce_sum(tf.cast(~special, tf.float32), axis=1)
        hidden = max(1, round(self.config.masked_lm_fraction * pieces.shape[1]))
        draw = self._mask_random.uniform(tf.shape(pieces)) - tf.cast(special, tf.float32)
        positions = tf.math.top_k(draw, k=hidden).indices  # special pieces come last
        ranks = tf.range(hidden, dtype=tf.float32)[tf.newaxis]
        wanted = tf.minimum(tf.math.ceil(self.config.masked_lm_fraction * real), real)
        weights = tf.cast(ranks < wanted[:, tf.newaxis], tf.float32)
        targets = tf.gather(pieces, positions, batch_dims=1)
        kind = self._mask_random.uniform(tf.shape(targets))
        random = self._mask_random.uniform(tf.shape(targets), maxval=self.vocabulary_size, dtype=tf.int32)
        shown = tf.where(kind < 0.8, self.special.mask, tf.where(kind < 0.9, random, targets))
        shown = tf.where(weights > 0, shown, targets)
        rows = tf.broadcast_to(tf.range(tf.shape(pieces)[0])[:, tf.newaxis], tf.shape(positions))
        changed = tf.tensor_scatter_nd_update(pieces, tf.stack([rows, positions], axis=-1), shown)
        return {**batch, "token_ids": changed, "positions": positions, "targets": targets, "weights": weights}

    def _weight(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.reduce_sum(batch["weights"])

    def _loss(self, batch: dict[str, tf.Tensor], total: tf.Tensor) -> tf.Tensor:
        names = ("token_ids", "shape_ids", "padding_mask", "positions")
        logits = self.network({name: batch[name] for name in names}, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["targets"], logits)
        return tf.reduce_sum(losses * batch["weights"]) / total


def _no_tags(*_: tf.Tensor) -> tf.Tensor:
    raise AssertionError("masked-language-model training has no tags")
