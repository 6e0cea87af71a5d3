"""Tasks room: the tagging head, softmax or CRF, on top of any backbone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from app.one_keras import keras
from app.tasks.beliefs import Belief
from app.tasks.head import Head, compute_entropy, read_constant
from app.tasks.tagging.chain import compute_constraints
from app.tasks.tagging.crf import (
    compute_chain_divergence,
    compute_chain_loss,
    compute_marginals,
    decode_tags,
    infer_row_marginals,
    score_tags,
)

HEADS = ("softmax", "crf")


class TaggingHead(Head):
    """Dropout and a dense layer to one logit a label; the CRF head adds learnt transition scores.

    Both heads decode with Viterbi under IOB2's rules, so an illegal tag sequence cannot be predicted.

    Args:
        labels: label names, `O` first.
        kind: `softmax` or `crf`.
        dropout: fraction of the input dropped while training.
        reach: see `Head.reach`.
    """

    def __init__(self, labels: Sequence[str], *, kind: str, dropout: float, reach: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if kind not in HEADS:
            raise ValueError(f"kind must be one of {', '.join(HEADS)}, received {kind!r}")
        self.labels = tuple(labels)
        self.kind = kind
        self.reach = reach
        self.start, self.constraints = compute_constraints(labels)
        self.transitions: tf.Variable | None = None
        self._is_exit = False
        self._dropout = keras.layers.Dropout(dropout)
        self._dense = keras.layers.Dense(
            len(labels),
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype="float32",
            name="logits",
        )

    def build(self, input_shape: tf.TensorShape) -> None:
        self._dense.build(input_shape)
        if self.kind == "crf" and self.transitions is None:
            size = len(self.labels)
            self.transitions = self.add_weight(
                "transitions", shape=(size, size), initializer="zeros", dtype="float32", experimental_autocast=False
            )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[batch, length, width] -> logits float32 [batch, length, labels]."""
        return self._dense(self._dropout(inputs, training=training))

    def infer(self, x: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, read_constant(self._dense.kernel)) + read_constant(self._dense.bias)

    def own_variables(self) -> dict[str, tf.Variable]:
        """All variables, by their names in the file of a bundle."""
        learnt = {} if self.transitions is None or self._is_exit else {"transitions": self.transitions}
        return {**learnt, "kernel": self._dense.kernel, "bias": self._dense.bias}

    def compute_loss(self, logits: tf.Tensor, labels: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
        """Summed negative log-likelihood of the labels that are not negative; divide by their global count.

        Args:
            logits: float32 [batch, length, labels].
            labels: int32 [batch, length].
            boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.
        """
        if self.transitions is not None:
            return compute_chain_loss(logits, labels, boundaries, self.transitions + self.constraints)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        return tf.reduce_sum(tf.where(labels >= 0, losses, 0.0))

    def share(self, last: Head) -> None:
        """All exits have the transition scores of the last head: a sentence that lies in several windows, which may
        leave at different layers, is one chain all the same, and whoever decodes need not know where it left.
        """
        assert isinstance(last, TaggingHead)
        self.transitions, self._is_exit = last.transitions, True

    def compute_divergence(
        self, last: Head, taught: tf.Tensor, logits: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor
    ) -> tf.Tensor:
        if self.transitions is None:
            return super().compute_divergence(last, taught, logits, units, boundaries)
        between = self.transitions + self.constraints
        return compute_chain_divergence(taught, logits, units, boundaries, between, between)

    def measure_doubts(self, logits: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
        """By the posterior probabilities of the chain where there is one."""
        if self.transitions is None:
            return super().measure_doubts(logits, units, boundaries)
        return self._chain_doubts(logits, units, boundaries, tf.convert_to_tensor(self.transitions))

    def infer_doubts(self, logits: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
        if self.transitions is None:
            return super().infer_doubts(logits, units, boundaries)
        return self._chain_doubts(logits, units, boundaries, read_constant(self.transitions))

    def _chain_doubts(
        self, logits: tf.Tensor, units: tf.Tensor, boundaries: tf.Tensor, transitions: Any
    ) -> tf.Tensor:
        chances = infer_row_marginals(logits, units, boundaries, transitions + self.constraints)
        entropy = compute_entropy(tf.math.log(tf.maximum(chances, 1e-12)))
        return tf.where(units, entropy, 0.0)

    def chain_scores(self, temperature: float, *, constrained: bool) -> tf.Tensor:
        """Transition scores float32 [labels, labels] at a temperature, 0 for softmax, with IOB2's rules or not."""
        if self.transitions is None:
            learnt = tf.zeros_like(self.constraints)
        else:
            learnt = tf.convert_to_tensor(self.transitions) / temperature
        return learnt + self.constraints if constrained else learnt

    def decoding_scores(self) -> "DecodingScores":
        """What Viterbi needs beside the logits; the sentence boundaries count as `O`, as they do in training."""
        if self.transitions is None:
            return DecodingScores(self.start, self.constraints, np.zeros_like(self.start))
        learnt = read_constant(self.transitions)
        return DecodingScores(self.start + learnt[0], self.constraints + learnt, learnt[:, 0])

    def measure_loss(self, emissions: Sequence[np.ndarray], tags: Sequence[Sequence[str]]) -> float:
        """Mean negative log-likelihood per word of the tags of sentences: what `compute_loss` sums, without dropout.

        Args:
            emissions: for each sentence float32 [words, labels].
            tags: for each sentence its tags.
        """
        ids = {label: number for number, label in enumerate(self.labels)}
        labels = [np.array([ids[tag] for tag in sentence], np.int32) for sentence in tags]
        total = 0.0
        if self.transitions is None:
            for logits, chosen in zip(emissions, labels, strict=True):
                largest = logits.max(axis=1)
                log_norm = np.log(np.exp(logits - largest[:, None]).sum(axis=1)) + largest
                total += float((log_norm - np.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]).sum())
        else:
            scoring = self.decoding_scores()
            for numbers, lengths, batch in _in_batches(emissions, scoring):
                chosen = np.zeros(batch.shape[:2], np.int32)
                for row, number in enumerate(numbers):
                    chosen[row, : lengths[row]] = labels[number]
                total -= float(score_tags(batch, chosen, lengths, scoring.transitions).numpy().sum())
        return total / max(1, sum(map(len, labels)))


@dataclass(frozen=True)
class DecodingScores:
    """Start [labels], transitions [labels, labels] (from row to column), end [labels]: float32, constraints in; and the
    temperature of probabilities.
    """

    start: np.ndarray
    transitions: np.ndarray
    end: np.ndarray
    temperature: float = 1.0

    def find_marginals(self, batch: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Calibrated posterior probabilities of labels: all scores divided by the temperature, which moves no tag.

        Args:
            batch: emissions with start and end scores, float32 [sentences, words, labels].
            lengths: int32 [sentences].

        Returns:
            float32 [sentences, words, labels].
        """
        if self.temperature == 1.0:
            return compute_marginals(batch, lengths, self.transitions)
        return compute_marginals(batch / self.temperature, lengths, self.transitions / self.temperature)


def decode_sentences(
    emissions: Sequence[np.ndarray], scoring: DecodingScores, *, probabilities: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Label ids of sentences, and on request the posterior probability of each chosen label.

    Args:
        emissions: for each sentence float32 [words, labels].
        scoring: start, transition and end scores.
        probabilities: whether to compute them (twice the work).

    Returns:
        (label ids int32 [words] per sentence, probabilities float32 [words] per sentence or an empty list).
    """
    tags: list[np.ndarray] = [np.zeros(0, np.int32)] * len(emissions)
    chances: list[np.ndarray] = [np.zeros(0, np.float32)] * len(emissions) if probabilities else []
    for chosen, lengths, batch in _in_batches(emissions, scoring):
        found = decode_tags(batch, lengths, scoring.transitions).numpy()
        chance = scoring.find_marginals(batch, lengths).numpy() if probabilities else None
        for row, i in enumerate(chosen):
            tags[i] = found[row, : lengths[row]]
            if chance is not None:
                chances[i] = np.take_along_axis(chance[row, : lengths[row]], tags[i][:, None], axis=1)[:, 0]
    return tags, chances


def measure_tag_likelihood(
    emissions: Sequence[np.ndarray], labels: Sequence[np.ndarray], scoring: DecodingScores
) -> float:
    """Mean negative log posterior probability of the given label of each word, in nats.

    Args:
        emissions: for each sentence float32 [words, labels].
        labels: for each sentence int32 [words].
        scoring: with the temperature to be judged.
    """
    total, words = 0.0, 0
    for chosen, lengths, batch in _in_batches(emissions, scoring):
        chances = scoring.find_marginals(batch, lengths).numpy()
        for row, i in enumerate(chosen):
            found = np.take_along_axis(chances[row, : lengths[row]], labels[i][:, None], axis=1)
            total -= float(np.log(np.maximum(found, 1e-12)).sum())
            words += len(labels[i])
    return total / max(words, 1)


def measure_beliefs(
    emissions: Sequence[np.ndarray], labels: Sequence[np.ndarray], scoring: DecodingScores
) -> list[Belief]:
    """Posterior probabilities of the labels of each word, and the probability of the given labels of each sentence.

    Both are of the distribution over the label sequences that IOB2 allows, with the temperature that is in `scoring`.

    Args:
        emissions: for each sentence float32 [words, labels].
        labels: for each sentence int32 [words], as decoded.
        scoring: start, transition and end scores.
    """
    beliefs = [Belief(np.zeros((0, len(scoring.start))), 0.0)] * len(emissions)
    transitions = scoring.transitions / scoring.temperature
    for chosen, lengths, batch in _in_batches(emissions, scoring):
        given = np.zeros(batch.shape[:2], np.int32)
        for row, i in enumerate(chosen):
            given[row, : lengths[row]] = labels[i]
        chances = scoring.find_marginals(batch, lengths).numpy().astype(np.float64)
        logs = score_tags(batch / scoring.temperature, given, lengths, transitions).numpy()
        for row, i in enumerate(chosen):
            beliefs[i] = Belief(chances[row, : lengths[row]], min(0.0, float(logs[row])))
    return beliefs


def _in_batches(
    emissions: Sequence[np.ndarray], scoring: DecodingScores
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Sentences of like length together: their numbers, lengths int32 [sentences], and emissions with start and end
    scores, float32 [sentences, words, labels]. Empty sentences are left out.
    """
    order = sorted((i for i in range(len(emissions)) if len(emissions[i])), key=lambda i: len(emissions[i]))
    for at in range(0, len(order), 256):
        chosen = order[at : at + 256]
        lengths = np.array([len(emissions[i]) for i in chosen], np.int32)
        batch = np.zeros((len(chosen), lengths.max(), len(scoring.start)), np.float32)
        for row, i in enumerate(chosen):
            batch[row, : lengths[row]] = emissions[i]
        batch[:, 0] += scoring.start
        batch[np.arange(len(chosen)), lengths - 1] += scoring.end
        yield chosen, lengths, batch
