import json
import re

import numpy as np
import pytest
from checkpoints import (
    CONFIG,
    MPNET_CONFIG,
    MPNET_PIECES,
    UNCASED,
    make_mpnet_tensors,
    make_tensors,
    write_google,
    write_huggingface,
)

from app.config import BackboneConfig, InputError
from app.encoder.backbone import build_backbone, detect_source, save_preset
from app.encoder.sources import check_source, detect_lowercase, read_vocabulary

TENSORS = make_tensors()
QUERY = "encoder.layer.1.attention.self.query.weight"


def refuse(source, *messages: str, **settings) -> None:
    with pytest.raises(InputError) as error:
        build_backbone(BackboneConfig(source=str(source), **settings))
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize("source", ["", "mini-lm", "bert_tiny_en_uncased", "/no/such/folder"])
def test_unknown_source_lists_what_is_allowed(source):
    with pytest.raises(InputError, match=re.escape(repr(source))) as error:
        detect_source(source)
    for kind in ("minilm", "mpnet", "random", "preset:NAME", "Hugging Face", "Google", "run directory"):
        assert kind in str(error.value)


def test_folder_without_a_model_is_refused(tmp_path):
    refuse(tmp_path, "which holds none of these", str(tmp_path))
    (tmp_path / "config.yaml").touch()
    refuse(tmp_path, "did not finish training", str(tmp_path))


def test_missing_tensor_is_named_with_its_shape(tmp_path):
    write_huggingface(tmp_path, {name: tensor for name, tensor in TENSORS.items() if name != QUERY})
    refuse(tmp_path, "model.safetensors", QUERY, "(24, 24)", "is missing")


def test_wrong_shape_is_named_with_both_shapes(tmp_path):
    name = "encoder.layer.0.output.dense.weight"
    write_huggingface(tmp_path, TENSORS | {name: np.zeros((40, 24), np.float32)})
    refuse(tmp_path, name, "must have shape (24, 40), received (40, 24)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tensor_that_is_not_finite_is_named(tmp_path, value):
    write_huggingface(tmp_path, TENSORS | {QUERY: np.full((24, 24), value, np.float32)})
    refuse(tmp_path, QUERY, "not finite")


def test_integer_tensor_is_named(tmp_path):
    write_huggingface(tmp_path, TENSORS | {QUERY: np.zeros((24, 24), np.int8)})
    refuse(tmp_path, "model.safetensors", QUERY, "received I8")


def test_truncated_safetensors_file_is_named(tmp_path):
    write_huggingface(tmp_path, TENSORS)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refuse(tmp_path, "model.safetensors is truncated")


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_missing_file_is_named(tmp_path, name):
    write_huggingface(tmp_path, TENSORS)
    (tmp_path / name).unlink()
    if name == "model.safetensors":
        assert detect_source(str(tmp_path)) == "huggingface"
    refuse(tmp_path, name, "missing")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "hidden_act",
            "relu",
            "hidden_act must be one of gelu, gelu_new, gelu_pytorch_tanh, received 'relu'",
        ),
        ("hidden_size", "24", "hidden_size must be a whole number above 0, received '24'"),
        ("num_hidden_layers", 0, "num_hidden_layers must be a whole number above 0, received 0"),
        ("num_attention_heads", 5, "a multiple of num_attention_heads, received 24 and 5"),
        ("model_type", "roberta", "model_type must be 'bert' or 'mpnet', received 'roberta'"),
        ("position_embedding_type", "relative_key", "must be 'absolute', received 'relative_key'"),
        ("layer_norm_eps", None, "layer_norm_eps must be a number between 0 and 1, received None"),
        ("vocab_size", 15, "has 14 word pieces, but the word embedding of this model has 15 rows"),
        (
            "max_position_embeddings",
            21,
            "position_embeddings.weight must have shape (21, 24), received (20, 24)",
        ),
    ],
)
def test_impossible_configuration_is_named(tmp_path, key, value, message):
    refuse(write_huggingface(tmp_path, TENSORS, config=CONFIG | {key: value}), message)


MPNET_TENSORS = make_mpnet_tensors()
BIAS = "encoder.relative_attention_bias.weight"


def write_mpnet(folder, tensors=MPNET_TENSORS, *, vocabulary=MPNET_PIECES, **config):
    return write_huggingface(folder, tensors, config=MPNET_CONFIG | config, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (BIAS, "(32, 3)"),
        ("encoder.layer.1.attention.attn.q.weight", "(24, 24)"),
        ("encoder.layer.0.attention.LayerNorm.bias", "(24,)"),
        ("embeddings.word_embeddings.weight", f"({len(MPNET_PIECES)}, 24)"),
        ("embeddings.position_embeddings.weight", "(402, 24)"),
    ],
)
def test_tensors_of_an_mpnet_are_named_as_its_file_has_them(tmp_path, name, shape):
    write_mpnet(tmp_path, {key: tensor for key, tensor in MPNET_TENSORS.items() if key != name})
    refuse(tmp_path, f"model.safetensors: tensor {name} of shape {shape} is missing")
    write_mpnet(tmp_path, MPNET_TENSORS | {name: np.zeros((7, 5), np.float32)})
    refuse(tmp_path, f"tensor {name} must have shape {shape}, received (7, 5)")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("relative_attention_num_buckets", 64, "config.json: relative_attention_num_buckets must be 32, received 64"),
        ("relative_attention_num_buckets", None, "relative_attention_num_buckets must be 32, received None"),
        ("is_decoder", True, "is_decoder must be False, received True"),
        ("max_position_embeddings", 2, "max_position_embeddings must be above 2 (an MPNet leaves the first 2 unused)"),
        ("num_attention_heads", 5, "a multiple of num_attention_heads, received 24 and 5"),
        ("vocab_size", 15, f"has {len(MPNET_PIECES)} word pieces, but the word embedding of this model has 15 rows"),
        ("vocab_size", "20", "vocab_size must be a whole number above 0, received '20'"),
        ("model_type", "bert", "type_vocab_size must be a whole number above 0, received None"),
    ],
)
def test_impossible_configuration_of_an_mpnet_is_named(tmp_path, key, value, message):
    refuse(write_mpnet(tmp_path, **{key: value}), message)


def test_an_mpnet_needs_its_own_special_pieces(tmp_path):
    write_mpnet(tmp_path, vocabulary=UNCASED, vocab_size=len(UNCASED))
    message = "vocab.txt must hold <pad>, <unk>, <s>, </s>, <mask>; missing: <pad>, <unk>, <s>, </s>, <mask>"
    refuse(tmp_path, message)
    with pytest.raises(InputError, match=re.escape(message)):
        check_source(BackboneConfig(source=str(tmp_path)))


def test_positions_of_an_mpnet_are_known_without_its_weights(tmp_path):
    assert check_source(BackboneConfig(source=str(write_mpnet(tmp_path)))) == 400


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_configuration_that_is_not_a_json_object_is_named(tmp_path, text):
    write_huggingface(tmp_path, TENSORS)
    (tmp_path / "config.json").write_text(text)
    refuse(tmp_path, "config.json", "JSON")


@pytest.mark.parametrize("sha256", ["abc", "g" * 64])
def test_malformed_sum_is_refused(tmp_path, sha256):
    refuse(
        write_huggingface(tmp_path, TENSORS), "backbone.sha256 must be 64 hexadecimal digits", sha256=sha256
    )


def test_google_checkpoint_faults_are_named(tmp_path):
    write_google(tmp_path, {name: tensor for name, tensor in TENSORS.items() if name != QUERY})
    refuse(tmp_path, "bert/encoder/layer_1/attention/self/query/kernel", "is missing")
    write_google(tmp_path, TENSORS | {QUERY: np.zeros((24, 23), np.float32)})
    refuse(tmp_path, "query/kernel must have shape (24, 24), received (23, 24)")
    write_google(tmp_path, TENSORS)
    data = tmp_path / "bert_model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    data.write_bytes(content[: len(content) // 2])
    refuse(tmp_path, "bert_model.ckpt is truncated or not a TensorFlow checkpoint")
    content[100] ^= 1
    data.write_bytes(content)
    refuse(tmp_path, "bert_model.ckpt is truncated or not a TensorFlow checkpoint")
    data.unlink()
    refuse(tmp_path, "data-00000-of-00001 is missing")
    (tmp_path / "bert_model.ckpt.index").unlink()
    refuse(tmp_path, "received no .index file")


def test_preset_faults_are_named(tmp_path):
    original = build_backbone(BackboneConfig(source=str(write_huggingface(tmp_path / "hf", TENSORS))))
    preset = tmp_path / "preset"
    save_preset(original, preset)
    weights = preset / "model.weights.h5"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    refuse(preset, "preset", "could not be loaded")
    weights.write_bytes(content)
    config = json.loads((preset / "config.json").read_text())
    config["config"]["vocabulary_size"] = 15
    (preset / "config.json").write_text(json.dumps(config))
    refuse(preset, "could not be loaded")
    config["registered_name"] = "keras_nlp>GPT2Backbone"
    (preset / "config.json").write_text(json.dumps(config))
    refuse(preset, "could not be loaded", "GPT2Backbone")


def test_unknown_preset_name_lists_the_known_ones():
    refuse("preset:bert_tiny", "'bert_tiny' is not a preset", "bert_tiny_en_uncased", "kaggle://")


def test_random_backbone_refuses_impossible_settings(tmp_path):
    refuse("random", "backbone.sha256 must be empty", sha256="a" * 64)
    refuse("random", "hidden_dim must be a multiple of backbone.num_heads, received 128 and 3", num_heads=3)
    refuse("random", "vocab.txt is missing", vocabulary_path=str(tmp_path / "vocab.txt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n", r"missing: \[MASK\]"),
        (b"[PAD]\n[UNK]\na\n[CLS]\n[SEP]\n[MASK]\na\n", r"line 7: 'a' was already given in line 3"),
        (b"[PAD]\n[UNK]\n\n[CLS]\n[SEP]\n[MASK]\n", "line 3: a word piece must not be empty"),
        (b"[PAD]\n[UNK]\n\xff\n[CLS]\n[SEP]\n[MASK]\n", "line 3: is not valid UTF-8"),
        (b"", r"missing: \[PAD\]"),
    ],
)
def test_faulty_vocabulary_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_vocabulary(path)


def test_vocabulary_with_windows_line_ends_bom_and_unicode_separators_is_read(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2028", "\u00a0", "\x85"]
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(pieces).encode())
    assert read_vocabulary(path, size=8) == pieces


@pytest.mark.parametrize(
    ("piece", "lowercase"),
    [("a", True), ("##é", True), ("ℝ", True), ("[UNUSED]", True), ("A", False), ("##É", False)],
)
def test_vocabulary_is_cased_as_soon_as_a_piece_has_an_upper_case_letter(piece, lowercase):
    assert detect_lowercase(["[PAD]", "the", piece]) is lowercase
