"""Evaluation room: what can compute the logits of a run's model: Keras, a `.tflite` file in LiteRT, a SavedModel.

Each is a `Forward` of the one predictor, by its name in `OPENERS`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the ops that cut text)

from app.config import InputError, PredictConfig
from app.config.paths import plain
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.evaluation.exits import KerasEarlyForward, SavedModelEarlyForward, TFLiteEarlyForward
from app.evaluation.gate import mention_refusal
from app.evaluation.litert import TFLiteModel as TFLiteModel
from app.evaluation.litert import load_tflite
from app.evaluation.manifest import find_export, newest_version, versions
from app.evaluation.predictor import EarlyForward, Features, Forward, Predictor
from app.run.directory import RunDirectory
from app.run.files import reason_of
from app.tasks.exit_table import find_threshold
from app.tasks.network import TaskModel


def build_predictor(
    model: TaskModel,
    encoder: Encoder,
    *,
    batch_size: int,
    forward: Forward | None = None,
    config: PredictConfig | None = None,
    early: EarlyForward | None = None,
) -> Predictor:
    """A predictor over `forward`, or else the Keras network.

    Args:
        model: whose answers they are.
        encoder: that makes its rows.
        batch_size: rows at a time.
        forward: of another runtime.
        config: which answers count in scores; and how early the Keras network may be left (`max_f1_loss`), None =
            never.
        early: a network of another runtime, with exits.
    """
    if forward is None and early is None and config:
        threshold = find_threshold(model.facts, model.config.exit_layers, config)
        early = KerasEarlyForward(model, threshold) if threshold else None
    forward = forward or build_keras_forward(model)
    return Predictor(model, encoder.scoring_rows, forward, batch_size, config or PredictConfig(), early)


def build_keras_forward(tagger: TaskModel) -> Forward:
    """The Keras network as it is now, traced once for all shapes."""
    spec = {name: tf.TensorSpec([None, None], tf.int32) for name in FEATURES}

    @tf.function(input_signature=[spec], autograph=False)  # one trace for all shapes
    def forward(features: dict[str, tf.Tensor]) -> tf.Tensor:
        return tagger.network(features, training=False)

    # TensorFlow counts traces by the place in the code and would warn where many networks are scored on little text.
    traced = functools.cache(forward.get_concrete_function)

    def call(features: Features) -> np.ndarray:
        return traced()({name: tf.constant(features[name]) for name in FEATURES}).numpy()

    return call


def load_saved_model(folder: Path) -> Any:
    """The newest version in `export/saved_model`.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return load_version(newest_version(folder))


def load_version(path: Path) -> Any:
    """One version.

    Raises:
        InputError: it is damaged, or no export of this program.
    """
    try:
        loaded = tf.saved_model.load(plain(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"{path} is no SavedModel that can be read, export it again: {reason_of(error)}") from error
    missing = {"serving_default", "tokenized"} - set(loaded.signatures)
    if missing:
        raise InputError(f"{path} has no signature {' and no '.join(sorted(missing))}")
    return loaded


@dataclass(frozen=True)
class SavedModelForward:
    """Features to logits by the `tokenized` signature: what the one predictor needs of any runtime.

    Attributes:
        loaded: from `load_saved_model`; a signature alone would not keep its weights.
    """

    loaded: Any

    @classmethod
    def of(cls, loaded: Any, *, labels: int) -> "SavedModelForward":
        """Raises InputError if the model has another number of labels."""
        found = loaded.signatures["tokenized"].structured_outputs["logits"].shape[-1]
        if found != labels:
            raise InputError(f"the SavedModel has {found} labels, the run has {labels}: export it again")
        return cls(loaded)

    def __call__(self, features: dict[str, np.ndarray]) -> np.ndarray:
        inputs = {name: tf.constant(features[name], tf.int32) for name in FEATURES}
        return self.loaded.signatures["tokenized"](**inputs)["logits"].numpy()


Runtime = tuple[Forward | None, EarlyForward | None]  # a forward pass, and that with exits if texts may leave by them


def _open_tflite(run_dir: RunDirectory, file: str, model: TaskModel, config: PredictConfig) -> Runtime:
    found = load_tflite(run_dir.tflite, file, labels=model.labels)
    if not found.has_exits:
        return found.forward, None
    path, manifest = find_export(run_dir.tflite, file)
    threshold = float(manifest["files"][path.name]["exit_threshold"])
    early = TFLiteEarlyForward(found.run, model, unit_input=model.task.unit_input, threshold=threshold)
    return found.forward, early


def _open_saved_model(run_dir: RunDirectory, file: str, model: TaskModel, config: PredictConfig) -> Runtime:
    loaded = load_saved_model(run_dir.saved_model)
    threshold = find_threshold(model.facts, model.config.exit_layers, config)
    has_exits = threshold and "tokenized_early" in loaded.signatures
    if has_exits and "operations" not in loaded.signatures["tokenized_early"].structured_outputs:
        raise InputError(f"the SavedModel in {run_dir.saved_model} is of an earlier version: export it again")
    early = SavedModelEarlyForward(loaded, threshold) if has_exits else None
    return SavedModelForward.of(loaded, labels=len(model.labels)), early


# What the setting `predictor` may name, to the forward passes of a run's model by it; none for the Keras network, which
# `build_predictor` makes itself. Takes the run, the name of the TFLite file without its ending, the model of the run,
# and how early a SavedModel may be left; a TFLite file with exits has its threshold.
OPENERS: dict[str, Callable[[RunDirectory, str, TaskModel, PredictConfig], Runtime]] = {
    "keras": lambda run_dir, file, model, config: (None, None),
    "tflite": _open_tflite,
    "saved_model": _open_saved_model,
}


def mention_refused(run_dir: RunDirectory, runtime: str, file: str) -> None:
    """Says that the export which a runtime needs was refused when it was made last, see `mention_refusal`.

    Raises:
        InputError: it is not there because it was refused.
    """
    if runtime == "tflite":
        mention_refusal(run_dir, file, there=(run_dir.tflite / f"{file}.tflite").is_file())
    elif runtime == "saved_model":
        mention_refusal(run_dir, "saved_model", there=bool(versions(run_dir.saved_model)))
