"""What can be known to be wrong before TensorFlow is imported, which takes half a minute: one check per mode.

Each raises InputError in well under a second, writes nothing, and harms no other worker of the same run. The modes look
closer: here, corpora are read at their beginnings and weights not at all.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from app import surroundings
from app.artifacts import Request, RunDirectory, check_not_locked
from app.config import Config, DataConfig, DistillConfig, InputError, PretrainConfig, fields_by_key
from app.data.documents import find_inputs
from app.data.heads import check_corpus_head, check_text_head
from app.data.labels import types_from
from app.data.tfds_corpus import PREFIX
from app.evaluation.manifest import find_export, read_manifest
from app.export.versions import newest_version
from app.files import follow_links, is_written_through
from app.models.sources import TAGGER_SETTINGS, TaggerFacts, check_source, check_tagger, detect_source
from app.training.cluster import check_own_port, check_replicas, choose_strategy

SPLITS = ("train", "valid", "test")


def check(mode: str, request: Request) -> None:
    """Raises InputError for whatever is wrong with a request and can be seen by now."""
    surroundings.find_temporary_folder()
    CHECKS[mode](request)


def check_pretrain(request: Request) -> None:
    config, settings = request.config, request.config.pretrain
    if not settings.train_path:
        raise InputError("pretrain.train_path is empty; pretraining needs text")
    split_beam_options(settings)
    for path in filter(None, (settings.train_path, settings.valid_path)):
        check_text_head(path)
    check_lengths(settings, positions=check_source(config.backbone))
    if settings.records_dir:
        _check_writable(Path(settings.records_dir), "pretrain.records_dir")
    _check_training(request, "pretrain", found_by_trial=True, shared_out=settings.model_parallel > 1)


def check_finetune(request: Request) -> None:
    config = request.config
    if not config.data.train_path:
        raise InputError("data.train_path is empty; fine-tuning needs a training corpus")
    if config.init_from:
        start = _tagger_of(config.init_from, "init_from")
        positions: int | None = start.positions
        labels: Sequence[str] | None = start.labels
    else:
        positions, labels = check_source(config.backbone), None
    _check_length(config.data, positions, found_by_trial=True)
    _check_splits(config.data, SPLITS, labels)
    _check_training(request, "finetune", found_by_trial=True)


def check_distill(request: Request) -> None:
    config, data = request.config, request.config.data
    labels = check_teachers(config.distill)
    require_text(data, teachers_tag=labels is not None)
    if config.init_from:
        check_same_labels(config.init_from, _tagger_of(config.init_from, "init_from").labels, labels)
    elif config.distill.student == "backbone":
        _check_length(data, check_source(config.backbone))
    if labels is not None:
        teachers = [check_tagger(RunDirectory(source).model) for source in config.distill.teachers]
        for teacher in teachers:
            _check_length(data, teacher.positions)
        if not config.init_from and config.distill.student == "teacher_layers":
            check_student_layers(config.distill, config.distill.teachers[0], count=teachers[0].layers)
    _check_splits(data, SPLITS, labels)
    if data.unlabelled_path:
        check_text_head(data.unlabelled_path, tfds_dir=data.tfds_dir)
    _check_training(request, "distill")


def check_compress(request: Request) -> None:
    config, data = request.config, request.config.data
    require_steps(request)
    start = _tagger_of(config.init_from, "init_from")
    if not data.train_path:
        raise InputError("data.train_path is empty; fine-tuning needs a training corpus")
    _check_length(data, start.positions)
    _check_splits(data, SPLITS, start.labels)
    if config.compression.other_path:
        check_corpus_head(config.compression.other_path, config=data, types=types_from(start.labels))
    if data.unlabelled_path and "trim_vocabulary" in config.compression.steps:
        check_text_head(data.unlabelled_path, tfds_dir=data.tfds_dir)
    _check_training(request, "compress")


def check_evaluate(request: Request) -> None:
    config, run_dir = request.config, request.run_dir
    _check_scored(request, f"evaluation.split is {config.evaluation.split}, so it must name a corpus")
    if config.predictor == "tflite":
        find_export(run_dir.tflite, config.evaluation.tflite_file)
    if config.predictor == "saved_model":
        _check_saved_model(run_dir)


def check_predict(request: Request) -> None:
    facts = check_tagger(request.run_dir.model)
    _check_length(request.config.data, facts.positions)
    inputs = [each for each in (request.input, *request.more_inputs) if each]
    if "-" in inputs and "stdin" in surroundings.CLOSED:
        raise InputError("--input=- reads standard input, which is closed: name a file")
    find_inputs(inputs, input_format=request.config.predict.input_format, output=request.output)
    if not request.output:
        if "stdout" in surroundings.CLOSED:
            raise InputError("standard output is closed: name a file with --output")
    elif os.path.isdir(request.output):
        raise InputError(f"--output={request.output} is a folder, it must be a file")
    elif not is_written_through(request.output):
        _check_writable(follow_links(request.output).absolute().parent, f"--output={request.output}: its folder")


def check_export(request: Request) -> None:
    config = request.config
    require_formats(config)
    purpose = f"exports are scored on evaluation.split={config.evaluation.split} before they are kept"
    labels = _check_scored(request, purpose).labels
    if "full_int8" in config.export.formats:
        if not config.data.train_path:
            raise InputError("data.train_path is empty; the ranges of export.formats=full_int8 are read from it")
        _check_splits(config.data, ("train",), labels)


def check_serve(request: Request) -> None:
    _check_saved_model(request.run_dir)
    config = request.config.serve
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise InputError(describe_taken_port(config.host, config.port, error)) from error


def check_benchmark(request: Request) -> None:
    config, data, run_dir = request.config, request.config.data, request.run_dir
    if config.benchmark.objective == "frontier":
        _check_frontier(request)
    elif config.benchmark.objective == "masked_lm":
        if not config.pretrain.train_path:
            raise InputError("pretrain.train_path is empty; pretraining needs text")
        check_text_head(config.pretrain.train_path)
        check_lengths(config.pretrain, positions=check_source(config.backbone))
    else:
        if not data.train_path:
            raise InputError("data.train_path is empty; the benchmark trains on it")
        _check_length(data, check_source(config.backbone))
        _check_splits(data, ("train", "valid"), None)
    _check_writable(run_dir.path, "--run_dir")
    check_not_locked(run_dir.path)


CHECKS: dict[str, Callable[[Request], None]] = {
    "pretrain": check_pretrain,
    "finetune": check_finetune,
    "distill": check_distill,
    "compress": check_compress,
    "evaluate": check_evaluate,
    "predict": check_predict,
    "export": check_export,
    "serve": check_serve,
    "benchmark": check_benchmark,
}


def _check_training(request: Request, mode: str, *, found_by_trial: bool = False, shared_out: bool = False) -> None:
    """Devices, workers and the run directory of a mode that trains."""
    training, run_dir = request.config.training, request.run_dir
    run_dir.plan_training(request.config, mode=mode, overwrite=request.overwrite)
    _check_writable(run_dir.path, "--run_dir")
    if request.config.data.cache_dir:
        _check_writable(Path(request.config.data.cache_dir), "data.cache_dir")
    workers = 0
    if not shared_out:
        name, cluster = choose_strategy(training)
        workers = len(cluster.addresses) if name == "multi_worker" else 0
        if training.accumulation_steps or not found_by_trial:
            check_replicas(training, replicas=workers or (training.logical_devices if name == "mirrored" else 0) or 1)
    if workers:
        check_own_port(cluster)
    else:  # of several workers, the chief has the lock
        check_not_locked(run_dir.path)


def _check_scored(request: Request, purpose: str) -> TaggerFacts:
    """A finished run that is to be scored on `evaluation.split`."""
    config, run_dir = request.config, request.run_dir
    facts = check_tagger(run_dir.model)
    _check_length(config.data, facts.positions)
    require_split(config.data, config.evaluation.split, purpose)
    _check_splits(config.data, (config.evaluation.split,), facts.labels)
    _check_writable(run_dir.path, "--run_dir")
    check_not_locked(run_dir.path)
    return facts


def _check_frontier(request: Request) -> None:
    config, settings = request.config, request.config.benchmark
    require_numbers(config)
    if settings.peer_python and shutil.which(settings.peer_python) is None:
        raise InputError(f"benchmark.peer_python must be a Python interpreter, received {settings.peer_python!r}")
    for number, folder in enumerate((request.run_dir, *map(RunDirectory, settings.other_runs))):
        folder.require_run("benchmark.other_runs" if number else "--run_dir")
        require_exports(folder)
        check_tagger(folder.model)
    _check_scored(request, f"F1 and words/s are measured on evaluation.split={config.evaluation.split}")


def _check_splits(data: DataConfig, splits: Sequence[str], labels: Sequence[str] | None) -> None:
    types = None if labels is None else types_from(labels)
    for split in splits:
        path = getattr(data, f"{split}_path")
        if path and not path.startswith(PREFIX) and not os.path.isfile(path):
            kind = "a folder, not a file" if os.path.isdir(path) else "missing"
            raise InputError(f"data.{split}_path: {path} is {kind}")
        if path:
            check_corpus_head(path, config=data, types=types)


def _tagger_of(source: str, setting: str) -> TaggerFacts:
    if not Path(source).is_dir():
        raise InputError(f"{setting}: {source} does not exist; name a finished run of --mode=finetune or distill")
    return check_tagger(RunDirectory(source).model)


def _check_saved_model(run_dir: RunDirectory) -> None:
    path = newest_version(run_dir.saved_model)
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"{path} is no SavedModel that can be read, export it again: saved_model.pb is missing")


def _check_length(data: DataConfig, positions: int | None, *, found_by_trial: bool = False) -> None:
    if not (found_by_trial and not data.max_length):
        check_row_length(data, positions=positions)


def _check_writable(folder: Path, name: str) -> None:
    """Raises InputError unless a folder can be written, or made where it does not exist."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise InputError(f"{name} {folder} cannot be made: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written" if there == folder.absolute() else f"cannot be made: {there} cannot be written"
        raise InputError(f"{name} {folder} {what} (no permission, or a read-only disk)")


# Rules that the modes ask for as well, when they know more.


def check_row_length(data: DataConfig, *, positions: int | None) -> None:
    """Raises InputError unless `data.max_length` is a number that the backbone can read, if that is known."""
    if not data.max_length:
        raise InputError("data.max_length=0 (found by trial) works with --mode=finetune; set a number")
    if positions is not None and data.max_length > positions:
        raise InputError(
            f"data.max_length must be at most {positions} (the backbone's positions), received {data.max_length}"
        )


def check_lengths(settings: PretrainConfig, *, positions: int | None) -> None:
    """Raises InputError if the rows are longer than the backbone's positions."""
    allowed = f"at most {positions} (the backbone's positions)"
    lengths = {"max_length": settings.max_length, "long_length": settings.long_length if settings.long_epochs else 0}
    for name, length in lengths.items():
        if positions is not None and length > positions:
            raise InputError(f"pretrain.{name} must be {allowed}, received {length}")


def split_beam_options(settings: PretrainConfig) -> list[str]:
    try:
        return shlex.split(settings.beam_options)
    except ValueError as error:
        raise InputError(f"pretrain.beam_options cannot be split: {error}; received {settings.beam_options}") from error


def require_split(data: DataConfig, split: str, purpose: str) -> None:
    """Raises InputError if a split has no corpus of its own; `purpose` says what it is needed for."""
    learnt = split == "valid" and data.train_on_valid
    there = getattr(data, f"{split}_path") or (split == "valid" and data.valid_fraction)
    if learnt or not there:
        reason = "has been learnt from (data.train_on_valid=true)" if learnt else "is empty"
        valid = data.valid_path or data.valid_fraction
        hint = "" if split == "valid" or not valid else ", or score on evaluation.split=valid"
        raise InputError(f"data.{split}_path {reason}; {purpose}{hint}")


def require_text(data: DataConfig, *, teachers_tag: bool) -> None:
    """Raises InputError unless there is text to distil on."""
    if not data.train_path and not (teachers_tag and data.unlabelled_path):
        raise InputError(
            "data.train_path is empty; distillation needs a training corpus, or teachers that tag and text in "
            "data.unlabelled_path"
        )


def require_steps(request: Request) -> None:
    config = request.config
    if not config.compression.steps:
        raise InputError(f"compression.steps is empty; it must name some of {_choices('compression.steps')}")
    if request.run_dir.path.resolve() == Path(config.init_from).resolve():
        raise InputError(f"--run_dir must not be the run that is compressed, {config.init_from}")


def require_formats(config: Config) -> None:
    if not config.export.formats:
        raise InputError(f"export.formats is empty; allowed are {_choices('export.formats')}")


def _choices(key: str) -> str:
    return ", ".join(fields_by_key()[key].metadata["choices"])


def require_numbers(config: Config) -> None:
    for name in ("lengths", "threads", "batch_sizes"):
        if not getattr(config.benchmark, name):
            raise InputError(f"benchmark.{name} is empty; it needs at least one number")


def require_exports(run_dir: RunDirectory) -> None:
    if not read_manifest(run_dir.tflite)["files"]:
        raise InputError(f"{run_dir.tflite} lists no files: make them with --mode=export")


def describe_taken_port(host: str, port: int, error: OSError) -> str:
    return f"serve.host={host}, serve.port={port} cannot be listened on: {error}"


def check_student_layers(config: DistillConfig, teacher: str, *, count: int) -> None:
    """Raises InputError unless a student can be made of these of a teacher's `count` layers."""
    layers = list(config.student_layers)
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


def check_teachers(config: DistillConfig) -> tuple[str, ...] | None:
    """The labels all teachers share; None if the one teacher is a backbone that does not tag. Reads no weights.

    Raises:
        InputError: a teacher is missing or half-written, teachers differ, or a backbone should tag.
    """
    if not config.teachers:
        raise InputError("distill.teachers is empty; distillation needs at least one run")
    if not any(has_tagger(source) for source in config.teachers):
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


def has_tagger(source: str) -> bool:
    return (RunDirectory(source).model / TAGGER_SETTINGS).is_file()


def _labels_of(source: str) -> tuple[str, ...]:
    if not has_tagger(source):
        _check_teacher_exists(source)
        raise InputError(
            f"distill.teachers: {source} does not tag (it has no model/{TAGGER_SETTINGS}): "
            "of several teachers, each must be a finished run of --mode=finetune or distill"
        )
    return check_tagger(RunDirectory(source).model).labels


def _check_backbone_teacher(config: DistillConfig) -> None:
    """A backbone can be the only teacher, of hidden states and relations."""
    for source in config.teachers:
        _check_teacher_exists(source)
    tagging = [name for name in ("soft_weight", "chain_weight") if getattr(config, name)]
    if tagging or len(config.teachers) > 1:
        raise InputError(
            f"distill.teachers: {', '.join(config.teachers)} has no tagger; a backbone can only be the one teacher of "
            "distill.hidden_weight and distill.relation_weight, with distill.soft_weight and distill.chain_weight 0"
        )


def _check_teacher_exists(source: str) -> None:
    try:
        detect_source(source)
    except InputError as error:
        fault = "is not a finished run" if Path(source).exists() else "does not exist"
        raise InputError(
            f"distill.teachers: {source} {fault}: name finished runs of --mode=finetune or distill"
        ) from error
