"""Evaluation room: how much of the difference between two systems, scored on the same examples, may be chance.

The paired bootstrap (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 16; for scores of
whole corpora such as F1: Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation", and
Berg-Kirkpatrick, Burkett and Klein 2012, "An Empirical Investigation of Statistical Significance in NLP"):

    draw n of the n examples with replacement, the same ones for both systems, B times
    loss_b   = statistic(counts of the reference in draw b) - statistic(counts of the other in draw b)
    interval = [quantile a/2, quantile 1 - a/2] of the loss_b, where 1 - a is the confidence

A system is worse than the reference by more than a budget, beyond chance, if the whole interval lies above the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

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
