"""Tasks room: the one place where the scores of classified texts are computed.

A text has one label (gold int [texts], -1 for a text out of scope, which none of the labels fits) or several (gold bool
[texts, labels]). The headline is macro-F1: the mean of the F1 of the labels that occur in gold or in the predictions of
texts in scope. Each class counts the same however rare it is, since the rare ones are what a user notices last and
suffers from; a class that occurs on neither side has no F1 and would only add a constant. For texts of one label it is
taken from the most probable label whatever its probability, so that models can be compared before anyone has chosen a
minimum score; what that score does is told by coverage, accuracy of the answers and out-of-scope recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit

from app.config import RunError
from app.tasks.calibration import (
    check_confidence,
    expected_calibration_error,
    log_softmax,
    reliability_curve,
)

HEADLINE = "macro_f1"
NO_LABEL = -1  # of a text out of scope in gold; of a text that gets no answer in predictions
MOST_CONFUSED = 20
THRESHOLD = 0.5  # of a label of which nothing better is known


class Answers(NamedTuple):
    """What a model says of texts.

    Attributes:
        best: the most probable label, int64 [texts]; None where a text has several labels.
        predicted: the answer. int64 [texts], NO_LABEL below the minimum score; or bool [texts, labels].
        score: probability of the most probable label, float64 [texts]; or of each label, [texts, labels].
    """

    best: np.ndarray | None
    predicted: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Row:
    """One line of a report.

    Attributes:
        name: label, or name of an average.
        precision: 0 if nothing was predicted.
        recall: 0 if there is nothing in gold.
        f1: of the two.
        support: texts that have it in gold.
        predicted: texts that have it in the predictions.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int

    @property
    def occurs(self) -> bool:
        """Whether it is part of macro-F1."""
        return self.support + self.predicted > 0


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are what they say, over texts in scope (of several labels: over pairs of text and label).

    Attributes:
        loss: mean negative log-likelihood, nats; infinite if a gold label has no probability at all.
        error: expected calibration error, of 15 bins.
        curve: (mean confidence, accuracy) of each bin that holds any.
    """

    loss: float
    error: float
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Answering:
    """What a minimum score does to texts of one label.

    Attributes:
        coverage: share of all texts that are answered.
        accuracy: share of the answered texts whose answer is right; None if none is answered.
        in_scope_accuracy: share of the texts in scope that are answered rightly; None without any.
        out_of_scope_recall: share of the texts out of scope that are not answered; None if none is out of scope.
        confusion: int64 [labels + 1, labels + 1], all texts by gold and answer; the last row is out of scope, the last
            column no answer.
        curve: from `coverage_curve`.
    """

    coverage: float
    accuracy: float | None
    in_scope_accuracy: float | None
    out_of_scope_recall: float | None
    confusion: np.ndarray
    curve: np.ndarray


@dataclass(frozen=True, eq=False)
class TextScores:
    """Everything the reports print about one evaluated split.

    Attributes:
        labels: names, by number.
        multi_label: whether a text has several labels.
        texts: number of texts.
        in_scope: number of those that have a label in gold; all of them where a text has several labels, or none.
        classes: one row a label, in the order of the labels, those that do not occur among them.
        macro: mean over the labels that occur; its F1 is the headline. 0 without any.
        micro: of all decisions together; where a text has one label, precision, recall and F1 are the accuracy.
        weighted: mean over the labels, weighted by support.
        accuracy: share of the texts in scope whose most probable label is right; of several labels: subset accuracy,
            the share of texts that have exactly the right ones. 0 without a text in scope.
        confusion: int64 [labels, labels], texts in scope by gold and most probable label; None for several labels.
        confused: the commonest mistakes in it, (gold, predicted, count), at most MOST_CONFUSED.
        temperature: that the logits were divided by.
        min_score: below which a text of one label is not answered.
        thresholds: float64 [labels], for several labels.
        calibration: of the probabilities after the temperature; None without a text in scope.
        uncalibrated: of those before.
        answering: None for several labels.
    """

    labels: tuple[str, ...]
    multi_label: bool
    texts: int
    in_scope: int
    classes: tuple[Row, ...]
    macro: Row
    micro: Row
    weighted: Row
    accuracy: float
    confusion: np.ndarray | None
    confused: tuple[tuple[str, str, int], ...]
    temperature: float
    min_score: float
    thresholds: np.ndarray | None
    calibration: Calibration | None
    uncalibrated: Calibration | None
    answering: Answering | None


def choose_answers(
    logits: np.ndarray,
    *,
    multi_label: bool = False,
    temperature: float = 1.0,
    min_score: float = 0.0,
    thresholds: np.ndarray | None = None,
) -> Answers:
    """Logits to answers.

    Args:
        logits: float [texts, labels].
        multi_label: whether a text may have several labels, or none: sigmoid and thresholds in place of softmax.
        temperature: that the logits are divided by.
        min_score: the least probability of an answer, for texts of one label.
        thresholds: float [labels], the least probability of each label, for several labels; None for THRESHOLD.

    Raises:
        RunError: a logit is not a number.
        ValueError: a setting is for the other kind of texts.
    """
    logits = np.asarray(logits)
    _check_logits(logits)
    if multi_label:
        if min_score:
            raise ValueError(f"min_score is for texts of one label, received {min_score}; of several: thresholds")
        score = expit(np.asarray(logits, np.float64) / temperature)
        return Answers(None, score >= (THRESHOLD if thresholds is None else np.asarray(thresholds)), score)
    if thresholds is not None:
        raise ValueError("thresholds are for texts of several labels; of one label: min_score")
    best = logits.argmax(axis=1).astype(np.int64)
    score = np.exp(log_softmax(logits, temperature))[np.arange(len(best)), best]
    return Answers(best, np.where(score >= min_score, best, NO_LABEL), score)


def compute_text_scores(
    gold: np.ndarray,
    logits: np.ndarray,
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
    min_score: float = 0.0,
    thresholds: np.ndarray | None = None,
) -> TextScores:
    """Scores the logits of a split.

    Args:
        gold: int [texts], labels by number, NO_LABEL for out of scope; or bool [texts, labels].
        logits: float [texts, labels].
        labels: names, by number.
        temperature: that the logits are divided by (`fit_temperature`).
        min_score: the least probability of an answer (`find_min_score`), for texts of one label.
        thresholds: the least probability of each label (`fit_thresholds`), for several labels.

    Raises:
        RunError: a logit is not a number.
        ValueError: the shapes differ, a gold label does not exist, or there is no text.
    """
    gold, logits = np.asarray(gold), np.asarray(logits)
    _check_gold(gold, logits, labels)
    multi_label = gold.ndim == 2
    answers = choose_answers(
        logits, multi_label=multi_label, temperature=temperature, min_score=min_score, thresholds=thresholds
    )
    known = np.ones(len(gold), bool) if multi_label else gold != NO_LABEL
    right = answers.predicted if answers.best is None else answers.best
    rows, macro, micro, weighted = _score_rows(gold[known], right[known], labels)
    confusion = None if multi_label else _confusion(gold[known], right[known], len(labels))
    used = (THRESHOLD if thresholds is None else thresholds) + np.zeros(len(labels))
    return TextScores(
        labels=tuple(labels),
        multi_label=multi_label,
        texts=len(gold),
        in_scope=int(known.sum()),
        classes=rows,
        macro=macro,
        micro=micro,
        weighted=weighted,
        accuracy=_accuracy(gold[known], right[known]),
        confusion=confusion,
        confused=() if confusion is None else _most_confused(confusion, labels),
        temperature=temperature,
        min_score=min_score,
        thresholds=used if multi_label else None,
        calibration=_calibration(gold[known], logits[known], temperature) if known.any() else None,
        uncalibrated=_calibration(gold[known], logits[known], 1.0) if known.any() else None,
        answering=None if multi_label else _answering(gold, answers, len(labels)),
    )


def coverage_curve(confidence: np.ndarray, correct: np.ndarray, in_scope: np.ndarray) -> np.ndarray:
    """What any minimum score would do: how much is answered, and how much of that is right.

    Args:
        confidence: float [texts], 0 to 1.
        correct: bool [texts], whether the answer would be right.
        in_scope: bool [texts]; an answer to any other text is wrong, whatever `correct` says.

    Returns:
        float64 [points, 3]: (coverage, accuracy of what is answered, minimum score), one point for each confidence that
        occurs, from the fewest answers to all. Coverage is the share of all texts, in scope or not.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, bool) & np.asarray(in_scope, bool)
    check_confidence(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    falling, answered = confidence[order], np.arange(1, len(order) + 1)
    accuracy = np.cumsum(correct[order]) / answered
    last = np.append(falling[1:] != falling[:-1], True)[: len(order)]  # texts of one confidence are answered together
    return np.stack([answered / max(len(order), 1), accuracy, falling], axis=1)[last]


def fit_thresholds(gold: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """For each label the threshold of the best F1 on validation data, in the middle between two probabilities.

    Of several that are as good, the one nearest to 0.5. A label without a positive has no F1 to go by and keeps 0.5.

    Args:
        gold: bool [texts, labels].
        probabilities: float [texts, labels], after the temperature.

    Returns:
        float64 [labels].
    """
    if gold.ndim != 2 or gold.shape != probabilities.shape:
        raise ValueError(
            f"gold and probabilities must be [texts, labels] both, received {gold.shape} and {probabilities.shape}"
        )
    pairs = zip(gold.T.astype(bool), probabilities.T.astype(np.float64), strict=True)
    return np.array([_best_threshold(*pair) for pair in pairs], np.float64)


def counts_per_text(gold: np.ndarray, predicted: np.ndarray, num_labels: int) -> np.ndarray:
    """What macro-F1 is made of, text by text, for a paired test of two models.

    Args:
        gold: int [texts], NO_LABEL for out of scope; or bool [texts, labels].
        predicted: the same of the answers, where NO_LABEL is no answer. For the headline: `Answers.best`.
        num_labels: number of labels.

    Returns:
        int8 [texts, 3 * labels]: (right, predicted, gold) of each label in turn. Zero for a text out of scope.
    """
    if gold.shape != predicted.shape:
        raise ValueError(f"gold and predicted must have one shape, received {gold.shape} and {predicted.shape}")
    if gold.ndim == 1:
        every = np.arange(num_labels)
        predicted = (predicted[:, None] == every) & (gold != NO_LABEL)[:, None]
        gold = gold[:, None] == every
    return np.stack([gold & predicted, predicted, gold], axis=-1).reshape(len(gold), 3 * num_labels).astype(np.int8)


def macro_f1_of_sums(sums: np.ndarray) -> np.ndarray:
    """Macro-F1 of sums of `counts_per_text`: [..., 3 * labels] -> float64 [...].

    Over the labels that occur in gold or predicted of the very sum, as the headline is; 0 without any.
    """
    right, predicted, gold = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    f1 = 2 * right / np.maximum(predicted + gold, 1)
    return f1.sum(axis=-1) / np.maximum((predicted + gold > 0).sum(axis=-1), 1)


def flat_text_metrics(scores: TextScores, prefix: str = "test") -> dict[str, float]:
    """The scores as `metrics.json` holds them, every name under `prefix/`; what is not defined is left out."""
    metrics: dict[str, float | None] = {f"f1_{row.name}": row.f1 for row in scores.classes if row.occurs}
    # The overall names come last, so that a label with an unlucky name cannot hide them.
    metrics |= {
        HEADLINE: scores.macro.f1,
        "macro_precision": scores.macro.precision,
        "macro_recall": scores.macro.recall,
        "weighted_f1": scores.weighted.f1,
        "texts": scores.texts,
        "temperature": scores.temperature,
    }
    if scores.multi_label:
        metrics |= {"micro_f1": scores.micro.f1, "subset_accuracy": scores.accuracy}
    else:
        metrics |= {"accuracy": scores.accuracy, "in_scope_texts": scores.in_scope, "min_score": scores.min_score}
    for ending, found in (("", scores.calibration), ("_uncalibrated", scores.uncalibrated)):
        if found:
            metrics[f"expected_calibration_error{ending}"] = found.error
            metrics[f"negative_log_likelihood{ending}"] = found.loss
    if scores.answering:
        metrics["coverage"] = scores.answering.coverage
        metrics["answered_accuracy"] = scores.answering.accuracy
        metrics["in_scope_accuracy"] = scores.answering.in_scope_accuracy
        metrics["out_of_scope_recall"] = scores.answering.out_of_scope_recall
    return {
        f"{prefix}/{name}": float(value) for name, value in metrics.items() if value is not None and np.isfinite(value)
    }


def _check_logits(logits: np.ndarray) -> None:
    if logits.ndim != 2 or not logits.shape[1]:
        raise ValueError(f"logits must be [texts, labels], received {logits.shape}")
    broken = np.flatnonzero(np.isnan(logits).any(axis=1))
    if len(broken):
        raise RunError(
            f"the model's logits of {len(broken)} of {len(logits)} texts are not numbers, first of text {broken[0] + 1}"
        )


def _check_gold(gold: np.ndarray, logits: np.ndarray, labels: Sequence[str]) -> None:
    _check_logits(logits)
    if logits.shape[1] != len(labels):
        raise ValueError(f"logits must be of {len(labels)} labels, received {logits.shape}")
    if gold.shape != (logits.shape if gold.ndim == 2 else logits.shape[:1]):
        raise ValueError(f"gold must be [texts] or [texts, labels] of logits {logits.shape}, received {gold.shape}")
    if not len(gold):
        raise ValueError("there is nothing to score: the split has no texts")
    if gold.ndim == 1 and not NO_LABEL <= gold.min() <= gold.max() < len(labels):
        raise ValueError(f"gold labels must be {NO_LABEL} to {len(labels) - 1}, received {gold.min()} to {gold.max()}")


def _score_rows(
    gold: np.ndarray, predicted: np.ndarray, labels: Sequence[str]
) -> tuple[tuple[Row, ...], Row, Row, Row]:
    """Rows of all labels, and the macro, micro and weighted averages over those that occur."""
    from sklearn.metrics import precision_recall_fscore_support  # slow to import, and no answer needs it

    support, found = _count(gold, len(labels)), _count(predicted, len(labels))
    occurring = np.flatnonzero(support + found)
    if gold.ndim == 2:  # a single column would be read as texts of one label, "yes" or "no"
        gold, predicted = (np.pad(side, ((0, 0), (0, 1))) for side in (gold, predicted))

    def scored(chosen: np.ndarray, average: str | None) -> list[np.ndarray]:
        """Precision, recall and F1 of each of the labels, or one average over them."""
        if not len(occurring):  # nothing to average
            return 3 * [np.zeros(() if average else len(chosen))]
        scores = precision_recall_fscore_support(gold, predicted, labels=chosen, average=average, zero_division=0)
        return list(scores[:3])

    def averaged(average: str) -> Row:
        precision, recall, f1 = map(float, scored(occurring, average))
        return Row(f"{average} avg", precision, recall, f1, int(support.sum()), int(found.sum()))

    columns = [*scored(np.arange(len(labels)), None), support, found]
    rows = tuple(Row(*values) for values in zip(labels, *(column.tolist() for column in columns), strict=True))
    return rows, averaged("macro"), averaged("micro"), averaged("weighted")


def _accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    same = (gold == predicted).reshape(len(gold), -1).all(axis=1) if len(gold) else np.zeros(1)
    return float(same.mean())


def _count(side: np.ndarray, labels: int) -> np.ndarray:
    """How many texts have each label, int64 [labels]."""
    return side.sum(axis=0) if side.ndim == 2 else np.bincount(side, minlength=labels)


def _confusion(gold: np.ndarray, predicted: np.ndarray, labels: int) -> np.ndarray:
    return np.bincount(gold * labels + predicted, minlength=labels**2).reshape(labels, labels)


def _most_confused(confusion: np.ndarray, labels: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    mistakes = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:MOST_CONFUSED]
    places = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return tuple((labels[g], labels[p], int(mistakes[g, p])) for g, p in places if mistakes[g, p])


def _calibration(gold: np.ndarray, logits: np.ndarray, temperature: float) -> Calibration:
    if gold.ndim == 2:  # of each pair: how sure that the label fits, and whether it does
        scaled = np.asarray(logits, np.float64) / temperature
        confidence, correct = expit(scaled).ravel(), gold.ravel()
        losses = -log_expit(np.where(gold, scaled, -scaled))
    else:
        every = np.arange(len(gold))
        logs = log_softmax(logits, temperature)
        best = logits.argmax(axis=1)
        confidence, correct = np.exp(logs)[every, best], best == gold
        losses = -logs[every, gold]
    return Calibration(
        float(losses.mean()),
        expected_calibration_error(confidence, correct),
        reliability_curve(confidence, correct),
    )


def _answering(gold: np.ndarray, answers: Answers, labels: int) -> Answering:
    assert answers.best is not None  # a text has one label
    in_scope, answered = gold != NO_LABEL, answers.predicted != NO_LABEL
    right = answered & (answers.predicted == gold)

    def share(what: np.ndarray, of: np.ndarray) -> float | None:
        return float(what[of].mean()) if of.any() else None

    return Answering(
        coverage=float(answered.mean()),
        accuracy=share(right, answered),
        in_scope_accuracy=share(right, in_scope),
        out_of_scope_recall=share(~answered, ~in_scope),
        confusion=_confusion(gold % (labels + 1), answers.predicted % (labels + 1), labels + 1),  # -1 is the last
        curve=coverage_curve(answers.score, np.equal(answers.best, gold), in_scope),
    )


def _best_threshold(gold: np.ndarray, probabilities: np.ndarray) -> float:
    """Of one label; both [texts]."""
    if not gold.any():
        return THRESHOLD
    order = np.argsort(-probabilities, kind="stable")
    falling, found = probabilities[order], np.arange(1, len(order) + 1)
    f1 = 2 * np.cumsum(gold[order]) / (found + gold.sum())
    following = np.append(falling[1:], 0.0)
    f1[falling == following] = -1  # no threshold parts two that are equal
    if falling[-1] == 0.0:  # the last would be parted from nothing
        f1[-1] = 2 * gold.sum() / (len(gold) + gold.sum())
    middles = (falling + following) / 2
    middles = np.where(middles > following, middles, falling)  # of two neighbouring numbers
    best = np.flatnonzero(f1 == f1.max())
    return float(middles[best[np.abs(middles[best] - THRESHOLD).argmin()]])
