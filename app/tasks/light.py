"""Tasks room: a trained model without its network, for answers on NumPy alone; a TFLite file computes the logits.

The built-in tasks have such a form. One of somebody's own needs TensorFlow, which its module imports.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from app.config import DataConfig, InputError, PredictConfig
from app.config.rules import check_row_length
from app.encoder.sources import check_sums, read_json, read_vocabulary
from app.text.plain_pieces import PlainWordPieces

if TYPE_CHECKING:
    from app.data.encoding import Encoder
    from app.tasks.beliefs import Belief
    from app.tasks.task import Answers

# Files of a bundle, see `app/tasks/bundle.py` and `app/encoder/bundle.py`.
MODEL_FILE, HEAD_FILE, BACKBONE_FILE, VOCABULARY_FILE = "tagger.json", "head.safetensors", "backbone.json", "vocab.txt"


class Described:
    """What a task says of itself to users of a server; attributes: see `Task`."""

    name: ClassVar[str]
    title: ClassVar[str] = "Model"
    sample_text: ClassVar[str] = ""
    model_name: ClassVar[str] = ""
    unit_input: ClassVar[str] = ""
    unsure_by: ClassVar[str] = "least_confidence"

    def about(self, labels: Sequence[str]) -> dict[str, Any]:
        """What a server says of a model, JSON values."""
        return {
            "task": self.name,
            "model": self.model_name or self.name,
            "title": self.title,
            "labels": list(labels),
            "sample_text": self.sample_text,
        }


class LightTask(Protocol):
    """What answering needs of a task, see `Task`."""

    name: str
    unit: str
    averages_windows: bool
    unsure_by: str
    unit_input: str

    def agrees(self, model: Any, vector: Mapping[str, Any], logits: np.ndarray) -> bool: ...
    def build_encoder(
        self, pieces: Any, labels: Sequence[str], data: DataConfig, facts: Mapping[str, Any]
    ) -> Encoder: ...
    def count_units(self, example: Any) -> int: ...
    def group_of(self, example: Any) -> int: ...
    def words_of(self, example: Any) -> Sequence[str]: ...
    def text_of(self, example: Any, position: int) -> int: ...
    def find_beliefs(self, model: Any, answers: Sequence[Any]) -> list[Belief]: ...
    def decode(self, model: Any, emissions: Sequence[np.ndarray], *, probabilities: bool) -> list[Any]: ...
    def answer_texts(
        self, model: Any, texts: Sequence[str], answers: Answers, config: PredictConfig
    ) -> Iterator[dict[str, Any]]: ...
    def about(self, labels: Sequence[str]) -> dict[str, Any]: ...
    def outputs(self, rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, np.ndarray]: ...


# Task to the place of its light form, which is imported when it is needed: SciPy takes its time, too.
LIGHT_TASKS = {
    "tagging": "app.tasks.tagging.light:LIGHT_TAGGING",
    "classification": "app.tasks.classification.light:LIGHT_CLASSIFICATION",
}


def find_light_task(name: str) -> LightTask:
    """The light form of a built-in task."""
    module, _, attribute = LIGHT_TASKS[name].partition(":")
    found: LightTask = getattr(importlib.import_module(module), attribute)
    return found


@dataclass(frozen=True)
class LightModel:
    """What a `TaskModel` says of itself, without a network.

    Attributes:
        task: how it answers.
        labels: in id order.
        facts: what it knows beside them.
        weights: of the head, by their names in the bundle.
        encoder: what turns examples into rows.
        cache: what the task derives from these, once.
    """

    task: LightTask
    labels: tuple[str, ...]
    facts: Mapping[str, Any]
    weights: Mapping[str, np.ndarray] = field(repr=False)
    encoder: Encoder = field(repr=False)
    cache: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ModelFacts:
    """What the files of a bundle say of its model.

    Attributes:
        task: name; labels: in id order; facts: what it knows beside them.
        vocabulary_size: word pieces; positions: pieces in a window at most; shapes: word shapes.
    """

    task: str
    labels: tuple[str, ...]
    facts: dict[str, Any]
    vocabulary_size: int
    positions: int
    shapes: int


def read_model_facts(folder: Path) -> ModelFacts:
    """Reads a bundle's `tagger.json` and `backbone.json`.

    Raises:
        InputError: a file is missing, altered or malformed.
    """
    check_sums(folder, (MODEL_FILE, BACKBONE_FILE))
    settings, backbone = read_json(folder / MODEL_FILE), read_json(folder / BACKBONE_FILE)
    try:
        facts = dict(settings.get("facts", {}))
        if "non_name_types" in settings:  # of bundles that are older than facts
            facts.setdefault("non_name_types", settings["non_name_types"])
        return ModelFacts(
            settings.get("task", "tagging"),
            tuple(settings["labels"]),
            facts,
            int(backbone["vocabulary_size"]),
            int(backbone["max_positions"]),
            int(settings["shape_count"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is no model that this version has written: {error!r}") from error


def load_light_model(folder: Path, data: DataConfig) -> LightModel:
    """Reads a bundle, but not the weights of its network.

    Args:
        folder: `model/` of a run.
        data: row length and packing.

    Raises:
        InputError: a file is missing, altered or malformed, or the task is not built in.
    """
    known = read_model_facts(folder)
    if known.task not in LIGHT_TASKS:
        raise InputError(
            f"serve.runtime=tflite answers for the tasks {' and '.join(LIGHT_TASKS)}, the model in {folder} is for "
            f"{known.task}: set serve.runtime=saved_model"
        )
    check_sums(folder, (HEAD_FILE, VOCABULARY_FILE))
    check_row_length(data, positions=known.positions)
    lowercase = bool(read_json(folder / BACKBONE_FILE)["lowercase"])
    vocabulary = read_vocabulary(folder / VOCABULARY_FILE, size=known.vocabulary_size)
    try:
        weights = load_file(folder / HEAD_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / HEAD_FILE} cannot be read: {error}") from error
    task = find_light_task(known.task)
    pieces = PlainWordPieces(vocabulary, lowercase=lowercase)
    encoder = task.build_encoder(pieces, known.labels, data, known.facts)
    return LightModel(task, known.labels, known.facts, weights, encoder)
