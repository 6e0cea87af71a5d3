"""The assembled network: it starts as the published one, its windows are apart, and it is saved bit for bit."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from toy import LABELS, PIECES, backbone_config, make_tagger, weights_of

from app.config import InputError, ModelConfig
from app.encoder.backbone import build_backbone
from app.one_keras import keras
from app.tasks.bundle import load_model, save_model
from app.tasks.network import build_model, with_layers
from app.tasks.tagging.task import TAGGING
from app.text.shapes import NUM_SHAPES

HEADS = ("softmax", "crf")


def make_features(*, rows: int = 2, length: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "token_ids": rng.integers(5, len(PIECES), (rows, length)).astype(np.int32),
        "shape_ids": rng.integers(1, NUM_SHAPES, (rows, length)).astype(np.int32),
        "padding_mask": np.ones((rows, length), np.int32),
    }


def join(*parts: dict[str, np.ndarray], padding: int = 0) -> dict[str, np.ndarray]:
    """Windows side by side in one row, numbered from 1, then padding."""
    joined = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    numbered = [part["padding_mask"] * number for number, part in enumerate(parts, start=1)]
    joined["padding_mask"] = np.concatenate(numbered, axis=1)
    return {name: np.pad(value, [(0, 0), (0, padding)]) for name, value in joined.items()}


def run(tagger, features) -> np.ndarray:
    return tagger.network(features, training=False).numpy()


def hidden_states(tagger, features) -> np.ndarray:
    """What the head of the network sees."""
    network = keras.Model(tagger.network.inputs, tagger.network.layers[-1].input)
    return network(features, training=False).numpy()


@pytest.fixture(scope="module")
def tagger(vocabulary):
    return make_tagger(vocabulary, num_layers=2)


def test_before_training_word_shapes_leave_the_output_of_the_published_network_nearly_alone(vocabulary):
    backbone = build_backbone(backbone_config(vocabulary))
    embedding = backbone.model.token_embedding.trainable_variables[0]
    embedding.assign(tf.random.stateless_normal(embedding.shape, seed=(1, 2)) * 0.1)  # of the size training gives it
    built = build_model(backbone, ModelConfig(), task=TAGGING, labels=LABELS, shape_count=NUM_SHAPES)
    features = make_features()
    features["padding_mask"][:, 9:] = 0
    inputs = {"token_ids": features["token_ids"], "padding_mask": features["padding_mask"]}
    inputs["segment_ids"] = np.zeros_like(features["token_ids"])
    published = backbone.model(inputs)["sequence_output"].numpy()[:, :9]
    difference = np.abs(hidden_states(built, features)[:, :9] - published)
    assert 0 < difference.max() and difference.mean() < 0.05 * np.abs(published).mean()


def test_without_word_shapes_the_network_is_the_backbone_exactly(vocabulary):
    backbone = build_backbone(backbone_config(vocabulary, num_layers=2))
    config = ModelConfig(word_shape=False)
    built = build_model(backbone, config, task=TAGGING, labels=LABELS, shape_count=NUM_SHAPES)
    features = make_features()
    features["padding_mask"][:, 9:] = 0
    inputs = {"token_ids": features["token_ids"], "padding_mask": features["padding_mask"]}
    inputs["segment_ids"] = np.zeros_like(features["token_ids"])
    published = backbone.model(inputs)["sequence_output"].numpy()[:, :9]
    np.testing.assert_allclose(hidden_states(built, features)[:, :9], published, atol=1e-5)
    assert not any("word_shape" in variable.name for variable in built.network.variables)


def test_word_shapes_tell_words_apart_that_an_uncased_vocabulary_does_not(tagger):
    features = make_features()
    other = {**features, "shape_ids": features["shape_ids"] % (NUM_SHAPES - 1) + 1}
    assert np.abs(run(tagger, features) - run(tagger, other)).max() > 1e-3


def test_the_first_window_of_a_row_is_tagged_as_if_it_were_alone(tagger):
    one, two = make_features(seed=1), make_features(seed=2, length=7)
    together = run(tagger, join(one, two, padding=5))
    np.testing.assert_allclose(together[:, :12], run(tagger, one), atol=1e-5)


def test_what_stands_in_one_window_does_not_change_the_others(tagger):
    kept, one, two = make_features(seed=1), make_features(seed=2), make_features(seed=3)
    logits = [run(tagger, join(other, kept, other, padding=3))[:, 12:24] for other in (one, two)]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


def test_a_window_gives_the_same_logits_wherever_in_a_row_it_stands(vocabulary):
    tagger = make_tagger(vocabulary, num_layers=2)
    one, two = make_features(seed=1), make_features(seed=2, length=7)
    position = tagger.backbone.model.position_embedding.position_embeddings
    position.assign(tf.random.stateless_normal(position.shape, seed=(1, 2)))  # so that a wrong position shows
    alone = run(tagger, two)
    np.testing.assert_allclose(run(tagger, join(one, two, padding=3))[:, 12:19], alone, atol=1e-5)
    assert np.abs(run(tagger, {**two, "token_ids": two["token_ids"][:, ::-1]})[:, ::-1] - alone).max() > 1e-3


def test_the_amount_of_padding_and_the_other_rows_of_a_batch_do_not_matter(tagger):
    features = make_features(rows=3)
    whole = run(tagger, features)
    padded = run(tagger, join(features, padding=20))[:, :12]
    one_by_one = [run(tagger, {name: value[i : i + 1] for name, value in features.items()}) for i in range(3)]
    np.testing.assert_allclose(padded, whole, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(one_by_one), whole, atol=1e-5)


def test_a_row_of_padding_alone_gives_numbers(tagger):
    empty = {name: np.zeros((1, 8), np.int32) for name in ("token_ids", "shape_ids", "padding_mask")}
    assert np.isfinite(run(tagger, empty)).all()


def test_depths_rise_from_the_embeddings_to_the_head_and_new_layers_count_as_head(vocabulary):
    tagger = make_tagger(vocabulary, model=ModelConfig(head="crf"), num_layers=2)
    by_layer: dict[str, set[int]] = {}
    for variable, depth in zip(tagger.network.trainable_variables, tagger.layer_depths(), strict=True):
        by_layer.setdefault(variable.name.split("/")[0], set()).add(depth)
    assert by_layer == {
        "token_embedding": {0}, "position_embedding": {0}, "segment_embedding": {0}, "embeddings_layer_norm": {0},
        "transformer_layer_0": {1}, "transformer_layer_1": {2}, "word_shape": {3}, "tagging_head": {3},
    }  # fmt: skip


@pytest.fixture(scope="module", params=HEADS)
def saved(request, vocabulary, tmp_path_factory):
    tagger = make_tagger(vocabulary, model=ModelConfig(head=request.param, word_shape=request.param == "crf"))
    tagger = dataclasses.replace(tagger, facts={"non_name_types": ("LOC",)})
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(tagger, folder, shape_count=NUM_SHAPES, card="# card\n")
    return tagger, folder


def test_a_saved_tagger_comes_back_bit_for_bit(saved):
    tagger, folder = saved
    loaded = load_model(folder)
    assert loaded.labels == tagger.labels and loaded.config == tagger.config
    assert loaded.facts == {"non_name_types": ("LOC",)} and loaded.task is TAGGING
    assert with_layers(loaded, lambda layer: layer).facts == loaded.facts
    assert loaded.backbone.vocabulary == tagger.backbone.vocabulary
    assert [v.name for v in loaded.network.variables] == [v.name for v in tagger.network.variables]
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(loaded), weights_of(tagger), strict=True))
    features = make_features()
    assert np.array_equal(run(loaded, features), run(tagger, features))
    for one, other in zip(*(vars(t.head.decoding_scores()).values() for t in (loaded, tagger)), strict=True):
        assert np.array_equal(one, other)


FILES = ("backbone.json", "backbone.weights.h5", "vocab.txt", "tagger.json", "head.safetensors")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["truncated", "altered", "missing"])
def test_a_damaged_bundle_is_refused_with_the_name_of_the_file(saved, tmp_path, name, fault):
    folder = shutil.copytree(saved[1], tmp_path / "model")
    path = Path(folder) / name
    data = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] if fault == "truncated" else data[:middle] + b"\x01\x02" + data[middle + 2 :])
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_the_sums_of_a_bundle_are_those_sha256sum_would_check(saved):
    import hashlib

    lines = (saved[1] / "SHA256SUMS").read_text().splitlines()
    found = dict(reversed(line.split("  ")) for line in lines)
    assert set(found) == set(FILES)
    assert all(hashlib.sha256((saved[1] / name).read_bytes()).hexdigest() == found[name] for name in FILES)


def test_a_run_that_has_no_model_yet_says_so(tmp_path):
    with pytest.raises(InputError, match=r"model does not exist.*has not finished"):
        load_model(tmp_path / "model")


def test_saving_again_replaces_the_bundle_as_a_whole(saved, tmp_path, vocabulary):
    folder = shutil.copytree(saved[1], tmp_path / "model")
    other = make_tagger(vocabulary, seed=5, model=saved[0].config)
    save_model(other, folder, shape_count=NUM_SHAPES, card="# other\n")
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(load_model(folder)), weights_of(other), strict=True))
    assert (folder / "README.md").read_text() == "# other\n"
    assert json.loads((folder / "tagger.json").read_text())["labels"] == list(LABELS)
