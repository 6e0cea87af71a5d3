"""Training room: the masked-language-model objective, on the same step and the same fit loop as fine-tuning."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from app.config import TrainingConfig
from app.one_keras import keras
from app.training.fine_tuner import SpecialIds
from app.training.step import Batch, StepTuner

PAIR_LOGITS, PAIR_LABEL = "pair_logits", "pair_label"


class MaskedLmTuner(StepTuner):
    """Asks for hidden pieces, and, if the network answers it, how two segments belong together (Devlin et al. 2019).

    The loss is the mean over all hidden pieces of the global batch, plus the mean over its labelled pairs.

    Args:
        network: features -> {masked_lm_logits float32 [batch, hidden, vocabulary], and perhaps pair_logits float32
            [batch, 2]}, see `app/tasks/masked_lm/network.py`. Its batches hold the network's inputs; `targets` and
            `weights` [batch, hidden] of `app/tasks/masked_lm/masking.py`; and `pair_label` int32 [batch], negative
            where there is none.
        special: piece ids, and
        seed: as `FineTuner` takes them; pieces come hidden already, so that this step neither asks nor draws.
        config: the training section.
    """

    def __init__(self, network: keras.Model, *, special: SpecialIds, config: TrainingConfig, seed: int) -> None:
        super().__init__(network, config=config, name="masked_lm_tuner")
        self.asks_pairs = PAIR_LOGITS in network.output_names

    def _words(self, batch: Batch) -> tf.Tensor:
        """Here speed is counted in pieces, special ones included, padding not."""
        return tf.reduce_sum(tf.cast(batch["padding_mask"] > 0, tf.float32))

    def _weight(self, batch: Batch) -> tf.Tensor:
        return tf.reduce_sum(batch["weights"])

    def _terms(self, batch: Batch) -> tf.Tensor:
        """Counts of what the parts of the loss are divided by, float32 [1 or 2]."""
        counts = [self._weight(batch)]
        if self.asks_pairs:
            counts.append(tf.reduce_sum(tf.cast(batch[PAIR_LABEL] >= 0, tf.float32)))
        return tf.stack(counts)

    def _loss(self, batch: Batch, total: tf.Tensor) -> tf.Tensor:
        outputs = self.network({name: batch[name] for name in self.network.input_names}, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["targets"], outputs["masked_lm_logits"])
        loss = tf.reduce_sum(losses * batch["weights"]) / total[0]
        if self.asks_pairs:
            labels = batch[PAIR_LABEL]
            pairs = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), outputs[PAIR_LOGITS])
            loss += tf.reduce_sum(tf.where(labels >= 0, pairs, 0.0)) / total[1]
        return loss


def build_masked_scorer(network: keras.Model) -> Callable[[tf.data.Dataset], dict[str, float]]:
    """Scores on batches whose pieces are hidden already; traced at the first call, for batches of one kind.

    Returns:
        batches -> `masked_accuracy` (share of hidden pieces named right), `loss` (mean negative log-likelihood of a
        hidden piece, nats), `perplexity` (its exponential), and `pair_accuracy` if the network answers pairs.
    """
    asks_pairs = PAIR_LOGITS in network.output_names

    def count(batch: Batch) -> tf.Tensor:
        outputs = network({name: batch[name] for name in network.input_names}, training=False)
        logits, targets, weights = outputs["masked_lm_logits"], batch["targets"], batch["weights"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == targets, tf.float32)
        counts = [tf.reduce_sum(weights), tf.reduce_sum(losses * weights), tf.reduce_sum(right * weights)]
        if asks_pairs:
            known = tf.cast(batch[PAIR_LABEL] >= 0, tf.float32)
            right = tf.cast(tf.argmax(outputs[PAIR_LOGITS], -1, tf.int32) == batch[PAIR_LABEL], tf.float32)
            counts += [tf.reduce_sum(known), tf.reduce_sum(right * known)]
        return tf.stack(counts)

    traced = None

    def score(batches: tf.data.Dataset) -> dict[str, float]:
        nonlocal traced
        if traced is None:
            specs = {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in batches.element_spec.items()}
            traced = tf.function(count, input_signature=[specs], autograph=False)
        sums = np.sum([traced(batch).numpy().astype(np.float64) for batch in batches], axis=0)
        loss = float(sums[1] / sums[0])
        scores = {"masked_accuracy": float(sums[2] / sums[0]), "loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        return scores | ({"pair_accuracy": float(sums[4] / sums[3])} if asks_pairs and sums[3] else {})

    return score
