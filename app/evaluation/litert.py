"""Evaluation room: a `.tflite` file in LiteRT. Imports no TensorFlow."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from app.config import InputError
from app.config.paths import plain
from app.evaluation.manifest import MANIFEST, find_export
from app.evaluation.predictor import Features, Forward
from app.run.directory import sha256_of_file


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
    """The forward pass of `NAME.tflite` in an export folder, see `load_tflite`."""
    return load_tflite(folder, name, labels=labels, threads=threads).forward


def load_tflite(folder: Path, name: str, *, labels: Sequence[str], threads: int = 0) -> TFLiteModel:
    """`NAME.tflite` of an export folder, after the checks that it belongs to the model.

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
    return model
