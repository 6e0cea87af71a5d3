"""How much of a difference between two systems may be chance."""

import numpy as np
import pytest

from app.evaluation.gate import Loss, compute_loss
from app.tasks.tagging.scores import compute_scores, count_entities, micro_f1


def entities(sentences: int, *, wrong: int, per_sentence: int = 2) -> np.ndarray:
    """Counts (right, predicted, gold) of sentences, one entity wrong in each of the last `wrong`."""
    counts = np.full((sentences, 3), per_sentence)
    counts[sentences - wrong :, 0] -= 1
    return counts


def accuracy(counts: np.ndarray) -> np.ndarray:
    return counts[..., 0] / counts[..., 1]


def points(loss: Loss) -> list[float]:
    return [round(100 * each, 2) for each in (loss.value, loss.low, loss.high)]


def test_a_real_loss_of_two_points_on_a_large_corpus_is_beyond_chance():
    loss = compute_loss(entities(3000, wrong=300), entities(3000, wrong=420), micro_f1)
    assert points(loss)[0] == 2.0
    assert loss.exceeds(0.005) and loss.may_exceed(0.005)
    assert 0.015 < loss.low < loss.value < loss.high < 0.025


def test_a_loss_of_two_entities_on_a_small_corpus_may_be_chance():
    reference, other = entities(158, wrong=50), entities(158, wrong=50)
    reference[:2, 0] -= 1
    other[10:14, 0] -= 1  # four lost, two gained, of 316
    loss = compute_loss(reference, other, micro_f1)
    assert points(loss)[0] == 0.63
    assert not loss.exceeds(0.005) and loss.may_exceed(0.005)
    assert loss.low < 0 < loss.high < 0.03


def test_equal_answers_lose_nothing_and_the_interval_says_so():
    counts = entities(50, wrong=7)
    assert compute_loss(counts, counts.copy(), micro_f1) == Loss(0.0, 0.0, 0.0)
    assert not Loss(0.0, 0.0, 0.0).exceeds(0) and not Loss(0.0, 0.0, 0.0).may_exceed(0)


def test_a_system_that_is_better_has_a_negative_loss():
    loss = compute_loss(entities(1000, wrong=200), entities(1000, wrong=100), micro_f1)
    assert loss.value < 0 and loss.high < 0 and not loss.exceeds(0)


def test_the_same_counts_give_the_same_interval_in_any_order_and_another_seed_nearly_the_same():
    rng = np.random.default_rng(1)
    reference = np.stack([rng.integers(0, 3, 400), np.full(400, 3), np.full(400, 3)], axis=1)
    other = np.stack([rng.integers(0, 3, 400), np.full(400, 3), np.full(400, 3)], axis=1)
    order = rng.permutation(400)
    loss = compute_loss(reference, other, micro_f1)
    assert compute_loss(reference, other, micro_f1) == loss
    assert compute_loss(reference[order], other[order], micro_f1) == loss
    another = compute_loss(reference, other, micro_f1, seed=1)
    assert another.value == loss.value and another.low == pytest.approx(loss.low, abs=0.01)


def test_the_interval_is_that_of_drawing_the_examples_themselves():
    """Drawing kinds of examples is a short cut: held against the definition."""
    rng = np.random.default_rng(2)
    reference, other = (np.stack([rng.integers(0, 2, 300), np.ones(300, int)], axis=1) for _ in range(2))
    drawn = rng.integers(0, 300, size=(4000, 300))
    losses = accuracy(reference[drawn].sum(axis=1)) - accuracy(other[drawn].sum(axis=1))
    loss = compute_loss(reference, other, accuracy, resamples=4000)
    assert [loss.low, loss.high] == pytest.approx(list(np.quantile(losses, [0.025, 0.975])), abs=0.006)


def test_the_interval_holds_the_true_loss_about_as_often_as_it_says():
    rng, held = np.random.default_rng(3), 0
    for _ in range(200):  # accuracies of .90 and .87: a true loss of .03
        reference, other = (
            np.stack([rng.random(500) < chance, np.ones(500)], axis=1).astype(int) for chance in (0.90, 0.87)
        )
        loss = compute_loss(reference, other, accuracy, resamples=300)
        held += loss.low <= 0.03 <= loss.high
    assert 0.90 <= held / 200 <= 0.99


def test_a_statistic_need_not_be_a_sum_over_examples():
    """Macro F1 of a confusion matrix, an example a cell: what a classifier's gate needs."""

    def macro_f1(counts: np.ndarray) -> np.ndarray:  # [..., 9]
        matrix = counts.reshape(*counts.shape[:-1], 3, 3)
        right = np.diagonal(matrix, axis1=-2, axis2=-1)
        return (2 * right / np.maximum(matrix.sum(-1) + matrix.sum(-2), 1)).mean(-1)

    gold = np.repeat([0, 1, 2], 400)
    noise = np.random.default_rng(4).random(1200)
    reference, other = (np.eye(9, dtype=int)[3 * gold + np.where(noise < part, 0, gold)] for part in (0.1, 0.3))
    loss = compute_loss(reference, other, macro_f1)
    assert loss.value > 0.05 and loss.exceeds(0.05)


@pytest.mark.parametrize(
    ("reference", "other"),
    [(np.zeros((3, 3)), np.zeros((2, 3))), (np.zeros((0, 3)), np.zeros((0, 3))), (np.zeros(3), np.zeros(3))],
)
def test_counts_that_cannot_be_compared_are_refused(reference, other):
    with pytest.raises(ValueError, match="counts must be two arrays"):
        compute_loss(reference, other, micro_f1)


def test_counts_of_sentences_add_up_to_the_headline():
    gold = [["B-PER", "I-PER", "O"], ["O"], ["B-LOC", "B-LOC"], ["B-PER", "I-PER"]]
    predicted = [["B-PER", "I-PER", "B-LOC"], ["I-PER"], ["B-LOC", "O"], ["B-PER", "I-LOC"]]
    counts = count_entities(gold, predicted)
    assert counts.tolist() == [[1, 2, 1], [0, 0, 0], [1, 1, 2], [0, 1, 1]]
    assert micro_f1(counts.sum(axis=0)) == compute_scores(gold, predicted).strict.micro.f1
    assert micro_f1(np.zeros(3, int)) == 0
