"""Evaluation room: the Keras network with exits, and what its thresholds cost on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from app.config import PredictConfig
from app.data.packing import FEATURES
from app.evaluation.litert import RowByRow
from app.evaluation.predictor import EarlyForward, Features, Predictor
from app.tasks.exit_table import ExitRow, make_fact
from app.tasks.exits import STATES, WINDOWS, Step, build_steps, measure_costs
from app.tasks.network import LOGITS, TaskModel

# Parts of the rows of all exits together whose doubt a threshold of the table lies above.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
ALL_LEAVE = 2.0  # no doubt is above 1


class _Counted:
    """Counts the pieces that left at each layer.

    Args:
        model: whose layers they are.
    """

    def __init__(self, model: TaskModel) -> None:
        self._costs = measure_costs(model)
        self.begin()

    def count(self, layers: np.ndarray, features: Features) -> None:
        """Adds rows to what `measure` tells; padding does not count."""
        np.add.at(self._pieces, layers, np.count_nonzero(features["padding_mask"], axis=1))

    def begin(self) -> None:
        self._pieces = np.zeros(len(self._costs), np.int64)

    def measure(self) -> dict[str, float]:
        total = max(1, int(self._pieces.sum()))
        return {
            "exit_operations": float(self._pieces @ self._costs / total),
            "exit_layer": float(self._pieces @ np.arange(len(self._costs)) / total),
        }


class KerasEarlyForward(_Counted):
    """The Keras network, which rows leave when it is sure of them: gathered, computed further, put back.

    Args:
        model: with exits.
        threshold: a row leaves at the first exit whose doubt is below it; 0 = none leaves early.
    """

    def __init__(self, model: TaskModel, threshold: float) -> None:
        self.threshold = np.float32(threshold)
        self.labels = len(model.labels)
        self.steps = build_steps(model)
        self._boundary_ids = [model.backbone.vocabulary.index(each) for each in ("[CLS]", "[SEP]")]
        self._functions = [_trace(step, is_last=step is self.steps[-1]) for step in self.steps]
        super().__init__(model)

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch, length = features["token_ids"].shape
        logits = np.zeros((batch, length, self.labels), np.float32)
        layers = np.zeros(batch, np.int64)
        for step, rows, found, doubt in self.walk(features, units):
            left = np.ones(len(rows), bool) if step is self.steps[-1] else doubt < self.threshold
            logits[rows[left]], layers[rows[left]] = found[left], step.layer
        self.count(layers, features)
        return logits, layers

    def walk(
        self, features: Features, units: np.ndarray
    ) -> Iterator[tuple[Step, np.ndarray, np.ndarray, np.ndarray]]:
        """Each step with the rows it computes: their numbers, their logits [rows, length, labels], their doubt [rows].

        The last step has no doubt, float32 [0].
        """
        boundaries = np.isin(features["token_ids"], self._boundary_ids) & (features["padding_mask"] > 0)
        rows = np.arange(len(units))
        inputs = {name: tf.constant(value, tf.int32) for name, value in features.items()}
        asked, edges = tf.constant(units), tf.constant(boundaries)
        for number, (step, compute) in enumerate(zip(self.steps, self._functions, strict=True)):
            states, found, measured = compute(inputs, asked, edges)
            doubt = measured.numpy()
            yield step, rows, found.numpy(), doubt
            if number + 1 == len(self.steps):
                return
            stay = np.flatnonzero(~(doubt < self.threshold))
            if not len(stay):
                return
            if len(stay) < len(rows):
                rows = rows[stay]
                states, asked, edges, windows = (
                    tf.gather(each, stay) for each in (states, asked, edges, inputs[WINDOWS])
                )
                inputs = {STATES: states, WINDOWS: windows}
            else:
                inputs = {STATES: states, WINDOWS: inputs[WINDOWS]}


class SavedModelEarlyForward(_Counted):
    """The same by the signature `tokenized_early` of a SavedModel.

    Args:
        loaded: from `load_version`; a signature alone would not keep its weights.
        model: that it was made of.
        threshold: see `KerasEarlyForward`.
    """

    def __init__(self, loaded: Any, model: TaskModel, threshold: float) -> None:
        super().__init__(model)
        self._loaded, self._threshold = loaded, tf.constant(threshold, tf.float32)

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = {name: tf.constant(features[name], tf.int32) for name in FEATURES}
        asked = tf.constant(units.astype(np.int32))
        found = self._loaded.signatures["tokenized_early"](**inputs, units=asked, threshold=self._threshold)
        layers = found["layer"].numpy()
        self.count(layers, features)
        return found["logits"].numpy(), layers


class TFLiteEarlyForward(_Counted):
    """The same by a TFLite file with exits, row by row.

    Args:
        run: {name of an input: int32 [1, length]} -> outputs, among them `logits` and `layer`.
        unit_input: name of the input that says where units are, see `Task.unit_input`; empty = there is none.
        model: that the file was made of.
    """

    def __init__(
        self, run: Callable[[Features], dict[str, np.ndarray]], model: TaskModel, *, unit_input: str
    ) -> None:
        super().__init__(model)
        self._rows = RowByRow(run, labels=len(model.labels), unit_input=unit_input)

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, layers = self._rows(features, units)
        self.count(layers, features)
        return logits, layers


def _trace(step: Step, *, is_last: bool) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """A step, traced for all shapes: (inputs, units, boundaries) -> states, logits, doubt."""
    spec = {name: tf.TensorSpec(each.shape, each.dtype) for name, each in step.network.input.items()}
    flags = tf.TensorSpec([None, None], tf.bool)

    @tf.function(input_signature=[spec, flags, flags], autograph=False)
    def compute(
        inputs: dict[str, tf.Tensor], units: tf.Tensor, boundaries: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        found = step.network(inputs, training=False)
        doubt = tf.zeros([0]) if is_last else step.head.measure_doubt(found[LOGITS], units, boundaries)
        return found[STATES], found[LOGITS], doubt

    return compute.get_concrete_function()  # TensorFlow warns of many functions made in one place


@dataclasses.dataclass
class _Recorded:
    """A batch at all heads: logits float32 [batch, length, labels] of each, doubts float32 [batch] of each exit."""

    logits: list[np.ndarray]
    doubts: list[np.ndarray]


class _Recorder:
    """Computes every row to the end, keeps what all heads say, and can then answer for any threshold.

    Args:
        inner: whose network it is.
    """

    def __init__(self, inner: KerasEarlyForward) -> None:
        self._inner = inner
        self._batches: list[_Recorded] = []
        self._replayed: Iterator[_Recorded] | None = None
        self._threshold = np.float32(0)

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._replayed is None:
            found = [(logits, doubt) for _, _, logits, doubt in self._inner.walk(features, units)]
            each = _Recorded([logits for logits, _ in found], [doubt for _, doubt in found[:-1]])
            self._batches.append(each)
        else:
            each = next(self._replayed)
        depth = np.full(len(units), len(each.doubts))
        for number in reversed(range(len(each.doubts))):
            depth[each.doubts[number] < self._threshold] = number
        layers = np.array([step.layer for step in self._inner.steps])[depth]
        self._inner.count(layers, features)
        return np.stack(each.logits)[depth, np.arange(len(units))], layers

    def replay(self, threshold: float) -> None:
        """From here on, the same batches are asked for again, in their order."""
        self._replayed, self._threshold = iter(self._batches), np.float32(threshold)
        self._inner.begin()

    def begin(self) -> None:
        self._inner.begin()

    def measure(self) -> dict[str, float]:
        return self._inner.measure()

    def thresholds(self) -> list[float]:
        """Ascending: 0, some between the doubts that were measured, and one below which every doubt is."""
        doubts = np.concatenate([doubt for batch in self._batches for doubt in batch.doubts])
        found = {float(f"{each:.4g}") for each in np.quantile(doubts, LEVELS)} if len(doubts) else set()
        return [0.0, *sorted(found - {0.0}), ALL_LEAVE]


def _repeat(kept: Sequence[list[Any]]) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Makes rows, part after part, that were made before."""
    parts = iter(kept)
    return lambda part: iter(next(parts))


def measure_exits(
    predictor: Predictor,
    examples: Sequence[Any],
    *,
    learn: Callable[[Sequence[Any]], TaskModel],
    config: PredictConfig,
) -> tuple[TaskModel, list[ExitRow]]:
    """What thresholds cost on a validation split, whose network is run once.

    Args:
        predictor: of a model with exits.
        examples: the split.
        learn: from the answers of the whole network to the model with what they teach (`Task.calibrate`).
        config: which answers count.

    Returns:
        the model that `learn` gives with the table among its facts, and the table.
    """
    model = predictor.model
    recorder = _Recorder(KerasEarlyForward(model, 0.0))
    kept: list[list[Any]] = []

    def keep_rows(part: Iterable[Any]) -> Iterator[Any]:
        kept.append(list(predictor.make_rows(part)))
        return iter(kept[-1])

    early: EarlyForward = recorder
    recording = dataclasses.replace(predictor, make_rows=keep_rows, early=early)
    model = learn(list(recording.answer(examples)))
    rows = []
    for threshold in recorder.thresholds():
        recorder.replay(threshold)
        replaying = dataclasses.replace(recording, model=model, make_rows=_repeat(kept))
        scored = model.task.score(model, examples, list(replaying.answer(examples)), config)
        found = recorder.measure()
        rows.append(ExitRow(threshold, scored.headline, found["exit_operations"], found["exit_layer"]))
    fact = make_fact(model.config.exit_layers, model.task.headline, rows)
    return dataclasses.replace(model, facts={**model.facts, **fact}), rows
