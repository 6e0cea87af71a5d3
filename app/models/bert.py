"""Models room: a KerasNLP `BertBackbone` with every setting of a published BERT.

KerasNLP fixes what checkpoints vary: the tanh approximation of GELU, a layer-norm epsilon of 1e-12 and one
dropout for everything. None of it is in `get_config()`, so each construction goes through
`make_bert_backbone`, and whoever rebuilds an encoder in another way (cloning, for instance) calls
`apply_settings` on the result.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from keras_nlp.models import BertBackbone
from keras_nlp.src.utils.keras_utils import gelu_approximate

from app.models.attention import use_matrix_products
from app.models.slim_bert import SlimBertBackbone
from app.one_keras import keras

# KerasNLP looks at every attribute of a model while saving or loading it, deprecated ones included.
warnings.filterwarnings("ignore", message=r".*updates` will be removed", module=r"keras_nlp\.src\.models")

# The published BERTs use the exact GELU; on MiniLM the approximation moves hidden states by 5e-3.
ACTIVATIONS = {"gelu": keras.activations.gelu, "gelu_tanh": gelu_approximate}


@dataclass(frozen=True)
class Backbone:
    """A pretrained encoder and what is needed to feed it.

    Attributes:
        model: {token_ids, segment_ids, padding_mask: int32 [batch, length]} ->
            {sequence_output: float [batch, length, width], pooled_output: float [batch, width]}.
        vocabulary: word pieces in id order, as many as the embedding has rows.
        lowercase: whether the vocabulary is uncased.
        source: where the weights came from, as given in `backbone.source`.
    """

    model: BertBackbone
    vocabulary: list[str]
    lowercase: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class BertSettings:
    """Everything that defines the computation of a BERT encoder, apart from its weights.

    A slim encoder, whose layers differ, has `head_dim`, `layer_heads` and `layer_intermediate_dims`; its `num_heads`
    and `intermediate_dim` are the largest of them. They are empty for an encoder as published.
    """

    vocabulary_size: int
    num_layers: int
    num_heads: int
    hidden_dim: int
    intermediate_dim: int
    max_positions: int = 512
    num_segments: int = 2
    activation: str = "gelu"
    layer_norm_epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dim: int = 0
    layer_heads: tuple[int, ...] = ()
    layer_intermediate_dims: tuple[int, ...] = ()


# Files leave these out for an encoder as published.
SLIM_SETTINGS = ("head_dim", "layer_heads", "layer_intermediate_dims")


@tf.autograph.experimental.do_not_convert  # nothing in it branches on a tensor, and translating it takes a second
def make_bert_backbone(settings: BertSettings) -> BertBackbone:
    """A randomly initialised encoder with all its settings in force."""
    sizes: dict[str, Any] = {
        "vocabulary_size": settings.vocabulary_size,
        "hidden_dim": settings.hidden_dim,
        "dropout": settings.dropout,
        "max_sequence_length": settings.max_positions,
        "num_segments": settings.num_segments,
        "name": "backbone",
    }
    if settings.layer_heads:
        model = SlimBertBackbone(
            head_dim=settings.head_dim,
            layer_heads=settings.layer_heads,
            layer_intermediate_dims=settings.layer_intermediate_dims,
            **sizes,
        )
    else:
        model = BertBackbone(
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            intermediate_dim=settings.intermediate_dim,
            **sizes,
        )
    apply_settings(model, settings)
    return model


def apply_settings(model: BertBackbone, settings: BertSettings) -> None:
    """Sets what `BertBackbone(...)` does not take: activation, layer-norm epsilon, attention dropout; and makes the
    attention compute by plain matrix products.

    A Keras functional model calls its layers again at every trace, so this holds for everything traced
    afterwards; a `predict` or `fit` that already ran keeps its old graph.
    """
    activation = ACTIVATIONS[settings.activation]
    norms = [model.embeddings_layer_norm]
    for layer in model.transformer_layers:
        # The layer's own attributes too, because its get_config() reads them.
        layer.activation = layer._feedforward_intermediate_dense.activation = activation
        layer.layer_norm_epsilon = settings.layer_norm_epsilon
        layer._self_attention_layer._dropout = settings.attention_dropout
        layer._self_attention_layer._dropout_layer.rate = settings.attention_dropout
        use_matrix_products(layer._self_attention_layer)
        norms += [layer._self_attention_layer_norm, layer._feedforward_layer_norm]
    for norm in norms:
        norm.epsilon = settings.layer_norm_epsilon


def read_settings(model: BertBackbone) -> BertSettings:
    """The settings an encoder has now, `apply_settings` included."""
    first = model.transformer_layers[0]
    slim = {name: getattr(model, name) for name in SLIM_SETTINGS} if isinstance(model, SlimBertBackbone) else {}
    return BertSettings(
        vocabulary_size=model.vocabulary_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        hidden_dim=model.hidden_dim,
        intermediate_dim=model.intermediate_dim,
        max_positions=model.max_sequence_length,
        num_segments=model.num_segments,
        activation=next(name for name, function in ACTIVATIONS.items() if function is first.activation),
        layer_norm_epsilon=first.layer_norm_epsilon,
        dropout=model.dropout,
        attention_dropout=first._self_attention_layer._dropout_layer.rate,
        **slim,
    )


def find_depths(backbone: Backbone, variables: Sequence[tf.Variable]) -> list[int]:
    """Depth of each variable of a network on a backbone.

    0 is an embedding or its layer norm, 1 to the number of layers a transformer layer, and one more whatever stands on
    top or was added: pooler, heads, word shapes, projections. New layers so learn at the full rate.
    """
    layers, top = backbone.model.transformer_layers, len(backbone.model.transformer_layers) + 1
    known = {id(variable): 0 for variable in backbone.model.variables}
    for depth, layer in (*enumerate(layers, start=1), (top, backbone.model.pooled_dense)):
        known |= {id(variable): depth for variable in layer.variables}
    return [known.get(id(variable), top) for variable in variables]
