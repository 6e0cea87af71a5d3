"""Evaluation room: networks with exits in all runtimes, and what their thresholds cost on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from app.config import PredictConfig
from app.data.packing import FEATURES
from app.evaluation.litert import RowByRow
from app.evaluation.predictor import Features, Predictor
from app.run.screen import heartbeat
from app.tasks.exit_table import ExitRow, make_fact
from app.tasks.exits import EarlyNetwork, measure_costs
from app.tasks.head import find_boundaries
from app.tasks.network import LOGITS, TaskModel

# Parts of the rows of all exits together whose doubt a threshold of the table lies above.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# Of units that leave one by one, most are sure at once: what matters lies close to 0.
UNIT_THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8)
ALL_LEAVE = 2.0  # no doubt is above 1


class _Counted:
    """Counts at which layers units left, and what share of the operations their rows took.

    Attributes:
        threshold: see `EarlyForward`.
    """

    threshold: float = 0.0

    def __init__(self) -> None:
        self.begin()

    def count(self, layers: np.ndarray, spent: np.ndarray, features: Features, units: np.ndarray) -> None:
        """Adds rows to what `measure` tells; padding does not count.

        Args:
            layers: int [batch, length].
            spent: float [batch], share of the encoder's operations.
            features: of the rows.
            units: bool [batch, length].
        """
        pieces = np.count_nonzero(features["padding_mask"], axis=1)
        self._sums += [pieces.sum(), pieces @ np.asarray(spent, np.float64), units.sum(), layers[units].sum()]

    def begin(self) -> None:
        self._sums = np.zeros(4)

    def measure(self) -> dict[str, float]:
        pieces, spent, units, layers = self._sums
        return {"exit_operations": float(spent / max(pieces, 1)), "exit_layer": float(layers / max(units, 1))}


class KerasEarlyForward(_Counted):
    """The Keras network, which rows, or their units one by one, leave when it is sure of them.

    Args:
        model: with exits.
        threshold: see `EarlyNetwork`, also for by_unit.
    """

    def __init__(self, model: TaskModel, threshold: float, *, by_unit: bool | None = None) -> None:
        super().__init__()
        self.threshold = threshold
        network = EarlyNetwork(model, threshold, by_unit=by_unit)
        spec = {name: tf.TensorSpec([None, None], tf.int32) for name in FEATURES}

        @tf.function(
            input_signature=[spec, tf.TensorSpec([None, None], tf.bool), tf.TensorSpec([])], autograph=False
        )
        def compute(features: dict[str, tf.Tensor], units: tf.Tensor, threshold: tf.Tensor) -> Any:
            with network.at(threshold):
                return network.answer_rows(features, units)

        self._compute = compute.get_concrete_function()  # TensorFlow warns of many functions made in one place

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = {name: tf.constant(features[name], tf.int32) for name in FEATURES}
        found = self._compute(inputs, tf.constant(units), tf.constant(self.threshold, tf.float32))
        logits, layers, spent = (each.numpy() for each in found)
        self.count(layers, spent, features, units)
        return logits, layers


class SavedModelEarlyForward(_Counted):
    """The same by the signature `tokenized_early` of a SavedModel.

    Args:
        loaded: from `load_version`; a signature alone would not keep its weights.
        threshold: see `KerasEarlyForward`.
    """

    def __init__(self, loaded: Any, threshold: float) -> None:
        super().__init__()
        self._loaded, self.threshold = loaded, threshold

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = {name: tf.constant(features[name], tf.int32) for name in FEATURES}
        asked = tf.constant(units.astype(np.int32))
        threshold = tf.constant(self.threshold, tf.float32)
        found = self._loaded.signatures["tokenized_early"](**inputs, units=asked, threshold=threshold)
        layers = found["layer"].numpy()
        self.count(layers, found["operations"].numpy(), features, units)
        return found["logits"].numpy(), layers


class TFLiteEarlyForward(_Counted):
    """The same by a TFLite file with exits, row by row.

    Args:
        run: {name of an input: int32 [1, length]} -> outputs, among them `logits` and `layer`.
        unit_input: name of the input that says where units are, see `Task.unit_input`; empty = there is none.
        model: that the file was made of.
        threshold: that the file was made with.
    """

    def __init__(
        self, run: Callable[[Features], dict[str, np.ndarray]], model: TaskModel, *, unit_input: str, threshold: float
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self._costs = measure_costs(model)
        self._rows = RowByRow(run, labels=len(model.labels), unit_input=unit_input)

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, layers = self._rows(features, units)
        spent = np.array(self._rows.spent)
        self.count(layers, np.where(np.isnan(spent), self._costs[layers.max(axis=1)], spent), features, units)
        return logits, layers


@dataclasses.dataclass
class _Recorded:
    """A batch at all heads.

    Attributes:
        logits: of its units, float32 [heads, units, labels].
        doubts: of each exit, float32 [batch].
    """

    logits: np.ndarray
    doubts: list[np.ndarray]


class _Recorder(_Counted):
    """Computes every row to the end, keeps what all heads say, and can then answer for any threshold.

    So for networks that rows leave as a whole: what an exit says of a row does not depend on who left below.

    Args:
        model: with exits.
    """

    def __init__(self, model: TaskModel) -> None:
        self._batches: list[_Recorded] = []
        super().__init__()
        self.threshold = 0.0
        self._layers = np.array([*(each.layer for each in model.exits), len(model.backbone.model.transformer_layers)])
        self._spent = measure_costs(model)[self._layers]
        spec = {name: tf.TensorSpec([None, None], tf.int32) for name in FEATURES}

        @tf.function(input_signature=[spec, tf.TensorSpec([None, None], tf.bool)], autograph=False)
        def compute(features: dict[str, tf.Tensor], units: tf.Tensor) -> Any:
            boundaries = find_boundaries(features["token_ids"], model.backbone.boundary_ids)
            boundaries &= features["padding_mask"] > 0
            found = model.whole(features, training=False)
            doubts = [
                tf.reduce_max(each.head.measure_doubts(found[each.name], units, boundaries), axis=1)
                for each in model.exits
            ]
            return [*(found[each.name] for each in model.exits), found[LOGITS]], doubts

        self._compute = compute.get_concrete_function()

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._replayed is None:
            inputs = {name: tf.constant(features[name], tf.int32) for name in FEATURES}
            logits, doubts = self._compute(inputs, tf.constant(units))
            at_units = np.stack([found.numpy()[units] for found in logits])
            each = _Recorded(at_units, [doubt.numpy() for doubt in doubts])
            self._batches.append(each)
        else:
            each = next(self._replayed)
        depth = np.full(len(units), len(each.doubts))
        for number in reversed(range(len(each.doubts))):
            depth[each.doubts[number] < np.float32(self.threshold)] = number
        layers = np.where(units, self._layers[depth][:, np.newaxis], 0)
        self.count(layers, self._spent[depth], features, units)
        found = np.zeros((*units.shape, each.logits.shape[-1]), np.float32)
        found[units] = each.logits[depth[np.nonzero(units)[0]], np.arange(each.logits.shape[1])]
        return found, layers

    def begin(self) -> None:
        """From here on, the same batches are asked for again, in their order."""
        super().begin()
        self._replayed = iter(self._batches) if self._batches else None

    def thresholds(self) -> list[float]:
        """Ascending: 0, some between the doubts that were measured, and one below which every doubt is."""
        doubts = np.concatenate([doubt for batch in self._batches for doubt in batch.doubts])
        found = {float(f"{each:.4g}") for each in np.quantile(doubts, LEVELS)} if len(doubts) else set()
        return [0.0, *sorted(found - {0.0}), ALL_LEAVE]


class _Trials:
    """A split whose rows are made once, and answered once for each threshold.

    Args:
        predictor: of a model with exits.
        examples: the split.
        config: which answers count.
    """

    def __init__(self, predictor: Predictor, examples: Sequence[Any], config: PredictConfig) -> None:
        self._predictor, self._examples, self._config = predictor, examples, config
        self._kept: list[list[Any]] = []
        self._measured = 0
        self._thresholds = len(LEVELS if predictor.model.head.reach is None else UNIT_THRESHOLDS) + 2

    def record(self, recorder: _Recorder | None) -> list[Any]:
        """The answers of the whole network."""

        def keep(part: Iterable[Any]) -> Iterator[Any]:
            self._kept.append(list(self._predictor.make_rows(part)))
            return iter(self._kept[-1])

        recording = dataclasses.replace(self._predictor, make_rows=keep, early=recorder)
        return list(recording.answer(self._examples))

    def measure(self, model: TaskModel, threshold: float, early: _Recorder | KerasEarlyForward) -> ExitRow:
        """What a threshold costs, of a model that has learnt from `record`."""
        early.threshold = threshold
        early.begin()
        parts = iter(self._kept)
        replaying = dataclasses.replace(
            self._predictor, model=model, make_rows=lambda part: iter(next(parts)), early=early
        )
        answers = list(replaying.answer(self._examples))
        scored, found = model.task.score(model, self._examples, answers, self._config), early.measure()
        self._measured += 1
        return ExitRow(threshold, scored.headline, found["exit_operations"], found["exit_layer"])

    def so_far(self) -> str:
        """Equal thresholds of rows are one, so that their number is known only at the end."""
        return f"{self._measured} of {self._thresholds} thresholds" if self._measured else "all layers at first"


def measure_exits(
    predictor: Predictor,
    examples: Sequence[Any],
    *,
    learn: Callable[[Sequence[Any]], TaskModel],
    config: PredictConfig,
) -> tuple[TaskModel, list[ExitRow]]:
    """What thresholds cost on a validation split.

    Where units leave one by one, the network is run once for each threshold; for rows that leave as a whole, once.

    Args:
        predictor: of a model with exits.
        examples: the split.
        learn: from the answers of the whole network to the model with what they teach (`Task.calibrate`).
        config: which answers count.

    Returns:
        the model that `learn` gives with the table among its facts, and the table.
    """
    by_unit = predictor.model.head.reach is not None
    trials = _Trials(predictor, examples, config)
    with heartbeat("measuring exits on valid", so_far=trials.so_far):
        if by_unit:
            model = learn(trials.record(None))
            early = KerasEarlyForward(model, 0.0, by_unit=True)
            rows = [trials.measure(model, threshold, early) for threshold in (0.0, *UNIT_THRESHOLDS, ALL_LEAVE)]
        else:
            recorder = _Recorder(predictor.model)
            model = learn(trials.record(recorder))
            rows = [trials.measure(model, threshold, recorder) for threshold in recorder.thresholds()]
    fact = make_fact(model.config.exit_layers, model.task.headline, rows, by_unit=by_unit)
    return dataclasses.replace(model, facts={**model.facts, **fact}), rows
