"""The head of text classification: which loss the settings make of its logits."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_softmax

from app.config.loading import load_config
from app.tasks.classification.corpus import TextSummary
from app.tasks.classification.head import TextHead
from app.tasks.classification.task import CLASSIFICATION

LABELS = ("a", "b", "c")
rng = np.random.default_rng(8)
LOGITS = rng.normal(size=(2, 4, 3)).astype(np.float32)
PLACES = np.array([[1, -1, -1, 0], [2, -1, 0, -1]], np.int32)  # training labels at [CLS]
LABELLED = LOGITS[PLACES >= 0], PLACES[PLACES >= 0]


def loss(**settings) -> float:
    head = TextHead(LABELS, pooling="cls", dropout=0.0, **settings)
    return float(head.compute_loss(tf.constant(LOGITS), tf.constant(PLACES), tf.zeros_like(PLACES, tf.bool)))


def test_the_loss_is_the_cross_entropy_of_the_texts_that_have_a_label():
    logits, labels = LABELLED
    assert loss() == pytest.approx(-log_softmax(logits, axis=1)[range(4), labels].sum(), rel=1e-5)


def test_smoothing_spreads_a_part_of_the_probability_evenly():
    logits, labels = LABELLED
    targets = 0.9 * np.eye(3)[labels] + 0.1 / 3
    assert loss(label_smoothing=0.1) == pytest.approx(-(targets * log_softmax(logits, axis=1)).sum(), rel=1e-5)


def test_class_weights_multiply_the_loss_of_each_class():
    logits, labels = LABELLED
    weights = np.array([0.5, 2.0, 1.5])
    expected = -(weights[labels] * log_softmax(logits, axis=1)[range(4), labels]).sum()
    assert loss(class_weights=weights.tolist()) == pytest.approx(expected, rel=1e-5)


def test_several_labels_have_a_loss_of_yes_or_no_each():
    sets = [(), (0, 2), (1,)]
    logits, labels = LABELLED
    gold = np.array([[number in sets[label] for number in range(3)] for label in labels], np.float64)
    for smoothing in (0.0, 0.2):
        targets = gold * (1 - smoothing) + smoothing / 2
        expected = -(targets * np.log(expit(logits)) + (1 - targets) * np.log(1 - expit(logits))).sum()
        assert loss(multi_label=True, label_sets=sets, label_smoothing=smoothing) == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_make_all_classes_weigh_alike_also_beside_one_that_the_corpus_lacks():
    summary = TextSummary("x.csv", ("a", "c"), {"a": 30, "c": 10}, 40, 80, False, 0, "")
    settings = ["task=classification", "classification.class_weights=balanced"]
    facts = CLASSIFICATION.find_facts(load_config(None, settings), summary, {}, labels=LABELS)
    a, b, c = facts["class_weights"]
    assert a * 30 == pytest.approx(c * 10) == pytest.approx(40 / 3) and b == 1.0
    plain = CLASSIFICATION.find_facts(load_config(None, settings[:1]), summary, facts, labels=LABELS)
    assert plain["class_weights"] == []


def test_label_sets_are_numbered_by_the_labels_of_the_model():
    summary = TextSummary("x.csv", ("a", "c"), {"a": 3, "c": 1}, 4, 8, False, 0, "", ((), ("a", "c"), ("c",)))
    config = load_config(None, ["task=classification", "classification.multi_label=true"])
    facts = CLASSIFICATION.find_facts(config, summary, {}, labels=LABELS)
    assert facts["label_sets"] == [[], [0, 2], [2]]
