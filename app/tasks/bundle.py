"""Tasks room: a whole tagger in a run's `model/` folder.

Beside the backbone's files (see `bundle.py`):

    tagger.json          labels and how the network is assembled
    head.safetensors     word-shape embedding, head, transition scores
    README.md            model card
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from app.config import Config, InputError, ModelConfig
from app.encoder.activation import compile_activations
from app.encoder.backbone import build_backbone
from app.encoder.bundle import BUNDLE_FILES, load_backbone, save_backbone
from app.encoder.sources import SUMS_FILE, TAGGER_FILES, check_sums, read_json, read_sums
from app.one_keras import keras
from app.run.directory import RunDirectory, atomic, sha256_of_file
from app.tasks import find_task
from app.tasks.network import TaskModel, build_model
from app.tasks.task import Facts
from app.text.shapes import NUM_SHAPES

SETTINGS_FILE, WEIGHTS_FILE = TAGGER_FILES
CARD_FILE = "README.md"


def save_model(tagger: TaskModel, folder: Path, *, shape_count: int, card: str) -> None:
    """Writes the bundle; each file appears under its name only when it is complete.

    Args:
        tagger: what to save.
        folder: `model/` of a run directory.
        shape_count: number of word shapes of the embedding.
        card: the model card, Markdown.
    """
    save_backbone(tagger.backbone, folder)
    settings = {
        "labels": list(tagger.labels),
        "task": tagger.task.name,
        "facts": dict(tagger.facts),
        "shape_count": shape_count,
        "model": dataclasses.asdict(tagger.config),
    }
    with atomic(folder / SETTINGS_FILE) as path:
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic(folder / WEIGHTS_FILE) as path:
        save_file({name: variable.numpy() for name, variable in tagger.own_variables().items()}, path)
    with atomic(folder / CARD_FILE) as path:
        path.write_text(card, encoding="utf-8", errors="backslashreplace")
    _write_sums(folder)


def _write_sums(folder: Path) -> None:
    sums = read_sums(folder) | {name: sha256_of_file(folder / name) for name in (SETTINGS_FILE, WEIGHTS_FILE)}
    with atomic(folder / SUMS_FILE) as path:
        path.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())), encoding="utf-8")


def load_model(folder: Path) -> TaskModel:
    """Reads a bundle, bit for bit the tagger that was saved, to compute in float32.

    Raises:
        InputError: a file is missing, truncated or altered.
    """
    keras.mixed_precision.set_global_policy("float32")
    return read_model(folder)


def read_labels(folder: Path) -> tuple[str, ...]:
    """The labels of a bundle.

    Raises:
        InputError: a file of the bundle is missing, truncated or altered.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: the run has not finished; run the same command on it again")
    check_sums(folder, (*BUNDLE_FILES, SETTINGS_FILE, WEIGHTS_FILE))
    return tuple(read_json(folder / SETTINGS_FILE)["labels"])


def read_model(folder: Path) -> TaskModel:
    """As `load_model`, to compute in the precision that is set."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: the run has not finished; run the same command on it again")
    check_sums(folder, (SETTINGS_FILE, WEIGHTS_FILE))
    settings = read_json(folder / SETTINGS_FILE)
    tagger = build_model(
        load_backbone(folder),
        _read_config(settings["model"]),
        task=find_task(settings.get("task", "tagging")),
        labels=settings["labels"],
        shape_count=settings["shape_count"],
        facts=_read_facts(settings),
    )
    restore_head(tagger, folder)
    return tagger


def _read_config(values: Mapping[str, Any]) -> ModelConfig:
    exits = tuple(values.get("exit_layers", ()))  # older bundles have none
    return ModelConfig(**{**values, "exit_layers": exits})


def with_exits_of(config: Config, folder: Path) -> Config:
    """A configuration with the exits of a bundle, which another one is made from without new ones."""
    known = _read_config(read_json(folder / SETTINGS_FILE)["model"])
    model = dataclasses.replace(config.model, exit_layers=known.exit_layers, exit_reach=known.exit_reach)
    return dataclasses.replace(config, model=model)


def read_facts(folder: Path) -> dict[str, Any]:
    """What the model of a bundle knows beside its labels."""
    return _read_facts(read_json(folder / SETTINGS_FILE))


def _read_facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    facts = dict(settings.get("facts", {}))
    if "non_name_types" in settings:  # of bundles that are older than facts
        facts.setdefault("non_name_types", settings["non_name_types"])
    return {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}


def save_facts(model: TaskModel, folder: Path) -> None:
    """Writes the facts of a model into its bundle, which is otherwise left as it is."""
    settings = {**read_json(folder / SETTINGS_FILE), "facts": dict(model.facts)}
    with atomic(folder / SETTINGS_FILE) as path:
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_sums(folder)


def restore_head(tagger: TaskModel, folder: Path, *, new_exits: bool = False) -> None:
    """Puts the word shapes, heads and transition scores of a bundle into a tagger of the same make.

    Args:
        tagger: whose weights are set.
        folder: of the bundle.
        new_exits: whether the bundle may lack exits, which then stay as they are.

    Raises:
        InputError: the bundle is of another label set or another make, or its file is altered.
    """
    check_sums(folder, (SETTINGS_FILE, WEIGHTS_FILE))
    labels = read_json(folder / SETTINGS_FILE)["labels"]
    if labels != list(tagger.labels):
        raise InputError(
            f"{folder} was trained with the labels {', '.join(labels)}, the corpus has {', '.join(tagger.labels)}; "
            "they must be the same (to take the encoder only, set backbone.source instead of init_from)"
        )
    try:
        arrays = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS_FILE} cannot be read: {error}") from error
    exits = {each.name for each in tagger.exits} if new_exits else set()
    for name, variable in tagger.own_variables().items():
        if name not in arrays and name.partition("/")[0] in exits:
            continue
        if name not in arrays or arrays[name].shape != tuple(variable.shape):
            raise InputError(
                f"{folder / WEIGHTS_FILE} has no {name} of shape {tuple(variable.shape)}; model.head, "
                "model.word_shape and model.exit_layers must be those of the run"
            )
        variable.assign(arrays[name])


def start_model(
    config: Config, labels: Sequence[str], *, init_from: str = "", facts: Facts | None = None
) -> TaskModel:
    """A model to train, to be called in the strategy's scope after `set_up`.

    Args:
        config: the task, and its sections backbone, model and training.
        labels: label names in id order.
        init_from: run directory whose weights it takes, head included; empty = those of `backbone.source`.
        facts: what the model knows beside its labels; None = what that of `init_from` knows.
    """
    source = init_from or config.backbone.source
    backbone = build_backbone(dataclasses.replace(config.backbone, source=source))
    compile_activations(backbone.model, config.training.compile_activations)
    folder = RunDirectory(init_from).model
    if facts is None:
        facts = read_facts(folder) if init_from else {}
    model = build_model(
        backbone,
        config.model,
        task=find_task(config.task),
        labels=labels,
        shape_count=NUM_SHAPES,
        facts=facts,
        freeze_embeddings=config.training.freeze_embeddings,
    )
    if init_from:
        restore_head(model, folder, new_exits=True)
    return model
