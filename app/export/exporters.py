"""Export room: the formats of `--mode=export`, none of which is kept unless its own runtime scores well."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.config import Config
from app.data.encoding import Encoder
from app.evaluation.exit_report import describe_use
from app.evaluation.exits import KerasEarlyForward, SavedModelEarlyForward, TFLiteEarlyForward
from app.evaluation.gate import Comparison, Gate, Refused
from app.evaluation.layers import answer_with_layers
from app.evaluation.manifest import MANIFEST
from app.evaluation.predictor import EarlyForward, Predictor
from app.evaluation.runtimes import SavedModelForward, TFLiteModel, build_predictor, load_version
from app.evaluation.scoring import score
from app.export.metadata import (
    describe_model,
    forget_file,
    list_operators,
    measure_zero_fraction,
    write_companions,
)
from app.export.rows import is_answered_alike, representative_rows
from app.export.saved_model import save_as_saved_model, write_rows
from app.export.text_tflite import compare_text_tflite, describe_text_signature, write_text_tflite
from app.export.tflite import EARLY, WRITERS, TFLiteWriter
from app.run.directory import RunDirectory, atomic, sha256_of_file
from app.run.screen import say
from app.tasks.exit_table import find_threshold, read_table
from app.tasks.network import TaskModel
from app.tasks.task import Corpus, Scored


@dataclass(frozen=True)
class Scoring:
    """What an export is held against: the float model's answers to a corpus.

    Attributes:
        config: the whole configuration.
        model: the float model; encoder: what feeds it.
        corpus: the evaluation split, read anew by each format.
        scored: the float model's answers to the corpus.
        gate: decides what is kept.
        predictor: the float model's.
        vectors: texts with the float model's answers, to go beside an export.
    """

    config: Config
    model: TaskModel
    encoder: Encoder
    corpus: Corpus
    scored: Scored
    gate: Gate
    predictor: Predictor
    vectors: list[dict[str, Any]]

    def check(
        self, name: str, file: str, forward: Callable[..., np.ndarray], early: EarlyForward | None = None
    ) -> Comparison:
        """An export scored by its own runtime, with `early` as it is used, beside the float model.

        Raises:
            Refused: it loses more than `export.max_f1_loss` points, beyond chance.
        """
        predictor = build_predictor(
            self.model, self.encoder, batch_size=self.config.evaluation.batch_size, forward=forward, early=early
        )
        scored = score(predictor, self.corpus.examples())
        task = self.model.task
        found = Comparison.of(task, scored.counts, self.scored.counts, labelled=scored.labelled)
        try:
            self.gate.decide(name, file, found)
        except Refused as error:
            if not early:
                raise
            raise Refused(f"{error}; early exits are part of that, predict.max_f1_loss=0 exports it without") from error
        return found


@dataclass(frozen=True)
class Exporting(Scoring):
    """What every exporter needs.

    Attributes:
        run_dir: locked.
        writer: makes the content of TFLite files.
    """

    run_dir: RunDirectory
    writer: TFLiteWriter


def make_writer(config: Config, model: TaskModel, encoder: Encoder, run_dir: RunDirectory) -> TFLiteWriter:
    """What makes the TFLite files of a run's model."""
    return TFLiteWriter(
        model,
        config.export,
        boundary_ids=encoder.pieces.boundary_ids,
        representative=partial(representative_rows, config, model, encoder),
        about=describe_model(model, run_dir),
        threshold=find_threshold(model.facts, model.config.exit_layers, config.predict),
    )


def export_tflite(name: str, job: Exporting) -> dict[str, float]:
    """Writes `export/tflite/NAME.tflite` and what lies beside it."""
    folder = job.run_dir.tflite
    path = folder / f"{name}.tflite"
    say(f"{name:<12} converting")
    with atomic(path) as waiting:
        content = job.writer.write(name)
        waiting.write_bytes(content)
        model = TFLiteModel(waiting)
        early = None
        if name in EARLY:
            task, threshold = job.model.task, job.writer.threshold
            early = TFLiteEarlyForward(model.run, job.model, unit_input=task.unit_input, threshold=threshold)
        found = job.check(name, path.name, model.forward, early)
        depth = early.measure() if early else {}  # before the vectors are asked for
        if early:
            say(f"{name:<12} {describe_use(job.model, early, job.config.predict)}")
        agreeing = sum(is_answered_alike(model, job.model, vector) for vector in job.vectors)
        entry = {
            "bytes": waiting.stat().st_size,
            "sha256": sha256_of_file(waiting),
            "operators": list_operators(content),
            "zero_fraction_of_kernels": measure_zero_fraction(content),
            **found.values(),
            **found.record(),
            **job.gate.corpus,
            "vectors_tagged_as_by_the_float_model": agreeing,
            **(_describe_early(job, depth) if depth else {}),
        }
        forget_file(job.run_dir, path.name)
    length = job.config.data.max_length
    write_companions(job.model, job.run_dir, path.name, entry, max_length=length, vectors=job.vectors)
    kept = f"{name:<12} {entry['bytes'] / 1e6:8.2f} MB"
    say(f"{kept}  {found.task.headline_name} {found.f1:.4f} ({found})  {path}")
    prefix = f"export/{name}/{job.config.evaluation.split}"
    return {
        f"{prefix}/{found.task.headline}": found.f1,
        **found.metrics(prefix),
        f"export/{name}/bytes": entry["bytes"],
    }


def _describe_early(job: Exporting, depth: Mapping[str, float]) -> dict[str, Any]:
    """What the manifest says of a file with exits."""
    layers, threshold = job.model.config.exit_layers, job.writer.threshold
    return {"exit_layers": list(layers), "exit_threshold": threshold, **depth}


def write_saved_model(
    job: Scoring, folder: Path, *, note: Callable[[Path], None] = lambda path: None
) -> tuple[Path, Comparison]:
    """Writes the next version of a SavedModel; its `tokenized` signature is what is scored.

    Args:
        job: what it is held against.
        folder: of the versions, `export/saved_model` of a run.
        note: writes more into a version that passed, before it gets its name.

    Returns:
        the folder of the version, and how it compares with the float model.

    Raises:
        Refused: see `Scoring.check`.
    """
    say("saved_model  converting")
    scores: list[Comparison] = []

    def check(path: Path) -> None:
        loaded = load_version(path)
        forward = SavedModelForward.of(loaded, labels=len(job.model.labels))
        config = job.model.task.graph_settings(job.config.predict)
        threshold = find_threshold(job.model.facts, job.model.config.exit_layers, config)
        early = SavedModelEarlyForward(loaded, threshold) if threshold else None
        has_exits = bool(read_table(job.model.facts, job.model.config.exit_layers))
        scores.append(job.check("saved_model", "saved_model", forward, early))
        if has_exits:
            say(f"{'saved_model':<12} {describe_use(job.model, early, config)}")
        texts = [vector["text"] for vector in job.vectors if "text" in vector]
        predictor = job.predictor
        if has_exits:
            predictor = replace(job.predictor, early=KerasEarlyForward(job.model, threshold))
        write_rows(path, list(answer_with_layers(texts, predictor, config)))
        note(path)

    path = save_as_saved_model(job.model, job.encoder, job.config.predict, folder, check=check)
    found = scores[0]
    size = _size_of(path) / 1e6
    say(f"{'saved_model':<12} {size:8.2f} MB  {found.task.headline_name} {found.f1:.4f} ({found})  {path}")
    return path, found


def export_saved_model(job: Exporting) -> dict[str, float]:
    """Writes the next version of `export/saved_model`."""
    path, found = write_saved_model(job, job.run_dir.saved_model)
    prefix = f"export/saved_model/{job.config.evaluation.split}"
    scores = {f"{prefix}/{found.task.headline}": found.f1, **found.metrics(prefix)}
    return {**scores, "export/saved_model/bytes": _size_of(path)}


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def export_text(job: Exporting) -> dict[str, float]:
    """Writes `export/tflite_text`: a file that takes raw strings, scored on the corpus as plain text."""
    folder, split = job.run_dir.tflite_text, job.config.evaluation.split
    path = folder / "int8_text.tflite"
    say("int8_text    converting")
    content = write_text_tflite(job.model, job.encoder, job.config)
    found = compare_text_tflite(
        content,
        job.model,
        job.corpus.examples(),
        job.predictor,
        job.config.predict,
        labelled=job.scored.labelled,
    )
    job.gate.decide("int8_text", path.name, found)
    job.run_dir.write_bytes(path, content)
    manifest = {
        **describe_text_signature(job.model.task),
        "file": path.name,
        "bytes": len(content),
        "sha256": sha256_of_file(path),
        "operators": list_operators(content),
        **{f"{name}_on_plain_text": value for name, value in found.values().items()},
        **found.record(),
        **job.gate.corpus,
    }
    job.run_dir.write_json(folder / MANIFEST, manifest)
    kept = f"{'int8_text':<12} {len(content) / 1e6:8.2f} MB"
    say(f"{kept}  {found.task.headline_name} {found.f1:.4f} on plain text ({found})  {path}")
    prefix = f"export/int8_text/{split}"
    metrics = {f"{prefix}/plain_text_{found.task.headline}": found.f1, **found.metrics(f"{prefix}/plain_text")}
    return metrics | {"export/int8_text/bytes": len(content)}


# What `export.formats` may name.
EXPORTERS: dict[str, Callable[[Exporting], dict[str, float]]] = {
    **{name: partial(export_tflite, name) for name in WRITERS},
    "int8_text": export_text,
    "saved_model": export_saved_model,
}
