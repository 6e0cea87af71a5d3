"""Evaluation room: a `.tflite` file in LiteRT. Imports no TensorFlow."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from app.config import InputError
from app.config.paths import plain
from app.evaluation.manifest import MANIFEST, find_export
from app.evaluation.predictor import Features
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
            outputs = self._run.get_output_details()
            self.label_count = int(outputs["logits"]["shape_signature"][-1])
            self.has_exits = "layer" in outputs
        except (ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"{path} is not a model that LiteRT can run: {str(error).splitlines()[0]}") from error

    def forward(self, features: Features) -> np.ndarray:
        """Features to logits float32 [batch, length, labels]; nothing is decoded."""
        return self.run(features)["logits"]

    def run(self, features: Features) -> dict[str, np.ndarray]:
        """The whole model; inputs that are not given are 0."""
        nothing = np.zeros_like(features["token_ids"])
        return dict(self._run(**{name: np.asarray(features.get(name, nothing), np.int32) for name in self.inputs}))


class RowByRow:
    """A file with exits as an `EarlyForward`, row by row: a batch leaves when all of it is sure. Nothing is counted.

    Args:
        run: {name of an input: int32 [1, length]} -> outputs, among them `logits` and `layer`.
        labels: their number.
        unit_input: name of the input that says where units are, see `Task.unit_input`; empty = there is none.
    """

    def __init__(self, run: Callable[[Features], dict[str, np.ndarray]], *, labels: int, unit_input: str) -> None:
        self._run, self._labels, self._unit_input = run, labels, unit_input
        self.spent: list[float] = []  # of the rows of the last call, the share of the encoder's operations; or NaN
        self.threshold = float("nan")  # the file has it

    def __call__(self, features: Features, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.spent = []
        logits = np.zeros((*units.shape, self._labels), np.float32)
        layers = np.zeros(units.shape, np.int64)
        for row, used in enumerate(np.count_nonzero(features["padding_mask"], axis=1)):
            inputs = {name: value[row : row + 1, :used] for name, value in features.items()}
            if self._unit_input:
                inputs[self._unit_input] = units[row : row + 1, :used].astype(np.int32)
            found = self._run(inputs)
            layer = found["layer"]  # of files that an earlier version wrote one number, that of all units
            logits[row, :used], layers[row, :used] = found["logits"][0], layer[0]
            self.spent.append(float(found["operations"][0]) if "operations" in found else np.nan)
        return logits, np.where(units, layers, 0)

    def begin(self) -> None:
        """Nothing is counted."""

    def measure(self) -> dict[str, float]:
        return {}


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
