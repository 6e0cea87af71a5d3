"""Training room: teachers, a student, and the tuner that brings them together."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from app.config import (
    BackboneConfig,
    DistillConfig,
    HiddenStatesConfig,
    InputError,
    ModelConfig,
    RelationConfig,
    TrainingConfig,
)
from app.encoder.activation import compile_activations
from app.encoder.backbone import build_backbone
from app.encoder.bert import Backbone, find_depths
from app.run.directory import RunDirectory, sha256_of_arrays
from app.tasks.bundle import read_labels, read_model
from app.tasks.network import TaskModel, build_model
from app.tasks.task import Facts, Task
from app.text.shapes import NUM_SHAPES
from app.training.distillation.teachers import check_teachers, has_tagger
from app.training.distillation.tuner import Compared, DistillationTuner, Teacher
from app.training.distillation.view import attention_width, build_view, hidden_name
from app.training.exit_loss import ExitLoss
from app.training.fine_tuner import SpecialIds
from app.training.step import KeptStructure


def read_teacher_labels(config: DistillConfig, *, task: str) -> tuple[str, ...] | None:
    """As `check_teachers`, which reads no weights, but the files' checksums are compared.

    Raises:
        InputError: also if a file of a teacher is altered.
    """
    labels = check_teachers(config, task=task)
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
            weights_sha256=partial(_weights_sha256, teacher),
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


def _weights_sha256(teacher: TaskModel) -> str:
    return sha256_of_arrays((variable.name, variable.numpy()) for variable in teacher.network.variables)


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
