"""What can be known to be wrong before TensorFlow is imported, which takes half a minute: one check per mode.

Each raises InputError in well under a second, writes nothing, and harms no other worker of the same run. The modes look
closer: here, corpora are read at their beginnings and weights not at all.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from app.config import TASK_DEFAULTS, Config, DataConfig, InputError
from app.config.rules import (
    check_exits,
    check_latency_length,
    check_lengths,
    check_row_length,
    describe_taken_port,
    require_formats,
    require_numbers,
    require_one_action,
    require_split,
    require_steps,
    require_text,
    require_update,
    split_beam_options,
)
from app.config.tune import trial_mode
from app.config.update import chosen_actions
from app.data.documents import text_keys
from app.data.inputs import check_count, find_inputs
from app.data.tfds import PREFIX
from app.encoder.sources import TaggerFacts, check_source, check_tagger, count_layers
from app.evaluation.manifest import find_export, newest_version, require_exports
from app.evaluation.other_run import check_other_run
from app.run import surroundings
from app.run.directory import Request, RunDirectory, check_not_locked
from app.run.files import follow_links, is_written_through
from app.search.helpers import share_cores
from app.serving.hosts import read_hosts
from app.serving.runs import find_runs, plan_versions
from app.tasks import check_kind_head, check_settings, check_split_head
from app.tasks.exit_table import read_table
from app.tasks.tagging.corpus_heads import check_text_head
from app.training.cluster import check_own_port, check_replicas, choose_strategy
from app.training.distillation.teachers import check_same_labels, check_student_layers, check_teachers

SPLITS = ("train", "valid", "test")
_DEPTH_SETTINGS = {"backbone.num_layers", "backbone.source"}


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
    start = _tagger_of(config.init_from, "init_from") if config.init_from else None
    _check_length(config.data, start.positions if start else check_source(config.backbone), found_by_trial=True)
    _check_exits(config, [config.model.exit_layers], start=start)
    _check_splits(config, SPLITS, start.labels if start else None, start=start)
    _check_training(request, "finetune", found_by_trial=True)


def check_distill(request: Request) -> None:
    config, data = request.config, request.config.data
    labels = check_teachers(config.distill, task=config.task)
    require_text(data, teachers_tag=labels is not None)
    if config.init_from:
        start = _tagger_of(config.init_from, "init_from")
        check_same_labels(config.init_from, start.labels, labels)
        _check_exits(config, [config.model.exit_layers], start=start)
    elif config.distill.student == "backbone":
        _check_length(data, check_source(config.backbone))
        _check_exits(config, [config.model.exit_layers])
    if labels is not None:
        teachers = [check_tagger(RunDirectory(source).model) for source in config.distill.teachers]
        for teacher in teachers:
            _check_length(data, teacher.positions)
        if not config.init_from and config.distill.student == "teacher_layers":
            check_student_layers(
                config.distill.student_layers, teacher=config.distill.teachers[0], count=teachers[0].layers
            )
    _check_splits(config, SPLITS, labels)
    if data.unlabelled_path:
        check_text_head(data.unlabelled_path, tfds_dir=data.tfds_dir)
    _check_training(request, "distill")


def check_compress(request: Request) -> None:
    config, data = request.config, request.config.data
    require_steps(request.config, run_dir=request.run_dir.path)
    start = _tagger_of(config.init_from, "init_from")
    if not data.train_path:
        raise InputError("data.train_path is empty; fine-tuning needs a training corpus")
    _check_length(data, start.positions)
    check_latency_length(config.compression, positions=start.positions)
    _check_splits(config, SPLITS, start.labels, start=start)
    other = config.compression.trim_vocabulary.other_path
    if other:
        check_split_head(config.task, other, config=config, split="test", labels=start.labels)
    if data.unlabelled_path and "trim_vocabulary" in config.compression.steps:
        check_text_head(data.unlabelled_path, tfds_dir=data.tfds_dir)
    _check_training(request, "compress")


def check_update(request: Request) -> None:
    config, run_dir = request.config, request.run_dir
    if chosen_actions(config.update):
        require_one_action(config.update)
        return  # what is done as fast as it is checked checks the rest itself
    from app.feedback.learning import check_labels, known_labels, open_store_of, select_for  # SQLAlchemy takes time
    from app.feedback.lineage import find_live

    require_update(config, run_dir=run_dir.path)
    named = RunDirectory(config.init_from)
    check_tagger(named.model)
    live = find_live(named)
    start = check_tagger(live.model)
    _check_length(config.data, start.positions)
    split = config.evaluation.split
    require_split(config.data, split, f"an update must be no worse on evaluation.split={split}")
    train = config.data.train_path
    if config.update.replay_fraction and not train.startswith(PREFIX) and not os.path.exists(train):
        raise InputError(
            f"data.train_path: {train} is missing; an update replays a part of it, so set where it is now, or learn "
            "from corrections alone with update.replay_fraction=0"
        )
    _check_splits(config, SPLITS if config.update.replay_fraction else SPLITS[1:], start.labels)
    if choose_strategy(config.training)[0] == "multi_worker":
        raise InputError(
            "an update is trained by one process, training.strategy must be one_device or mirrored; received "
            f"{config.training.strategy}, which is multi_worker here"
        )
    _check_training(request, "update")
    plan = run_dir.plan_training(config, mode="update", overwrite=request.overwrite)
    with open_store_of(config, named, made=False) as store:
        selection = select_for(config, run_dir, store, resumes=plan in ("resume", "finished"))
    known = known_labels(config.task, start.labels)
    check_labels([*selection.learnt, *selection.held_out], known, source=str(live))


def check_tune(request: Request) -> None:
    """A search: what its trials need, the test corpus left out, which no trial reads."""
    config, run_dir = request.config, request.run_dir
    if not config.data.train_path:
        raise InputError("data.train_path is empty; a search needs a training corpus")
    start = None
    if trial_mode(config.tune) == "compress":
        require_steps(config, run_dir=run_dir.path)
        start = _tagger_of(config.init_from, "init_from")
        check_latency_length(config.compression, positions=start.positions)
    elif config.init_from:
        start = _tagger_of(config.init_from, "init_from")
    positions = start.positions if start else check_source(config.backbone)
    _check_length(config.data, positions, found_by_trial=trial_mode(config.tune) == "finetune")
    # A trial whose number of layers is searched, or whose backbone is, looks for itself.
    if trial_mode(config.tune) == "finetune" and (start or _DEPTH_SETTINGS.isdisjoint(config.tune.space)):
        _check_exits(config, config.tune.space.get("model.exit_layers", [config.model.exit_layers]), start=start)
    _check_splits(config, ("train", "valid"), start.labels if start else None, start=start)
    if choose_strategy(config.training)[0] == "multi_worker":
        raise InputError(
            "each trial of a search is trained by one process, training.strategy must be one_device or mirrored; "
            f"received {config.training.strategy}, which is multi_worker here: start a search on each machine with "
            "the same tune.storage"
        )
    share_cores(config.tune.processes)
    run_dir.plan_training(config, mode="tune", overwrite=request.overwrite)
    _check_writable(run_dir.path, "--run_dir")


def check_evaluate(request: Request) -> None:
    config, run_dir = request.config, request.run_dir
    _check_scored(request, f"evaluation.split is {config.evaluation.split}, so it must name a corpus")
    if config.predictor == "tflite":
        find_export(run_dir.tflite, config.evaluation.tflite_file)
    if config.predictor == "saved_model":
        _check_saved_model(run_dir)


def check_model(config: Config, run_dir: RunDirectory) -> TaggerFacts:
    """The model of a run that is to answer."""
    facts = check_tagger(run_dir.model)
    _check_length(config.data, facts.positions)
    check_settings(facts.task, facts.facts, config.predict)
    return facts


def check_predict(request: Request) -> None:
    facts = check_model(request.config, request.run_dir)
    if request.config.predict.other_run:
        check_other_run(request.config.predict.other_run, task=request.config.task, labels=facts.labels)
    inputs = [each for each in (request.input, *request.more_inputs) if each]
    if "-" in inputs and "stdin" in surroundings.CLOSED:
        raise InputError("--input=- reads standard input, which is closed: name a file")
    predict = request.config.predict
    keys = text_keys(
        request.config.data, pairs=bool(facts.facts.get("pairs")), tables=facts.task != "tagging"
    )
    sources = find_inputs(inputs, input_format=predict.input_format, output=request.output, keys=keys)
    if predict.rank:
        check_count(sources, limit=predict.rank_limit)
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
    facts = _check_scored(request, purpose)
    labels = facts.labels
    early = [name for name in config.export.formats if name.endswith("_early")]
    if early and not read_table(facts.facts, facts.exit_layers):
        raise InputError(
            f"export.formats must not name {' and '.join(early)}: the model has no exits (model.exit_layers), or no "
            "validation corpus measured them"
        )
    if "full_int8" in config.export.formats:
        if not config.data.train_path:
            raise InputError("data.train_path is empty; the ranges of export.formats=full_int8 are read from it")
        _check_splits(config, ("train",), labels)


def check_serve(request: Request) -> None:
    config = request.config.serve
    read_hosts(config)
    for _, run_dir in find_runs(config, request.run_dir):
        for source in plan_versions(run_dir, config).sources.values():
            if source.runtime == "saved_model":
                _check_graph(source.path)
    if config.log_texts and not config.access_log:
        raise InputError("serve.log_texts=true adds texts to the lines of serve.access_log, which is false")
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
        _check_splits(config, ("train", "valid"), None)
    _check_writable(run_dir.path, "--run_dir")
    check_not_locked(run_dir.path)


CHECKS: dict[str, Callable[[Request], None]] = {
    "pretrain": check_pretrain,
    "finetune": check_finetune,
    "distill": check_distill,
    "compress": check_compress,
    "update": check_update,
    "tune": check_tune,
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
    facts = check_model(config, run_dir)
    require_split(config.data, config.evaluation.split, purpose)
    _check_splits(config, (config.evaluation.split,), facts.labels, start=facts)
    _check_writable(run_dir.path, "--run_dir")
    check_not_locked(run_dir.path)
    return facts


def _check_frontier(request: Request) -> None:
    config, settings = request.config, request.config.benchmark.frontier
    require_numbers(config)
    if settings.peer_python and shutil.which(settings.peer_python) is None:
        raise InputError(
            f"benchmark.frontier.peer_python must be a Python interpreter, received {settings.peer_python!r}"
        )
    for number, folder in enumerate((request.run_dir, *map(RunDirectory, settings.other_runs))):
        folder.require_run("benchmark.frontier.other_runs" if number else "--run_dir")
        require_exports(folder)
        check_tagger(folder.model)
    _check_scored(request, f"F1 and words/s are measured on evaluation.split={config.evaluation.split}")


def _check_splits(
    config: Config, splits: Sequence[str], labels: Sequence[str] | None, *, start: TaggerFacts | None = None
) -> None:
    """The beginnings of corpora; `start` is the model there is already, if it is to read them."""
    data = config.data
    for split in splits:
        path = getattr(data, f"{split}_path")
        if path:
            with _samples_named(config, split):
                if not path.startswith(PREFIX) and not os.path.exists(path):
                    raise InputError(f"data.{split}_path: {path} is missing")
                if start is not None and start.task == config.task:
                    check_kind_head(config.task, path, config=config, split=split, facts=start.facts)
                check_split_head(config.task, path, config=config, split=split, labels=labels)


@contextmanager
def _samples_named(config: Config, split: str) -> Iterator[None]:
    """Tells whoever named no corpus why there is talk of one."""
    key = f"data.{split}_path"
    default = TASK_DEFAULTS.get(config.task, {}).get(key, getattr(DataConfig(), f"{split}_path"))
    try:
        yield
    except InputError as error:
        if getattr(config.data, f"{split}_path") != default:
            raise
        raise InputError(f"{error} ({default} is the sample's, which is read where {key} is not set)") from error


def _tagger_of(source: str, setting: str) -> TaggerFacts:
    if not Path(source).is_dir():
        raise InputError(f"{setting}: {source} does not exist; name a finished run of --mode=finetune or distill")
    return check_tagger(RunDirectory(source).model)


def _check_saved_model(run_dir: RunDirectory) -> None:
    _check_graph(newest_version(run_dir.saved_model))


def _check_graph(path: Path) -> None:
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"{path} is no SavedModel that can be read, export it again: saved_model.pb is missing")


def _check_length(data: DataConfig, positions: int | None, *, found_by_trial: bool = False) -> None:
    if not (found_by_trial and not data.max_length):
        check_row_length(data, positions=positions)


def _check_exits(config: Config, choices: Sequence[Sequence[int]], *, start: TaggerFacts | None = None) -> None:
    """Raises InputError if exits would stand at layers that the model has not, as far as that is known.

    Args:
        config: names the backbone.
        choices: of layers with exits.
        start: the model that is trained on; None = one on `backbone.source`.
    """
    if not any(choices):
        return
    layers = start.layers if start else count_layers(config.backbone)
    if layers:
        for exits in choices:
            check_exits(exits, layers=layers)


def _check_writable(folder: Path, name: str) -> None:
    """Raises InputError unless a folder can be written, or made where it does not exist."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise InputError(f"{name} {folder} cannot be made: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written" if there == folder.absolute() else f"cannot be made: {there} cannot be written"
        raise InputError(f"{name} {folder} {what} (no permission, or a read-only disk)")
