"""Serving room: what computes the answers of a version: a TFLite file in LiteRT, or a SavedModel in TensorFlow.

The first imports no TensorFlow, which takes longer to import than the file takes to answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from app.config import InputError, PredictConfig
from app.data.packing import FEATURES
from app.encoder.sources import read_json
from app.evaluation.layers import answer_with_layers
from app.evaluation.litert import RowByRow, TFLiteModel, load_tflite
from app.evaluation.manifest import find_export
from app.evaluation.predictor import Features, Predictor
from app.run.directory import RunDirectory
from app.serving.adaptive import LoadAdapter, find_thresholds
from app.serving.batching import Answered
from app.serving.errors import ExpiredError, RequestError
from app.serving.predict_json import Limits, Signature, Tensor
from app.tasks.exit_table import find_loss
from app.tasks.light import BACKBONE_FILE, LightModel, load_light_model
from app.tasks.whole_text_rows import spell_words

ROWS_TOGETHER = 2  # of packed rows of like length in one call; more only pad each other, and need memory
_TOKENIZED_INPUTS = {name: Tensor("int32", (-1, -1)) for name in FEATURES}
_TEXT_INPUTS = {"text": Tensor("string", (-1,))}
# Outputs of the text signatures of the built-in tasks.
_TEXT_OUTPUTS = {
    "tagging": {
        "count": Tensor("int32", (-1,)),
        "label": Tensor("string", (-1, -1)),
        "start": Tensor("int32", (-1, -1)),
        "end": Tensor("int32", (-1, -1)),
        "score": Tensor("float32", (-1, -1)),
    },
    "classification": {
        "label": Tensor("string", (-1,)),
        "score": Tensor("float32", (-1,)),
        "scores": Tensor("float32", (-1, -1)),
        "given": Tensor("bool", (-1, -1)),
    },
}


@dataclass(frozen=True)
class _Rows:
    """Answers as rows; outputs are made of them."""

    model: LightModel
    all_rows: list[dict[str, Any]]

    def rows(self, first: int, end: int) -> list[dict[str, Any]]:
        return self.all_rows[first:end]

    def outputs(self, first: int, end: int) -> dict[str, np.ndarray]:
        return self.model.task.outputs(self.all_rows[first:end], self.model.labels)


class _Interpreters:
    """A `.tflite` file in as many interpreters as there are workers, each of one thread, and one of all threads.

    The latter is for a request that comes alone. LiteRT lets other threads run while it computes.

    Args:
        path: of the file.
        threads: workers.
        labels: of the model, which the file must give.
    """

    def __init__(self, path: Path, *, threads: int, labels: Sequence[str]) -> None:
        checked = load_tflite(path.parent, path.stem, labels=labels, threads=1)
        self.narrow = [checked, *(TFLiteModel(path, threads=1) for _ in range(threads - 1))]
        wide = min(threads, os.cpu_count() or 1)
        self._wide = TFLiteModel(path, threads=wide) if threads > 1 else checked
        self.has_exits = checked.has_exits

    def choose(self, worker: int, *, alone: bool) -> TFLiteModel:
        return self._wide if alone and worker == 0 else self.narrow[worker]


class TFLiteEngine:
    """A `.tflite` file in LiteRT; under load that with exits, if it lies beside it.

    Attributes:
        why_steady: why texts leave no earlier under load; empty where they do.

    Args:
        path: of the file.
        model: folder of what answers need beyond the network, `model/` of a run.
        threads: workers.
        data: how rows are cut; predict: how answers are chosen.
        target_ms: latency above which `NAME_early.tflite` answers; 0 = always the file itself.
        max_f1_loss: `serve.max_f1_loss`.
        observe_layers: called with the layer at which each text of a batch left, of a file with exits.
    """

    def __init__(
        self,
        path: Path,
        model: Path,
        *,
        threads: int,
        data: Any,
        predict: PredictConfig,
        target_ms: float = 0,
        max_f1_loss: float = 100.0,
        observe_layers: Callable[[Iterable[int]], None] = lambda layers: None,
    ) -> None:
        self._model = load_light_model(model, data)
        self._config = predict
        labels = self._model.labels
        early, self.why_steady = _find_early(path), f"there is no {path.stem}_early.tflite that texts leave early"
        allowed = max(max_f1_loss, predict.max_f1_loss)
        lost = find_loss(self._model.facts, early[0][1]) if early else 0.0
        if lost > allowed + 1e-9:
            early = []
            self.why_steady = (
                f"{path.stem}_early.tflite leaves so early that it lost {lost:.2f} points in validation, "
                f"serve.max_f1_loss allows {allowed:g}: export it with a lower predict.max_f1_loss"
            )
        found = [(path, 0.0), *(early if target_ms else ())]
        self._files = [_Interpreters(each, threads=threads, labels=labels) for each, _ in found]
        adapter = LoadAdapter([threshold for _, threshold in found], target_ms=target_ms)
        self.adapter = adapter if adapter.active else None
        self.why_steady = "" if self.adapter else self.why_steady
        self._deepest = max(1, int(read_json(model / BACKBONE_FILE)["num_layers"]))
        # Each interpreter once, as (worker, alone), see `Engine.answer`.
        self.callers = [*((worker, False) for worker in range(threads)), (0, True)]
        self._observe_layers, self._started = observe_layers, False
        name = self._model.task.name
        self.signatures = {
            "serving_default": Signature(_TEXT_INPUTS, _TEXT_OUTPUTS[name]),
            "tokenized": Signature(_TOKENIZED_INPUTS, {"logits": Tensor("float32", (-1, -1, len(labels)))}),
        }

    def answer(
        self, texts: Sequence[str], *, worker: int = 0, alone: bool = True, deadline: float = float("inf")
    ) -> Answered:
        level = self.adapter.level if self.adapter else 0
        return self._answer(texts, self._files[level], worker=worker, alone=alone, deadline=deadline)

    def _answer(
        self, texts: Sequence[str], file: _Interpreters, *, worker: int, alone: bool, deadline: float
    ) -> _Rows:
        model, task = file.choose(worker, alone=alone), self._model.task

        def run(features: Features) -> dict[str, np.ndarray]:
            if time.monotonic() > deadline:
                raise ExpiredError
            return model.run(features)

        early = RowByRow(run, labels=len(self._model.labels), unit_input=task.unit_input) if file.has_exits else None
        predictor = Predictor(
            self._model,  # type: ignore[arg-type]
            self._model.encoder.scoring_rows,
            lambda features: _forward(run, features),
            ROWS_TOGETHER,
            self._config,
            early,
        )
        rows = list(answer_with_layers(texts, predictor, self._config))
        if self.adapter and not early:
            rows = [{**row, "layer": self._deepest if spell_words(row["text"]) else 0} for row in rows]
        if self._started and rows and "layer" in rows[0]:
            self._observe_layers([row["layer"] for row in rows])
        return _Rows(self._model, rows)

    def warm_up(self, texts: Sequence[str], *, worker: int, alone: bool) -> None:
        """Computes texts by each file."""
        for file in self._files:
            self._answer(texts, file, worker=worker, alone=alone, deadline=float("inf"))

    def started(self) -> None:
        """From now on users are answered: layers are counted, and the load counts."""
        self._started = True

    def note(self, seconds: float) -> None:
        """How long the oldest request of a batch took."""
        if self.adapter and self._started:
            self.adapter.note(seconds)

    def agrees(self, vector: Mapping[str, Any], logits: np.ndarray) -> bool:
        """Whether logits of a test vector are the answer that it holds."""
        return self._model.task.agrees(self._model, vector, logits)

    def compute_logits(self, arrays: Mapping[str, np.ndarray], *, worker: int = 0) -> dict[str, np.ndarray]:
        return {"logits": _in_slices(self._files[0].narrow[worker].forward, arrays)}


def _find_early(path: Path) -> list[tuple[Path, float]]:
    """The file with exits beside a file of the same model, and its threshold; none if there is none."""
    try:
        early, manifest = find_export(path.parent, f"{path.stem}_early")
    except InputError:
        return []
    entry, own = manifest["files"][early.name], manifest["files"][path.name]
    threshold = entry.get("exit_threshold")
    if entry.get("model_sums_sha256") != own.get("model_sums_sha256"):
        return []
    return [(early, float(threshold))] if isinstance(threshold, (int, float)) and threshold > 0 else []


def _forward(run: Callable[[Features], dict[str, np.ndarray]], features: Features) -> np.ndarray:
    """Logits, computed without the columns that all rows pad: LiteRT takes any length, a new one costs it little."""
    whole = features["padding_mask"].shape[1]
    used = int(np.flatnonzero(features["padding_mask"].any(axis=0))[-1]) + 1
    logits = run({name: value[:, :used] for name, value in features.items()})["logits"]
    if used == whole:
        return logits
    padded = np.zeros((len(logits), whole, logits.shape[2]), logits.dtype)
    padded[:, :used] = logits
    return padded


def _in_slices(forward: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows a few at a time, which bounds memory."""
    count = len(arrays[FEATURES[0]])
    parts = [
        forward({name: value[at : at + ROWS_TOGETHER] for name, value in arrays.items()})
        for at in range(0, count, ROWS_TOGETHER)
    ]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class _Outputs:
    """Answers as outputs; rows are made of them."""

    engine: SavedModelEngine
    texts: Sequence[str]
    found: dict[str, np.ndarray]

    def outputs(self, first: int, end: int) -> dict[str, np.ndarray]:
        """Those of some texts, no wider than if they had been asked for alone."""
        own = {name: value[first:end] for name, value in self.found.items()}
        if self.engine.task_name == "tagging":
            most = int(own["count"].max(initial=0))
            own = {name: value if value.ndim == 1 else value[:, :most] for name, value in own.items()}
        return own

    def rows(self, first: int, end: int) -> list[dict[str, Any]]:
        made, texts = self.engine.make_rows(self.outputs(first, end)), self.texts[first:end]
        return [finish_row(text, row, self.engine.config) for text, row in zip(texts, made, strict=True)]


def finish_row(text: str, row: Mapping[str, Any], config: PredictConfig) -> dict[str, Any]:
    """A row of a text graph as `--mode=predict` writes it."""
    if "entities" not in row:
        return {"text": text, **row}
    layer = {"layer": row["layer"]} if "layer" in row else {}
    entities = [
        {
            "start": each["start"],
            "end": each["end"],
            "label": each["label"],
            "text": text[each["start"] : each["end"]],
            "score": round(each["score"], 4),
        }
        for each in row["entities"]
    ]
    return {"text": text, "entities": [each for each in entities if each["score"] >= config.min_score], **layer}


class SavedModelEngine:
    """A version of a SavedModel in TensorFlow, which spreads each call over the processors itself.

    Attributes:
        why_steady: why texts leave no earlier under load; empty where they do.

    Args:
        path: of the version.
        about: what it says of itself.
        facts: what its model knows beside its labels.
        predict: how answers are chosen.
        target_ms: latency above which texts leave the network earlier, if it has exits; 0 = as it was exported.
        max_f1_loss: `serve.max_f1_loss`.
        observe_layers: called with the layer at which each text of a batch left.
    """

    def __init__(
        self,
        path: Path,
        *,
        about: Mapping[str, Any],
        facts: Mapping[str, Any],
        predict: PredictConfig,
        target_ms: float = 0,
        max_f1_loss: float = 100.0,
        observe_layers: Callable[[Iterable[int]], None] = lambda layers: None,
    ) -> None:
        from app.evaluation.runtimes import load_version
        from app.tasks import find_task

        self._loaded = load_version(path)
        self._task = find_task(about["task"])
        self.task_name, self.config = str(about["task"]), predict
        self.callers = [(0, True)]  # all workers share what is warm
        self._model: Any = SimpleNamespace(labels=tuple(about["labels"]), facts=dict(facts), task=self._task)
        self.signatures = {
            name: Signature(
                {key: _described(spec) for key, spec in signature.structured_input_signature[1].items()},
                {key: _described(spec) for key, spec in signature.structured_outputs.items()},
            )
            for name, signature in self._loaded.signatures.items()
        }

        thresholds = find_thresholds(facts, max_f1_loss=predict.max_f1_loss, under_load=max_f1_loss)
        adapter = LoadAdapter(thresholds, target_ms=target_ms)
        has_exits = "early" in self._loaded.signatures
        self.adapter = adapter if adapter.active and has_exits else None
        within = f"no threshold saves more within serve.max_f1_loss={max_f1_loss:g} points"
        self.why_steady = "" if self.adapter else within if has_exits else "it has no exits"
        self._observe_layers, self._started = observe_layers, False

    def started(self) -> None:
        """From now on users are answered: layers are counted, and the load counts."""
        self._started = True

    def note(self, seconds: float) -> None:
        """How long the oldest request of a batch took."""
        if self.adapter and self._started:
            self.adapter.note(seconds)

    def make_rows(self, found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        rows = self._task.rows_from_graph(self._model, found)
        if "layer" not in found:
            return rows
        return [{**row, "layer": int(layer)} for row, layer in zip(rows, found["layer"], strict=True)]

    def answer(
        self, texts: Sequence[str], *, worker: int = 0, alone: bool = True, deadline: float = float("inf")
    ) -> Answered:
        threshold = self.adapter.threshold if self.adapter and self.adapter.level else None
        found = self._compute(texts, threshold)
        if self._started and "layer" in found:
            self._observe_layers(found["layer"].tolist())
        return _Outputs(self, texts, found)

    def warm_up(self, texts: Sequence[str], *, worker: int, alone: bool) -> None:
        """Computes texts by each signature that may be asked."""
        self._compute(texts, None)
        if self.adapter:
            self._compute(texts, self.adapter.threshold)

    def _compute(self, texts: Sequence[str], threshold: float | None) -> dict[str, np.ndarray]:
        import tensorflow as tf

        inputs = {"text": tf.constant([text.encode("utf-8") for text in texts])}
        if threshold is None:
            return self._run("serving_default", inputs)
        return self._run("early", {**inputs, "threshold": tf.constant(threshold, tf.float32)})

    def compute_logits(self, arrays: Mapping[str, np.ndarray], *, worker: int = 0) -> dict[str, np.ndarray]:
        import tensorflow as tf

        def forward(part: Features) -> np.ndarray:
            return self._run("tokenized", {name: tf.constant(value) for name, value in part.items()})["logits"]

        return {"logits": _in_slices(forward, arrays)}

    def _run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        try:
            outputs = self._loaded.signatures[signature](**inputs)
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(400, f"the model cannot compute this: {str(error).splitlines()[0]}") from error
        return {name: value.numpy() for name, value in outputs.items()}


def _described(spec: Any) -> Tensor:
    return Tensor(spec.dtype.name, tuple(-1 if size is None else int(size) for size in spec.shape))


def limits_of(run_dir: RunDirectory) -> Limits | None:
    """What ids the model of a run knows; None if the run has only its exports."""
    from app.tasks.light import read_model_facts

    try:
        known = read_model_facts(run_dir.model)
    except InputError:
        return None
    return Limits(known.vocabulary_size, known.shapes, known.positions)
