"""Modes room: a finished run as files for other runtimes, none of which is kept unless its own runtime scores well."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.config import Config, RunError
from app.config.rules import require_formats
from app.data.encoding import Encoder
from app.evaluation.gate import Comparison, Gate, Refused
from app.evaluation.manifest import MANIFEST
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import SavedModelForward, TFLiteModel, build_predictor, load_version
from app.evaluation.scoring import score
from app.export.metadata import describe_model, forget_file, list_operators, measure_zero_fraction, write_companions
from app.export.rows import is_answered_alike, make_vectors, representative_rows
from app.export.saved_model import save_as_saved_model, write_rows
from app.export.text_tflite import compare_text_tflite, describe_text_signature, write_text_tflite
from app.export.tflite import WRITERS, TFLiteWriter
from app.run.directory import Request, RunDirectory, atomic, sha256_of_file
from app.run.screen import heartbeat, say
from app.tasks.bundle import load_model
from app.tasks.corpora import read_scored_split
from app.tasks.network import TaskModel, build_encoder
from app.tasks.task import Corpus, Scored


@dataclass(frozen=True)
class Exporting:
    """What every exporter needs.

    Attributes:
        config: the whole configuration.
        run_dir: locked.
        model: the float model; encoder: what feeds it.
        corpus: the evaluation split, read anew by each format.
        predictor: the float model's; scored: its answers to the corpus.
        gate: decides what is kept.
        writer: makes the content of TFLite files.
        vectors: texts with the float model's answers, to go beside them.
    """

    config: Config
    run_dir: RunDirectory
    model: TaskModel
    encoder: Encoder
    corpus: Corpus
    predictor: Predictor
    scored: Scored
    gate: Gate
    writer: TFLiteWriter
    vectors: list[dict[str, Any]]

    def check(self, name: str, file: str, forward: Callable[..., np.ndarray]) -> Comparison:
        """An export scored by its own runtime, beside the float model.

        Raises:
            Refused: it loses more than `export.max_f1_loss` points, beyond chance.
        """
        predictor = build_predictor(
            self.model, self.encoder, batch_size=self.config.evaluation.batch_size, forward=forward
        )
        scored = score(predictor, self.corpus.examples())
        task = self.model.task
        found = Comparison.of(task, scored.counts, self.scored.counts, labelled=scored.labelled)
        self.gate.decide(name, file, found)
        return found


def run(request: Request) -> dict[str, float]:
    """Exports the formats of `export.formats`, each for itself: one that is refused or fails leaves the others.

    Raises:
        RunError: a format was refused; the message says which and by how much. All others are written.
    """
    config, run_dir = request.config, request.run_dir
    formats = list(dict.fromkeys(config.export.formats))
    require_formats(config)
    model = load_model(run_dir.model)
    task = model.task
    encoder = build_encoder(model, config.data)
    split = config.evaluation.split
    purpose = f"exports are scored on evaluation.split={split} before they are kept"
    corpus, summary = read_scored_split(config, split, model=model, purpose=purpose)
    with run_dir.locked():
        predictor = build_predictor(model, encoder, batch_size=config.evaluation.batch_size)
        with heartbeat("scoring the float model"):
            scored = score(predictor, corpus.examples())
        say(f"{'float model':<12} {task.headline_name} {scored.headline:.4f} on {corpus.source}")
        writer = TFLiteWriter(
            model,
            config.export,
            boundary_ids=(encoder.pieces.start_id, encoder.pieces.end_id),
            representative=partial(representative_rows, config, model, encoder),
            about=describe_model(model, run_dir),
        )
        vectors = make_vectors(predictor, encoder, corpus, count=config.export.vectors)
        scored_on = {"corpus": Path(corpus.source).name, "corpus_sha256": summary.digest, "split": split}
        gate = Gate(run_dir, config.export.max_f1_loss, scored_on)
        job = Exporting(config, run_dir, model, encoder, corpus, predictor, scored, gate, writer, vectors)
        metrics: dict[str, float] = {f"export/float/{split}/{task.headline}": scored.headline}
        refused = []
        for name in formats:
            try:
                with heartbeat(f"{name:<12} converting and scoring"):
                    metrics |= EXPORTERS[name](job)
                gate.passed(name)
            except Refused as error:
                refused.append(str(error))
                say(str(error))
        run_dir.update_metrics(metrics)
    if refused:
        raise RunError("; ".join(refused))
    return metrics


def export_tflite(name: str, job: Exporting) -> dict[str, float]:
    """Writes `export/tflite/NAME.tflite` and what lies beside it."""
    folder = job.run_dir.tflite
    path = folder / f"{name}.tflite"
    say(f"{name:<12} converting")
    with atomic(path) as waiting:
        content = job.writer.write(name)
        waiting.write_bytes(content)
        model = TFLiteModel(waiting)
        found = job.check(name, path.name, model.forward)
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


def export_saved_model(job: Exporting) -> dict[str, float]:
    """Writes the next version of `export/saved_model`; its `tokenized` signature is what is scored."""
    scores: list[Comparison] = []

    def check(path: Path) -> None:
        forward = SavedModelForward.of(load_version(path), labels=len(job.model.labels))
        scores.append(job.check("saved_model", "saved_model", forward))
        config = job.model.task.graph_settings(job.config.predict)
        texts = [vector["text"] for vector in job.vectors if "text" in vector]
        write_rows(path, list(job.model.task.answer_texts(job.model, texts, job.predictor, config)))

    say("saved_model  converting")
    path = save_as_saved_model(
        job.model, job.encoder, job.config.predict, job.run_dir.saved_model, check=check
    )
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    (found,) = scores
    say(f"{'saved_model':<12} {size / 1e6:8.2f} MB  {found.task.headline_name} {found.f1:.4f} ({found})  {path}")
    prefix = f"export/saved_model/{job.config.evaluation.split}"
    return {f"{prefix}/{found.task.headline}": found.f1, **found.metrics(prefix), "export/saved_model/bytes": size}


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
