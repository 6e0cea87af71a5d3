"""Tasks room: a network cut at its exits, to be run from one to the next with the rows that are left.

Rows that are sure leave the batch: Xin et al. 2020, "DeeBERT: Dynamic Early Exiting for Accelerating BERT Inference",
and for tagging Li et al. 2021, "Accelerating BERT Inference for Sequence Labeling via Early-Exit" (SENTEE).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from app.encoder.forward import run_layers
from app.encoder.parts import parts_of
from app.one_keras import keras
from app.tasks.head import Head
from app.tasks.network import LOGITS, TaskModel, connect

STATES, WINDOWS = "states", "padding_mask"


@dataclass(frozen=True)
class Step:
    """The layers up to an exit, or to the end, from the exit below.

    Attributes:
        layer: number of layers when they are done.
        head: that stands there.
        network: the features of rows for the first step, for others {states: [batch, length, width], padding_mask} ->
            {states, logits: float32 [batch, length, labels]}.
    """

    layer: int
    head: Head
    network: keras.Model


def build_steps(model: TaskModel) -> list[Step]:
    """The network of a model in as many steps as it has heads, on its weights."""
    encoder = model.backbone.model
    depth = len(encoder.transformer_layers)
    heads: list[tuple[int, Any]] = [*((each.layer, each.head) for each in model.exits), (depth, model.head)]
    steps: list[Step] = []
    for layer, head in heads:
        if steps:
            inputs = {
                STATES: keras.Input((None, encoder.hidden_dim), name=STATES),
                WINDOWS: keras.Input((None,), dtype="int32", name=WINDOWS),
            }
            states = run_layers(encoder, inputs[STATES], inputs[WINDOWS], begin=steps[-1].layer, depth=layer)
        else:
            segments = model.task.segments(model.facts)
            inputs, states = connect(model.backbone, model.shapes, segments=segments, depth=layer)
        outputs = {STATES: states[-1], LOGITS: head.connect(states[-1], inputs)}
        steps.append(Step(layer, head, keras.Model(inputs, outputs, name=f"to_layer_{layer}")))
    return steps


def measure_costs(model: TaskModel) -> np.ndarray:
    """Share of the encoder's operations that are done after 0, 1, ... layers: float64 [layers + 1], from 0 to 1.

    Of each layer its products of matrices count, for one piece; so layers whose heads or columns were cut count less.
    """
    costs = [0.0]
    for layer in model.backbone.model.transformer_layers:
        parts = parts_of(layer)
        products = (*parts.attention_parts.projections, parts.inner, parts.outer)
        costs.append(sum(float(np.prod(each.kernel.shape)) for each in products))
    return np.cumsum(costs) / sum(costs)


class EarlyNetwork:
    """A network inside a graph, which rows leave when it is sure of them; `build_word_network` that says its layer.

    Called as that is, with places to be asked for, it gives one column more than there are labels: the layer at which
    the row of each place left.

    Args:
        model: with exits.
        threshold: a row leaves at the first exit whose doubt is below it, see `Head.measure_doubt`.
    """

    columns = 1  # beside the labels

    def __init__(self, model: TaskModel, threshold: float) -> None:
        self._model, self._steps = model, build_steps(model)
        self._threshold: Any = np.float32(threshold)
        self._boundary_ids = [model.backbone.vocabulary.index(each) for each in ("[CLS]", "[SEP]")]

    @contextmanager
    def at(self, threshold: tf.Tensor) -> Iterator[None]:
        """What is built meanwhile has this threshold, a float32 scalar."""
        before, self._threshold = self._threshold, threshold
        try:
            yield
        finally:
            self._threshold = before

    @tf.autograph.experimental.do_not_convert
    def __call__(self, features: dict[str, tf.Tensor], places: tf.Tensor) -> tf.Tensor:
        """Features int32 [rows, length], places int32 [chosen, 2], rows ascending -> float32 [chosen, labels + 1]."""
        tokens, windows = features["token_ids"], features[WINDOWS]
        start, end = self._boundary_ids
        boundaries = (tf.equal(tokens, start) | tf.equal(tokens, end)) & (windows > 0)
        count = tf.shape(places)[0]
        found = tf.zeros([count, len(self._model.labels) + self.columns])
        return self._go_on(0, features, boundaries, places, tf.range(count), found)

    def answer_rows(self, features: dict[str, tf.Tensor], units: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of whole rows.

        Args:
            features: int32 [rows, length].
            units: bool [rows, length], what is asked for.

        Returns:
            (logits float32 [rows, length, labels], 0 where nothing is asked for; int32 [rows], the layer of each, 0
            where nothing is asked for in the row).
        """
        places = tf.cast(tf.where(units), tf.int32)
        found = self(features, places)
        shape = tf.concat([tf.shape(units), [len(self._model.labels)]], axis=0)
        layers = tf.math.unsorted_segment_max(tf.cast(found[:, -1], tf.int32), places[:, 0], tf.shape(units)[0])
        return tf.scatter_nd(places, found[:, :-1], shape), tf.maximum(layers, 0)

    def _go_on(
        self,
        number: int,
        inputs: dict[str, tf.Tensor],
        boundaries: tf.Tensor,
        places: tf.Tensor,
        order: tf.Tensor,
        found: tf.Tensor,
    ) -> tf.Tensor:
        """A step for the rows that are left, and the steps above it for those that are left then.

        Args:
            number: of the step.
            inputs: of its network.
            boundaries: bool [rows, length].
            places: int32 [left, 2], in these rows.
            order: int32 [left], which of all places these are.
            found: float32 [chosen, labels + 1], filled in so far.
        """
        step, windows = self._steps[number], inputs[WINDOWS]

        def put(logits: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
            layer = tf.fill([tf.shape(at)[0], 1], float(step.layer))
            return tf.tensor_scatter_nd_update(found, at[:, tf.newaxis], tf.concat([logits, layer], axis=1))

        if number + 1 == len(self._steps):
            return put(self._run_last(inputs, places), order)
        result = step.network(inputs, training=False)
        asked = tf.ones([tf.shape(places)[0]], tf.int32)
        units = tf.scatter_nd(places, asked, tf.shape(windows)) > 0
        leaves = step.head.measure_doubt(result[LOGITS], units, boundaries) < self._threshold  # [rows]
        # Not ~leaves, which TensorFlow turns into >=: who compares with what is not a number would leave then.
        stays = tf.equal(tf.cast(leaves, tf.int32), 0)
        still = tf.gather(stays, places[:, 0])  # [left]
        done = tf.boolean_mask(places, ~still)
        found = put(tf.gather_nd(result[LOGITS], done), tf.boolean_mask(order, ~still))

        def go_on() -> tf.Tensor:
            rows = tf.cast(tf.where(stays)[:, 0], tf.int32)
            numbers = tf.cumsum(tf.cast(stays, tf.int32)) - 1  # of the rows among those that stay
            row, piece = tf.unstack(tf.boolean_mask(places, still), axis=1)
            return self._go_on(
                number + 1,
                {STATES: tf.gather(result[STATES], rows), WINDOWS: tf.gather(windows, rows)},
                tf.gather(boundaries, rows),
                tf.stack([tf.gather(numbers, row), piece], axis=1),
                tf.boolean_mask(order, still),
                found,
            )

        return tf.cond(tf.reduce_any(still), go_on, lambda: found)

    def _run_last(self, inputs: dict[str, tf.Tensor], places: tf.Tensor) -> tf.Tensor:
        """Logits of the last head at places, for which alone the last layer is computed if no head needs others."""
        model, step = self._model, self._steps[-1]
        if model.head.pools:
            return tf.gather_nd(step.network(inputs, training=False)[LOGITS], places)
        begin = self._steps[-2].layer
        states = run_layers(
            model.backbone.model, inputs[STATES], inputs[WINDOWS], begin=begin, places=places, training=False
        )
        return model.head(states[-1], training=False)
