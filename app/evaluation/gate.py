"""Evaluation room: which exports are kept, and how much of a difference between two systems may be chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from app.config import InputError
from app.run.directory import RunDirectory
from app.run.screen import say
from app.tasks.task import Task

# How much of the difference between two systems, scored on the same examples, may be chance.
# The paired bootstrap (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 16; for scores
# of whole corpora such as F1: Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation", and
# Berg-Kirkpatrick, Burkett and Klein 2012, "An Empirical Investigation of Statistical Significance in NLP"):
#     draw n of the n examples with replacement, the same ones for both systems, B times
#     loss_b   = statistic(counts of the reference in draw b) - statistic(counts of the other in draw b)
#     interval = [quantile a/2, quantile 1 - a/2] of the loss_b, where 1 - a is the confidence
# A system is worse than the reference by more than a budget, beyond chance, if the whole interval lies above the
# budget.

RESAMPLES = 2000
CONFIDENCE = 0.95

# Sums of counts [..., counts] -> the score of each, [...], the higher the better.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Loss:
    """What a system loses against a reference on the same examples, in units of the statistic; negative: it gains.

    Attributes:
        value: on all examples.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def exceeds(self, budget: float) -> bool:
        """Whether the loss is above the budget beyond chance."""
        return self.low > budget

    def may_exceed(self, budget: float) -> bool:
        """Whether the examples cannot rule out a loss above the budget."""
        return self.high > budget


def compute_loss(
    reference: np.ndarray,
    other: np.ndarray,
    statistic: Statistic,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Loss:
    """The loss of a system against a reference, with its bootstrap interval.

    The same counts and seed give the same answer, whatever the order of the examples. Of very few examples the interval
    is too narrow, as the bootstrap's are.

    Args:
        reference: counts of the reference system, [examples, counts], for example (right, predicted, gold) entities
            of each sentence; or other numbers that are summed, such as (error, 1).
        other: counts of the other system on the same examples in the same order.
        statistic: of sums of such counts.
        resamples: number of draws.
        confidence: of the interval, above 0 and below 1.
        seed: of the draws.

    Raises:
        ValueError: the shapes differ, or there is no example.
    """
    if reference.shape != other.shape or reference.ndim != 2 or not len(reference):
        raise ValueError(
            f"counts must be two arrays [examples, counts] of one shape, received {reference.shape} and {other.shape}"
        )

    def loss_of(sums: np.ndarray) -> np.ndarray:  # [..., 2 * counts]
        return statistic(sums[..., : reference.shape[1]]) - statistic(sums[..., reference.shape[1] :])

    # Examples with equal counts are interchangeable: it is enough to draw how often each kind occurs.
    kinds, times = np.unique(np.concatenate([reference, other], axis=1), axis=0, return_counts=True)
    examples = len(reference)
    drawn = np.random.default_rng(seed).multinomial(examples, times / examples, size=resamples)  # [resamples, kinds]
    tail = (1 - confidence) / 2
    # Floats hold sums of counts exactly, which are whole and small, and their product is many times faster.
    sums = drawn.astype(np.float64) @ kinds.astype(np.float64)
    low, high = np.quantile(loss_of(sums), [tail, 1 - tail])
    return Loss(float(loss_of(times @ kinds)), float(low), float(high))


# Which exports are kept. A loss is held against what chance explains, and a refusal is remembered.
#
# Refusals stand in `export/refused.json`, so that a mode which misses a format can say that it was refused, and why.


_NEEDED = {"time", "split", "points_lost", "points_lost_95_percent_interval", "max_f1_loss"}


_OF_FLOAT = "_of_the_float_model"


class Refused(Exception):
    """An export that lost too much; the text says how much."""


@dataclass(frozen=True)
class Comparison:
    """An export beside the float model, on the same examples.

    Attributes:
        task: whose headline is compared.
        f1: headline of the export, 0 to 1; float_f1: that of the float model.
        loss: of the headline, with its interval, in points of 100.
        labelled: entities, or texts, of the corpus.
    """

    task: Task
    f1: float
    float_f1: float
    loss: Loss
    labelled: int

    @classmethod
    def of(cls, task: Task, counts: np.ndarray, float_counts: np.ndarray, *, labelled: int) -> Comparison:
        """Compares counts of each example, [examples, columns] (`Scored.counts`)."""
        loss = compute_loss(float_counts, counts, lambda sums: 100 * task.headline_of(sums))
        f1, float_f1 = (float(task.headline_of(each.sum(axis=0))) for each in (counts, float_counts))
        return cls(task, f1, float_f1, loss, labelled)

    def record(self) -> dict[str, Any]:
        """The loss as JSON files hold it."""
        interval = [round(each, 4) for each in (self.loss.low, self.loss.high)]
        return {"points_lost": round(self.loss.value, 4), "points_lost_95_percent_interval": interval}

    def values(self) -> dict[str, float]:
        """The headlines as JSON files hold them."""
        name = self.task.headline
        return {name: self.f1, f"{name}_of_the_float_model": self.float_f1}

    def metrics(self, prefix: str) -> dict[str, float]:
        """The loss as `metrics.json` holds it."""
        ends = {"": self.loss.value, "_low": self.loss.low, "_high": self.loss.high}
        return {f"{prefix}/points_lost{end}": value for end, value in ends.items()}

    def __str__(self) -> str:
        loss = self.loss
        if loss.value < 0:
            return f"gains {-loss.value:.2f} points, {_interval(-loss.high, -loss.low)}"
        return f"loses {loss.value:.2f} points, {_interval(loss.low, loss.high)}"


@dataclass(frozen=True)
class Gate:
    """What every export of a run has to pass.

    Attributes:
        run_dir: of the run.
        allowed: `export.max_f1_loss`, in points of 100.
        corpus: what the exports are scored on, as it is recorded.
    """

    run_dir: RunDirectory
    allowed: float
    corpus: dict[str, Any]

    def decide(self, name: str, file: str, found: Comparison) -> None:
        """Lets a format pass, or not; says so where the corpus is too small to tell.

        Args:
            name: of the format.
            file: what messages call it.
            found: its comparison with the float model.

        Raises:
            Refused: it loses more than is allowed, and more than chance explains: the whole interval is above.
        """
        split = self.corpus["split"]
        if found.loss.exceeds(self.allowed):
            record = {
                "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                **self.corpus,
                "score": found.task.headline_name,
                **found.values(),
                **found.record(),
                "max_f1_loss": self.allowed,
            }
            path = self.run_dir.refused_exports
            self.run_dir.write_json(path, {**read_refusals(self.run_dir), name: record})
            raise Refused(f"{file} refused: {_reason(record)}")
        if found.loss.may_exceed(self.allowed):
            say(
                f"warning: {file} is kept, but the {found.labelled:,} {found.task.labelled} of {split} are too few "
                f"to tell: it may lose up to {found.loss.high:.2f} points, export.max_f1_loss allows {self.allowed:g}"
            )

    def passed(self, name: str) -> None:
        """A format that was kept is refused no more."""
        refusals = read_refusals(self.run_dir)
        if refusals.pop(name, None):
            self.run_dir.write_json(self.run_dir.refused_exports, refusals)


def read_refusals(run_dir: RunDirectory) -> dict[str, dict[str, Any]]:
    """Format -> the record of its last refusal, unless it was kept since."""
    try:
        found = json.loads(run_dir.refused_exports.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what cannot be read only explains less
        return {}
    records = found.items() if isinstance(found, dict) else ()
    return {name: record for name, record in records if _is_whole(record)}


def _is_whole(record: Any) -> bool:
    return isinstance(record, dict) and record.keys() >= _NEEDED and any(key.endswith(_OF_FLOAT) for key in record)


def mention_refusal(run_dir: RunDirectory, name: str, *, there: bool) -> None:
    """Says that the last export of a format was refused.

    Args:
        run_dir: of the run.
        name: of the format.
        there: whether an earlier export of the format is there, which then is used.

    Raises:
        InputError: it is not there.
    """
    record = read_refusals(run_dir).get(name)
    if not record:
        return
    reason = f"{name} was refused by --mode=export at {record['time']}: {_reason(record)}"
    if not there:
        raise InputError(f"{reason}; to keep it anyway, export with a higher export.max_f1_loss")
    say(f"note: {reason}; the export before it is used")


def _reason(record: dict[str, Any]) -> str:
    name = next(key.removesuffix(_OF_FLOAT) for key in record if key.endswith(_OF_FLOAT))
    return (
        f"{record.get('score', 'entity F1')} {record[name]:.4f} on {record['split']} is "
        f"{record['points_lost']:.2f} points below the float model's {record[name + _OF_FLOAT]:.4f}, "
        f"{_interval(*record['points_lost_95_percent_interval'])}, export.max_f1_loss allows {record['max_f1_loss']:g}"
    )


def _interval(low: float, high: float) -> str:
    return f"95 % interval {low + 0.0:.2f} to {high + 0.0:.2f}"
