"""Training room: distillation: what is looked at in a network, the tuner and its losses, teachers and students."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from app.config import (
    BackboneConfig,
    DistillConfig,
    HiddenStatesConfig,
    InputError,
    ModelConfig,
    RelationConfig,
    TrainingConfig,
)
from app.data.packing import FEATURES
from app.encoder.activation import compile_activations
from app.encoder.backbone import build_backbone
from app.encoder.bert import Backbone, find_depths, keep_layers, make_bert_backbone, read_settings
from app.encoder.parts import attention_parts_of, parts_of
from app.encoder.relative import relative_bias_of
from app.one_keras import keras
from app.run.directory import RunDirectory
from app.tasks.bundle import read_labels, read_model
from app.tasks.network import TaskModel, build_model, connect
from app.tasks.task import ChainLoss, Facts, Task
from app.text.shapes import NUM_SHAPES
from app.training.exit_loss import ExitLoss
from app.training.fine_tuner import FineTuner, SpecialIds
from app.training.step import KeptStructure
from app.training.teachers import check_teachers, has_tagger

LOGITS = "logits"
ANSWER = "answer_"  # and the number of a teacher: its logits in a batch, float32 [batch, length, labels]


def hidden_name(layer: int) -> str:
    """The output of a view that holds the hidden states of a layer, counted from 0."""
    return f"hidden_{layer}"


class AttentionVectors(keras.layers.Layer):
    """Queries, keys and values of a self-attention layer, its heads side by side.

    Args:
        attention: the layer; its weights are shared.
        kinds: any of "query", "key", "value".
    """

    def __init__(self, attention: keras.layers.MultiHeadAttention, kinds: Sequence[str], *, name: str) -> None:
        super().__init__(name=name)
        self._attention = attention
        self._kinds = tuple(kinds)

    def call(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Input of the attention layer [batch, length, width] -> {kind: [batch, length, heads * size]}."""
        found = {}
        for kind in self._kinds:
            vectors = getattr(attention_parts_of(self._attention), kind)(inputs)  # [batch, length, heads, size]
            batch, length = tf.unstack(tf.shape(vectors)[:2])
            found[kind] = tf.reshape(vectors, [batch, length, vectors.shape[2] * vectors.shape[3]])
        return found


def attention_width(tagger: TaskModel, layer: int) -> int:
    """Width of the queries, keys and values of a layer, all heads together."""
    return parts_of(tagger.backbone.model.transformer_layers[layer]).attention_parts.width


def build_view(
    tagger: TaskModel,
    *,
    hidden_layers: Sequence[int] = (),
    projected_width: int = 0,
    relation_layer: int = 0,
    relations: Sequence[str] = (),
) -> keras.Model:
    """The network of a tagger with more outputs; all layers are the tagger's own.

    Args:
        tagger: stays as it is.
        hidden_layers: layers whose output is shown, counted from 0.
        projected_width: if it is not 0 and not the tagger's width, hidden states pass a new dense layer to this width.
        relation_layer: the layer whose self-attention is shown.
        relations: any of "query", "key", "value".

    Returns:
        {token_ids, shape_ids, padding_mask: int32 [batch, length]} -> {logits: float32 [batch, length, labels],
        exit_N: likewise, hidden_N: float [batch, length, width], query, key, value: float [batch, length, heads *
        size]}.
    """
    model = tagger.backbone.model
    inputs, states = connect(tagger.backbone, tagger.shapes, segments=tagger.task.segments(tagger.facts))
    outputs = {LOGITS: tagger.head.connect(states[-1], inputs)}
    outputs |= {each.name: each.head.connect(states[each.layer], inputs) for each in tagger.exits}
    for layer in hidden_layers:
        state = states[layer + 1]
        if projected_width and projected_width != model.hidden_dim:
            normal = keras.initializers.TruncatedNormal(stddev=model.hidden_dim**-0.5)
            state = keras.layers.Dense(projected_width, kernel_initializer=normal, name=f"projection_{layer}")(state)
        outputs[hidden_name(layer)] = state
    if relations:
        attention = parts_of(model.transformer_layers[relation_layer]).attention
        vectors = AttentionVectors(attention, relations, name="attention_vectors")
        outputs |= vectors(states[relation_layer])
    return keras.Model(inputs, outputs, name="view")


def build_from_layers(
    teacher: Backbone, layers: Sequence[int], *, dropout: float, attention_dropout: float
) -> Backbone:
    """An encoder of some of the layers of another, with copies of their weights and of the embeddings.

    Raises:
        InputError: the layers do not exist, or are not in rising order.
    """
    count = len(teacher.model.transformer_layers)
    if not layers or list(layers) != sorted(set(layers)) or layers[-1] >= count:
        raise InputError(
            f"distill.student_layers must name layers of {teacher.source}, 0 to {count - 1} in rising order, "
            f"received {list(layers)}"
        )
    settings = dataclasses.replace(
        keep_layers(read_settings(teacher.model), layers), dropout=dropout, attention_dropout=attention_dropout
    )
    model = make_bert_backbone(settings)
    copied = ["token_embedding", "position_embedding", "segment_embedding", "embeddings_layer_norm", "pooled_dense"]
    if relative_bias_of(model) is not None:
        copied.append("relative_bias")
    for name in copied:
        getattr(model, name).set_weights(getattr(teacher.model, name).get_weights())
    for new, number in zip(model.transformer_layers, layers, strict=True):
        new.set_weights(teacher.model.transformer_layers[number].get_weights())
    return dataclasses.replace(teacher, model=model)


def copy_head(teacher: TaskModel, student: TaskModel) -> None:
    """Copies word shapes, head and transition scores where both taggers have them in the same shape."""
    theirs = teacher.own_variables()
    for name, variable in student.own_variables().items():
        if name in theirs and theirs[name].shape == variable.shape:
            variable.assign(theirs[name])


def map_pieces(student: Backbone, teacher: Backbone) -> np.ndarray | None:
    """The teacher's id of each piece of the student, int32 [student's pieces]; None if they are the same.

    Raises:
        InputError: the student has a piece that the teacher does not know, or only one of them is uncased.
    """
    if student.lowercase != teacher.lowercase:
        cased = {True: "uncased", False: "cased"}
        raise InputError(
            f"distill.teachers: the vocabulary of {teacher.source} is {cased[teacher.lowercase]}, the student's is "
            f"{cased[student.lowercase]}; both must read the same word pieces"
        )
    if student.vocabulary == teacher.vocabulary:
        return None
    ids = {piece: number for number, piece in enumerate(teacher.vocabulary)}
    missing = [piece for piece in student.vocabulary if piece not in ids]
    if missing:
        raise InputError(
            f"distill.teachers: {teacher.source} has another vocabulary: it lacks {len(missing):,} of the student's "
            f"{len(student.vocabulary):,} word pieces, such as {missing[0]!r}; it must know them all"
        )
    return np.array([ids[piece] for piece in student.vocabulary], np.int32)


# A small network learns from the answers of large ones, on the same step and fit loop as fine-tuning.
#
# Soft labels: Hinton et al. 2015. Whole tag sequences: `compute_chain_divergence` (tagging/crf.py). Hidden
# states: Jiao et al. 2020 (TinyBERT). Self-attention relations: Wang et al. 2021 (MiniLMv2).


Tensors = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class Teacher:
    """A network to learn from. It computes forward only, without dropout, and never changes.

    Attributes:
        network: features -> logits float32 [batch, length, labels], or a dictionary with `logits` and, of the first
            teacher, the outputs that hidden states and relations are compared with.
        piece_ids: its id of each of the student's word pieces, int32 [student's pieces]; None: the same ids.
        chain_scores: transition scores float32 [labels, labels] at the temperature; needed for `chain_weight` only.
    """

    network: Callable[..., tf.Tensor | Tensors]
    piece_ids: np.ndarray | None = None
    chain_scores: Callable[[], tf.Tensor] | None = None

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
    def compares_labels_alone(self) -> bool:
        """Whether the logits of the teachers are all that is asked of them."""
        return not (self._compared.hidden or self._compared.relations)

    def ask(self, features: Tensors) -> list[dict[str, tf.Tensor]]:
        """What each teacher says."""
        return [teacher.answer(features) for teacher in self._teachers()]

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
        pieces, words = features["token_ids"], self._scored(batch)
        boundaries = (pieces == self.special.start) | (pieces == self.special.end)
        kept = [batch[name] for name in sorted(batch) if name.startswith(ANSWER)]
        answers = [{LOGITS: logits} for logits in kept] or self.ask(features)
        if self.hides_words:
            features = {**features, "token_ids": self._with_hidden_words(batch, boundaries)}
        student = _named(self.network(features, training=True))
        labelled, scored, real = tf.unstack(total)
        loss = tf.constant(0.0)
        if self.distill.labels_weight:
            loss += (
                self.distill.labels_weight * self._loss_sum(student["logits"], batch["labels"], boundaries) / labelled
            )
        if self.distill.soft_weight:
            soft = compute_soft_loss(
                [answer["logits"] for answer in answers],
                student["logits"],
                words,
                self.distill.temperature,
                independent=self.independent,
            )
            loss += self.distill.soft_weight * soft / scored
        if self.distill.chain_weight:
            loss += self.distill.chain_weight * self._chain_loss(answers, student, words, boundaries) / scored
        if self._exits:
            by_labels, by_last = self._exits.compute(student, batch["labels"], words, boundaries)
            loss += self.distill.labels_weight * by_labels / labelled + by_last / scored
        windows = features["padding_mask"]
        if self.distill.hidden.weight:
            for ours, theirs in self._compared.hidden:
                part = compute_hidden_loss(answers[0][theirs], student[ours], windows)
                loss += self.distill.hidden.weight * part / real / len(self._compared.hidden)
        if self.distill.relation.weight:
            for name in self._compared.relations:
                part = compute_relation_loss(
                    answers[0][name], student[name], windows, heads=self.distill.relation.heads
                )
                loss += self.distill.relation.weight * part / real / len(self._compared.relations)
        return loss

    def _chain_loss(
        self, answers: Sequence[Tensors], student: Tensors, words: tf.Tensor, boundaries: tf.Tensor
    ) -> tf.Tensor:
        """The mean over the teachers of the divergence between tag sequences, times the squared temperature."""
        assert self._chain is not None
        temperature = self.distill.temperature
        ours = self._chain.student_scores()
        parts = [
            self._chain.divergence(
                answer["logits"] / temperature,
                student["logits"] / temperature,
                words,
                boundaries,
                scores(),
                ours,
            )
            for answer, scores in zip(answers, self._teacher_scores, strict=True)
            if scores is not None
        ]
        return temperature**2 * tf.add_n(parts) / len(parts)


def compute_soft_loss(
    teachers: Sequence[tf.Tensor],
    student: tf.Tensor,
    words: tf.Tensor,
    temperature: float,
    *,
    independent: bool = False,
) -> tf.Tensor:
    """Divergence of the student's label probabilities from the teachers' mean, times the squared temperature, summed.

    Args:
        teachers: logits float32 [batch, length, labels] each.
        student: logits float32 [batch, length, labels].
        words: bool [batch, length], what is compared.
        temperature: divides all logits; the square keeps gradients at one size (Hinton et al. 2015, section 2).
        independent: whether each label is decided for itself: the divergences of all labels are added up.
    """
    if independent:
        divergence = _compare_independent([each / temperature for each in teachers], student / temperature)
        return temperature**2 * tf.reduce_sum(tf.where(words, divergence, 0.0))
    if len(teachers) == 1:
        log_mean = tf.nn.log_softmax(teachers[0] / temperature)
    else:
        logs = tf.stack([tf.nn.log_softmax(logits / temperature) for logits in teachers])
        log_mean = tf.reduce_logsumexp(logs, axis=0) - math.log(len(teachers))
    ours = tf.nn.log_softmax(student / temperature)
    divergence = tf.reduce_sum(tf.exp(log_mean) * (log_mean - ours), axis=-1)  # [batch, length]
    return temperature**2 * tf.reduce_sum(tf.where(words, divergence, 0.0))


def _compare_independent(teachers: Sequence[tf.Tensor], student: tf.Tensor) -> tf.Tensor:
    """Divergences of yes and no at each label, added up: logits float32 [..., labels] -> float32 [...].

    As cross-entropy less the teachers' own entropy, whose gradient is right also where a probability rounds to 0 or 1.
    """
    mean = tf.add_n([tf.sigmoid(each) for each in teachers]) / len(teachers)
    cross = tf.nn.sigmoid_cross_entropy_with_logits(mean, student)
    entropy = -tf.math.xlogy(mean, mean) - tf.math.xlogy(1.0 - mean, 1.0 - mean)
    return tf.reduce_sum(cross - entropy, axis=-1)


def compute_hidden_loss(teacher: tf.Tensor, student: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """Squared difference of hidden states, mean over the width and summed over real pieces.

    Args:
        teacher: float [batch, length, width].
        student: float [batch, length, width].
        windows: int32 [batch, length], 0 at padding.
    """
    difference = tf.cast(student, tf.float32) - tf.cast(teacher, tf.float32)
    squares = tf.reduce_mean(tf.square(difference), axis=-1)
    return tf.reduce_sum(tf.where(windows > 0, squares, 0.0))


def compute_relation_loss(teacher: tf.Tensor, student: tf.Tensor, windows: tf.Tensor, *, heads: int) -> tf.Tensor:
    """Divergence of self-attention relations, mean over relation heads and summed over real pieces.

    A relation head is a part of the vectors, whose scaled products with each other go through a softmax over the pieces
    of the window: the networks may differ in width and in number of attention heads (Wang et al. 2021, section 3.1).

    Args:
        teacher: queries, keys or values, float [batch, length, width]; the width is a multiple of `heads`.
        student: likewise, of any width that is a multiple of `heads`.
        windows: int32 [batch, length], the window of each piece, 0 at padding.
        heads: relation heads.
    """
    same = tf.equal(windows[:, tf.newaxis, :, tf.newaxis], windows[:, tf.newaxis, tf.newaxis, :])

    def log_relations(vectors: tf.Tensor) -> tf.Tensor:
        batch, length = tf.unstack(tf.shape(vectors)[:2])
        size = vectors.shape[-1] // heads
        parts = tf.reshape(tf.cast(vectors, tf.float32), [batch, length, heads, size])
        parts = tf.transpose(parts, [0, 2, 1, 3]) / size**0.25  # [batch, heads, length, size]
        return tf.nn.log_softmax(tf.where(same, tf.matmul(parts, parts, transpose_b=True), -1e9))

    theirs, ours = log_relations(teacher), log_relations(student)  # [batch, heads, length, length]
    divergence = tf.reduce_mean(tf.reduce_sum(tf.exp(theirs) * (theirs - ours), axis=-1), axis=1)
    return tf.reduce_sum(tf.where(windows > 0, divergence, 0.0))


def _named(outputs: tf.Tensor | Tensors) -> Tensors:
    return outputs if isinstance(outputs, Mapping) else {"logits": outputs}


# Teachers, a student and the tuner that brings them together.


def read_teacher_labels(config: DistillConfig) -> tuple[str, ...] | None:
    """As `check_teachers`, which reads no weights, but the files' checksums are compared.

    Raises:
        InputError: also if a file of a teacher is altered.
    """
    labels = check_teachers(config)
    if labels is not None:
        for source in config.teachers:
            read_labels(RunDirectory(source).model)
    return labels


def load_teachers(
    config: DistillConfig, *, task: Task, labels: Sequence[str], facts: Facts, compile_setting: str = "auto"
) -> list[TaskModel]:
    """The teachers' networks, in the precision that is set. Call inside the strategy's scope.

    Args:
        config: names them.
        task: of the student.
        labels: of those that are runs.
        facts: of the student.
        compile_setting: `training.compile_activations`.
    """
    teachers = []
    for source in config.teachers:
        if has_tagger(source):
            teacher = read_model(RunDirectory(source).model)
        else:  # its encoder alone is used, so the head and its labels mean nothing
            backbone = build_backbone(BackboneConfig(source=source))
            untrained = ModelConfig(head="softmax", word_shape=False)
            teacher = build_model(backbone, untrained, task=task, labels=labels, shape_count=NUM_SHAPES, facts=facts)
        compile_activations(teacher.backbone.model, compile_setting)
        teachers.append(teacher)
    return teachers


def build_distillation(
    student: TaskModel,
    teachers: Sequence[TaskModel],
    *,
    distill: DistillConfig,
    training: TrainingConfig,
    special: SpecialIds,
    seed: int,
    begins_word: np.ndarray | None = None,
) -> tuple[DistillationTuner, list[int]]:
    """The tuner that trains a student, and the depths of its variables for `Plan`. Call inside the strategy's scope.

    The tuner trains the student's own layers; projections of hidden states live in the tuner only. If labels alone are
    compared, it trains the student's network as it is, also one some of whose layers are replaced.

    Raises:
        InputError: layers that do not exist, widths that relation heads do not divide, or other vocabularies.
    """
    hidden = _hidden_pairs(distill.hidden, student, teachers[0]) if distill.hidden.weight else []
    relations = distill.relation.vectors if distill.relation.weight else ()
    network, shown = student.whole, teachers[0].network
    if hidden or relations:
        network = build_view(
            student,
            hidden_layers=[ours for ours, _ in hidden],
            projected_width=teachers[0].backbone.model.hidden_dim,
            relation_layer=_relation_layer(distill.relation, "student", student),
            relations=relations,
        )
        shown = build_view(
            teachers[0],
            hidden_layers=sorted({theirs for _, theirs in hidden}),
            relation_layer=_relation_layer(distill.relation, "teacher", teachers[0]),
            relations=relations,
        )
    chain = student.task.sequence_loss(student, teachers, distill.temperature)
    if distill.chain_weight and chain is None:
        raise InputError(
            f"distill.chain_weight must be 0 with task={student.task.name}, received {distill.chain_weight:g}"
        )
    asked = [
        Teacher(
            view,
            piece_ids=map_pieces(student.backbone, teacher.backbone),
            chain_scores=chain.teacher_scores[number] if chain else None,
        )
        for number, (view, teacher) in enumerate(
            zip([shown, *(teacher.network for teacher in teachers[1:])], teachers, strict=True)
        )
    ]
    tuner = DistillationTuner(
        network,
        student.head.compute_loss,
        teachers=asked,
        distill=distill,
        special=special,
        config=training,
        seed=seed,
        chain=chain,
        compared=Compared(tuple((hidden_name(ours), hidden_name(theirs)) for ours, theirs in hidden), tuple(relations)),
        keep=KeptStructure.find(network.trainable_variables) if training.keep_structure else None,
        begins_word=begins_word,
        independent=student.head.independent,
        exits=ExitLoss.of(student, training),
    )
    return tuner, find_depths(student.backbone, network.trainable_variables)


def _relation_layer(config: RelationConfig, kind: str, tagger: TaskModel) -> int:
    """The layer of the student or the teacher whose relations are compared."""
    key = f"{kind}_layer"
    count = len(tagger.backbone.model.transformer_layers)
    chosen = getattr(config, key)
    layer = count - 1 if chosen == -1 else chosen
    if not config.weight:
        return layer if layer < count else 0
    if layer >= count:
        raise InputError(f"distill.relation.{key} must be 0 to {count - 1} or -1, received {chosen}")
    width = attention_width(tagger, layer)
    if width % config.heads:
        raise InputError(
            f"distill.relation.heads must divide the width of the attention of student and teacher; the {kind}'s is "
            f"{width}, received {config.heads}"
        )
    return layer


def _hidden_pairs(config: HiddenStatesConfig, student: TaskModel, teacher: TaskModel) -> list[tuple[int, int]]:
    """Pairs of layers (student's, teacher's) whose outputs are compared."""
    counts = {
        "student": len(student.backbone.model.transformer_layers),
        "teacher": len(teacher.backbone.model.transformer_layers),
    }
    ours = list(config.student_layers) or list(range(counts["student"]))
    # The last layer goes with the last one, the others at equal distances.
    spread = [-(-(layer + 1) * counts["teacher"] // counts["student"]) - 1 for layer in ours]
    theirs = list(config.teacher_layers) or spread
    for kind, layers in (("student", ours), ("teacher", theirs)):
        if max(layers) >= counts[kind] or len(layers) != len(ours):
            raise InputError(
                f"distill.hidden.{kind}_layers must be {len(ours)} layers of 0 to {counts[kind] - 1}, received {layers}"
            )
    return list(zip(ours, theirs, strict=True))
