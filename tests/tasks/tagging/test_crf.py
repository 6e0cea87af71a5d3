"""The chain's likelihood against every sequence counted out, and against TensorFlow Addons."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa
from scipy.special import log_softmax

from app.tasks.tagging.chain import compute_constraints
from app.tasks.tagging.crf import (
    FORBIDDEN,
    compute_chain_divergence,
    compute_log_likelihood,
    compute_log_norm,
    compute_marginals,
)

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def make_chains(lengths, *, words: int, labels: int = 5, scale: float = 2.0, seed: int = 0):
    """Emissions, labels, lengths, transitions; the labels keep IOB2's rules, which are in the transitions."""
    random = np.random.default_rng(seed)
    emissions = (scale * random.normal(size=(len(lengths), words, labels))).astype(np.float32)
    transitions = random.normal(size=(labels, labels)).astype(np.float32)
    gold = random.integers(0, labels, (len(lengths), words)).astype(np.int32)
    if labels == len(LABELS):
        transitions += compute_constraints(LABELS)[1]
        gold = np.where(np.isin(gold, (2, 4)), 0, gold).astype(np.int32)
    return tf.constant(emissions), tf.constant(gold), tf.constant(lengths, tf.int32), tf.constant(transitions)


def count_out(emissions: np.ndarray, transitions: np.ndarray) -> tuple[float, np.ndarray]:
    """Log norm, and probabilities [words, labels], of one chain by its every sequence, in float64."""
    words, labels = emissions.shape
    sequences = list(itertools.product(range(labels), repeat=words))
    scores = np.array(
        [
            sum(float(emissions[t, y]) for t, y in enumerate(sequence))
            + sum(float(transitions[a, b]) for a, b in itertools.pairwise(sequence))
            for sequence in sequences
        ]
    )
    norm = np.logaddexp.reduce(scores)
    chances = np.zeros((words, labels))
    for sequence, score in zip(sequences, scores, strict=True):
        chances[np.arange(words), sequence] += np.exp(score - norm)
    return norm, chances


def test_norm_and_marginals_equal_those_of_all_sequences_counted_out():
    lengths = [4, 1, 3, 5]
    emissions, _, lengths_, transitions = make_chains(lengths, words=5)
    norms = compute_log_norm(emissions, lengths_, transitions).numpy()
    marginals = compute_marginals(emissions, lengths_, transitions).numpy()
    for row, length in enumerate(lengths):
        norm, chances = count_out(emissions[row, :length].numpy(), transitions.numpy())
        assert norms[row] == pytest.approx(norm, rel=1e-5)
        np.testing.assert_allclose(marginals[row, :length], chances, atol=1e-5)
        assert not marginals[row, length:].any()


def loss_and_gradients(likelihood, chains):
    emissions, _, _, transitions = chains
    upstream = tf.constant(np.random.default_rng(7).normal(size=len(emissions)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([emissions, transitions])
        values = likelihood(*chains)
        total = tf.reduce_sum(values * upstream)
    found = tape.gradient(total, [emissions, transitions], unconnected_gradients="zero")
    return values.numpy(), *(gradient.numpy() for gradient in found)


@pytest.mark.parametrize(("lengths", "words"), [([1, 1], 1), ([7, 3, 1, 12], 12), ([200, 256, 90], 256)])
@pytest.mark.parametrize("labels", [5, 9])
def test_likelihood_and_gradients_equal_those_of_tensorflow_addons(lengths, words, labels):
    chains = make_chains(lengths, words=words, labels=labels)
    ours = loss_and_gradients(compute_log_likelihood, chains)
    theirs = loss_and_gradients(lambda *given: tfa.text.crf_log_likelihood(*given)[0], chains)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-4)
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 if words > 100 else 1e-5)  # Addons sums up to larger numbers


def test_gradients_of_a_long_chain_are_those_of_float64():
    emissions, _, lengths, transitions = make_chains([256, 130], words=256, labels=9, scale=6.0)
    with tf.GradientTape() as tape:
        tape.watch(emissions)
        norm = tf.reduce_sum(compute_log_norm(emissions, lengths, transitions))
    found = tape.gradient(norm, emissions).numpy()
    exact = [tf.cast(value, tf.float64) for value in (emissions, transitions)]
    with tf.GradientTape() as tape:
        tape.watch(exact)
        total = tf.constant(0.0, tf.float64)
        for row, length in enumerate(lengths.numpy()):
            message = exact[0][row, 0]
            for word in range(1, length):
                message = tf.reduce_logsumexp(message[:, None] + exact[1], axis=0) + exact[0][row, word]
            total += tf.reduce_logsumexp(message)
    assert float(norm) == pytest.approx(float(total), rel=1e-6)
    np.testing.assert_allclose(found, tape.gradient(total, exact)[0].numpy(), atol=1e-5)


def test_a_chain_without_words_adds_nothing_and_what_follows_a_chain_does_not_matter():
    emissions, gold, _, transitions = make_chains([0, 3], words=6)
    lengths = tf.constant([0, 3])
    value, by_emissions, _ = loss_and_gradients(compute_log_likelihood, (emissions, gold, lengths, transitions))
    assert value[0] == 0.0 and not by_emissions[0].any() and not by_emissions[1, 3:].any()
    changed = tf.concat([emissions[:, :3], emissions[:, 3:] + 5.0], axis=1)
    again, *_ = loss_and_gradients(compute_log_likelihood, (changed, gold, lengths, transitions))
    np.testing.assert_array_equal(value, again)


def test_scores_far_apart_stay_finite_and_a_forced_label_is_certain():
    emissions, gold, lengths, transitions = make_chains([8], words=8, scale=300.0)
    forced = np.full((1, 8, 5), FORBIDDEN, np.float32)
    forced[..., 0] = 0.0
    for given in (emissions, tf.constant(forced)):
        value, *gradients = loss_and_gradients(compute_log_likelihood, (given, gold * 0, lengths, transitions))
        assert np.isfinite(value).all() and all(np.isfinite(gradient).all() for gradient in gradients)
    assert value[0] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_compiles_with_gradients_at_static_shapes(jit_compile):
    chains = make_chains([30, 7, 0, 18], words=30)
    plain = loss_and_gradients(compute_log_likelihood, chains)

    @tf.function(jit_compile=jit_compile)
    def compiled(emissions, labels, lengths, transitions):
        with tf.GradientTape() as tape:
            tape.watch([emissions, transitions])
            values = compute_log_likelihood(emissions, labels, lengths, transitions)
            total = tf.reduce_sum(values * tf.constant(np.random.default_rng(7).normal(size=4), tf.float32))
        return values, *tape.gradient(total, [emissions, transitions])

    for one, other in zip(compiled(*chains), plain, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-4)


def chain_log_probabilities(logits, transitions) -> np.ndarray:
    """Of every tag sequence of a sentence, whose neighbours are `O`, the label 0."""
    scores = []
    for tags in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        chain = [0, *tags, 0]
        score = sum(logits[i, tag] for i, tag in enumerate(tags))
        scores.append(score + sum(transitions[a, b] for a, b in itertools.pairwise(chain)))
    return log_softmax(scores)


def test_the_chain_divergence_equals_the_sum_over_all_tag_sequences_and_its_gradient_the_difference_of_marginals():
    rng = np.random.default_rng(5)
    logits = 2 * rng.normal(size=(2, 1, 8, 3)).astype(np.float32)
    matrices = rng.normal(size=(2, 3, 3)).astype(np.float32)
    matrices[:, 0, 2] = -1e4  # an illegal transition
    boundaries = np.array([[1, 0, 0, 0, 0, 1, 0, 0]], bool)
    words = np.array([[0, 1, 0, 1, 1, 0, 0, 0]], bool)
    p, q = (chain_log_probabilities(each[0, words[0]], matrix) for each, matrix in zip(logits, matrices, strict=True))
    possible = p > -1e3
    expected = (np.exp(p) * (p - q))[possible].sum()
    student = tf.constant(logits[1])
    with tf.GradientTape() as tape:
        tape.watch(student)
        found = compute_chain_divergence(logits[0], student, words, boundaries, matrices[0], matrices[1])
    assert float(found) == pytest.approx(expected, rel=1e-4)
    sequences = np.array(list(itertools.product(range(3), repeat=3)))
    marginals = [
        np.stack([[np.exp(each)[sequences[:, i] == tag].sum() for tag in range(3)] for i in range(3)])
        for each in (p, q)
    ]
    gradient = tape.gradient(found, student).numpy()
    np.testing.assert_allclose(gradient[0, words[0]], marginals[1] - marginals[0], atol=1e-5)
    assert not gradient[0, ~words[0]].any()
