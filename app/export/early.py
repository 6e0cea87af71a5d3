"""Export room: a model with exits in TFLite, left early by the batch as a whole or by its words one by one.

What is above an exit is a branch of the graph (`IF`), which is not computed when nothing is left to compute.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from app.data.packing import FEATURES
from app.encoder.forward import run_layers
from app.export.graph import InferenceModule, Places, find_places
from app.tasks.exit_table import leaves_by_unit
from app.tasks.exits import list_steps, measure_costs, measure_layer_costs


class EarlyModule(InferenceModule):
    """A model with exits. Two outputs more: `layer` int32 [batch, length], `operations` float32 [1].

    Args:
        tagger: a loaded tagger.
        threshold: of the doubts of units; what is sure leaves at the first exit where its doubt is below it.
        **options: of `InferenceModule`.
    """

    def __init__(self, tagger: Any, *, threshold: float, **options: Any) -> None:
        super().__init__(tagger, **options)
        self._threshold = np.float32(threshold)
        self._steps = list_steps(tagger)
        self._costs = measure_layer_costs(tagger)

    def answer(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        named = dict(zip(self.inputs, inputs, strict=True))
        tokens, shapes, windows = (named[name] for name in FEATURES)
        start, end = self._boundary_ids
        boundaries = (tf.equal(tokens, start) | tf.equal(tokens, end)) & (windows > 0)
        states = self._run(tokens, shapes, windows, depth=self._steps[0].layer)
        logits, layer, spent = self._leave_first(states, windows, self._units(named, boundaries), boundaries)
        found = self._model.task.finish_graph(self._model, logits, named, self._boundary_ids)
        return {**found, "layer": layer, "operations": spent}

    def _units(self, named: dict[str, tf.Tensor], boundaries: tf.Tensor) -> tf.Tensor:
        """What has to be sure, bool [batch, length]; if nobody says where words begin, every piece."""
        windows = named["padding_mask"]
        name = self._model.task.unit_input
        if not name:
            return tf.expand_dims(tf.equal(tf.range(tf.shape(windows)[1]), 0), 0) & (windows > 0)
        inside = (windows > 0) & ~boundaries
        marked = (named[name] > 0) & inside
        return marked | (inside & ~tf.reduce_any(marked))

    @abstractmethod
    def _leave_first(
        self, states: tf.Tensor, windows: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """From the first exit on.

        Args:
            states: float32 [batch * length, width], after the layers below the first exit.
            windows: int32 [batch, length].
            units: bool [batch, length], what has to be sure.
            boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.

        Returns:
            (logits float32 [batch, length, labels]; int32 [batch, length], the layer at which each unit left, and
            anything elsewhere; float32 [1], the share of the encoder's operations that was computed).
        """


class RowsLeaveModule(EarlyModule):
    """The batch leaves when all its rows are sure, so it is to be one text."""

    def _leave_first(
        self, states: tf.Tensor, windows: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        logits, layer = self._leave(0, states, windows, units, boundaries)
        costs = tf.constant(measure_costs(self._model), tf.float32)
        return logits, tf.where(windows > 0, layer, 0), tf.gather(costs, layer)

    def _leave(
        self, number: int, states: tf.Tensor, windows: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits and layer int32 [1] of what has come to a head, and of what is above it."""
        step = self._steps[number]
        logits = self._ask(step.head, states, windows)
        if number + 1 == len(self._steps):
            return logits, tf.constant([step.layer])

        def go_on() -> tuple[tf.Tensor, tf.Tensor]:
            above = run_layers(
                self._backbone,
                states,
                windows,
                begin=step.layer,
                depth=self._steps[number + 1].layer,
                arithmetic=self._arithmetic,
                training=False,
            )
            return self._leave(number + 1, above[-1], windows, units, boundaries)

        sure = tf.reduce_all(step.head.infer_doubts(logits, units, boundaries) < self._threshold)
        return tf.cond(sure, lambda: (tf.identity(logits), tf.constant([step.layer])), go_on)


class _Rows(NamedTuple):
    """What does not change from exit to exit, of all rows as one.

    Attributes:
        shape: int32 [2], of the rows as they came: batch and length.
        windows: int32 [1, pieces], those of different rows have different numbers; 0 for padding.
        units: bool [1, pieces], what was asked for.
        boundaries: bool [1, pieces].
    """

    shape: tf.Tensor
    windows: tf.Tensor
    units: tf.Tensor
    boundaries: tf.Tensor


class _Left(NamedTuple):
    """The pieces of all rows, one row after the other, at an exit; `app/tasks/exits.py` has the same by rows.

    Attributes:
        states: float32 [pieces, width], each as it was when it stopped.
        logits: float32 [pieces, labels], by the last head that each came to.
        found: the same of those that left, by the head at which they did.
        asked: bool [pieces], units that have not left.
        going: bool [pieces], what is still computed.
        layers: int32 [pieces], at which those left that did.
        spent: float32 [1], share of the encoder's operations.
    """

    states: tf.Tensor
    logits: tf.Tensor
    found: tf.Tensor
    asked: tf.Tensor
    going: tf.Tensor
    layers: tf.Tensor
    spent: tf.Tensor


class UnitsLeaveModule(EarlyModule):
    """Units leave one by one, with the pieces about them that no other needs (`Head.reach`)."""

    def _leave_first(
        self, states: tf.Tensor, windows: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        shape = tf.shape(windows)
        before = tf.range(shape[0])[:, tf.newaxis] * (tf.reduce_max(windows) + 1)
        numbered = tf.where(windows > 0, windows + before, 0)
        rows = _Rows(shape, *(tf.reshape(each, [1, -1]) for each in (numbered, units, boundaries)))
        left = _Left(
            states=states,
            logits=self._steps[0].head.infer(states, rows.windows),
            found=tf.zeros([tf.shape(states)[0], len(self.labels)]),
            asked=rows.units[0],
            going=rows.windows[0] > 0,
            layers=tf.zeros(tf.shape(states)[:1], tf.int32),
            spent=tf.constant([self._costs[: self._steps[0].layer].sum()], tf.float32),
        )
        logits, layers, spent = self._leave(0, rows, left)
        return tf.reshape(logits, tf.concat([shape, [len(self.labels)]], axis=0)), tf.reshape(layers, shape), spent

    def _leave(self, number: int, rows: _Rows, left: _Left) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Lets those go that are sure at an exit, and takes the others on: found, layers and spent, complete."""
        step = self._steps[number]
        doubts = step.head.infer_doubts(left.logits[tf.newaxis], rows.units, rows.boundaries)[0]
        sure = tf.cast(doubts < self._threshold, tf.int32)  # what is not a number is not sure
        asked = left.asked & tf.equal(sure, 0)
        leaves = left.asked & tf.equal(sure, 1)
        left = left._replace(
            found=tf.where(leaves[:, tf.newaxis], left.logits, left.found),
            layers=tf.where(leaves, step.layer, left.layers),
            asked=asked,
            going=left.going & self._about(asked, rows.shape) if self._threshold > 0 else left.going,
        )
        # Their numbers are inputs of the branch: see `_ChosenOfOneRow`.
        going, last = find_places(left.going), find_places(asked)
        return tf.cond(
            tf.reduce_any(asked),
            lambda: self._go_on(number + 1, rows, left, going, last),
            lambda: (tf.identity(left.found), tf.identity(left.layers), tf.identity(left.spent)),
        )

    def _about(self, asked: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """The units that are asked for and the pieces near them in rows of a shape, bool [pieces]."""
        by_row = tf.reshape(tf.cast(asked, tf.float32), tf.concat([shape, [1]], axis=0))
        return tf.reshape(tf.nn.max_pool1d(by_row, 2 * self._head.reach + 1, strides=1, padding="SAME"), [-1]) > 0

    def _go_on(
        self, number: int, rows: _Rows, left: _Left, going: Places, last: Places
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The layers up to the next head for the pieces in `going`, the very last one for those in `last` alone."""
        begin, depth, head = self._steps[number - 1].layer, self._steps[number].layer, self._steps[number].head
        left = left._replace(spent=left.spent + self._cost(rows, left, begin=begin, depth=depth))
        at_end = number + 1 == len(self._steps)
        states = run_layers(
            self._backbone,
            left.states,
            rows.windows,
            begin=begin,
            depth=depth,
            only=going,
            places=last if at_end else None,
            arithmetic=self._arithmetic,
            training=False,
        )[-1]
        if at_end:
            found = tf.gather(tf.concat([left.found, head.infer(states, rows.windows)], axis=0), last.order)
            return found, tf.where(left.asked, depth, left.layers), left.spent
        moved = head.infer(tf.gather(states, going.numbers), rows.windows)
        logits = tf.gather(tf.concat([left.logits, moved], axis=0), going.order)
        return self._leave(number, rows, left._replace(states=states, logits=logits))

    def _cost(self, rows: _Rows, left: _Left, *, begin: int, depth: int) -> tf.Tensor:
        """Share of the encoder's operations that some layers take, see `EarlyNetwork`: float32 [1]."""
        read, own = self._costs[begin:depth].sum(axis=0)
        going, real = (tf.reduce_sum(tf.cast(each, tf.float32)) for each in (left.going, rows.windows[0] > 0))
        return np.float32(read) + np.float32(own) * tf.reshape(going / tf.maximum(real, 1.0), [1])


def make_early_module(tagger: Any, **options: Any) -> EarlyModule:
    """What `EarlyModule` takes -> the module whose units leave as they do in the table of the model's thresholds."""
    one_by_one = tagger.head.reach is not None and leaves_by_unit(tagger.facts)
    return (UnitsLeaveModule if one_by_one else RowsLeaveModule)(tagger, **options)
