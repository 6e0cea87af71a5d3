"""Tasks room: how far a model's confidence is what it says, and the one number that mends it.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks"): all logits are divided by one number
T > 0, learnt on validation data, which changes no answer, only how sure the model says it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_expit, logsumexp

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
BINS = 15  # as in Guo et al.


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logarithms of softmax(logits / temperature), exact for infinite and huge logits.

    A label at minus infinity has no probability; labels at infinity share all of it.

    Args:
        logits: float [texts, labels], no NaN.
        temperature: above 0.

    Returns:
        float64 [texts, labels].
    """
    scaled = _without_infinity(logits) / temperature
    return scaled - logsumexp(scaled, axis=1, keepdims=True)


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """The T that minimises the negative log-likelihood of the gold labels, by softmax or by sigmoid.

    The loss is convex in 1 / T, so the bounded search finds the minimum. Where every answer is right there is none (the
    loss falls until T = 0), whatever the model's confidence; then a share of 1 / (n + 2) of what is to be predicted is
    taken to be wrong, the correction of Platt (1999, "Probabilistic outputs for support vector machines", section 2.2).

    Args:
        logits: float [texts, labels], no NaN. Gold labels of no probability (logits of minus infinity) are left out:
            no T mends them.
        gold: int [texts], labels by number, -1 for a text that has none and is left out (softmax); or bool
            [texts, labels] (sigmoid).

    Returns:
        between LOWEST_TEMPERATURE and HIGHEST_TEMPERATURE, never worse than 1 on this data, and 1 where nothing can be
        learnt.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or gold.shape != (logits.shape if gold.ndim == 2 else logits.shape[:1]):
        raise ValueError(
            f"logits must be [texts, labels] and gold [texts] or [texts, labels], received {logits.shape}, {gold.shape}"
        )
    if gold.ndim == 2:
        return _best_temperature(_sigmoid_problem(logits, gold.astype(bool)))
    return _best_temperature(_softmax_problem(logits[gold >= 0], gold[gold >= 0]))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """The mean distance of confidence from accuracy over bins of equal width, each weighted by what is in it.

    Args:
        confidence: float [predictions], 0 to 1.
        correct: bool [predictions], whether each is right.
        bins: number of bins, (0, 1/bins], (1/bins, 2/bins] and so on; 0 belongs to the first.

    Returns:
        0 to 1; 0 of no predictions.

    Raises:
        ValueError: the shapes differ, or a confidence is not between 0 and 1.
    """
    counts, confidences, rights = _bin(confidence, correct, bins)
    return float(np.abs(confidences - rights).sum() / max(counts.sum(), 1))


def reliability_curve(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> tuple[tuple[float, float], ...]:
    """Points (mean confidence, accuracy) of the bins of `expected_calibration_error` that hold anything, in order."""
    counts, confidences, rights = _bin(confidence, correct, bins)
    held = counts > 0
    return tuple(zip((confidences[held] / counts[held]).tolist(), (rights[held] / counts[held]).tolist(), strict=True))


def check_confidence(confidence: np.ndarray, correct: np.ndarray) -> None:
    """Raises ValueError unless there is one confidence between 0 and 1 for each answer."""
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(
            f"confidence and correct must be two lists of one length, received {confidence.shape}, {correct.shape}"
        )
    # What sums to 1 in float32 may be a little above.
    if not np.all((confidence >= 0) & (confidence <= 1 + 1e-5)):
        raise ValueError("confidence must be between 0 and 1, received other numbers as well")


def _bin(confidence: np.ndarray, correct: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin: number of predictions, sum of their confidences, number of right ones. float64 [bins] each."""
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    check_confidence(confidence, correct)
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return (
        np.bincount(place, minlength=bins),
        np.bincount(place, confidence, minlength=bins),
        np.bincount(place, correct, minlength=bins),
    )


def _without_infinity(logits: np.ndarray) -> np.ndarray:
    """Logits in float64 of the same softmax, in which each text has a largest finite one; [texts, labels]."""
    logits = np.asarray(logits, np.float64)
    highest = logits.max(axis=1, keepdims=True, initial=-np.inf)
    unbounded = np.where(logits == highest, 0.0, -np.inf)
    return np.where(np.isinf(highest), unbounded, logits)


@dataclass(frozen=True)
class _Problem:
    """What a temperature is fitted to.

    Attributes:
        size: number of predictions.
        has_errors: whether any is wrong, so that the loss has a minimum.
        loss: mean negative log-likelihood by 1 / T and the share of each prediction that is taken to be wrong.
    """

    size: int
    has_errors: bool
    loss: Callable[[float, float], float]


def _softmax_problem(logits: np.ndarray, gold: np.ndarray) -> _Problem:
    logits = _without_infinity(logits)
    of_gold = logits[np.arange(len(gold)), gold]
    others = np.isfinite(logits).sum(axis=1) - 1
    kept = np.isfinite(of_gold) & (others > 0)  # the loss of the rest is infinite, or 0, at every T
    logits, of_gold, others = logits[kept], of_gold[kept], others[kept]
    mean_of_others = (np.where(np.isfinite(logits), logits, 0).sum(axis=1) - of_gold) / np.maximum(others, 1)

    def loss(inverse: float, share: float) -> float:
        expected = (1 - share) * of_gold + share * mean_of_others
        return float((logsumexp(inverse * logits, axis=1) - inverse * expected).mean())

    return _Problem(len(of_gold), bool(np.any(of_gold < logits.max(axis=1, initial=-np.inf))), loss)


def _sigmoid_problem(logits: np.ndarray, gold: np.ndarray) -> _Problem:
    signed = np.where(gold, logits, -logits).ravel()
    signed = signed[np.isfinite(signed)]  # the loss of the rest is infinite, or 0, at every T

    def loss(inverse: float, share: float) -> float:
        return -float(((1 - share) * log_expit(inverse * signed) + share * log_expit(-inverse * signed)).mean())

    return _Problem(len(signed), bool(np.any(signed < 0)), loss)


def _best_temperature(problem: _Problem) -> float:
    from scipy.optimize import minimize_scalar  # slow to import, and no answer needs it

    if not problem.size:
        return 1.0
    share = 0.0 if problem.has_errors else 1 / (problem.size + 2)
    found = minimize_scalar(
        lambda log_t: problem.loss(float(np.exp(-log_t)), share),
        bounds=(np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(found.x))
    return temperature if problem.loss(1 / temperature, 0.0) < problem.loss(1.0, 0.0) else 1.0
