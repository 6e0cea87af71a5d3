"""Tasks room: the way from raw texts to their labels inside a TensorFlow graph, around a network.

The same steps as `--mode=predict` takes on arrays: words, windows, the mean of the logits of a text's windows.
"""

import numpy as np
import tensorflow as tf

from app.data.encoding import Encoder
from app.tasks.whole_text import Network, WholeTextGraph


class GraphClassifier(WholeTextGraph):
    """Finds the labels of texts inside a graph.

    Args:
        encoder: vocabulary, labels and row length of the model.
        network: the model, asked for `[CLS]` alone.
        pairs: whether a text is two, with a tab between them.
        temperature: that logits are divided by.
        min_score: the least probability of an answer, for one label to a text.
        thresholds: the least probability of each label, for several.
    """

    def __init__(
        self,
        encoder: Encoder,
        network: Network,
        *,
        pairs: bool,
        temperature: float,
        min_score: float = 0.0,
        thresholds: np.ndarray | None = None,
    ) -> None:
        super().__init__(encoder, network, pairs=pairs)
        self._temperature, self._min_score, self._thresholds = temperature, min_score, thresholds

    def __call__(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Labels of texts of any length.

        Args:
            texts: string [texts].

        Returns:
            `label` string [texts], empty where there is none, several with `|` between them; `score` float32 [texts],
            of the most probable label; `scores` float32 [texts, labels]; `given` bool [texts, labels], whether a label
            is part of the answer; if windows may leave the network early, `layer` int32 [texts].
        """
        logits, is_empty, layers = self.compute_logits_and_layers(texts)
        return {**self._answer(logits / self._temperature, is_empty), **layers}

    def _answer(self, logits: tf.Tensor, is_empty: tf.Tensor) -> dict[str, tf.Tensor]:
        names = tf.constant(list(self._labels))
        if self._thresholds is None:
            scores = tf.nn.softmax(logits)
            score = tf.reduce_max(scores, axis=1)
            known = (score >= self._min_score) & ~is_empty
            best = tf.argmax(scores, axis=1, output_type=tf.int32)
            label = tf.where(known, tf.gather(names, best), "")
            given = tf.equal(best[:, tf.newaxis], tf.range(len(self._labels))) & known[:, tf.newaxis]
            return {"label": label, "score": score, "scores": scores, "given": given}
        scores = tf.sigmoid(logits)
        chosen = (scores >= tf.constant(self._thresholds, tf.float32)) & ~is_empty[:, tf.newaxis]
        numbers = tf.ragged.boolean_mask(tf.zeros_like(scores, tf.int32) + tf.range(len(self._labels)), chosen)
        label = tf.strings.reduce_join(tf.gather(names, numbers), axis=1, separator="|")
        return {"label": label, "score": tf.reduce_max(scores, axis=1), "scores": scores, "given": chosen}
