"""Models room: what published BERT checkpoints have in common, their configuration and their tensors.

Google's and Hugging Face's checkpoints hold the same matrices under different names; Hugging Face stores
dense kernels transposed. `tensor_slots` lists the places of a `BertBackbone` under Hugging Face's names,
`fill_slots` fills them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from keras_nlp.models import BertBackbone

from app.config import BackboneConfig, InputError
from app.models.bert import BertSettings
from app.models.sources import read_json

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
    values = read_json(path)
    for key, allowed in _REQUIRED.items():
        if values.get(key, allowed) != allowed:
            raise InputError(f"{path}: {key} must be {allowed!r}, received {values[key]!r}")
    sizes: dict[str, Any] = {}
    for name, key in _SIZES.items():
        size = values.get(key)
        if type(size) is not int or size < 1:
            raise InputError(f"{path}: {key} must be a whole number above 0, received {size!r}")
        sizes[name] = size
    if sizes["hidden_dim"] % sizes["num_heads"]:
        raise InputError(
            f"{path}: hidden_size must be a multiple of num_attention_heads, "
            f"received {sizes['hidden_dim']} and {sizes['num_heads']}"
        )
    epsilon = values.get(_EPSILON, 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise InputError(f"{path}: layer_norm_eps must be a number between 0 and 1, received {epsilon!r}")
    activation = values.get("hidden_act")
    if activation not in _ACTIVATIONS:
        raise InputError(
            f"{path}: hidden_act must be one of {', '.join(_ACTIVATIONS)}, received {activation!r}"
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
    """

    name: str
    variable: tf.Variable
    shape: tuple[int, ...]
    is_kernel: bool = False


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
        at, attention, hidden = f"encoder.layer.{number}", layer._self_attention_layer, model.intermediate_dim
        yield from dense(f"{at}.attention.self.query", attention._query_dense, width, width)
        yield from dense(f"{at}.attention.self.key", attention._key_dense, width, width)
        yield from dense(f"{at}.attention.self.value", attention._value_dense, width, width)
        yield from dense(f"{at}.attention.output.dense", attention._output_dense, width, width)
        yield from norm(f"{at}.attention.output", layer._self_attention_layer_norm)
        yield from dense(f"{at}.intermediate.dense", layer._feedforward_intermediate_dense, width, hidden)
        yield from dense(f"{at}.output.dense", layer._feedforward_output_dense, hidden, width)
        yield from norm(f"{at}.output", layer._feedforward_layer_norm)
    yield from dense("pooler.dense", model.pooled_dense, width, width)


def fill_slots(
    model: BertBackbone,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    read: Callable[[str], np.ndarray],
    find_name: Callable[[str], str],
    transposed: bool,
    where: str,
) -> None:
    """Copies a checkpoint into the encoder; names and shapes are all checked before a tensor is assigned.

    Args:
        model: the encoder.
        shapes: the checkpoint's tensors, name -> shape. Those without a slot (heads, optimizer) are ignored.
        read: name -> tensor.
        find_name: slot name -> the checkpoint's name for it.
        transposed: whether dense kernels are stored as [out, in].
        where: the file, for messages.

    Raises:
        InputError: a tensor is missing, has another shape, or holds a value that is not finite. Only the
            pooler may be missing, which tagging does not use; it then keeps its random initialisation.
    """
    found: list[tuple[TensorSlot, str]] = []
    for slot in tensor_slots(model):
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
        values = np.asarray(read(name), dtype=np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{where}: tensor {name} holds values that are not finite numbers")
        values = values.T if transposed and slot.is_kernel else values
        slot.variable.assign(values.reshape(slot.variable.shape))
    ignored = sorted(set(shapes) - {name for _, name in found})
    if ignored:
        logging.info("%s: %d tensors ignored, such as %s", where, len(ignored), ignored[0])
