"""Tasks room: IOB2's rules as scores of moves between labels, and decoding with them on NumPy arrays alone.

`crf.py` and `head.py` do the same with TensorFlow, where models are trained and scored; a server that must start fast
decodes with what is here. Tests hold the two equal.
"""

from collections.abc import Sequence

import numpy as np

FORBIDDEN = -1e4  # score of an illegal transition: its probability underflows to exactly 0


def compute_constraints(labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """IOB2's rules as scores: I-X may follow B-X or I-X only.

    Returns:
        (start float32 [labels], transitions float32 [labels, labels], from row to column), 0 or `FORBIDDEN`.
    """
    start = np.array([FORBIDDEN if label.startswith("I-") else 0.0 for label in labels], np.float32)
    transitions = np.zeros((len(labels), len(labels)), np.float32)
    for j, label in enumerate(labels):
        if label.startswith("I-"):
            legal = [before in (label, "B-" + label[2:]) for before in labels]
            transitions[:, j] = np.where(legal, 0.0, FORBIDDEN)
    return start, transitions


_LEAST = 1e-300  # a chance that is nearly none stays above 0, so that no message is without any


def decode_chain(emissions: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """The most probable labels of a sentence, by Viterbi: int64 [words].

    Args:
        emissions: float [words, labels], start and end scores included; at least one word.
        transitions: float [labels, labels], from row to column.
    """
    best = emissions[0]
    came_from = np.empty(emissions.shape, np.intp)
    columns = np.arange(emissions.shape[1])
    for word in range(1, len(emissions)):
        scores = best[:, np.newaxis] + transitions
        before = scores.argmax(axis=0)
        came_from[word] = before
        best = scores[before, columns] + emissions[word]
    found = np.empty(len(emissions), np.intp)
    found[-1] = best.argmax()
    for word in range(len(emissions) - 1, 0, -1):
        found[word - 1] = came_from[word, found[word]]
    return found


def compute_posterior(emissions: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Probability of each label at each word of a sentence, by the forward-backward algorithm: float64 [words, labels].

    Messages are probabilities scaled to a sum of 1; a forbidden move has probability 0. Arguments as above.
    """
    moves = np.exp(transitions.astype(np.float64))
    chances = np.exp((emissions - emissions.max(axis=1, keepdims=True)).astype(np.float64)).clip(_LEAST)
    forward, backward = np.empty_like(chances), np.ones_like(chances)
    message = chances[0]
    forward[0] = message / message.sum()
    for word in range(1, len(chances)):
        message = (forward[word - 1] @ moves) * chances[word]
        forward[word] = message / message.sum()
    for word in range(len(chances) - 1, 0, -1):
        message = moves @ (backward[word] * chances[word])
        backward[word - 1] = message / message.sum()
    posterior = forward * backward
    return posterior / posterior.sum(axis=1, keepdims=True)


def score_path(emissions: np.ndarray, transitions: np.ndarray, labels: np.ndarray) -> float:
    """Log-probability of the labels int [words] of a sentence, in nats: the score of their path less log Z."""
    emissions, transitions = emissions.astype(np.float64), transitions.astype(np.float64)
    log_sums = emissions[0]
    for word in range(1, len(emissions)):
        log_sums = np.logaddexp.reduce(log_sums[:, np.newaxis] + transitions, axis=0) + emissions[word]
    path = emissions[np.arange(len(labels)), labels].sum() + transitions[labels[:-1], labels[1:]].sum()
    return float(path - np.logaddexp.reduce(log_sums))
