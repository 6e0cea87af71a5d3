"""Training room: what a student learns in a step: the labels, and what its teachers say, by fine-tuning's own loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from app.config import DistillConfig, InputError, TrainingConfig
from app.data.packing import FEATURES
from app.one_keras import keras
from app.tasks.head import find_boundaries
from app.tasks.network import LOGITS
from app.tasks.task import ChainLoss
from app.training.distillation.losses import compute_hidden_loss, compute_relation_loss, compute_soft_loss
from app.training.exit_loss import ExitLoss
from app.training.fine_tuner import FineTuner, SpecialIds

ANSWER = "answer_"  # and the number of a teacher: its logits in a batch, float32 [batch, length, labels]
Tensors = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class Teacher:
    """A network to learn from. It computes forward only, without dropout, and never changes.

    Attributes:
        network: features -> logits float32 [batch, length, labels], or a dictionary with `logits` and, of the first
            teacher, the outputs that hidden states and relations are compared with.
        piece_ids: its id of each of the student's word pieces, int32 [student's pieces]; None: the same ids.
        chain_scores: transition scores float32 [labels, labels] at the temperature; needed for `chain_weight` only.
        weights_sha256: digest of the network's weights; needed where answers are kept.
    """

    network: Callable[..., tf.Tensor | Tensors]
    piece_ids: np.ndarray | None = None
    chain_scores: Callable[[], tf.Tensor] | None = None
    weights_sha256: Callable[[], str] = lambda: ""

    def answer(self, features: Tensors) -> dict[str, tf.Tensor]:
        """What the network says, cut off from every gradient."""
        if self.piece_ids is not None:
            ids = tf.gather(tf.constant(self.piece_ids), features["token_ids"])
            features = {**features, "token_ids": ids}
        outputs = _named(self.network(dict(features), training=False))
        return {name: tf.stop_gradient(value) for name, value in outputs.items()}


@dataclass(frozen=True)
class Compared:
    """Which outputs of the student and of the first teacher are compared.

    Attributes:
        hidden: pairs of names (student's, teacher's) of hidden states of one width.
        relations: names of vectors whose self-attention relations are compared.
    """

    hidden: tuple[tuple[str, str], ...] = ()
    relations: tuple[str, ...] = ()


class DistillationTuner(FineTuner):
    """Adds to the loss of the labels what parts the student from its teachers.

    Each loss is a sum divided by its own global count: labelled words, all words, or pieces. The teachers read the
    text as it is, also where the student has words hidden (`training.word_mask_fraction`). On rows that have
    `unit_ids`, every word with a number is compared, labelled or not; else every labelled word. A batch that brings
    `answer_N`, the logits of every teacher, is compared with these and no teacher is asked.

    Args:
        network: the student, features -> logits, or a dictionary of outputs as in `Teacher`. All its trainable
            variables are trained.
        loss_sum: (logits, labels, boundaries) -> summed loss of the labels.
        teachers: their label probabilities are averaged; divergences of tag sequences too.
        distill: weights and temperature.
        special: piece ids of the student.
        config: the training section.
        seed: of the hidden words.
        chain: for `distill.chain_weight`.
        compared: for `distill.hidden.weight` and `distill.relation.weight`.
        keep: as in `FineTuner`; begins_word, independent and exits likewise.
    """

    def __init__(
        self,
        network: keras.Model,
        loss_sum: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
        *,
        teachers: Sequence[Teacher],
        distill: DistillConfig,
        special: SpecialIds,
        config: TrainingConfig,
        seed: int,
        chain: ChainLoss | None = None,
        compared: Compared = Compared(),
        keep: Callable[[list[tf.Tensor]], list[tf.Tensor]] | None = None,
        begins_word: np.ndarray | None = None,
        independent: bool = False,
        exits: ExitLoss | None = None,
    ) -> None:
        super().__init__(
            network,
            loss_sum,
            special=special,
            config=config,
            seed=seed,
            keep=keep,
            begins_word=begins_word,
            independent=independent,
            exits=exits,
        )
        if config.r_drop_weight:
            raise InputError(f"training.r_drop_weight must be 0 with a teacher, received {config.r_drop_weight:g}")
        if distill.chain_weight and not (chain and all(teacher.chain_scores for teacher in teachers)):
            raise ValueError("distill.chain_weight needs a ChainLoss and the transition scores of every teacher")
        self.distill = distill
        # A closure and plain dataclasses: Keras would track the networks and write them into every checkpoint.
        self._teachers = lambda: teachers
        self._teacher_scores = [teacher.chain_scores for teacher in teachers]
        self._chain = chain
        self._compared = compared

    @property
    def teachers(self) -> Sequence[Teacher]:
        return self._teachers()

    @property
    def compares_labels_alone(self) -> bool:
        """Whether the logits of the teachers are all that is asked of them."""
        return not (self._compared.hidden or self._compared.relations)

    def ask(self, features: Tensors) -> list[dict[str, tf.Tensor]]:
        """What each teacher says."""
        return [teacher.answer(features) for teacher in self.teachers]

    def _scored(self, batch: Tensors) -> tf.Tensor:
        """Pieces that are compared, those that labels sit at, bool [batch, length]."""
        return (batch["unit_ids"] if "unit_ids" in batch else batch["labels"]) >= 0

    def _words(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(self._scored(batch), tf.float32))

    def _terms(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Labelled words, words and pieces, float32 [3]."""
        labelled = tf.reduce_sum(tf.cast(batch["labels"] >= 0, tf.float32))
        pieces = tf.reduce_sum(tf.cast(batch["padding_mask"] > 0, tf.float32))
        return tf.stack([labelled, self._words(batch), pieces])

    def _loss(self, batch: dict[str, tf.Tensor], total: tf.Tensor) -> tf.Tensor:
        features = {name: batch[name] for name in FEATURES}
        words = self._scored(batch)
        boundaries = find_boundaries(features["token_ids"], self.special.boundary_ids)
        kept = [batch[name] for name in sorted(batch) if name.startswith(ANSWER)]
        answers = [{LOGITS: logits} for logits in kept] or self.ask(features)
        if self.hides_words:
            features = {**features, "token_ids": self._with_hidden_words(batch, boundaries)}
        student = _named(self.network(features, training=True))
        labelled, scored, real = tf.unstack(total)
        loss = tf.constant(0.0)
        if self.distill.labels_weight:
            by_labels = self._loss_sum(student[LOGITS], batch["labels"], boundaries)
            loss += self.distill.labels_weight * by_labels / labelled
        if self.distill.soft_weight:
            loss += self.distill.soft_weight * self._soft_loss(answers, student, words) / scored
        if self.distill.chain_weight:
            loss += self.distill.chain_weight * self._chain_loss(answers, student, words, boundaries) / scored
        if self._exits:
            by_labels, by_last = self._exits.compute(student, batch["labels"], words, boundaries)
            loss += self.distill.labels_weight * by_labels / labelled + by_last / scored
        for part in self._losses_inside(answers[0], student, features["padding_mask"], real):
            loss += part
        return loss

    def _soft_loss(self, answers: Sequence[Tensors], student: Tensors, words: tf.Tensor) -> tf.Tensor:
        logits = [answer[LOGITS] for answer in answers]
        return compute_soft_loss(
            logits, student[LOGITS], words, self.distill.temperature, independent=self.independent
        )

    def _losses_inside(
        self, teacher: Tensors, student: Tensors, windows: tf.Tensor, real: tf.Tensor
    ) -> list[tf.Tensor]:
        """The losses of hidden states and relations, each weighted and divided by the count of real pieces."""
        hidden, relation, parts = self.distill.hidden, self.distill.relation, []
        if hidden.weight:
            for ours, theirs in self._compared.hidden:
                part = compute_hidden_loss(teacher[theirs], student[ours], windows)
                parts.append(hidden.weight * part / real / len(self._compared.hidden))
        if relation.weight:
            for name in self._compared.relations:
                part = compute_relation_loss(teacher[name], student[name], windows, heads=relation.heads)
                parts.append(relation.weight * part / real / len(self._compared.relations))
        return parts

    def _chain_loss(
        self, answers: Sequence[Tensors], student: Tensors, words: tf.Tensor, boundaries: tf.Tensor
    ) -> tf.Tensor:
        """The mean over the teachers of the divergence between tag sequences, times the squared temperature."""
        assert self._chain is not None
        temperature = self.distill.temperature
        ours = self._chain.student_scores()
        parts = [
            self._chain.divergence(
                answer[LOGITS] / temperature,
                student[LOGITS] / temperature,
                words,
                boundaries,
                scores(),
                ours,
            )
            for answer, scores in zip(answers, self._teacher_scores, strict=True)
            if scores is not None
        ]
        return temperature**2 * tf.add_n(parts) / len(parts)


def _named(outputs: tf.Tensor | Tensors) -> Tensors:
    return outputs if isinstance(outputs, Mapping) else {LOGITS: outputs}
