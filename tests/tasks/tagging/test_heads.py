"""Both heads: the loss is the exact negative log-likelihood, decoding is exact and never breaks IOB2."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tasks.tagging.chain import FORBIDDEN, compute_constraints
from app.tasks.tagging.head import DecodingScores, TaggingHead, decode_sentences

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def legal(tags) -> bool:
    before = "O"
    for tag in tags:
        if tag.startswith("I-") and before not in (tag, "B-" + tag[2:]):
            return False
        before = tag
    return True


def make_head(kind: str) -> TaggingHead:
    head = TaggingHead(LABELS, kind=kind, dropout=0.0, reach=4)
    head.build(tf.TensorShape([None, None, 4]))
    if kind == "crf":
        head.transitions.assign(np.random.default_rng(1).normal(size=(5, 5)))
    return head


def path_score(emissions, path, scoring) -> float:
    score = scoring.start[path[0]] + scoring.end[path[-1]] + sum(emissions[i, tag] for i, tag in enumerate(path))
    return score + sum(scoring.transitions[a, b] for a, b in itertools.pairwise(path))


@pytest.mark.parametrize("kind", ["softmax", "crf"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 5))
def test_decoding_finds_the_best_of_all_paths_and_never_an_illegal_one(kind, seed, length):
    emissions = np.random.default_rng(seed).normal(scale=3, size=(length, 5)).astype(np.float32)
    scoring = make_head(kind).decoding_scores()
    (tags,), (chances,) = decode_sentences([emissions], scoring, probabilities=True)
    paths = list(itertools.product(range(5), repeat=length))
    scores = np.array([path_score(emissions, path, scoring) for path in paths])
    assert path_score(emissions, tags.tolist(), scoring) == pytest.approx(scores.max(), abs=1e-3)
    assert legal([LABELS[i] for i in tags])
    weights = np.exp(scores - scores.max())
    for position, tag in enumerate(tags):
        share = sum(w for w, path in zip(weights, paths, strict=True) if path[position] == tag) / weights.sum()
        assert chances[position] == pytest.approx(share, abs=1e-4)


def test_the_softmax_loss_is_the_summed_cross_entropy_of_labelled_positions_only():
    logits = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
    labels = np.array([[-1, 0, 1, -1, 2, -1], [-1, 3, -1, -1, -1, -1]], np.int32)
    loss = make_head("softmax").compute_loss(tf.constant(logits), labels, labels == -5)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -sum(np.log(probabilities[b, i, labels[b, i]]) for b, i in np.argwhere(labels >= 0))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_crf_loss_is_the_exact_likelihood_of_each_sentence_for_itself():
    # One row: [CLS] w w [SEP] w w w [SEP] pad; pieces without a label lie between.
    labels = np.array([[-1, 1, -1, 2, -1, 0, 3, 4, -1, -1]], np.int32)
    boundaries = np.array([[1, 0, 0, 0, 1, 0, 0, 0, 1, 0]], bool)
    logits = np.random.default_rng(2).normal(size=(1, 10, 5)).astype(np.float32)
    head = make_head("crf")
    scoring = head.decoding_scores()
    expected = 0.0
    for positions in ([1, 3], [5, 6, 7]):
        emissions, gold = logits[0, positions], labels[0, positions]
        paths = itertools.product(range(5), repeat=len(positions))
        scores = np.array([path_score(emissions, path, scoring) for path in paths], np.float64)
        expected += np.log(np.exp(scores).sum()) - path_score(emissions, gold, scoring)
    loss = head.compute_loss(tf.constant(logits), tf.constant(labels), tf.constant(boundaries))
    assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_an_empty_row_costs_nothing():
    labels = np.full((1, 8), -1, np.int32)
    loss = make_head("crf").compute_loss(tf.ones((1, 8, 5)), labels, tf.zeros((1, 8), tf.bool))
    assert float(loss) == 0.0


def test_the_constraints_allow_inside_tags_only_after_their_own_entity():
    start, transitions = compute_constraints(LABELS)
    assert start.tolist() == [0, 0, FORBIDDEN, 0, FORBIDDEN]
    for (i, before), (j, after) in itertools.product(enumerate(LABELS), repeat=2):
        assert (transitions[i, j] == 0) == legal([before.replace("I-", "B-"), after])


def test_sentences_of_every_length_come_back_in_their_order():
    rng = np.random.default_rng(3)
    emissions = [rng.normal(size=(n, 5)).astype(np.float32) for n in (3, 0, 7, 1, 3)]
    scoring = DecodingScores(*make_head("softmax").decoding_scores().__dict__.values())
    tags, chances = decode_sentences(emissions, scoring, probabilities=True)
    alone = [decode_sentences([e], scoring)[0][0].tolist() for e in emissions]
    assert [t.tolist() for t in tags] == alone
    assert [len(c) for c in chances] == [3, 0, 7, 1, 3]


@pytest.mark.parametrize("kind", ["softmax", "crf"])
def test_the_loss_of_sentences_is_the_training_loss_of_the_row_they_would_be_packed_in(kind):
    head, random = make_head(kind), np.random.default_rng(3)
    tags = [["O", "B-LOC", "I-LOC"], ["B-PER"], [], ["O", "O"]]
    emissions = [random.normal(size=(len(sentence), 5)).astype(np.float32) for sentence in tags]
    mark = np.zeros((1, 5), np.float32)
    row = np.concatenate([mark, *(np.concatenate([each, mark]) for each in emissions if len(each))])
    labels = [-1, *(i for sentence in tags if sentence for i in [*map(LABELS.index, sentence), -1])]
    boundaries = np.array(labels) < 0
    expected = head.compute_loss(row[None], np.array([labels], np.int32), boundaries[None]) / 6
    assert head.measure_loss(emissions, tags) == pytest.approx(float(expected), rel=1e-5)
