"""Export room: what a `.tflite` file holds and says of itself, and what lies beside it."""

import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

from app.config import InputError
from app.config.paths import shown
from app.evaluation.manifest import MANIFEST, identify_model, read_manifest
from app.run.directory import RunDirectory, sha256_of_file
from app.tasks.network import TaskModel
from app.tasks.task import Task

_OPERATORS = {number: str(name) for name, number in vars(flatbuffer_utils.schema_fb.BuiltinOperator).items()}
_TYPES = flatbuffer_utils.schema_fb.TensorType


def read_model(content: bytes) -> Any:
    """The file as the object tree of TFLite's schema."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def write_model(model: Any) -> bytes:
    """The object tree as a file."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def list_operators(content: bytes) -> list[str]:
    """Names of the operators of all subgraphs, each once, sorted; custom ones (TF and TF Text too) as `custom:NAME`."""
    return sorted(set(_operator_names(read_model(content))))


def _operator_names(model: Any) -> list[str]:
    """The name of each operator code."""
    found = []
    for code in model.operatorCodes:
        custom = code.customCode.decode() if code.customCode else ""
        found.append(f"custom:{custom}" if custom else _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)])
    return found


def measure_zero_fraction(content: bytes) -> float:
    """Part of the weights that are 0 in the kernels of fully connected layers, as the file holds them.

    What was pruned is 0 at any precision; in int8 and int4, so is what is too small for its scale.
    """
    model = read_model(content)
    names, kernels = _operator_names(model), {}
    for graph in model.subgraphs:
        calls = [(names[operator.opcodeIndex], operator) for operator in graph.operators]
        sources = {call.outputs[0]: call.inputs[0] for name, call in calls if name == "DEQUANTIZE"}
        for name, call in calls:
            if name == "FULLY_CONNECTED":
                kernel = graph.tensors[sources.get(call.inputs[1], call.inputs[1])]
                kernels[kernel.buffer] = kernel.type
    zeros = total = 0
    for buffer, kind in kernels.items():
        data = model.buffers[buffer].data
        if data is not None:  # else it is computed, not stored
            weights = _numbers(np.asarray(data, np.uint8), kind)
            zeros, total = zeros + int(np.count_nonzero(weights == 0)), total + weights.size
    return zeros / max(total, 1)


def _numbers(data: np.ndarray, kind: int) -> np.ndarray:
    """Stored weights of a symmetric scale, flat."""
    if kind == _TYPES.INT4:  # two in a byte
        return np.concatenate([data & 15, data >> 4])
    return data.view({_TYPES.FLOAT32: np.float32, _TYPES.FLOAT16: np.float16, _TYPES.INT8: np.int8}[kind])


def give_unique_names(content: bytes) -> bytes:
    """Numbers the tensors whose names occur more than once, as those of loop bodies do; the quantizer needs it."""
    model = read_model(content)
    seen: Counter[bytes] = Counter()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            name = bytes(tensor.name)
            seen[name] += 1
            if seen[name] > 1:
                tensor.name = name + b";%d" % seen[name]
    return write_model(model)


# TFLite metadata, by which Android's tools and others find out what a file is, its labels and vocabulary.
#
# A flatbuffer `ModelMetadata` in the buffer that the model calls `TFLITE_METADATA`, and the files it names as an
# uncompressed zip archive behind the model (https://ai.google.dev/edge/litert/models/metadata; the schema is
# `metadata_schema.fbs` of TFLite Support, version 1.0.1 of it, which has all that is written here).


BUFFER_NAME = b"TFLITE_METADATA"
FILE_IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.1"  # the first that knows vocabularies
VALUE_LABELS, VOCABULARY = 3, 5  # AssociatedFileType
_DATE = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes


@dataclass(frozen=True)
class AttachedFile:
    """A file that travels inside the model.

    Attributes:
        name: in the archive; content: its text.
        description: one line.
        kind: an AssociatedFileType.
        tensor: name of the input or output it belongs to.
    """

    name: str
    content: str
    description: str
    kind: int
    tensor: str


@dataclass(frozen=True)
class ModelDescription:
    """What the metadata says.

    Attributes:
        name: of the model.
        description: a sentence or two.
        tensors: meaning of each input and output, by its name in the signature.
        files: what is attached.
    """

    name: str
    description: str
    tensors: Mapping[str, str]
    files: Sequence[AttachedFile]


def add_metadata(content: bytes, about: ModelDescription) -> bytes:
    """A model with the metadata inside, the files not yet attached.

    Args:
        content: a `.tflite` without metadata, of one signature.
        about: what it says.
    """
    model = read_model(content)
    signature = model.signatureDefs[0]
    graph = model.subgraphs[signature.subgraphIndex]
    names = {entry.tensorIndex: bytes(entry.name).decode() for entry in (*signature.inputs, *signature.outputs)}
    buffer, entry = flatbuffer_utils.schema_fb.BufferT(), flatbuffer_utils.schema_fb.MetadataT()
    buffer.data = list(
        build_metadata(about, inputs=[names[at] for at in graph.inputs], outputs=[names[at] for at in graph.outputs])
    )
    entry.name, entry.buffer = BUFFER_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return write_model(model)


def attach_files(content: bytes, files: Sequence[AttachedFile]) -> bytes:
    """The model with text files behind it; readers of the model alone see no difference."""
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name, _DATE), file.content.encode("utf-8"))
    return whole.getvalue()


def build_metadata(about: ModelDescription, *, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The flatbuffer; tensors in the order of the graph, which readers count on."""
    builder = flatbuffers.Builder(4096)

    def tensor(name: str) -> int:
        files = [_file(builder, each) for each in about.files if each.tensor == name]
        content = _table(builder, 3, {0: ("uint8", 1), 1: ("offset", _table(builder, 0, {}))})  # FeatureProperties
        fields = {0: builder.CreateString(name), 1: builder.CreateString(about.tensors[name]), 3: content}
        if files:
            fields[6] = _vector(builder, files)
        return _table(builder, 7, {slot: ("offset", value) for slot, value in fields.items()})

    input_tensors = _vector(builder, [tensor(name) for name in inputs])
    output_tensors = _vector(builder, [tensor(name) for name in outputs])
    graph = _table(builder, 7, {2: ("offset", input_tensors), 3: ("offset", output_tensors)})
    fields = {
        0: builder.CreateString(about.name),
        1: builder.CreateString(about.description),
        3: _vector(builder, [graph]),
        7: builder.CreateString(PARSER_VERSION),
    }
    model = _table(builder, 8, {slot: ("offset", value) for slot, value in fields.items()})
    builder.Finish(model, FILE_IDENTIFIER)
    return bytes(builder.Output())


def _file(builder: flatbuffers.Builder, file: AttachedFile) -> int:
    name, description = builder.CreateString(file.name), builder.CreateString(file.description)
    return _table(builder, 4, {0: ("offset", name), 1: ("offset", description), 2: ("int8", file.kind)})


def _table(builder: flatbuffers.Builder, slots: int, fields: Mapping[int, tuple[str, int]]) -> int:
    """A table of so many slots; what its fields refer to is already written."""
    builder.StartObject(slots)
    for slot, (kind, value) in fields.items():
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        elif kind == "uint8":
            builder.PrependUint8Slot(slot, value, 0)
        else:
            builder.PrependInt8Slot(slot, value, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


# What lies beside exported TFLite files, and what they say of themselves.


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
            # Of files with exits:
            "layer": "number of encoder layers after which each word (or text) left",
            "operations": "share of the encoder's operations that was computed",
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
        "files": {**old, file: {**entry, **identify_model(run_dir.model)}},
    }
    run_dir.write_json(folder / MANIFEST, manifest)
