"""Decoding on arrays against TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf
from toy import LABELS

from app.tasks.tagging.chain import compute_constraints, compute_posterior, decode_chain, score_path
from app.tasks.tagging.crf import compute_marginals, decode_tags, score_tags

START, RULES = compute_constraints(LABELS)


@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("learnt", [False, True])
def test_tags_and_probabilities_are_those_of_tensorflow(scale, learnt):
    rng = np.random.default_rng(0)
    moves = RULES + (rng.normal(size=RULES.shape).astype(np.float32) if learnt else 0)
    for words in (1, 2, 3, 17, 90):
        emissions = (scale * rng.normal(size=(words, len(LABELS)))).astype(np.float32)
        emissions[0] += START
        batch, lengths = tf.constant(emissions[np.newaxis]), tf.constant([words])
        assert decode_chain(emissions, moves).tolist() == decode_tags(batch, lengths, moves).numpy()[0].tolist()
        expected = compute_marginals(batch, lengths, moves).numpy()[0]
        np.testing.assert_allclose(compute_posterior(emissions, moves), expected, atol=2e-5)
        path = decode_chain(emissions, moves)
        log_chance = score_tags(batch, path[np.newaxis].astype(np.int32), lengths, moves).numpy()[0]
        assert score_path(emissions, moves, path) == pytest.approx(log_chance, abs=2e-5 * scale * words + 1e-4)


def test_no_illegal_tag_is_given_and_huge_logits_give_numbers():
    rng = np.random.default_rng(1)
    emissions = (100 * rng.normal(size=(40, len(LABELS)))).astype(np.float32)
    emissions[0] += START
    tags = [LABELS[i] for i in decode_chain(emissions, RULES)]
    for before, tag in zip(["O", *tags], tags, strict=False):
        assert not tag.startswith("I-") or before[2:] == tag[2:]
    assert np.isfinite(compute_posterior(1000 * emissions, RULES)).all()
