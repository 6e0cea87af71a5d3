"""TFLite metadata: read back from the file as other tools do, by the schema's slots and as a zip archive."""

import io
import zipfile

import flatbuffers.table
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import encode, number_types
from toy import make_tagger

from app.config import ExportConfig, ModelConfig
from app.evaluation.runtimes import TFLiteModel
from app.export.metadata import VALUE_LABELS, VOCABULARY, AttachedFile, ModelDescription
from app.export.tflite import TFLiteWriter
from app.tasks.tagging.task import TAGGING

INPUTS, OUTPUTS = ("token_ids", "shape_ids", "padding_mask", "word_starts"), tuple(TAGGING.tflite_outputs)
ABOUT = ModelDescription(
    name="a name",
    description="tags – words",
    tensors={name: f"meaning of {name}" for name in (*INPUTS, *OUTPUTS)},
    files=(
        AttachedFile("labels.txt", "O\nB-PER\n", "the labels", VALUE_LABELS, "tags"),
        AttachedFile("vocab.txt", "[PAD]\n##é\n", "the pieces", VOCABULARY, "token_ids"),
    ),
)


class Table:
    """A flatbuffer table read by the numbers of its slots."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self._table = flatbuffers.table.Table(buffer, position)

    def _at(self, slot: int) -> int:
        offset = self._table.Offset(4 + 2 * slot)
        assert offset, f"slot {slot} is empty"
        return self._table.Pos + offset

    def has(self, slot: int) -> bool:
        return self._table.Offset(4 + 2 * slot) != 0

    def text(self, slot: int) -> str:
        return self._table.String(self._at(slot)).decode()

    def byte(self, slot: int) -> int:
        return self._table.Get(number_types.Int8Flags, self._at(slot))

    def tables(self, slot: int) -> list["Table"]:
        offset = self._at(slot) - self._table.Pos
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return [Table(self._table.Bytes, self._table.Indirect(start + 4 * number)) for number in range(count)]


@pytest.fixture(scope="module")
def files(vocabulary):
    """{format: (file with metadata, file without)}."""
    settings = {"hidden_dim": 32, "intermediate_dim": 64, "num_layers": 1}
    tagger = make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0), **settings)
    with_it, without = (
        TFLiteWriter(tagger, ExportConfig(), boundary_ids=(2, 3), representative=lambda: [], about=about)
        for about in (ABOUT, None)
    )
    without._converted = with_it._converted  # metadata is added to what was converted
    return {name: (with_it.write(name), without.write(name)) for name in ("float32", "int8", "int4")}


def metadata_of(content: bytes) -> tuple[schema.Model, bytes]:
    model = schema.Model.GetRootAs(content, 0)
    entries = [model.Metadata(number) for number in range(model.MetadataLength())]
    (entry,) = [each for each in entries if each.Name() == b"TFLITE_METADATA"]
    return model, model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()


@pytest.mark.parametrize("name", ["float32", "int8", "int4"])
def test_the_files_of_a_model_are_found_by_anyone_who_opens_it_as_a_zip_archive(files, name):
    with zipfile.ZipFile(io.BytesIO(files[name][0])) as archive:
        assert archive.testzip() is None
        found = {info.filename: archive.read(info).decode() for info in archive.infolist()}
        kinds = {info.compress_type for info in archive.infolist()}
    assert found == {file.name: file.content for file in ABOUT.files}
    assert kinds == {zipfile.ZIP_STORED}  # the extractor in C++ reads no compressed ones


@pytest.mark.parametrize("name", ["float32", "int8", "int4"])
def test_the_metadata_describes_the_tensors_in_the_order_of_the_graph(files, name):
    model, content = metadata_of(files[name][0])
    assert content[4:8] == b"M001"
    root = Table(content, encode.Get(number_types.UOffsetTFlags.packer_type, content, 0))
    assert (root.text(0), root.text(1), root.text(7)) == (ABOUT.name, ABOUT.description, "1.0.1")
    (graph,) = root.tables(3)
    signature, subgraph = model.SignatureDefs(0), model.Subgraphs(0)
    pairs = (
        (graph.tables(2), subgraph.InputsAsNumpy(), [signature.Inputs(i) for i in range(signature.InputsLength())]),
        (graph.tables(3), subgraph.OutputsAsNumpy(), [signature.Outputs(i) for i in range(signature.OutputsLength())]),
    )
    attached = {}
    for tensors, order, entries in pairs:
        names = {entry.TensorIndex(): entry.Name().decode() for entry in entries}
        assert [tensor.text(0) for tensor in tensors] == [names[index] for index in order]
        for tensor in tensors:
            assert tensor.text(1) == f"meaning of {tensor.text(0)}"
            for file in tensor.tables(6) if tensor.has(6) else []:
                attached[file.text(0)] = (tensor.text(0), file.byte(2), file.text(1))
    assert attached == {
        "labels.txt": ("tags", 3, "the labels"),  # TENSOR_VALUE_LABELS
        "vocab.txt": ("token_ids", 5, "the pieces"),  # VOCABULARY
    }


@pytest.mark.parametrize("name", ["float32", "int8", "int4"])
def test_metadata_changes_no_answer(files, tmp_path, name):
    rng = np.random.default_rng(1)
    features = {"token_ids": rng.integers(5, 20, (2, 9)), "shape_ids": rng.integers(0, 5, (2, 9))}
    features["padding_mask"] = features["word_starts"] = np.ones((2, 9))
    answers = []
    for number, content in enumerate(files[name]):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(content)
        answers.append(TFLiteModel(path, threads=1).run(features))
    for output in OUTPUTS:
        np.testing.assert_array_equal(answers[0][output], answers[1][output])


def test_the_same_model_gives_the_same_bytes(files, vocabulary):
    settings = {"hidden_dim": 32, "intermediate_dim": 64, "num_layers": 1}
    tagger = make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0), **settings)
    writer = TFLiteWriter(tagger, ExportConfig(), boundary_ids=(2, 3), representative=lambda: [], about=ABOUT)
    assert writer.write("float32") == files["float32"][0]
