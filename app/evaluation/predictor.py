"""Evaluation room: one predictor over any runtime (Keras, SavedModel, TFLite) that maps a batch of rows to logits.

Rows come in corpus order, and the predictor asserts that every unit, a word or a text, is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from app.config import PredictConfig
from app.data.packing import Example

if TYPE_CHECKING:
    from app.tasks.network import TaskModel
    from app.tasks.task import Task

Features = dict[str, np.ndarray]  # token_ids, shape_ids, padding_mask: int32 [batch, length]
Forward = Callable[[Features], np.ndarray]  # -> logits float32 [batch, length, labels]


class EarlyForward(Protocol):
    """The forward pass of a network with exits.

    Attributes:
        threshold: of doubt, below which what is asked for leaves (`EarlyNetwork`); NaN if only the file knows.
    """

    threshold: float

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features and bool [batch, length], what is asked for -> logits, and int [batch, length], the layer of each
        unit, 0 where nothing is asked for.
        """

    def begin(self) -> None:
        """From here on, what is computed is counted anew."""

    def measure(self) -> dict[str, float]:
        """`exit_operations`, the share of the encoder's operations, and `exit_layer`, the mean layer of a unit."""


BUCKET = 32  # lengths are rounded up to a multiple, so that few shapes are compiled
BATCHES_AHEAD = 32  # batches among which rows are sorted by length; bounds memory
EXAMPLES_AHEAD = 4096  # examples encoded, scored and decoded at a time; bounds memory


@dataclass(frozen=True)
class Predictor:
    """Answers the examples of a task: words are tagged, texts are classified.

    Attributes:
        model: whose answers they are; its head is read at each call, so the predictor follows training.
        make_rows: examples -> rows to score, in corpus order.
        forward: features -> logits, by any runtime.
        batch_size: rows per call of `forward`.
        config: which answers are sure enough to be given, where that counts in scores.
        early: instead of `forward`, a network that rows leave when it is sure of them; None = none.
    """

    model: TaskModel
    make_rows: Callable[[Iterable[Any]], Iterable[Example]]
    forward: Forward
    batch_size: int
    config: PredictConfig = field(default_factory=PredictConfig)
    early: EarlyForward | None = None

    @property
    def task(self) -> Task:
        return self.model.task

    def answer(self, examples: Iterable[Any], *, probabilities: bool = False) -> Iterator[Any]:
        """Answers examples in their order; memory does not grow with their number, groups are never cut in two."""
        return (found for found, _ in self.answer_with_layers(examples, probabilities=probabilities))

    def answer_with_layers(
        self, examples: Iterable[Any], *, probabilities: bool = False
    ) -> Iterator[tuple[Any, int]]:
        """As `answer`, and the layer at which the last part of each example left; 0 without exits."""
        for part in self._parts(examples):
            units = [self.task.count_units(example) for example in part]
            emissions, by_unit = self._compute(self.make_rows(part), units=sum(units))
            ends = np.cumsum(units)[:-1]
            layers = (int(each.max(initial=0)) for each in np.split(by_unit, ends))
            found = self.task.decode(self.model, np.split(emissions, ends), probabilities=probabilities)
            yield from zip(found, layers, strict=True)

    def compute_emissions(self, rows: Iterable[Example], *, units: int) -> np.ndarray:
        """Logits of every unit, float32 [units, labels]; of a unit in several windows, their mean.

        Raises:
            AssertionError: a unit was not scored, or a task that scores each unit in one window had it in two.
        """
        return self._compute(rows, units=units)[0]

    def _compute(self, rows: Iterable[Example], *, units: int) -> tuple[np.ndarray, np.ndarray]:
        """The same, and int64 [units], the layer of the deepest of its windows.

        Raises:
            AssertionError: a unit was not scored, or a task that scores each unit in one window had it in two.
        """
        emissions = np.zeros((units, len(self.model.labels)), np.float32)
        times_scored = np.zeros(units, np.int64)
        layers = np.zeros(units, np.int64)
        stream = iter(rows)
        while group := list(islice(stream, self.batch_size * BATCHES_AHEAD)):
            sizes = np.array([np.count_nonzero(row.padding_mask) for row in group])
            order = np.argsort(sizes, kind="stable")
            for at in range(0, len(group), self.batch_size):
                chosen = order[at : at + self.batch_size]
                features, unit_ids = join_rows([group[i] for i in chosen], int(sizes[chosen].max()))
                scored = unit_ids >= 0
                if self.early:
                    logits, by_piece = self.early(features, scored)
                    np.maximum.at(layers, unit_ids[scored], by_piece[scored])
                else:
                    logits = self.forward(features)
                if self.task.averages_windows:
                    np.add.at(emissions, unit_ids[scored], logits[scored])
                else:
                    emissions[unit_ids[scored]] = logits[scored]
                np.add.at(times_scored, unit_ids[scored], 1)
        if self.task.averages_windows and times_scored.all():
            return emissions / times_scored[:, np.newaxis].astype(np.float32), layers
        if not (times_scored == 1).all():
            wrong = int(np.flatnonzero(times_scored != 1)[0])
            unit = self.task.unit.removesuffix("s")
            raise AssertionError(f"{unit} {wrong} of {units} was scored {times_scored[wrong]} times, not once")
        return emissions, layers

    def _parts(self, examples: Iterable[Any]) -> Iterator[list[Any]]:
        """Runs of whole groups of about `EXAMPLES_AHEAD` examples."""
        part: list[Any] = []
        for example in examples:
            if len(part) >= EXAMPLES_AHEAD and self.task.group_of(example) != self.task.group_of(part[-1]):
                yield part
                part = []
            part.append(example)
        if part:
            yield part


def join_rows(rows: Sequence[Example], longest: int) -> tuple[Features, np.ndarray]:
    """Rows as one batch, trimmed to `longest` pieces, rounded up to a bucket; and the unit ids of its positions."""
    length = min(len(rows[0].token_ids), -(-longest // BUCKET) * BUCKET)
    features = {
        "token_ids": np.stack([row.token_ids[:length] for row in rows]),
        "shape_ids": np.stack([row.shape_ids[:length] for row in rows]),
        "padding_mask": np.stack([row.padding_mask[:length] for row in rows]),
    }
    return features, np.stack([row.unit_ids[:length] for row in rows])
