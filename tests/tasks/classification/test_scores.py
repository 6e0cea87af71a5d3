"""Scores of classified texts against scikit-learn and against counting by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import classification_report, confusion_matrix, f1_score, log_loss

from app.config import InputError, PredictConfig, RunError
from app.evaluation.gate import compute_loss
from app.tasks.calibration import BINS, expected_calibration_error, fit_temperature
from app.tasks.classification.min_score import find_min_score
from app.tasks.classification.scores import (
    NO_LABEL,
    choose_answers,
    compute_text_scores,
    counts_per_text,
    coverage_curve,
    fit_thresholds,
    flat_text_metrics,
    macro_f1_of_sums,
)

NAMES = ("card", "loan", "fee", "limit", "other")


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def lie_on_an_edge(chances):
    """Whether the last digit of a chance, such as a third, decides into which bin of the calibration it falls."""
    return bool((np.abs(chances * BINS - np.round(chances * BINS)) < 1e-9).any())


@st.composite
def single(draw, scope=-1):
    texts, labels = draw(st.integers(1, 15)), draw(st.integers(1, 5))
    logits = draw(arrays(np.float32, (texts, labels), elements=st.integers(-4, 4).map(float)))
    gold = draw(arrays(np.int64, texts, elements=st.integers(scope, labels - 1)))
    return gold, logits


@st.composite
def several(draw):
    texts, labels = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    logits = draw(arrays(np.float32, (texts, labels), elements=st.integers(-4, 4).map(float)))
    return draw(arrays(bool, (texts, labels))), logits


def f1_by_hand(gold, predicted):
    """F1 of one label, of two lists of booleans; None where it does not occur."""
    right = sum(g and p for g, p in zip(gold, predicted, strict=True))
    return 2 * right / (sum(gold) + sum(predicted)) if sum(gold) + sum(predicted) else None


def macro_by_hand(gold, predicted, labels):
    known = [(g, p) for g, p in zip(gold, predicted, strict=True) if g >= 0]
    found = [f1_by_hand([g == label for g, _ in known], [p == label for _, p in known]) for label in range(labels)]
    occurring = [f1 for f1 in found if f1 is not None]
    return sum(occurring) / len(occurring) if occurring else 0.0


@pytest.mark.filterwarnings("ignore:A single label")  # what scikit-learn says of its own report
@given(single(), st.floats(0.5, 5), st.floats(0, 1))
@settings(max_examples=60)
def test_texts_of_one_label_are_scored_as_scikit_learn_and_counting_do(case, temperature, min_score):
    gold, logits = case
    labels = NAMES[: logits.shape[1]]
    scores = compute_text_scores(gold, logits, labels, temperature=temperature, min_score=min_score)
    best, known = logits.argmax(axis=1), gold >= 0
    assert scores.macro.f1 == pytest.approx(macro_by_hand(gold, best, len(labels)))
    assert (scores.texts, scores.in_scope) == (len(gold), known.sum())
    if not known.any():
        assert (scores.accuracy, scores.calibration, scores.confused) == (0, None, ())
        assert scores.confusion.tolist() == np.zeros((len(labels), len(labels))).tolist()
        return
    report = classification_report(
        gold[known], best[known], labels=range(len(labels)), target_names=labels, output_dict=True, zero_division=0
    )
    for row in scores.classes:
        expected = report[row.name]
        assert (row.precision, row.recall, row.f1) == (expected["precision"], expected["recall"], expected["f1-score"])
        assert row.support == expected["support"]
        assert row.predicted == (best[known] == labels.index(row.name)).sum()
    assert scores.weighted.f1 == pytest.approx(report["weighted avg"]["f1-score"])
    assert scores.accuracy == pytest.approx((best == gold)[known].mean())
    assert scores.micro.f1 == pytest.approx(scores.accuracy)
    matrix = confusion_matrix(gold[known], best[known], labels=range(len(labels)))
    assert scores.confusion.tolist() == matrix.tolist()
    probability = softmax(logits.astype(np.float64) / temperature)
    if len(labels) > 1:
        expected_loss = log_loss(gold[known], probability[known], labels=range(len(labels)))
        assert scores.calibration.loss == pytest.approx(expected_loss)
    confidence = probability.max(axis=1)
    plain = softmax(logits.astype(np.float64)).max(axis=1)
    for found, chances in ((scores.calibration, confidence[known]), (scores.uncalibrated, plain[known])):
        if not lie_on_an_edge(chances):
            assert found.error == pytest.approx(expected_calibration_error(chances, (best == gold)[known]))


@given(several(), st.floats(0.1, 0.9))
@settings(max_examples=60)
def test_texts_of_several_labels_are_scored_as_scikit_learn_and_counting_do(case, threshold):
    gold, logits = case
    labels = NAMES[: logits.shape[1]]
    scores = compute_text_scores(gold, logits, labels, temperature=2.0, thresholds=np.full(len(labels), threshold))
    probability = 1 / (1 + np.exp(-logits.astype(np.float64) / 2))
    predicted = probability >= threshold
    by_hand = [f1_by_hand(gold[:, i].tolist(), predicted[:, i].tolist()) for i in range(len(labels))]
    assert [row.f1 for row in scores.classes] == pytest.approx([f1 or 0 for f1 in by_hand])
    occurring = [f1 for f1 in by_hand if f1 is not None]
    assert scores.macro.f1 == pytest.approx(np.mean(occurring) if occurring else 0)
    assert scores.micro.f1 == pytest.approx(f1_by_hand(gold.ravel().tolist(), predicted.ravel().tolist()) or 0)
    if len(labels) > 1 and occurring:
        assert scores.weighted.f1 == pytest.approx(f1_score(gold, predicted, average="weighted", zero_division=0))
    assert scores.accuracy == pytest.approx((gold == predicted).all(axis=1).mean())
    assert scores.multi_label and scores.confusion is None and scores.answering is None
    assert scores.calibration.error == pytest.approx(expected_calibration_error(probability.ravel(), gold.ravel()))
    assert scores.calibration.loss == pytest.approx(-np.log(np.where(gold, probability, 1 - probability)).mean())


@given(single(), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
def test_a_minimum_score_is_scored_as_counting_does(case, min_score):
    gold, logits = case
    scores = compute_text_scores(gold, logits, NAMES[: logits.shape[1]], min_score=min_score).answering
    confidence, best = softmax(logits.astype(np.float64)).max(axis=1), logits.argmax(axis=1)
    answered = [i for i in range(len(gold)) if confidence[i] >= min_score]
    inside, outside = [i for i, g in enumerate(gold) if g >= 0], [i for i, g in enumerate(gold) if g < 0]
    right = {i for i in answered if best[i] == gold[i]}

    def share(part, whole):
        return len(set(part) & set(whole)) / len(whole) if whole else None

    assert scores.coverage == pytest.approx(len(answered) / len(gold))
    assert scores.accuracy == pytest.approx(share(right, answered))
    assert scores.in_scope_accuracy == pytest.approx(share(right, inside))
    refused = set(outside) - set(answered)
    assert scores.out_of_scope_recall == pytest.approx(share(refused, outside))


scored_answers = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]), st.booleans(), st.booleans()), max_size=25
)


@given(scored_answers)
def test_the_coverage_curve_is_what_each_minimum_score_would_do(answers):
    confidence, correct, in_scope = (
        (np.array(column) for column in zip(*answers, strict=True)) if answers else [np.zeros(0)] * 3
    )
    curve = coverage_curve(confidence, correct, in_scope)
    expected = []
    for minimum in sorted(set(confidence.tolist()), reverse=True):
        kept = [right and known for score, right, known in answers if score >= minimum]
        expected.append((len(kept) / len(answers), sum(kept) / len(kept), minimum))
    np.testing.assert_allclose(curve, np.array(expected).reshape(-1, 3))


@given(scored_answers.filter(bool), st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_the_minimum_score_is_the_smallest_that_reaches_the_precision(answers, target):
    confidence, correct, _ = (np.array(column) for column in zip(*answers, strict=True))
    curve = coverage_curve(confidence, correct, np.ones(len(correct), bool))
    facts, wanted = {"coverage": curve[:, [2, 1]].tolist()}, PredictConfig(target_precision=target)

    def precision(minimum):
        return correct[confidence >= minimum].mean()

    candidates = [0.0, *sorted(set(confidence.tolist()))]
    reaching = [minimum for minimum in candidates if precision(minimum) >= target]
    if reaching:
        assert find_min_score(facts, wanted) == reaching[0]
    else:
        best = max(map(precision, candidates))
        with pytest.raises(InputError, match=f"right, the most is {math.floor(best * 1e4) / 1e4:g}; lower it"):
            find_min_score(facts, wanted)


probability_columns = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.2, 0.4, 0.5, 0.6, 0.9, 1.0]), st.booleans()), min_size=1, max_size=20
)


@given(probability_columns)
def test_no_threshold_has_a_better_f1_than_the_one_that_is_learnt(pairs):
    probabilities, gold = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    (found,) = fit_thresholds(gold[:, None], probabilities[:, None])

    def f1(threshold):
        return f1_by_hand(gold.tolist(), (probabilities >= threshold).tolist()) or 0

    if not gold.any():
        assert found == 0.5
    else:
        assert f1(found) == max(f1(threshold) for threshold in [0, *probabilities, 1])


def test_thresholds_lie_between_probabilities_and_near_a_half():
    gold = np.array([[True, True], [True, False], [False, False]])
    probabilities = np.array([[0.3, 0.9], [0.2, 0.4], [0.1, 0.2]])
    np.testing.assert_allclose(fit_thresholds(gold, probabilities), [0.15, 0.65])
    neighbours = np.array([[np.nextafter(0.5, 1)], [0.5]])
    assert fit_thresholds(np.array([[True], [False]]), neighbours)[0] == neighbours[0, 0]
    assert fit_thresholds(np.zeros((0, 2), bool), np.zeros((0, 2))).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match=r"received \(2, 1\) and \(1, 2\)"):
        fit_thresholds(np.zeros((2, 1), bool), np.zeros((1, 2)))


@given(st.one_of(single(), several()), st.data())
def test_macro_f1_of_any_resample_is_the_headline_of_it(case, data):
    gold, logits = case
    chosen = data.draw(st.lists(st.integers(0, len(gold) - 1), min_size=1, max_size=20))
    answers = choose_answers(logits, multi_label=gold.ndim == 2)
    counts = counts_per_text(gold, answers.predicted if answers.best is None else answers.best, logits.shape[1])
    assert counts.shape == (len(gold), 3 * logits.shape[1])
    scores = compute_text_scores(gold[chosen], logits[chosen], NAMES[: logits.shape[1]])
    assert macro_f1_of_sums(counts[chosen].sum(axis=0)) == pytest.approx(scores.macro.f1)
    many = np.stack([counts[chosen].sum(axis=0), counts.sum(axis=0)])[:, None]
    assert macro_f1_of_sums(many).shape == (2, 1)
    assert macro_f1_of_sums(many)[0, 0] == pytest.approx(scores.macro.f1)


def test_a_text_without_an_answer_is_missing_from_what_was_predicted():
    counts = counts_per_text(np.array([0, 1, -1]), np.array([0, NO_LABEL, 1]), 2)
    assert counts.tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0] * 6]


def test_macro_f1_is_tested_by_the_paired_bootstrap():
    random = np.random.default_rng(0)
    gold = random.integers(0, 77, 600)
    good, bad = (np.where(random.random(600) < share, gold, random.integers(0, 77, 600)) for share in (0.95, 0.8))
    counts = [counts_per_text(gold, predicted, 77) for predicted in (good, bad)]
    loss = compute_loss(*counts, macro_f1_of_sums, resamples=300)
    expected = [f1_score(gold, predicted, average="macro") for predicted in (good, bad)]
    assert loss.value == pytest.approx(expected[0] - expected[1])
    assert 0 < loss.low < loss.value < loss.high
    assert not compute_loss(counts[0], counts[0], macro_f1_of_sums, resamples=50).exceeds(0)


def test_pairs_are_sorted_by_how_often_they_are_confused():
    gold = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    best = np.array([0, 1, 1, 0, 1, 0, 0, 0, 2])
    scores = compute_text_scores(gold, np.eye(3)[best], NAMES[:3])
    assert scores.confused == (("fee", "card", 3), ("card", "loan", 2), ("loan", "card", 1))
    many = compute_text_scores(np.arange(30), np.roll(np.eye(30), 1, axis=1), [f"l{i}" for i in range(30)])
    assert many.confused == tuple((f"l{i}", f"l{i + 1}", 1) for i in range(20))


@given(st.one_of(single(), several()))
def test_metrics_are_flat_finite_numbers(case):
    gold, logits = case
    scores = compute_text_scores(gold, logits, NAMES[: logits.shape[1]])
    metrics = flat_text_metrics(scores, prefix="valid")
    assert all(name.startswith("valid/") and type(value) is float for name, value in metrics.items())
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["valid/macro_f1"] == scores.macro.f1
    occurring = {f"valid/f1_{row.name}" for row in scores.classes if row.support or row.predicted}
    assert {name for name in metrics if name.startswith("valid/f1_")} == occurring
    assert ("valid/out_of_scope_recall" in metrics) == (gold.ndim == 1 and (gold < 0).any())
    assert ("valid/subset_accuracy" in metrics) == (gold.ndim == 2)


def test_temperature_and_metrics_go_together():
    random = np.random.default_rng(7)
    logits = random.normal(scale=6, size=(2_000, 4)).astype(np.float32)
    gold = (logits / 3 + random.gumbel(size=logits.shape)).argmax(axis=1)
    metrics = flat_text_metrics(compute_text_scores(gold, logits, NAMES[:4], temperature=fit_temperature(logits, gold)))
    assert metrics["test/temperature"] == pytest.approx(3, rel=0.1)
    assert metrics["test/expected_calibration_error"] < 0.05
    assert metrics["test/expected_calibration_error_uncalibrated"] > 0.1
    assert metrics["test/negative_log_likelihood"] < metrics["test/negative_log_likelihood_uncalibrated"]
    assert metrics["test/coverage"] == 1


def test_a_label_with_an_unlucky_name_hides_no_overall_number():
    names = ("macro", "_macro_f1", "\x00\n<b>" * 50, "\u202eright to left")
    metrics = flat_text_metrics(compute_text_scores(np.arange(4), np.eye(4), names))
    assert metrics["test/macro_f1"] == 1
    assert [metrics[f"test/f1_{name}"] for name in names] == [1] * 4


def test_one_text():
    right = compute_text_scores(np.array([1]), np.array([[0.0, 2.0, 0.0]]), NAMES[:3])
    assert (right.macro.f1, right.accuracy, right.weighted.f1) == (1, 1, 1)
    wrong = compute_text_scores(np.array([0]), np.array([[0.0, 2.0, 0.0]]), NAMES[:3])
    assert (wrong.macro.f1, wrong.accuracy, wrong.confused) == (0, 0, (("card", "loan", 1),))
    assert [row.occurs for row in wrong.classes] == [True, True, False]


def test_a_class_that_is_never_predicted_counts_and_one_that_never_occurs_does_not():
    scores = compute_text_scores(np.array([0, 0, 1]), np.tile([9.0, 0, 0], (3, 1)), NAMES[:3])
    assert scores.macro.f1 == pytest.approx((0.8 + 0) / 2)
    assert scores.classes[1].recall == 0 and scores.classes[1].support == 1 and not scores.classes[2].occurs


def test_everything_out_of_scope():
    logits = np.array([[4.0, 0.0], [0.1, 0.0]])
    scores = compute_text_scores(np.array([-1, -1]), logits, NAMES[:2], min_score=0.9)
    assert (scores.macro.f1, scores.accuracy, scores.in_scope) == (0, 0, 0)
    assert scores.answering.out_of_scope_recall == 0.5
    assert scores.answering.accuracy == 0 and scores.answering.in_scope_accuracy is None
    assert scores.answering.curve[:, 1].tolist() == [0, 0]


def test_infinite_logits_are_certain_and_impossible():
    inf = np.inf
    logits = np.array([[inf, 0, 1], [-inf, 3e38, -3e38], [-inf, -inf, -inf], [inf, inf, 0]], np.float32)
    answers = choose_answers(logits)
    assert answers.best.tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(answers.score, [1, 1, 1 / 3, 1 / 2])
    scores = compute_text_scores(np.array([1, 1, 0, 0]), logits, NAMES[:3])
    assert scores.calibration.loss == inf
    assert "test/negative_log_likelihood" not in flat_text_metrics(scores)
    several = compute_text_scores(logits >= 0, logits, NAMES[:3])
    assert (several.macro.f1, several.accuracy) == (1, 1)


def test_what_is_no_number_ends_the_run():
    with pytest.raises(RunError, match="of 1 of 2 texts are not numbers, first of text 2"):
        compute_text_scores(np.array([0, 0]), np.array([[0.0], [np.nan]]), NAMES[:1])


@pytest.mark.parametrize(
    ("gold", "logits", "settings_", "message"),
    [
        (np.zeros(0, int), np.zeros((0, 2)), {}, "no texts"),
        (np.array([2]), np.zeros((1, 2)), {}, "-1 to 1, received 2 to 2"),
        (np.array([-2]), np.zeros((1, 2)), {}, "received -2 to -2"),
        (np.array([0]), np.zeros((1, 3)), {}, "of 2 labels"),
        (np.array([0, 1]), np.zeros((1, 2)), {}, "gold must be"),
        (np.zeros((1, 3), bool), np.zeros((1, 2)), {}, "gold must be"),
        (np.array([0]), np.zeros(2), {}, "logits must be"),
        (np.array([0]), np.zeros((1, 2)), {"thresholds": np.zeros(2)}, "several labels"),
        (np.zeros((1, 2), bool), np.zeros((1, 2)), {"min_score": 0.5}, "one label"),
    ],
)
def test_what_does_not_fit_together_is_refused(gold, logits, settings_, message):
    with pytest.raises(ValueError, match=message):
        compute_text_scores(gold, logits, NAMES[:2], **settings_)
