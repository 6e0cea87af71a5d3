"""Evaluation room: what can compute the logits of a run's model: Keras, a `.tflite` file in LiteRT, a SavedModel.

Each is a `Forward` of the one predictor, by its name in `FORWARDS`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the ops that cut text)
from ai_edge_litert.interpreter import Interpreter

from app.config import InputError, PredictConfig
from app.config.paths import plain
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.evaluation.gate import mention_refusal
from app.evaluation.manifest import MANIFEST, find_export, newest_version, versions
from app.evaluation.predictor import Features, Forward, Predictor
from app.run.directory import RunDirectory, sha256_of_file
from app.run.files import reason_of
from app.tasks.network import TaskModel


class TFLiteModel:
    """An exported model in LiteRT.

    Args:
        path: the file.
        threads: of the interpreter; 0 = as many as the machine has processors.

    Raises:
        InputError: the file is missing, damaged, or no exported model.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        if not path.is_file():
            raise InputError(f"{path} does not exist: make it with --mode=export")
        try:
            self._interpreter = Interpreter(plain(path), num_threads=threads or os.cpu_count() or 1)
            self._run = self._interpreter.get_signature_runner()
            self.inputs = tuple(self._run.get_input_details())
            self.label_count = int(self._run.get_output_details()["logits"]["shape_signature"][-1])
        except (ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"{path} is not a model that LiteRT can run: {str(error).splitlines()[0]}") from error

    def forward(self, features: Features) -> np.ndarray:
        """Features to logits float32 [batch, length, labels]; nothing is decoded."""
        return self.run(features)["logits"]

    def run(self, features: Features) -> dict[str, np.ndarray]:
        """The whole model; inputs that are not given are 0."""
        nothing = np.zeros_like(features["token_ids"])
        return dict(self._run(**{name: np.asarray(features.get(name, nothing), np.int32) for name in self.inputs}))


def load_tflite_forward(folder: Path, name: str, *, labels: Sequence[str], threads: int = 0) -> Forward:
    """The forward pass of `NAME.tflite` in an export folder, after the checks that it belongs to the model.

    Raises:
        InputError: the file is not listed, not the one that was exported, or has other labels.
    """
    path, manifest = find_export(folder, name)
    expected = manifest["files"][path.name].get("sha256")
    if path.is_file() and sha256_of_file(path) != expected:
        raise InputError(f"{path} is not the file that {MANIFEST} beside it describes: its SHA-256 is not {expected}")
    model = TFLiteModel(path, threads=threads)
    if manifest["labels"] != list(labels) or model.label_count != len(labels):
        raise InputError(
            f"{path} gives {model.label_count} labels and {MANIFEST} lists {len(manifest['labels'])}; "
            f"the model of the run has {', '.join(labels)}"
        )
    return model.forward


def build_predictor(
    model: TaskModel,
    encoder: Encoder,
    *,
    batch_size: int,
    forward: Forward | None = None,
    config: PredictConfig | None = None,
) -> Predictor:
    """A predictor over `forward`, or else the Keras network; `config` counts in scores only."""
    forward = forward or build_keras_forward(model)
    return Predictor(model, encoder.scoring_rows, forward, batch_size, config or PredictConfig())


def build_keras_forward(tagger: TaskModel) -> Forward:
    """The Keras network as it is now, traced once for all shapes."""
    spec = {name: tf.TensorSpec([None, None], tf.int32) for name in FEATURES}

    @tf.function(input_signature=[spec], autograph=False)  # one trace for all shapes
    def forward(features: dict[str, tf.Tensor]) -> tf.Tensor:
        return tagger.network(features, training=False)

    def call(features: Features) -> np.ndarray:
        return forward({name: tf.constant(features[name]) for name in FEATURES}).numpy()

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


# Runtime, which is what the setting `predictor` may name, to the forward pass of a run's model by it; None for the
# Keras network. Takes the run, the name of the TFLite file without its ending, and the model of the run.
FORWARDS: dict[str, Callable[[RunDirectory, str, TaskModel], Forward | None]] = {
    "keras": lambda run_dir, file, model: None,
    "tflite": lambda run_dir, file, model: load_tflite_forward(run_dir.tflite, file, labels=model.labels),
    "saved_model": lambda run_dir, file, model: SavedModelForward.of(
        load_saved_model(run_dir.saved_model), labels=len(model.labels)
    ),
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
