"""Modes room: a finished run as files for other runtimes, none of which is kept unless its own runtime scores well."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.artifacts import Request, RunDirectory, atomic, sha256_of_file
from app.config import Config, InputError, RunError
from app.data.corpus import Corpus
from app.data.encoding import Encoder
from app.evaluation.predictor import Predictor
from app.evaluation.tflite_runtime import MANIFEST, TFLiteModel
from app.export.flatbuffer import list_operators, measure_zero_fraction
from app.export.saved_model import SavedModelForward, load_version
from app.export.tflite import WRITERS, TFLiteWriter
from app.models.tagger import Tagger
from app.models.tagger_bundle import load_tagger
from app.modes.export_companions import describe_model, forget_file, write_companions
from app.modes.export_rows import make_vectors, representative_rows, tags_of
from app.modes.predict import find_non_names
from app.modes.saved_model import save_tagger_as_saved_model
from app.modes.scoring import Tagged, build_encoder, build_predictor, open_scored_split, say
from app.modes.text_export import TEXT_SIGNATURE, score_text_tflite, write_text_tflite


class Refused(Exception):
    """An export that lost too much; the text says how much."""


@dataclass(frozen=True)
class Exporting:
    """What every exporter needs.

    Attributes:
        config: the whole configuration.
        run_dir: locked.
        tagger: the float model; encoder: what feeds it.
        corpus: the evaluation split, read anew by each format.
        predictor: the float model's; float_f1: its entity F1 on the corpus, 0 to 1.
        writer: makes the content of TFLite files.
        vectors: texts with the float model's answers, to go beside them.
    """

    config: Config
    run_dir: RunDirectory
    tagger: Tagger
    encoder: Encoder
    corpus: Corpus
    predictor: Predictor
    float_f1: float
    writer: TFLiteWriter
    vectors: list[dict[str, Any]]

    def check(self, name: str, forward: Callable[..., np.ndarray]) -> float:
        """Entity F1 of an export by its own runtime.

        Raises:
            Refused: it is more than `export.max_f1_loss` points below the float model.
        """
        predictor = build_predictor(
            self.tagger, self.encoder, batch_size=self.config.evaluation.batch_size, forward=forward
        )
        f1 = Tagged.by(predictor, self.corpus.sentences()).scores().strict.micro.f1
        self.compare(name, f1, self.float_f1)
        return f1

    def compare(self, name: str, f1: float, float_f1: float) -> None:
        """Raises Refused if entity F1 is more than `export.max_f1_loss` points below the float model's."""
        lost = 100 * (float_f1 - f1)
        if not lost <= self.config.export.max_f1_loss:
            raise Refused(
                f"{name} refused: entity F1 {f1:.4f} on {self.config.evaluation.split} is {lost:.2f} points below "
                f"the float model's {float_f1:.4f}, export.max_f1_loss allows {self.config.export.max_f1_loss:g}"
            )


def run(request: Request) -> dict[str, float]:
    """Exports the formats of `export.formats`, each for itself: one that is refused or fails leaves the others.

    Raises:
        RunError: a format was refused; the message says which and by how much. All others are written.
    """
    config, run_dir = request.config, request.run_dir
    formats = list(dict.fromkeys(config.export.formats))
    if not formats:
        raise InputError(f"export.formats is empty; allowed are {', '.join(EXPORTERS)}")
    tagger = load_tagger(run_dir.model)
    encoder = build_encoder(tagger, config.data)
    split = config.evaluation.split
    purpose = f"exports are scored on evaluation.split={split} before they are kept"
    corpus = open_scored_split(config.data, split, labels=tagger.labels, purpose=purpose)
    with run_dir.locked():
        predictor = build_predictor(tagger, encoder, batch_size=config.evaluation.batch_size)
        float_f1 = Tagged.by(predictor, corpus.sentences()).scores().strict.micro.f1
        say(f"{'float model':<12} entity F1 {float_f1:.4f} on {corpus.source}")
        writer = TFLiteWriter(
            tagger,
            config.export,
            boundary_ids=(encoder.pieces.start_id, encoder.pieces.end_id),
            representative=partial(representative_rows, config, tagger, encoder),
            about=describe_model(tagger, run_dir),
        )
        vectors = make_vectors(predictor, encoder, corpus, count=config.export.vectors)
        job = Exporting(config, run_dir, tagger, encoder, corpus, predictor, float_f1, writer, vectors)
        metrics: dict[str, float] = {f"export/float/{split}/entity_f1": float_f1}
        refused = []
        for name in formats:
            try:
                metrics |= EXPORTERS[name](job)
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
        f1 = job.check(path.name, model.forward)
        agreeing = sum(tags_of(model, vector, job.tagger.labels) == vector["tags"] for vector in job.vectors)
        entry = {
            "bytes": waiting.stat().st_size,
            "sha256": sha256_of_file(waiting),
            "operators": list_operators(content),
            "zero_fraction_of_kernels": measure_zero_fraction(content),
            "entity_f1": f1,
            "entity_f1_of_the_float_model": job.float_f1,
            "corpus": Path(job.corpus.source).name,
            "split": job.config.evaluation.split,
            "vectors_tagged_as_by_the_float_model": agreeing,
        }
        forget_file(job.run_dir, path.name)
    length = job.config.data.max_length
    write_companions(job.tagger, job.run_dir, path.name, entry, max_length=length, vectors=job.vectors)
    say(f"{name:<12} {entry['bytes'] / 1e6:8.2f} MB  entity F1 {f1:.4f}  {path}")
    split = job.config.evaluation.split
    return {f"export/{name}/{split}/entity_f1": f1, f"export/{name}/bytes": entry["bytes"]}


def export_saved_model(job: Exporting) -> dict[str, float]:
    """Writes the next version of `export/saved_model`; its `tokenized` signature is what is scored."""
    scores = []

    def check(path: Path) -> None:
        forward = SavedModelForward.of(load_version(path), labels=len(job.tagger.labels))
        scores.append(job.check("saved_model", forward))

    say("saved_model  converting")
    path = save_tagger_as_saved_model(
        job.tagger, job.encoder, job.config.predict, job.run_dir.saved_model, check=check
    )
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    say(f"{'saved_model':<12} {size / 1e6:8.2f} MB  entity F1 {scores[0]:.4f}  {path}")
    return {
        f"export/saved_model/{job.config.evaluation.split}/entity_f1": scores[0],
        "export/saved_model/bytes": size,
    }


def export_text(job: Exporting) -> dict[str, float]:
    """Writes `export/tflite_text`: a file that takes raw strings, scored on the corpus as plain text."""
    folder, split = job.run_dir.tflite_text, job.config.evaluation.split
    path = folder / "int8_text.tflite"
    say("int8_text    converting")
    content = write_text_tflite(job.tagger, job.encoder, job.config)
    f1, float_f1 = score_text_tflite(
        content,
        job.corpus.sentences(),
        job.predictor,
        non_names=find_non_names(job.tagger, job.config.predict),
    )
    job.compare(path.name, f1, float_f1)
    job.run_dir.write_bytes(path, content)
    manifest = {
        **TEXT_SIGNATURE,
        "file": path.name,
        "bytes": len(content),
        "sha256": sha256_of_file(path),
        "operators": list_operators(content),
        "entity_f1_on_plain_text": f1,
        "entity_f1_of_the_float_model_on_plain_text": float_f1,
        "corpus": Path(job.corpus.source).name,
        "split": split,
    }
    job.run_dir.write_json(folder / MANIFEST, manifest)
    scores = f"entity F1 {f1:.4f} (float {float_f1:.4f}) on plain text"
    say(f"{'int8_text':<12} {len(content) / 1e6:8.2f} MB  {scores}  {path}")
    return {f"export/int8_text/{split}/plain_text_entity_f1": f1, "export/int8_text/bytes": len(content)}


# What `export.formats` may name.
EXPORTERS: dict[str, Callable[[Exporting], dict[str, float]]] = {
    **{name: partial(export_tflite, name) for name in WRITERS},
    "int8_text": export_text,
    "saved_model": export_saved_model,
}
