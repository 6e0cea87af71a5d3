"""Training room: what a tagger learns in a step: its labels, with R-Drop and hidden words on request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from app.config import TrainingConfig
from app.one_keras import keras
from app.tasks.head import find_boundaries
from app.tasks.network import LOGITS
from app.tasks.task import Task
from app.training.exit_loss import ExitLoss
from app.training.step import Batch, Keep, StepTuner


@dataclass(frozen=True)
class SpecialIds:
    """Piece ids the step needs to know."""

    start: int
    end: int
    mask: int

    @classmethod
    def of(cls, pieces: "HasSpecialIds") -> "SpecialIds":
        return cls(pieces.start_id, pieces.end_id, pieces.mask_id)

    @property
    def boundary_ids(self) -> tuple[int, int]:
        return self.start, self.end


class HasSpecialIds(Protocol):
    """A vocabulary, see `app/text/word_pieces.py`."""

    start_id: int
    end_id: int
    mask_id: int


class HasVocabulary(Protocol):
    """A vocabulary, see `app/text/word_pieces.py`."""

    vocabulary: list[str]


class FineTuner(StepTuner):
    """Wraps a tagging network for `keras.Model.fit`; the terms of the loss are the real first pieces.

    Args:
        network: {features} -> logits float32 [batch, length, labels].
        loss_sum: (logits, labels, boundaries) -> summed loss.
        special: piece ids.
        config: accumulation, clipping, regularizers, weight averaging.
        seed: of the hidden words.
        keep: gradients -> gradients that leave a structure of the weights as it is (`kept_structure.py`), or None.
        begins_word: bool [vocabulary], pieces that words to hide begin with; None: words begin where labels sit.
        independent: whether each label is decided for itself, see `Head.independent`.
        compute_logits: (features, labels) -> what the network gives in training where labels are, in a cheaper way, see
            `build_label_network`; None = the network itself.
        exits: what the exits of the network learn; None = it has none.
    """

    def __init__(
        self,
        network: keras.Model,
        loss_sum: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
        *,
        special: SpecialIds,
        config: TrainingConfig,
        seed: int,
        keep: Keep | None = None,
        begins_word: np.ndarray | None = None,
        independent: bool = False,
        compute_logits: Callable[[Batch, tf.Tensor], Any] | None = None,
        exits: ExitLoss | None = None,
    ) -> None:
        super().__init__(network, config=config, name="fine_tuner", keep=keep)
        self._compute_logits = compute_logits or (lambda features, labels: self.network(features, training=True))
        self._exits = exits
        self.special = special
        self.independent = independent
        self._begins_word = begins_word
        self._loss_sum = loss_sum
        self._mask_random = tf.random.Generator.from_seed(seed)

    @property
    def hides_words(self) -> bool:
        return self.config.word_mask_fraction > 0 or self.config.entity_mask_fraction > 0

    def _words(self, batch: Batch) -> tf.Tensor:
        """Words with a label."""
        return tf.reduce_sum(tf.cast(batch["labels"] >= 0, tf.float32))

    def _weight(self, batch: Batch) -> tf.Tensor:
        return self._words(batch)

    def _loss(self, batch: Batch, total: tf.Tensor) -> tf.Tensor:
        features = {name: value for name, value in batch.items() if name != "labels"}
        labels = batch["labels"]
        boundaries = find_boundaries(features["token_ids"], self.special.boundary_ids)
        if self.hides_words:
            features["token_ids"] = self._with_hidden_words(batch, boundaries)
        if self.config.r_drop_weight <= 0:
            logits, by_exits = self._ask_network(features, labels, boundaries)
            return (self._loss_sum(logits, labels, boundaries) + by_exits) / total
        # R-Drop (Liang et al. 2021): two dropout samples of each row, and the divergence between them.
        twice = {name: tf.concat([value, value], axis=0) for name, value in features.items()}
        logits, by_exits = self._ask_network(twice, tf.tile(labels, [2, 1]), tf.tile(boundaries, [2, 1]))
        losses = (self._loss_sum(logits, tf.tile(labels, [2, 1]), tf.tile(boundaries, [2, 1])) + by_exits) / 2.0
        divergence = compare_twice(*tf.split(logits, 2), independent=self.independent)
        divergence = tf.reduce_sum(tf.where(labels >= 0, divergence, 0.0))
        return (losses + self.config.r_drop_weight * divergence) / total

    def _ask_network(self, features: Batch, labels: tf.Tensor, boundaries: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """Logits of the last head, float32 [batch, length, labels], and the summed losses of exits: 0.0 without any."""
        outputs = self._compute_logits(features, labels)
        if self._exits is None:
            return outputs, 0.0
        by_labels, by_last = self._exits.compute(outputs, labels, labels >= 0, boundaries)
        return outputs[LOGITS], by_labels + by_last

    def _scored(self, batch: Batch) -> tf.Tensor:
        """Where a label is learnt, bool [batch, length]."""
        return batch["labels"] >= 0

    def _word_starts(self, batch: Batch, boundaries: tf.Tensor) -> tf.Tensor:
        """First pieces of the words that may be hidden, bool [batch, length]."""
        if self._begins_word is None:
            return self._scored(batch)
        begins = tf.gather(tf.constant(self._begins_word), batch["token_ids"])
        return begins & ~boundaries & (batch["padding_mask"] > 0)

    def _with_hidden_words(self, batch: Batch, boundaries: tf.Tensor) -> tf.Tensor:
        """Hides words behind `[MASK]`, all pieces of each, so that their context has to say what they are.

        Args:
            batch: token_ids, labels and padding_mask int32 [batch, length].
            boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.

        Returns:
            token_ids int32 [batch, length], a fraction of the words and a fraction of the entities hidden.
        """
        pieces, labels, starts = batch["token_ids"], batch["labels"], self._word_starts(batch, boundaries)
        words = tf.cumsum(tf.cast(starts, tf.int32), axis=1)
        chosen = self._draw(words) < self.config.word_mask_fraction
        if self.config.entity_mask_fraction > 0:
            last = tf.shape(pieces)[1] - 1
            first_pieces = tf.sort(tf.where(starts, tf.range(last + 1), last), axis=1)
            own_first = tf.gather(first_pieces, tf.maximum(words - 1, 0), batch_dims=1)
            named = tf.gather(labels, own_first, batch_dims=1) > 0
            names = tf.cumsum(tf.cast(labels == 0, tf.int32), axis=1)  # names side by side are hidden together
            chosen |= named & (self._draw(names) < self.config.entity_mask_fraction)
        chosen &= ~boundaries & (batch["padding_mask"] > 0) & (words > 0)
        return tf.where(chosen, self.special.mask, pieces)

    def _draw(self, groups: tf.Tensor) -> tf.Tensor:
        """A random number in [0, 1) for each group of a row, at all its places; groups int32 [batch, length]."""
        chances = self._mask_random.uniform(tf.shape(groups))
        return tf.gather(chances, tf.minimum(groups, tf.shape(groups)[1] - 1), batch_dims=1)


def compare_twice(first: tf.Tensor, second: tf.Tensor, *, independent: bool) -> tf.Tensor:
    """The divergences between two answers in both directions, their mean (Liang et al. 2021, equation 2).

    Args:
        first: logits float32 [..., labels].
        second: likewise.
        independent: whether each label is decided for itself: the divergences of all labels are added up.

    Returns:
        float32 [...].
    """
    if independent:
        return tf.reduce_sum((tf.sigmoid(first) - tf.sigmoid(second)) * (first - second), axis=-1) / 2.0
    first, second = tf.nn.log_softmax(first), tf.nn.log_softmax(second)
    return tf.reduce_sum((tf.exp(first) - tf.exp(second)) * (first - second), axis=-1) / 2.0


def find_beginnings(task: Task, pieces: HasVocabulary) -> np.ndarray | None:
    """Which pieces begin a word, bool [vocabulary]; None for a task whose labels sit at words, which say it better."""
    return None if task.labels_words else np.array([not piece.startswith("##") for piece in pieces.vocabulary])
