"""Rules between settings: what each of them allows alone, but not together. Defaults and types: `app/config`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.config import (
    TASK_DEFAULTS,
    TASKS,
    CompressionConfig,
    Config,
    DataConfig,
    InputError,
    PretrainConfig,
    fields_by_key,
    flatten,
    trained_settings,
    with_values,
)
from app.config.options import mask
from app.config.tune import trial_mode
from app.config.update import UpdateConfig, chosen_actions

FEWEST_PIECES = 8  # in a sequence
KEYWORDS = "keyword arguments"  # where a program's own settings come from, as "--set" is the command line's
_DEFAULTS = flatten(Config())
# A training corpus, and what is only of use beside it.
_CORPORA = {
    "data.train_path": ("data.valid_path", "data.test_path"),
    "pretrain.train_path": ("pretrain.valid_path",),
}
# What only one of the built-in tasks has a use for; a name that ends in a dot is a section.
_SETTINGS_OF = {
    "tagging": (
        "model.head",
        "data.scheme",
        "data.word_column",
        "data.tag_column",
        "model.exit_reach",
        "training.entity_mask_fraction",
        "distill.chain_weight",
    ),
    "classification": (
        "classification.",
        "data.text_column",
        "data.label_column",
        "data.pair_columns",
        "predict.target_precision",
    ),
}
_FORMATS_OF = {"tagging": ("auto", "conll", "jsonl"), "classification": ("auto", "csv", "tsv", "jsonl", "folder")}


def left_out_samples(
    values: Mapping[str, Any], chosen: Collection[str], *, below: Mapping[str, Any]
) -> Iterator[tuple[str, Any, str]]:
    """Yields (key, value, why) of what describes the sample corpus, was asked for by nobody and goes with no other.

    Args:
        values: settings that are not left at their default.
        chosen: keys of those that the user set for this run.
        below: settings as they would be without the user's: those of the run that is there, and the task's defaults.
    """
    samples = {**_DEFAULTS, **TASK_DEFAULTS.get(values.get("task", _DEFAULTS["task"]), {})}
    for train, others in _CORPORA.items():
        own = train in chosen and _is_elsewhere(values[train], samples[train])
        for other in others:
            if other in chosen or values.get(other, samples[other]) != samples[other]:
                continue
            if own:
                yield other, "", f"the sample's goes only with the sample's {train}"
            elif other == "data.valid_path" and values.get("data.valid_fraction"):
                yield other, "", "not set beside data.valid_fraction"
        column = "data.label_column"
        if own and train == "data.train_path" and column not in chosen and column in values:
            if not _is_elsewhere(below.get(train, samples[train]), samples[train]):
                yield column, _DEFAULTS[column], f"the sample's goes only with the sample's {train}"


def _is_elsewhere(path: str, sample: str) -> bool:
    """Whether a training corpus is none of the sample's; no corpus at all is not elsewhere."""
    return bool(path) and os.path.dirname(os.path.abspath(path)) != os.path.dirname(os.path.abspath(sample))


def settings_of_other_tasks(config: Config, chosen: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields (keys, what must hold) for each setting that the user set and that is for another task.

    Tasks that were registered may use all settings. A file may hold the default, since `--dry_run` prints all settings.

    Args:
        config: as it would be.
        chosen: the keys that the user set, and where: "--set", `KEYWORDS`, or the name of a file.
    """
    if config.task not in TASKS:
        return
    flat = flatten(config)
    for task, names in _SETTINGS_OF.items():
        for key, origin in chosen.items() if task != config.task else ():
            other = any(key.startswith(name) if name.endswith(".") else key == name for name in names)
            if other and (origin in ("--set", KEYWORDS) or flat[key] != _DEFAULTS[key]):
                yield (key, "task"), f"{key} is only for task={task}"


def impossible_combinations(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields (keys, what must hold) for each rule between settings that the configuration breaks."""
    data, backbone, training = config.data, config.backbone, config.training
    if 0 < data.max_length < FEWEST_PIECES:
        yield ("data.max_length",), f"a sequence has at least {FEWEST_PIECES} pieces, or 0 to find its length by trial"
    elif data.max_length and data.overlap_tokens >= data.max_length - 2:
        yield (
            ("data.overlap_tokens", "data.max_length"),
            "the overlap must be smaller than the sequence without [CLS] and [SEP]",
        )
    if training.accumulation_steps and training.batch_size % training.accumulation_steps:
        yield (
            ("training.batch_size", "training.accumulation_steps"),
            "the batch must be divisible by the parts it is computed in",
        )
    exits = config.model.exit_layers
    if list(exits) != sorted(set(exits)):
        yield ("model.exit_layers",), "the layers with exits must be in strictly rising order"
    if backbone.source == "random":
        if exits and not config.init_from and exits[-1] >= backbone.num_layers:
            yield ("model.exit_layers", "backbone.num_layers"), "exits must stand below the last layer"
        if backbone.hidden_dim % backbone.num_heads:
            yield ("backbone.hidden_dim", "backbone.num_heads"), "the width must be divisible by the heads"
        if data.max_length > backbone.max_positions:
            yield (
                ("data.max_length", "backbone.max_positions"),
                "the sequence must not be longer than the backbone's positions",
            )
    if data.valid_fraction and data.valid_path:
        yield (
            ("data.valid_fraction", "data.valid_path"),
            "the validation corpus is a part of the training corpus or a file, so one of them must be 0 or empty",
        )
    if data.valid_fraction and not data.train_path:
        yield ("data.valid_fraction", "data.train_path"), "a part of the training corpus needs a training corpus"
    if data.word_column and data.word_column == data.tag_column:
        yield ("data.word_column", "data.tag_column"), "a column holds the word or the tag, not both"
    yield from _impossible_corpora(config)
    if training.early_stopping_patience_epochs and not (data.valid_path or data.valid_fraction):
        yield (
            ("training.early_stopping_patience_epochs", "data.valid_path"),
            "early stopping needs a validation corpus",
        )
    if training.early_stopping_patience_epochs and data.train_on_valid:
        yield (
            ("training.early_stopping_patience_epochs", "data.train_on_valid"),
            "early stopping needs a validation corpus that is not learnt from",
        )
    if data.train_on_valid and not (data.train_path and (data.valid_path or data.valid_fraction)):
        yield ("data.train_on_valid", "data.train_path", "data.valid_path"), "learning from both needs both corpora"
    if training.lazy_embeddings and (training.optimizer != "adamw" or training.jit_compile):
        yield (
            ("training.lazy_embeddings", "training.optimizer", "training.jit_compile"),
            "lazy embeddings need the optimizer adamw, and XLA cannot compile them",
        )
    distill = config.distill
    weights = {
        "distill.labels_weight": distill.labels_weight,
        "distill.soft_weight": distill.soft_weight,
        "distill.chain_weight": distill.chain_weight,
        "distill.hidden.weight": distill.hidden.weight,
        "distill.relation.weight": distill.relation.weight,
    }
    if not any(weights.values()):
        yield tuple(weights), "a student needs at least one loss above 0"
    pairs = (distill.hidden.student_layers, distill.hidden.teacher_layers)
    if all(pairs) and len(pairs[0]) != len(pairs[1]):
        yield (
            ("distill.hidden.student_layers", "distill.hidden.teacher_layers"),
            "each layer of the student needs one of the teacher, so the lists must be of one length",
        )
    steps = config.compression.steps
    for number, step in enumerate(steps):
        before = steps[:number]
        if step in before:
            yield ("compression.steps",), f"{step} may be there only once"
        rewritten = [name for name in before if name not in ("trim_vocabulary", "prune_structured")]
        if step in ("trim_vocabulary", "prune_structured") and rewritten:
            yield ("compression.steps",), f"{step} changes shapes, so it must come before {rewritten[0]}"
        if step == "prune_magnitude" and rewritten:
            yield ("compression.steps",), f"zeros would be undone, so prune_magnitude must come before {rewritten[0]}"
        if step == "cluster" and "quantize_aware" in before:
            yield ("compression.steps",), "cluster would undo the rounding, so it must come before quantize_aware"
    if config.export.block_size not in (32, 64, 128, 256):
        yield ("export.block_size",), "blocks of weights hold 32, 64, 128 or 256"
    pretrain = config.pretrain
    if pretrain.vocabulary_size and backbone.source != "random":
        yield (
            ("pretrain.vocabulary_size", "backbone.source"),
            "learning a vocabulary needs a backbone with random weights",
        )
    if pretrain.long_epochs > training.epochs:
        yield (
            ("pretrain.long_epochs", "training.epochs"),
            "the epochs of long sequences must not be more than all epochs",
        )
    if pretrain.model_parallel > 1:
        alone = {
            "strategy": ("auto", "one_device"), "logical_devices": (0, 1), "optimizer": ("adamw",),
            "precision": ("auto", "float32"), "jit_compile": (False,), "lazy_embeddings": (False,),
        }  # fmt: skip
        for name, allowed in alone.items():
            if getattr(training, name) not in allowed:
                yield (
                    ("pretrain.model_parallel", f"training.{name}"),
                    f"a network that is shared out needs {name} {' or '.join(str(value) for value in allowed)}",
                )
        if not training.accumulation_steps:
            yield (
                ("pretrain.model_parallel", "training.accumulation_steps"),
                "the trial of accumulation_steps=0 is for one device; a network that is shared out needs a number",
            )
    if training.logical_devices > 1 and training.strategy not in ("auto", "mirrored"):
        yield (
            ("training.logical_devices", "training.strategy"),
            "replicas on the parts of one processor need strategy mirrored or auto",
        )
    if training.strategy == "tpu" and training.precision == "mixed_float16":
        yield ("training.strategy", "training.precision"), "a TPU computes in mixed_bfloat16 or float32"
    if training.tpu_address and training.strategy not in ("auto", "tpu"):
        yield ("training.tpu_address", "training.strategy"), "an address of a TPU needs strategy tpu or auto"


def _impossible_corpora(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """The same, about what the corpora of a task look like, and what is made of its scores."""
    data, predict = config.data, config.predict
    formats = _FORMATS_OF.get(config.task)
    if formats and data.format not in formats:
        yield ("data.format", "task"), f"corpora for {config.task} have the format {' or '.join(formats)}"
    if len(data.pair_columns) not in (0, 2) or len(set(data.pair_columns)) < len(data.pair_columns):
        yield ("data.pair_columns",), "a pair has the names of two columns, or none where there are no pairs"
    texts = (data.text_column, *data.pair_columns)
    if not data.label_column or data.label_column in texts:
        yield (
            ("data.label_column", "data.text_column", "data.pair_columns"),
            "the label needs a column of its own",
        )
    if not data.text_column and not data.pair_columns:
        yield ("data.text_column", "data.pair_columns"), "the text needs the name of a column, or a pair those of two"
    for name in ("min_score", "target_precision"):
        if config.classification.multi_label and getattr(predict, name):
            yield (
                (f"predict.{name}", "classification.multi_label"),
                "where a text may have several labels, each has a threshold of its own, learnt from the validation "
                "corpus",
            )
    if predict.min_score and predict.target_precision:
        yield (
            ("predict.min_score", "predict.target_precision"),
            "the least score is given or found from a precision, so one of them must be 0",
        )
    if predict.top and not predict.rank:
        yield ("predict.top", "predict.rank"), "the first texts are those of a ranking, which must be named"
    if bool(predict.other_run) != (predict.rank == "disagreement"):
        yield (
            ("predict.rank", "predict.other_run"),
            "disagreement needs another run to compare with, and nothing else does",
        )


# Rules that ask for more than the settings: what a mode needs, and what only a backbone or a run can tell.


def check_row_length(data: DataConfig, *, positions: int | None) -> None:
    """Raises InputError unless `data.max_length` is a number that the backbone can read, if that is known."""
    if not data.max_length:
        raise InputError("data.max_length=0 (found by trial) works with --mode=finetune; set a number")
    if positions is not None and data.max_length > positions:
        raise InputError(
            f"data.max_length must be at most {positions} (the backbone's positions), received {data.max_length}"
        )


def check_latency_length(config: CompressionConfig, *, positions: int) -> None:
    """Raises InputError if the text whose latency is measured is longer than the network can read."""
    if config.latency_length > positions:
        raise InputError(
            f"compression.latency_length must be at most {positions} (the backbone's positions), received "
            f"{config.latency_length}"
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



def require_steps(config: Config, *, run_dir: Path) -> None:
    if not config.compression.steps:
        raise InputError(f"compression.steps is empty; it must name some of {_choices('compression.steps')}")
    if run_dir.resolve() == Path(config.init_from).resolve():
        raise InputError(f"--run_dir must not be the run that is compressed, {config.init_from}")



def require_one_action(config: UpdateConfig) -> str:
    """The one thing that --mode=update is asked to do without training; raises InputError if it is several."""
    actions = chosen_actions(config)
    if len(actions) > 1:
        raise InputError(
            f"update.{' and update.'.join(actions)} are set: each does one thing and ends, so set one of them"
        )
    if config.promote not in ("", "stable", "canary") and not config.promote.isdecimal():
        raise InputError(
            f"update.promote must be stable, canary or the number of a version, received {config.promote!r}"
        )
    return actions[0]



def require_update(config: Config, *, run_dir: Path) -> None:
    if run_dir.resolve() == Path(config.init_from).resolve():
        raise InputError(f"--run_dir must not be the run that is updated, {config.init_from}")
    if config.update.replay_fraction and not config.data.train_path:
        raise InputError(
            "data.train_path is empty; an update replays a part of the training corpus, or nothing with "
            "update.replay_fraction=0"
        )


def check_exits(exits: Sequence[int], *, layers: int) -> None:
    """Raises InputError unless exits stand after inner layers, in strictly rising order."""
    if list(exits) != sorted(set(exits)) or any(not 0 < layer < layers for layer in exits):
        allowed = f"1 to {layers - 1}" if layers > 1 else "none"
        raise InputError(
            f"model.exit_layers must name inner layers of the backbone, which has {layers}, in strictly rising order: "
            f"{allowed}; received {list(exits)}"
        )


# What makes one search of all its trials: the corpora, how they are read and scored, and where training starts.
_ONE_FOR_A_SEARCH = ("task", "seed", "init_from", "classification.multi_label", "tune.", "data.")
_ONE_FOR_A_COMPRESSION = ("backbone.", "model.")  # of the run that is compressed
_SEARCHED_OF_DATA = ("data.max_length", "data.overlap_tokens", "data.packing")
STORAGES = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"


def require_search(config: Config, *, run_dir: Path) -> None:
    """Raises InputError unless a search can be made of these settings."""
    tune, mode = config.tune, trial_mode(config.tune)
    if "score" not in tune.objectives or len(set(tune.objectives)) < len(tune.objectives):
        raise InputError(
            "tune.objectives must have score, and beside it size, latency or both, each once; received "
            f"{', '.join(tune.objectives) or 'none'}"
        )
    if not tune.trials and not tune.seeds:
        raise InputError("tune.trials and tune.seeds are both 0; at least one of them says what to train")
    if tune.processes > 1 and "latency" in tune.objectives:
        raise InputError(
            "tune.processes must be 1 where latency is an objective, which other trials at the same time would change; "
            f"received {tune.processes}"
        )
    trained = trained_settings(mode)
    same = (*_ONE_FOR_A_SEARCH, *(_ONE_FOR_A_COMPRESSION if mode == "compress" else ()))
    for key in tune.space:
        fixed = key.startswith(same) and key not in _SEARCHED_OF_DATA
        if fixed or key not in trained:
            reason = "is the same in all trials" if fixed else f"does not change what --mode={mode} trains"
            raise InputError(f"tune.space: {key} cannot be searched, it {reason}: set it with --set, or in the config")
    for keys, rule in settings_of_other_tasks(config, dict.fromkeys(tune.space, KEYWORDS)):
        raise InputError(f"tune.space: {rule}, received task={config.task} and {keys[0]}")
    require_split(config.data, "valid", "a search needs a validation corpus, by which it judges (data.valid_path)")
    scheme, found, rest = tune.storage.partition("://")
    # SQLite without a file, or with options, which can do without one: nothing would be left to go on with.
    fleeting = scheme == "sqlite" and ("?" in rest or rest.strip("/") == ":memory:")
    if tune.storage and (fleeting or scheme not in ("sqlite", "postgresql") or not found or not rest.strip("/")):
        raise InputError(f"tune.storage must be {STORAGES}, received {mask(tune.storage)}")
    if mode == "compress" and run_dir.resolve() == Path(config.init_from).resolve():
        raise InputError(f"--run_dir must not be the run that is compressed, {config.init_from}")
    if mode == "compress":
        steps = {step for each in tune.space.get("compression.steps", [config.compression.steps]) for step in each}
        idle = [key for key in tune.space if key.startswith("compression.") and key.count(".") == 2]
        for key in idle:
            if key.split(".")[1] not in steps:
                raise InputError(f"tune.space: {key} has no effect without the step in compression.steps")


def with_trial_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with values of a search.

    Raises:
        InputError: they do not go together.
    """
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    changed = with_values(config, lists)
    for keys, rule in impossible_combinations(changed):
        flat = flatten(changed)
        raise InputError(f"{rule}; received {', '.join(f'{key}={flat[key]}' for key in keys)}")
    return changed


def require_formats(config: Config) -> None:
    if not config.export.formats:
        raise InputError(f"export.formats is empty; allowed are {_choices('export.formats')}")



def _choices(key: str) -> str:
    return ", ".join(fields_by_key()[key].metadata["choices"])



def require_numbers(config: Config) -> None:
    for name in ("lengths", "threads", "batch_sizes"):
        if not getattr(config.benchmark.frontier, name):
            raise InputError(f"benchmark.frontier.{name} is empty; it needs at least one number")



def describe_taken_port(host: str, port: int, error: OSError) -> str:
    return f"serve.host={host}, serve.port={port} cannot be listened on: {error.strerror or error}"

