"""Export room: TFLite metadata, by which Android's tools and others find out what a file is, its labels and vocabulary.

A flatbuffer `ModelMetadata` in the buffer that the model calls `TFLITE_METADATA`, and the files it names as an
uncompressed zip archive behind the model (https://ai.google.dev/edge/litert/models/metadata; the schema is
`metadata_schema.fbs` of TFLite Support, version 1.0.1 of it, which has all that is written here).
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flatbuffers
from ai_edge_litert.tools import flatbuffer_utils

from app.export.flatbuffer import read_model, write_model

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
