"""Training room: which runs may teach. Imports no TensorFlow."""

from collections.abc import Sequence
from pathlib import Path

from app.config import DistillConfig, InputError
from app.encoder.sources import TAGGER_SETTINGS, check_tagger, detect_source
from app.run.directory import RunDirectory


def check_student_layers(layers: Sequence[int], *, teacher: str, count: int) -> None:
    """Raises InputError unless a student can be made of these of a teacher's `count` layers."""
    layers = list(layers)
    if not layers or layers != sorted(set(layers)) or layers[-1] >= count:
        raise InputError(
            f"distill.student_layers must name layers of {teacher}, 0 to {count - 1} in rising order, received {layers}"
        )


def check_same_labels(source: str, found: Sequence[str], labels: Sequence[str] | None) -> None:
    """Raises InputError if the run that a student begins as has other labels than its teachers, if those tag."""
    if labels is not None and tuple(found) != tuple(labels):
        raise InputError(
            f"init_from: {source} has the labels {', '.join(found)}, the teachers have {', '.join(labels)}; "
            "they must be the same"
        )


def check_teachers(config: DistillConfig, *, task: str) -> tuple[str, ...] | None:
    """The labels all teachers share; None if the one teacher is a backbone that does not tag. Reads no weights.

    Args:
        config: names them.
        task: that they are to teach.

    Raises:
        InputError: a teacher is missing, half-written or of another task, teachers differ, or a backbone should tag.
    """
    if not config.teachers:
        raise InputError("distill.teachers is empty; distillation needs at least one run")
    if not any(has_tagger(source) for source in config.teachers):
        _check_backbone_teacher(config)
        return None
    found = {source: _labels_of(source, task=task) for source in config.teachers}
    first = config.teachers[0]
    for source, labels in found.items():
        if labels != found[first]:
            raise InputError(
                f"distill.teachers must have the same labels: {first} has {', '.join(found[first])}, "
                f"{source} has {', '.join(labels)}"
            )
    return found[first]


def has_tagger(source: str) -> bool:
    return (RunDirectory(source).model / TAGGER_SETTINGS).is_file()


def _labels_of(source: str, *, task: str) -> tuple[str, ...]:
    if not has_tagger(source):
        _check_teacher_exists(source)
        raise InputError(
            f"distill.teachers: {source} does not tag (it has no model/{TAGGER_SETTINGS}): "
            "of several teachers, each must be a finished run of --mode=finetune or distill"
        )
    teacher = check_tagger(RunDirectory(source).model)
    if teacher.task != task:
        raise InputError(
            f"distill.teachers: {source} was trained for task={teacher.task}, its student would be for task={task}; "
            "both must be the same"
        )
    return teacher.labels


def _check_backbone_teacher(config: DistillConfig) -> None:
    """A backbone can be the only teacher, of hidden states and relations."""
    for source in config.teachers:
        _check_teacher_exists(source)
    tagging = [name for name in ("soft_weight", "chain_weight") if getattr(config, name)]
    if tagging or len(config.teachers) > 1:
        raise InputError(
            f"distill.teachers: {', '.join(config.teachers)} has no tagger; a backbone can only be the one teacher of "
            "distill.hidden.weight and distill.relation.weight, with distill.soft_weight and distill.chain_weight 0"
        )


def _check_teacher_exists(source: str) -> None:
    try:
        detect_source(source)
    except InputError as error:
        fault = "is not a finished run" if Path(source).exists() else "does not exist"
        raise InputError(
            f"distill.teachers: {source} {fault}: name finished runs of --mode=finetune or distill"
        ) from error
