"""Export room: what lies beside exported TFLite files, and what they say of themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.config import InputError
from app.config.paths import shown
from app.evaluation.manifest import MANIFEST, read_manifest
from app.export.metadata import VALUE_LABELS, VOCABULARY, AttachedFile, ModelDescription
from app.run.directory import RunDirectory, sha256_of_file
from app.tasks.network import TaskModel
from app.tasks.task import Task


def describe_inputs(task: Task) -> dict[str, str]:
    """What each input of a TFLite file means."""
    meanings = {
        "token_ids": task.pieces_meaning,
        "shape_ids": "shape of the word of each piece (app/text/shapes.py), 0 at [CLS], [SEP]",
        "padding_mask": "1 at pieces, 0 after the end",
    }
    return meanings | ({task.unit_input: task.unit_input_meaning} if task.unit_input else {})


def describe_model(tagger: TaskModel, run_dir: RunDirectory) -> ModelDescription:
    """What the files say of themselves to TFLite's metadata tools; labels and vocabulary travel inside."""
    answer = list(tagger.task.tflite_outputs)[-1]
    labels, vocabulary = _lines(tagger.labels), _lines(tagger.backbone.vocabulary)
    return ModelDescription(
        name=shown(run_dir.path.resolve().name),
        description=f"{tagger.task.describe_model(tagger.labels)} A BERT encoder for "
        f"{'uncased' if tagger.backbone.lowercase else 'cased'} word pieces.",
        tensors={
            **describe_inputs(tagger.task),
            **{name: output["meaning"] for name, output in tagger.task.tflite_outputs.items()},
        },
        files=(
            AttachedFile("labels.txt", labels, "labels in the order of their numbers", VALUE_LABELS, answer),
            AttachedFile("vocab.txt", vocabulary, "word pieces in the order of their ids", VOCABULARY, "token_ids"),
        ),
    )


def _lines(words: Sequence[str]) -> str:
    return "".join(f"{word}\n" for word in words)


def forget_file(run_dir: RunDirectory, file: str) -> None:
    """Takes a file that is about to be replaced out of `model.json`, so that a kill leaves no wrong entry."""
    manifest = _read(run_dir.tflite)
    if manifest.get("files", {}).pop(file, None):
        run_dir.write_json(run_dir.tflite / MANIFEST, manifest)


def _read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, empty if there is none that can be read."""
    try:
        return read_manifest(folder)
    except InputError:
        return {}


def write_companions(
    tagger: TaskModel,
    run_dir: RunDirectory,
    file: str,
    entry: dict[str, Any],
    *,
    max_length: int,
    vectors: list[dict[str, Any]],
) -> None:
    """Labels, vocabulary, test vectors, and last `model.json`, which lists the files and their checksums.

    Args:
        tagger: the float model.
        run_dir: whose `export/tflite` it is.
        file: name of a new `.tflite` there.
        entry: what `model.json` says of it.
        max_length: of a row, in pieces.
        vectors: texts with the float model's answers.
    """
    folder, labels = run_dir.tflite, list(tagger.labels)
    old = _read(folder).get("files", {})
    run_dir.write_text(folder / "labels.txt", _lines(labels))
    run_dir.write_text(folder / "vocab.txt", _lines(tagger.backbone.vocabulary))
    run_dir.write_jsonl(folder / "test_vectors.jsonl", vectors)
    ids = {"type": "int32", "shape": ["batch", "length"]}
    manifest: dict[str, Any] = {
        "labels": labels,
        "lowercase": tagger.backbone.lowercase,
        "max_length": max_length,
        "inputs": {name: {**ids, "meaning": meaning} for name, meaning in describe_inputs(tagger.task).items()},
        "outputs": {
            name: {**output, "shape": [len(labels) if size == "labels" else size for size in output["shape"]]}
            for name, output in tagger.task.tflite_outputs.items()
        },
        "companions": {
            name: sha256_of_file(folder / name) for name in ("labels.txt", "vocab.txt", "test_vectors.jsonl")
        },
        "files": {**old, file: entry},
    }
    run_dir.write_json(folder / MANIFEST, manifest)
