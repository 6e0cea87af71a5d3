"""Evaluation room: how unsure a model is of an answer. Imports no TensorFlow, so that light servers can use it.

Measures are pure functions of what a model believes (`app.tasks.beliefs`), between 0 (sure) and 1. A text that is
several sentences is one long sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from app.config import PredictConfig
from app.evaluation.predictor import Predictor
from app.tasks.beliefs import Belief, join_beliefs


def least_confidence(belief: Belief) -> float:
    """1 - P(y* | x) ** (1 / n), with y* the most probable answer and n the number of units (words).

    The least confidence of Culotta and McCallum 2005 (Settles and Craven 2008, "An Analysis of Active Learning
    Strategies for Sequence Labeling Tasks", equation 1), normalised as in Shen et al. 2017 ("Deep Active Learning for
    Named Entity Recognition"): texts come in the order of their maximum normalised log-probability, log P(y* | x) / n,
    the lowest first. Without that, long sentences would always come before short ones.
    """
    return 1.0 - float(np.exp(belief.log_probability / max(1, len(belief.chances))))


def margin(belief: Belief) -> float:
    """1 - mean over units of (p1 - p2), the probabilities of the two most probable labels.

    Scheffer et al. 2001 ("Active Hidden Markov Models for Information Extraction"), over the posterior probabilities of
    words; of whole texts, best against second best of Joshi et al. 2009 ("Multi-class active learning for image
    classification").
    """
    if belief.chances.shape[0] == 0 or belief.chances.shape[1] < 2:
        return 0.0
    two = np.partition(belief.chances, -2, axis=1)[:, -2:]
    return 1.0 - float((two[:, 1] - two[:, 0]).mean())


def entropy(belief: Belief) -> float:
    """-1 / (n log m) * sum over units t and labels k of p(y_t = k | x) log p(y_t = k | x), of m labels.

    The token entropy of Settles and Craven 2008 (equation 5), as a part of the largest there can be.
    """
    if belief.chances.shape[0] == 0 or belief.chances.shape[1] < 2:
        return 0.0
    return float(_entropies(belief.chances).mean()) / float(np.log(belief.chances.shape[1]))


def disagreement(one: Belief, other: Belief) -> float:
    """Mean over units of the Jensen-Shannon divergence of what two models believe, as a part of the largest (log 2).

    H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin 1991): each member's mean Kullback-Leibler divergence from the consensus,
    which is the query by committee of McCallum and Nigam 1998 ("Employing EM and Pool-Based Active Learning for Text
    Classification") for a committee of two.

    Raises:
        ValueError: the beliefs are not about the same units and outcomes.
    """
    p, q = one.chances, other.chances
    if p.shape != q.shape:
        raise ValueError(f"both beliefs must be [units, outcomes] of one size, received {p.shape} and {q.shape}")
    if not len(p):
        return 0.0
    divergence = _entropies((p + q) / 2) - (_entropies(p) + _entropies(q)) / 2
    return float(np.clip(divergence.mean() / np.log(2), 0.0, 1.0))


def _entropies(chances: np.ndarray) -> np.ndarray:
    """Entropy of each unit in nats, float64 [units]."""
    return -np.sum(chances * np.log(np.where(chances > 0, chances, 1.0)), axis=1)


MEASURES: dict[str, Callable[[Belief], float]] = {
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
}


def measure_texts(predictor: Predictor, texts: Sequence[str]) -> list[float]:
    """How unsure a model is of each text, 0 to 1, by the measure for its task (`Task.unsure_by`)."""
    heard = Listener(predictor)
    heard.answer_texts(texts, predictor.config)
    measure = MEASURES[predictor.task.unsure_by]
    return [measure(belief) for belief in heard.find_beliefs(len(texts))]


class Listener:
    """Asks as a task does (`Answers`), and keeps what was asked and answered.

    Attributes:
        examples: that the task made of the texts.
        owners: int64 [examples], the number of the text of each.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.examples: list[Any] = []
        self._answers: list[Any] = []

    def answer_texts(self, texts: Sequence[str], config: PredictConfig) -> list[dict[str, Any]]:
        return list(self._predictor.task.answer_texts(self._predictor.model, texts, self, config))

    def answer(self, examples: Iterable[Any], *, probabilities: bool = False) -> Iterator[Any]:
        asked = list(examples)
        found = list(self._predictor.answer(asked, probabilities=probabilities))
        self.examples += asked
        self._answers += found
        return iter(found)

    @property
    def owners(self) -> np.ndarray:
        task = self._predictor.task
        return np.array([task.text_of(each, number) for number, each in enumerate(self.examples)], np.int64)

    def owners_of_units(self) -> np.ndarray:
        """The number of the text of each unit, int64 [units]."""
        units = [self._predictor.task.count_units(example) for example in self.examples]
        return np.repeat(self.owners, np.array(units, np.int64))

    def find_beliefs(self, count: int) -> list[Belief]:
        """What the model believes of each of `count` texts; of a text without a word nothing."""
        task = self._predictor.task
        parts: list[list[Belief]] = [[] for _ in range(count)]
        beliefs = task.find_beliefs(self._predictor.model, self._answers)
        for owner, example, belief in zip(self.owners, self.examples, beliefs, strict=True):
            if len(task.words_of(example)):
                parts[owner].append(belief)
        return [join_beliefs(each) for each in parts]


def measure_row(row: Mapping[str, Any], *, by: str = "margin") -> float | None:
    """How unsure a model is as far as an answer itself tells, where the model is not at hand (a SavedModel).

    Of a classifier the measures are exact but for rounding. Of a tagger an answer says only how sure the entities are
    that were found: it is 1 - the lowest score, whatever `by` is.

    Args:
        row: of `--mode=predict`.
        by: a name in `MEASURES`.

    Returns:
        0 to 1; None if the answer does not say.
    """
    if row.get("entities"):
        return 1.0 - min(float(entity["score"]) for entity in row["entities"])
    scores = np.array(list(row.get("scores", {}).values()), np.float64)
    if not scores.any():
        return None
    chances = np.stack([1 - scores, scores], axis=1) if "labels" in row else scores[np.newaxis] / scores.sum()
    best = float(np.log(chances.max(axis=1)).sum())
    return MEASURES[by](Belief(chances, best))
