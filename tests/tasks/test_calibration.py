"""Confidence against accuracy, and the temperature that brings them together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax as plain_log_softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from app.tasks.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    expected_calibration_error,
    fit_temperature,
    log_softmax,
    reliability_curve,
)

GRID = np.exp(np.linspace(np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE), 200))


def loss_of(logits, gold, temperature):
    logits = np.asarray(logits, np.float64) / temperature
    if gold.ndim == 2:
        return np.logaddexp(0, np.where(gold, -logits, logits)).mean()
    known = gold >= 0
    return -plain_log_softmax(logits[known], axis=1)[np.arange(known.sum()), gold[known]].mean()


def drawn_from(logits, temperature, random):
    """Labels as a model of these logits would be right about at that temperature."""
    return (logits / temperature + random.gumbel(size=logits.shape)).argmax(axis=1)


logit_arrays = arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.floats(-30, 30, width=32)
)


@given(logit_arrays, st.data())
def test_no_temperature_of_a_grid_is_better_than_the_one_found(logits, data):
    texts, labels = logits.shape
    if data.draw(st.booleans()):
        gold = data.draw(arrays(bool, logits.shape))
        right = np.all(np.where(gold, logits, -logits) >= 0)
    else:
        gold = data.draw(arrays(np.int64, texts, elements=st.integers(-1, labels - 1)))
        right = all(logits[i, label] == logits[i].max() for i, label in enumerate(gold) if label >= 0)
    found = fit_temperature(logits, gold)
    assert LOWEST_TEMPERATURE <= found <= HIGHEST_TEMPERATURE
    if gold.ndim == 1 and np.all(gold < 0):
        assert found == 1
        return
    best = loss_of(logits, gold, found)
    assert best <= loss_of(logits, gold, 1.0)
    if not right:
        lowest = min(loss_of(logits, gold, temperature) for temperature in GRID)
        assert best <= lowest + 1e-6 * max(1, abs(lowest))


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_at_is_found_and_calibrates(truth):
    random = np.random.default_rng(1)
    logits = random.normal(scale=3, size=(20_000, 6)).astype(np.float32)
    gold = drawn_from(logits, truth, random)
    found = fit_temperature(logits, gold)
    assert found == pytest.approx(truth, rel=0.04)

    def error(temperature):
        confidence = np.exp(log_softmax(logits, temperature)).max(axis=1)
        return expected_calibration_error(confidence, logits.argmax(axis=1) == gold)

    assert error(found) < 0.015
    assert truth == 1 or error(1.0) > 0.05


def test_the_temperature_of_a_sigmoid_is_found_too():
    random = np.random.default_rng(2)
    logits = random.normal(scale=4, size=(8_000, 3))
    gold = random.random(logits.shape) < 1 / (1 + np.exp(-logits / 2))
    assert fit_temperature(logits, gold) == pytest.approx(2, rel=0.05)


def test_texts_out_of_scope_teach_nothing():
    random = np.random.default_rng(3)
    logits = random.normal(scale=3, size=(300, 4))
    gold = drawn_from(logits, 2.0, random)
    strange = np.concatenate([logits, 50 * random.normal(size=(100, 4))])
    assert fit_temperature(strange, np.concatenate([gold, np.full(100, -1)])) == fit_temperature(logits, gold)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("count", [10, 1000])
def test_ten_right_answers_of_ten_are_no_reason_to_be_certain(count, multi_label):
    logits = np.tile(np.array([[0.8, -0.8]]), (count, 1))
    gold = logits > 0 if multi_label else np.zeros(count, np.int64)
    temperature = fit_temperature(logits, gold)
    margin = 0.8 / temperature if multi_label else 1.6 / temperature
    pairs = 2 * count if multi_label else count
    assert 1 / (1 + np.exp(-margin)) == pytest.approx(1 - 1 / (pairs + 2), abs=1e-4)


def test_certainty_that_was_never_wrong_is_left_alone():
    assert fit_temperature(np.tile([[9.0, 0.0]], (10, 1)), np.zeros(10, np.int64)) == 1


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("value", [0.0, 3e38, -3e38, np.inf, -np.inf])
def test_constant_and_infinite_logits_leave_the_temperature_at_1(rows, value):
    logits = np.full((rows, 4), value, np.float32)
    assert fit_temperature(logits, np.zeros(rows, np.int64)) == 1
    if abs(value) != 3e38:
        assert fit_temperature(logits, np.ones((rows, 4), bool)) == 1


def test_a_gold_label_that_no_temperature_makes_possible_does_not_keep_the_others_from_teaching():
    random = np.random.default_rng(3)
    logits = random.normal(scale=3, size=(300, 4)).astype(np.float32)
    gold = drawn_from(logits, 2.0, random)
    alone = fit_temperature(logits, gold)
    impossible = np.array([[-np.inf, 1, 2, 3], [np.inf, 1, 2, 3]], np.float32)
    assert fit_temperature(np.concatenate([logits, impossible]), np.append(gold, [0, 0])) == alone
    masked = np.concatenate([logits, np.full((300, 1), -np.inf, np.float32)], axis=1)
    assert fit_temperature(masked, gold) == pytest.approx(alone, rel=1e-4)


def test_one_label_leaves_nothing_to_learn():
    assert fit_temperature(np.array([[2.0], [5.0]]), np.array([0, 0])) == 1


@pytest.mark.parametrize("gold", [np.zeros(3, int), np.zeros((2, 3), bool)])
def test_gold_of_another_shape_is_refused(gold):
    with pytest.raises(ValueError, match=r"received \(2, 4\)"):
        fit_temperature(np.zeros((2, 4)), gold)


@given(logit_arrays, st.floats(0.1, 9))
def test_log_softmax_is_that_of_scipy(logits, temperature):
    expected = plain_log_softmax(logits.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(log_softmax(logits, temperature), expected, atol=1e-9)


def test_log_softmax_of_infinite_logits():
    inf = np.inf
    rows = [[inf, 0, 3e38], [inf, inf, -inf], [-inf, -inf, -inf], [3e38, -3e38, 0], [-inf, 1, 1]]
    logits = np.array(rows, np.float32)
    expected = [[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0, 0.5, 0.5]]
    np.testing.assert_allclose(np.exp(log_softmax(logits)), expected)
    assert log_softmax(np.zeros((0, 3))).shape == (0, 3)


confidences = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60)


@given(confidences, st.integers(1, 20))
@settings(max_examples=200)
def test_calibration_error_is_the_sum_over_bins(pairs, bins):
    confidence, correct = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], bool)
    edges = np.linspace(0, 1, bins + 1)
    expected, points = 0.0, []
    for number in range(bins):
        inside = [
            pair for pair in pairs if edges[number] < pair[0] <= edges[number + 1] or (number == 0 and pair[0] == 0)
        ]
        if inside:
            mean, accuracy = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            points.append((mean, accuracy))
            expected += len(inside) / len(pairs) * abs(mean - accuracy)
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected)
    np.testing.assert_allclose(np.array(reliability_curve(confidence, correct, bins)), np.array(points))


def test_the_reliability_curve_is_that_of_scikit_learn():
    random = np.random.default_rng(4)
    confidence = random.random(500)
    correct = random.random(500) < confidence**2
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15)
    np.testing.assert_allclose(reliability_curve(confidence, correct), np.stack([mean, accuracy], axis=1))


def test_confidence_is_checked():
    assert expected_calibration_error(np.array([]), np.array([], bool)) == 0
    assert reliability_curve(np.array([]), np.array([], bool)) == ()
    assert expected_calibration_error(np.float32([1.0000001]), np.array([True])) == pytest.approx(0, abs=1e-6)
    for wrong in ([1.5], [-0.1], [np.nan]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            expected_calibration_error(np.array(wrong), np.array([True]))
    with pytest.raises(ValueError, match="one length"):
        expected_calibration_error(np.zeros(2), np.zeros(3, bool))


def test_the_loss_is_that_of_scikit_learn():
    random = np.random.default_rng(5)
    logits, gold = random.normal(size=(50, 3)), random.integers(0, 3, 50)
    mine = -log_softmax(logits, 1.7)[np.arange(50), gold].mean()
    assert mine == pytest.approx(log_loss(gold, np.exp(plain_log_softmax(logits / 1.7, axis=1)), labels=[0, 1, 2]))
