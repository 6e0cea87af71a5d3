"""Tasks room: a network cut at its exits, to be run from one to the next with what is left.

Rows that are sure leave the batch: Xin et al. 2020, "DeeBERT: Dynamic Early Exiting for Accelerating BERT Inference".
In tagging each word that is sure, with its neighbours, stops being computed, and the others read the state in which it
stopped: Li et al. 2021, "Accelerating BERT Inference for Sequence Labeling via Early-Exit", their TOKEE.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from app.encoder.forward import run_layers
from app.encoder.parts import parts_of
from app.one_keras import keras
from app.tasks.exit_table import leaves_by_unit
from app.tasks.head import Head, find_boundaries
from app.tasks.network import LOGITS, TaskModel, connect

STATES, WINDOWS = "states", "padding_mask"


@dataclass(frozen=True)
class Step:
    """The layers up to an exit, or to the end, from the exit below.

    Attributes:
        layer: number of layers when they are done.
        head: that stands there.
    """

    layer: int
    head: Head


def list_steps(model: TaskModel) -> list[Step]:
    """The steps of a model, as many as it has heads."""
    last = Step(len(model.backbone.model.transformer_layers), model.head)
    return [*(Step(each.layer, each.head) for each in model.exits), last]


def build_beginning(model: TaskModel, step: Step) -> keras.Model:
    """The network up to the first head: features -> {states, logits: float32 [batch, length, labels]}."""
    inputs, states = connect(
        model.backbone, model.shapes, segments=model.task.segments(model.facts), depth=step.layer
    )
    outputs = {STATES: states[-1], LOGITS: step.head.connect(states[-1], inputs)}
    return keras.Model(inputs, outputs, name=f"to_layer_{step.layer}")


def measure_costs(model: TaskModel) -> np.ndarray:
    """Share of the encoder's operations that are done after 0, 1, ... layers: float64 [layers + 1], from 0 to 1.

    Of each layer its products of matrices count, for one piece; so layers whose heads or columns were cut count less.
    """
    return np.concatenate([[0.0], np.cumsum(measure_layer_costs(model).sum(axis=1))])


def measure_layer_costs(model: TaskModel) -> np.ndarray:
    """Of each layer for one piece: that of what others read of it (keys and values), and that of the rest.

    Returns:
        float64 [layers, 2], shares of the encoder's operations.
    """
    costs = []
    for layer in model.backbone.model.transformer_layers:
        parts = parts_of(layer)
        read = {"key", "value"}
        attention = {name: _size(getattr(parts.attention_parts, name)) for name in ("query", "key", "value", "output")}
        own = sum(size for name, size in attention.items() if name not in read)
        costs.append([sum(attention[name] for name in read), own + _size(parts.inner) + _size(parts.outer)])
    found = np.array(costs, np.float64)
    return found / found.sum()


def _size(dense: Any) -> int:
    return int(np.prod(dense.kernel.shape))


class _Left(NamedTuple):
    """Rows that are still computed.

    Attributes:
        rows: int32 [left], their numbers in the batch.
        states: float [left, length, width], each piece as it was when it stopped.
        windows: int32 [left, length].
        boundaries: bool [left, length], true at `[CLS]` and `[SEP]`.
        units: bool [left, length], what was asked for, also what has left.
        logits: float32 [left, length, labels], by the last head that each piece came to.
        going: bool [left, length], pieces that are still computed.
        places: int32 [asked, 2], what has not left, in these rows, rows ascending.
        order: int32 [asked], which of all places these are.
    """

    rows: tf.Tensor
    states: tf.Tensor
    windows: tf.Tensor
    boundaries: tf.Tensor
    units: tf.Tensor
    logits: tf.Tensor
    going: tf.Tensor
    places: tf.Tensor
    order: tf.Tensor


class EarlyNetwork:
    """A network inside a graph, which is left early by what is sure; `build_word_network` that says its layer.

    Called as that is, with places to be asked for, it gives one column more than there are labels: the layer at which
    each place left.

    Args:
        model: with exits.
        threshold: a place (or a row, see `Head.reach`) leaves at the first exit where its doubt is below it, see
            `Head.measure_doubts`; 0 = none leaves early.
        by_unit: whether the units of a row leave one by one where the head lets them; None = if that was measured.
    """

    columns = 1  # beside the labels

    def __init__(self, model: TaskModel, threshold: float, *, by_unit: bool | None = None) -> None:
        self._model, self._steps = model, list_steps(model)
        self._beginning = build_beginning(model, self._steps[0])
        self._threshold: Any = np.float32(threshold)
        one_by_one = leaves_by_unit(model.facts) if by_unit is None else by_unit
        self._reach = model.head.reach if one_by_one else None
        self._costs = measure_layer_costs(model)

    @contextmanager
    def at(self, threshold: tf.Tensor) -> Iterator[None]:
        """What is built meanwhile has this threshold, a float32 scalar."""
        before, self._threshold = self._threshold, threshold
        try:
            yield
        finally:
            self._threshold = before

    def __call__(self, features: dict[str, tf.Tensor], places: tf.Tensor) -> tf.Tensor:
        """Features int32 [rows, length], places int32 [chosen, 2], rows ascending -> float32 [chosen, labels + 1]."""
        return self.run(features, places)[0]

    @tf.autograph.experimental.do_not_convert
    def run(self, features: dict[str, tf.Tensor], places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The same, and float32 [rows], the share of the encoder's operations that each row took."""
        windows, step = features[WINDOWS], self._steps[0]
        rows, count = tf.shape(windows)[0], tf.shape(places)[0]
        result = self._beginning(features, training=False)
        first = _Left(
            rows=tf.range(rows),
            states=result[STATES],
            windows=windows,
            boundaries=find_boundaries(features["token_ids"], self._model.backbone.boundary_ids) & (windows > 0),
            units=tf.scatter_nd(places, tf.ones([count], tf.int32), tf.shape(windows)) > 0,
            logits=result[LOGITS],
            going=windows > 0,
            places=places,
            order=tf.range(count),
        )
        found = tf.zeros([count, len(self._model.labels) + self.columns])
        return self._leave(0, first, found, tf.fill([rows], np.float32(self._costs[: step.layer].sum())))

    def answer_rows(
        self, features: dict[str, tf.Tensor], units: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of whole rows.

        Args:
            features: int32 [rows, length].
            units: bool [rows, length], what is asked for.

        Returns:
            (logits float32 [rows, length, labels], int32 [rows, length], the layer at which each unit left, both 0
            where nothing is asked for; float32 [rows], the share of the encoder's operations that each took).
        """
        places = tf.cast(tf.where(units), tf.int32)
        found, spent = self.run(features, places)
        shape = tf.shape(units)
        logits = tf.scatter_nd(places, found[:, :-1], tf.concat([shape, [len(self._model.labels)]], axis=0))
        return logits, tf.scatter_nd(places, tf.cast(found[:, -1], tf.int32), shape), spent

    def _leave(
        self, number: int, left: _Left, found: tf.Tensor, spent: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Lets those go that are sure at the exit of a step, and takes the others on from there.

        Args:
            number: of the step, which was computed.
            left: up to that exit.
            found: float32 [chosen, labels + 1], filled in so far.
            spent: float32 [all rows], so far.

        Returns:
            found and spent, complete.
        """
        step = self._steps[number]
        doubts = step.head.measure_doubts(left.logits, left.units, left.boundaries)
        leaves = tf.gather_nd(doubts, left.places) < self._threshold  # [asked]
        # Not ~leaves, which TensorFlow turns into >=: who compares with what is not a number would leave then.
        stays = tf.equal(tf.cast(leaves, tf.int32), 0)
        if self._reach is None:
            row = left.places[:, 0]
            stays_of_row = tf.math.unsorted_segment_max(tf.cast(stays, tf.int32), row, tf.shape(left.windows)[0])
            stays = tf.gather(stays_of_row, row) > 0
        done = tf.boolean_mask(left.places, ~stays)
        logits = tf.gather_nd(left.logits, done)
        found = _put(found, logits, tf.boolean_mask(left.order, ~stays), layer=step.layer)
        return tf.cond(
            tf.reduce_any(stays),
            lambda: self._go_on(number + 1, self._keep(left, stays), found, spent),
            lambda: (found, spent),
        )

    def _keep(self, left: _Left, stays: tf.Tensor) -> _Left:
        """What is left when only some places stay, bool [asked]: the rows of these and the pieces about them."""
        places = tf.boolean_mask(left.places, stays)
        going = left.going
        if self._reach is not None:
            asked = tf.scatter_nd(places, tf.ones([tf.shape(places)[0]]), tf.shape(left.windows))
            about = tf.nn.max_pool1d(asked[..., tf.newaxis], 2 * self._reach + 1, strides=1, padding="SAME")[..., 0]
            some_leave = tf.convert_to_tensor(self._threshold) > 0  # at 0 it is the whole network, as at NaN, see above
            going &= (about > 0) | tf.equal(tf.cast(some_leave, tf.int32), 0)
        row_stays = tf.math.unsorted_segment_sum(
            tf.ones_like(places[:, 0]), places[:, 0], tf.shape(left.windows)[0]
        )
        rows = tf.cast(tf.where(row_stays > 0)[:, 0], tf.int32)
        numbers = tf.cumsum(tf.cast(row_stays > 0, tf.int32)) - 1  # of the rows among those that stay
        row, piece = tf.unstack(places, axis=1)
        return _Left(
            rows=tf.gather(left.rows, rows),
            states=tf.gather(left.states, rows),
            windows=tf.gather(left.windows, rows),
            boundaries=tf.gather(left.boundaries, rows),
            units=tf.gather(left.units, rows),
            logits=tf.gather(left.logits, rows),
            going=tf.gather(going, rows),
            places=tf.stack([tf.gather(numbers, row), piece], axis=1),
            order=tf.boolean_mask(left.order, stays),
        )

    def _go_on(
        self, number: int, left: _Left, found: tf.Tensor, spent: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A step for what is left, and the steps above it; see `_leave`."""
        step, begin = self._steps[number], self._steps[number - 1].layer
        spent = tf.tensor_scatter_nd_add(spent, left.rows[:, tf.newaxis], self._cost(left, begin, step.layer))
        if number + 1 == len(self._steps):
            return _put(found, self._run_last(left, begin), left.order, layer=step.layer), spent
        if self._reach is None:
            states = self._run_layers(left, begin=begin, depth=step.layer)
            logits = step.head.connect(states, {WINDOWS: left.windows}, training=False)
            return self._leave(number, left._replace(states=states, logits=logits), found, spent)
        only = tf.cast(tf.where(left.going), tf.int32)
        states = self._run_layers(left, begin=begin, depth=step.layer, only=only)
        logits = step.head(tf.gather_nd(states, only)[tf.newaxis], training=False)[0]
        logits = tf.tensor_scatter_nd_update(left.logits, only, logits)
        return self._leave(number, left._replace(states=states, logits=logits), found, spent)

    def _cost(self, left: _Left, begin: int, depth: int) -> tf.Tensor:
        """Share of the encoder's operations that some layers take of each row, float32 [left]."""
        read, own = self._costs[begin:depth].sum(axis=0)
        going, real = (tf.math.count_nonzero(each, axis=1, dtype=tf.float32) for each in (left.going, left.windows > 0))
        return np.float32(read) + np.float32(own) * going / tf.maximum(real, 1.0)

    def _run_layers(self, left: _Left, **settings: Any) -> tf.Tensor:
        return run_layers(self._model.backbone.model, left.states, left.windows, training=False, **settings)[-1]

    def _run_last(self, left: _Left, begin: int) -> tf.Tensor:
        """Logits of the last head at places, for which alone the last layer is computed if no head needs others."""
        head = self._model.head
        if head.pools:
            states = self._run_layers(left, begin=begin)
            return tf.gather_nd(head.connect(states, {WINDOWS: left.windows}, training=False), left.places)
        only = None if self._reach is None else tf.cast(tf.where(left.going), tf.int32)
        return head(self._run_layers(left, begin=begin, only=only, places=left.places), training=False)


def _put(found: tf.Tensor, logits: tf.Tensor, at: tf.Tensor, *, layer: int) -> tf.Tensor:
    """Fills logits float32 [some, labels] and the layer in at places int32 [some] of [chosen, labels + 1]."""
    layers = tf.fill([tf.shape(at)[0], 1], float(layer))
    return tf.tensor_scatter_nd_update(found, at[:, tf.newaxis], tf.concat([logits, layers], axis=1))
