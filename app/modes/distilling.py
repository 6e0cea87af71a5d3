"""Modes room: teachers, a student and the tuner that brings them together, shared by distillation and compression."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from app.artifacts import RunDirectory
from app.config import BackboneConfig, DistillConfig, InputError, ModelConfig, TrainingConfig
from app.data.shapes import NUM_SHAPES
from app.models.activation import compile_activations
from app.models.backbone import build_backbone, detect_source
from app.models.crf import compute_chain_divergence
from app.models.distillation import attention_width, build_view, hidden_name, map_pieces, view_depths
from app.models.tagger import Tagger, build_tagger
from app.models.tagger_bundle import SETTINGS_FILE, read_labels, read_tagger
from app.training.distillation import ChainLoss, Compared, DistillationTuner, Teacher
from app.training.fine_tuner import SpecialIds
from app.training.kept_structure import KeptStructure


def read_teacher_labels(config: DistillConfig) -> tuple[str, ...] | None:
    """The labels all teachers share; None if the one teacher is a backbone that does not tag. Reads no weights.

    Raises:
        InputError: a teacher is missing, half-written or altered, teachers differ, or a backbone should tag.
    """
    if not config.teachers:
        raise InputError("distill.teachers is empty; distillation needs at least one run")
    if not any(_tags(source) for source in config.teachers):
        _check_backbone_teacher(config)
        return None
    found = {source: _labels_of(source) for source in config.teachers}
    first = config.teachers[0]
    for source, labels in found.items():
        if labels != found[first]:
            raise InputError(
                f"distill.teachers must have the same labels: {first} has {', '.join(found[first])}, "
                f"{source} has {', '.join(labels)}"
            )
    return found[first]


def load_teachers(config: DistillConfig, *, labels: Sequence[str], compile_setting: str = "auto") -> list[Tagger]:
    """The teachers' networks, in the precision that is set. Call inside the strategy's scope.

    Args:
        config: names them.
        labels: of those that are runs.
        compile_setting: `training.compile_activations`.
    """
    teachers = []
    for source in config.teachers:
        if _tags(source):
            teacher = read_tagger(RunDirectory(source).model)
        else:  # its encoder alone is used, so the head and its labels mean nothing
            backbone = build_backbone(BackboneConfig(source=source))
            untrained = ModelConfig(head="softmax", word_shape=False)
            teacher = build_tagger(backbone, untrained, labels=labels, shape_count=NUM_SHAPES)
        compile_activations(teacher.backbone.model, compile_setting)
        teachers.append(teacher)
    return teachers


def build_distillation(
    student: Tagger,
    teachers: Sequence[Tagger],
    *,
    distill: DistillConfig,
    training: TrainingConfig,
    special: SpecialIds,
    seed: int,
) -> tuple[DistillationTuner, dict[str, int]]:
    """The tuner that trains a student, and the depths of its variables for `Plan`. Call inside the strategy's scope.

    The tuner trains the student's own layers; projections of hidden states live in the tuner only. If labels alone are
    compared, it trains the student's network as it is, also one some of whose layers are replaced.

    Raises:
        InputError: layers that do not exist, widths that relation heads do not divide, or other vocabularies.
    """
    hidden = _hidden_pairs(distill, student, teachers[0]) if distill.hidden_weight else []
    relations = distill.relations if distill.relation_weight else ()
    network, shown = student.network, teachers[0].network
    if hidden or relations:
        network = build_view(
            student,
            hidden_layers=[ours for ours, _ in hidden],
            projected_width=teachers[0].backbone.model.hidden_dim,
            relation_layer=_relation_layer(distill, "student", student),
            relations=relations,
        )
        shown = build_view(
            teachers[0],
            hidden_layers=sorted({theirs for _, theirs in hidden}),
            relation_layer=_relation_layer(distill, "teacher", teachers[0]),
            relations=relations,
        )
    constrained = "crf" in (student.head.kind, *(teacher.head.kind for teacher in teachers))
    asked = [
        Teacher(
            view,
            piece_ids=map_pieces(student.backbone, teacher.backbone),
            chain_scores=partial(teacher.head.chain_scores, distill.temperature, constrained=constrained),
        )
        for view, teacher in zip([shown, *(teacher.network for teacher in teachers[1:])], teachers, strict=True)
    ]
    own_scores = partial(student.head.chain_scores, distill.temperature, constrained=student.head.kind == "crf")
    tuner = DistillationTuner(
        network,
        student.head.compute_loss,
        teachers=asked,
        distill=distill,
        special=special,
        config=training,
        seed=seed,
        chain=ChainLoss(compute_chain_divergence, own_scores),
        compared=Compared(tuple((hidden_name(ours), hidden_name(theirs)) for ours, theirs in hidden), tuple(relations)),
        keep=KeptStructure.find(network.trainable_variables) if training.keep_structure else None,
    )
    return tuner, view_depths(network, student)


def _tags(source: str) -> bool:
    return (RunDirectory(source).model / SETTINGS_FILE).is_file()


def _labels_of(source: str) -> tuple[str, ...]:
    if not _tags(source):
        _check_exists(source)
        raise InputError(
            f"distill.teachers: {source} does not tag (it has no model/{SETTINGS_FILE}): "
            "of several teachers, each must be a finished run of --mode=finetune or distill"
        )
    return read_labels(RunDirectory(source).model)


def _check_backbone_teacher(config: DistillConfig) -> None:
    """A backbone can be the only teacher, of hidden states and relations."""
    for source in config.teachers:
        _check_exists(source)
    tagging = [name for name in ("soft_weight", "chain_weight") if getattr(config, name)]
    if tagging or len(config.teachers) > 1:
        raise InputError(
            f"distill.teachers: {', '.join(config.teachers)} has no tagger; a backbone can only be the one teacher of "
            "distill.hidden_weight and distill.relation_weight, with distill.soft_weight and distill.chain_weight 0"
        )


def _check_exists(source: str) -> None:
    try:
        detect_source(source)
    except InputError as error:
        folder = Path(source)
        fault = "is not a finished run" if folder.exists() else "does not exist"
        raise InputError(
            f"distill.teachers: {source} {fault}: name finished runs of --mode=finetune or distill"
        ) from error


def _relation_layer(config: DistillConfig, kind: str, tagger: Tagger) -> int:
    """The layer of the student or the teacher whose relations are compared."""
    key = f"relation_{kind}_layer"
    count = len(tagger.backbone.model.transformer_layers)
    chosen = getattr(config, key)
    layer = count - 1 if chosen == -1 else chosen
    if not config.relation_weight:
        return layer if layer < count else 0
    if layer >= count:
        raise InputError(f"distill.{key} must be 0 to {count - 1} or -1, received {chosen}")
    width = attention_width(tagger, layer)
    if width % config.relation_heads:
        raise InputError(
            f"distill.relation_heads must divide the width of the attention of student and teacher; the {kind}'s is "
            f"{width}, received {config.relation_heads}"
        )
    return layer


def _hidden_pairs(config: DistillConfig, student: Tagger, teacher: Tagger) -> list[tuple[int, int]]:
    """Pairs of layers (student's, teacher's) whose outputs are compared."""
    counts = {
        "student": len(student.backbone.model.transformer_layers),
        "teacher": len(teacher.backbone.model.transformer_layers),
    }
    ours = list(config.hidden_student_layers) or list(range(counts["student"]))
    # The last layer goes with the last one, the others at equal distances.
    spread = [-(-(layer + 1) * counts["teacher"] // counts["student"]) - 1 for layer in ours]
    theirs = list(config.hidden_teacher_layers) or spread
    for kind, layers in (("student", ours), ("teacher", theirs)):
        if max(layers) >= counts[kind] or len(layers) != len(ours):
            raise InputError(
                f"distill.hidden_{kind}_layers must be {len(ours)} layers of 0 to {counts[kind] - 1}, received {layers}"
            )
    return list(zip(ours, theirs, strict=True))
