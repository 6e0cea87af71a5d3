"""Tasks room: the way from raw texts to their labels inside a TensorFlow graph, around a network.

The same steps as `--mode=predict` takes on arrays: words, windows, the mean of the logits of a text's windows.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from app.data.encoding import Encoder
from app.data.graph_rows import GraphRows, run_windows
from app.text.graph_words import GraphShapes, GraphWords, TextWords, changes

Network = Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]


class GraphClassifier:
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
        self._words, self._shapes = GraphWords(), GraphShapes()
        self._rows = GraphRows(encoder)
        self._network = network
        self._pairs = pairs
        self._labels = encoder.labels
        self._temperature, self._min_score, self._thresholds = temperature, min_score, thresholds

    def __call__(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Labels of texts of any length.

        Args:
            texts: string [texts].

        Returns:
            `label` string [texts], empty where there is none, several with `|` between them; `score` float32 [texts],
            of the most probable label; `scores` float32 [texts, labels]; `given` bool [texts, labels], whether a label
            is part of the answer.
        """
        words = self._words(texts)
        letters = tf.ragged.range(words.starts, words.ends)
        letters = letters.with_flat_values(tf.gather(words.codes, letters.flat_values))
        spelled = tf.strings.unicode_encode(letters, "UTF-8")
        first_of_text = changes(words.texts)
        begins = first_of_text | self._second_texts(words) if self._pairs else first_of_text
        shapes = self._shapes(words.types, words.starts, words.ends)
        stream = self._rows.encode(spelled, shapes, begins)
        windows = self._rows.cut(stream, begins, first_of_text)
        owners = tf.gather(words.texts, windows.core_left)  # the text of each window

        def network(features: dict[str, tf.Tensor], places: tf.Tensor) -> tf.Tensor:
            rows = tf.range(tf.shape(features["token_ids"])[0])
            return self._network(features, tf.stack([rows, tf.zeros_like(rows)], axis=1))

        by_window = run_windows(self._rows, stream, windows, network, labels=len(self._labels))
        count = tf.shape(texts)[0]
        logits = tf.math.unsorted_segment_mean(by_window, owners, count)  # [texts, labels]
        is_empty = tf.equal(tf.math.bincount(owners, minlength=count, maxlength=count), 0)
        return self._answer(logits / self._temperature, is_empty)

    def _second_texts(self, words: TextWords) -> tf.Tensor:
        """Whether a word is the first behind the first tab of its text, bool [words]."""
        tabs = tf.cast(tf.where(tf.equal(words.codes, ord("\t")))[:, 0], tf.int32)
        owners = tf.searchsorted(words.text_starts, tabs, side="right") - 1
        count = tf.shape(words.text_starts)[0] - 1
        first_tab = tf.math.unsorted_segment_min(tabs, owners, count)  # the largest integer without one
        behind = words.starts > tf.gather(first_tab, words.texts)
        before = tf.concat([tf.zeros([1], tf.bool), behind[:-1]], 0)[: tf.size(behind)]
        return behind & (~before | changes(words.texts))

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
