"""Evaluation room: a `.tflite` file run by LiteRT, as a `Forward` of the one predictor."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from app.artifacts import sha256_of_file
from app.config import InputError
from app.evaluation.manifest import MANIFEST, find_export
from app.evaluation.predictor import Features, Forward
from app.paths import plain


class TFLiteModel:
    """An exported tagger in LiteRT.

    Args:
        path: the file.
        threads: of the interpreter; 0 = as many as the machine has processors.

    Raises:
        InputError: the file is missing, damaged, or no exported tagger.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        if not path.is_file():
            raise InputError(f"{path} does not exist: make it with --mode=export")
        try:
            self._interpreter = Interpreter(plain(path), num_threads=threads or os.cpu_count() or 1)
            self._run = self._interpreter.get_signature_runner()
            self.label_count = int(self._run.get_output_details()["logits"]["shape_signature"][-1])
        except (ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"{path} is not a tagger that LiteRT can run: {str(error).splitlines()[0]}") from error

    def forward(self, features: Features) -> np.ndarray:
        """Features to logits float32 [batch, length, labels]; nothing is decoded."""
        return self.run(features, np.zeros_like(features["token_ids"]))["logits"]

    def run(self, features: Features, word_starts: np.ndarray) -> dict[str, np.ndarray]:
        """The whole model: logits, and tags int32 [batch, length], -1 where `word_starts` is 0."""
        inputs: dict[str, Any] = {name: np.asarray(value, np.int32) for name, value in features.items()}
        return dict(self._run(**inputs, word_starts=np.asarray(word_starts, np.int32)))


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
