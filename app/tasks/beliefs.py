"""Tasks room: what a model takes for how probable, from which the evaluation room tells how unsure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from app.tasks.calibration import log_softmax


@dataclass(frozen=True, eq=False, slots=True)
class Belief:
    """Of one example, or of a text that is several of them.

    Attributes:
        chances: float64 [units, outcomes], a distribution for each unit: the labels that a word may have, or the text;
            or, where each label is decided for itself, whether it is given. No units: there is nothing to be unsure of.
        log_probability: of the most probable answer as a whole, in nats: at most 0.
    """

    chances: np.ndarray
    log_probability: float


def believe_logits(logits: Sequence[np.ndarray], *, independent: bool, temperature: float = 1.0) -> list[Belief]:
    """Beliefs about whole texts, from their logits.

    Args:
        logits: float [labels] of each text.
        independent: whether each label is decided for itself: then a text has as many units as there are labels, each
            with two outcomes (not given, given); else one unit, whose outcomes are the labels.
        temperature: that logits are divided by.
    """
    if not len(logits):
        return []
    table = np.stack(logits).astype(np.float64)  # [texts, labels]
    if independent:
        given = expit(table / temperature)
        chances = np.stack([1 - given, given], axis=-1)  # [texts, labels, 2]
    else:
        chances = np.exp(log_softmax(table, temperature))[:, np.newaxis, :]  # [texts, 1, labels]
    best = np.log(chances.max(axis=-1)).sum(axis=-1)
    return [Belief(each, float(chance)) for each, chance in zip(chances, best, strict=True)]


def join_beliefs(parts: Sequence[Belief]) -> Belief:
    """The belief about a text whose parts, such as its sentences, are independent of each other."""
    if not parts:
        return Belief(np.zeros((0, 1)), 0.0)
    if len(parts) == 1:
        return parts[0]
    return Belief(np.concatenate([part.chances for part in parts]), sum(part.log_probability for part in parts))
