"""Encoder room: a KerasNLP `BertBackbone` with every setting of a published BERT.

KerasNLP fixes what checkpoints vary: the tanh approximation of GELU, a layer-norm epsilon of 1e-12 and one
dropout for everything. None of it is in `get_config()`, so each construction goes through
`make_bert_backbone`, and whoever rebuilds an encoder in another way (cloning, for instance) calls
`apply_settings` on the result.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from keras_nlp.layers import PositionEmbedding, ReversibleEmbedding
from keras_nlp.models import BertBackbone
from keras_nlp.src.utils.keras_utils import gelu_approximate

from app.encoder.forward import Reading, WindowMask
from app.encoder.layers import TransformerEncoder, use_own_forward
from app.encoder.parts import build_attention, parts_of, set_attention_dropout
from app.encoder.relative import RelativeBias
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

    @property
    def boundary_ids(self) -> tuple[int, int]:
        """Ids of `[CLS]` and `[SEP]`."""
        return self.vocabulary.index("[CLS]"), self.vocabulary.index("[SEP]")


@dataclass(frozen=True, kw_only=True)
class BertSettings:
    """Everything that defines the computation of a BERT encoder, apart from its weights.

    A slim encoder, whose layers differ, has `head_dim`, `layer_heads` and `layer_intermediate_dims`; its `num_heads`
    and `intermediate_dim` are the largest of them. They are empty for a BERT as published.

    An MPNet has them even if its layers are alike, and `relative_heads` beside them: for each layer, the columns of its
    heads in the table of relative positions (`app/encoder/relative.py`), which all layers share.
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
    relative_heads: tuple[tuple[int, ...], ...] = ()


# Files leave these out where they are empty.
SLIM_SETTINGS = ("head_dim", "layer_heads", "layer_intermediate_dims", "relative_heads")


def as_mpnet(settings: BertSettings) -> BertSettings:
    """The settings of an MPNet as published, whose sizes are those of a BERT."""
    count, heads = settings.num_layers, settings.num_heads
    return dataclasses.replace(
        settings,
        head_dim=settings.hidden_dim // heads,
        layer_heads=(heads,) * count,
        layer_intermediate_dims=(settings.intermediate_dim,) * count,
        relative_heads=(tuple(range(heads)),) * count,
    )


def keep_layers(settings: BertSettings, numbers: Sequence[int]) -> BertSettings:
    """The settings of an encoder with these layers only, numbered from 0."""
    by_layer = ("layer_heads", "layer_intermediate_dims", "relative_heads")
    kept: dict[str, Any] = {
        name: tuple(getattr(settings, name)[number] for number in numbers)
        for name in by_layer
        if getattr(settings, name)
    }
    return dataclasses.replace(settings, num_layers=len(numbers), **kept)


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
            relative_heads=settings.relative_heads,
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
    layers compute by `forward.py`.

    A Keras functional model calls its layers again at every trace, so this holds for everything traced
    afterwards; a `predict` or `fit` that already ran keeps its old graph.
    """
    activation = ACTIVATIONS[settings.activation]
    norms = [model.embeddings_layer_norm]
    for layer in model.transformer_layers:
        # The layer's own attributes too, because its get_config() reads them.
        layer.activation = parts_of(layer).inner.activation = activation
        layer.layer_norm_epsilon = settings.layer_norm_epsilon
        set_attention_dropout(layer, settings.attention_dropout)
        use_own_forward(layer)
        norms += parts_of(layer).norms
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
        attention_dropout=parts_of(first).attention_parts.dropout.rate,
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


# A KerasNLP `BertBackbone` whose layers differ in attention heads and feed-forward width.
#
# `BertBackbone` has one number of heads and one feed-forward width for all layers, and its heads share out the width
# of the network. Where heads and columns have been removed none of this holds. An MPNet is built in the same way.


@keras.saving.register_keras_serializable(package="app")
class SlimEncoder(TransformerEncoder):
    """A transformer layer whose heads have a width of their own and, in an MPNet, columns in its table.

    Args:
        head_dim: width of an attention head.
        bias_heads: see `AttentionParts`.
        **kwargs: of `TransformerEncoder`.
    """

    def __init__(self, *, head_dim: int, bias_heads: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head_dim = head_dim
        self.bias_heads = tuple(bias_heads)

    def build(self, inputs_shape: Any) -> None:
        super().build(inputs_shape)
        attention = keras.layers.MultiHeadAttention(
            num_heads=self.num_heads,
            key_dim=self.head_dim,
            dropout=self.dropout,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name="self_attention_layer",
        )
        build_attention(self, attention, inputs_shape)  # in place of one whose heads share out the width
        attention.bias_heads = self.bias_heads

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "head_dim": self.head_dim, "bias_heads": self.bias_heads}


@keras.saving.register_keras_serializable(package="app")
class SlimBertBackbone(BertBackbone):
    """An encoder with `BertBackbone`'s inputs, outputs, layers and names; each layer has its own size.

    Args:
        vocabulary_size: word pieces.
        hidden_dim: width of the network.
        head_dim: width of an attention head.
        layer_heads: attention heads of each layer.
        layer_intermediate_dims: feed-forward width of each layer.
        relative_heads: of an MPNet, see `BertSettings`.
        dropout: of the hidden layers and, until `apply_settings`, of the attention weights.
        max_sequence_length: positions.
        num_segments: segments.
        **kwargs: of `keras.Model`.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        hidden_dim: int,
        head_dim: int,
        layer_heads: Sequence[int],
        layer_intermediate_dims: Sequence[int],
        relative_heads: Sequence[Sequence[int]] = (),
        dropout: float = 0.1,
        max_sequence_length: int = 512,
        num_segments: int = 2,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        def normal() -> keras.initializers.Initializer:
            return keras.initializers.TruncatedNormal(stddev=0.02)

        self.token_embedding = ReversibleEmbedding(
            vocabulary_size, hidden_dim, embeddings_initializer=normal(), name="token_embedding"
        )
        self.position_embedding = PositionEmbedding(
            max_sequence_length, initializer=normal(), name="position_embedding"
        )
        self.segment_embedding = keras.layers.Embedding(
            num_segments, hidden_dim, embeddings_initializer=normal(), name="segment_embedding"
        )
        self.embeddings_add = keras.layers.Add(name="embeddings_add")
        self.embeddings_layer_norm = keras.layers.LayerNormalization(epsilon=1e-12, name="embeddings_layer_norm")
        self.embeddings_dropout = keras.layers.Dropout(dropout, name="embeddings_dropout")
        numbers = [number for heads in relative_heads for number in heads]
        self.relative_bias = None
        if numbers:
            self.relative_bias = RelativeBias(
                heads=max(numbers) + 1, positions=max_sequence_length, name="relative_bias"
            )
        self.transformer_layers = [
            SlimEncoder(
                head_dim=head_dim,
                bias_heads=relative_heads[number] if relative_heads else (),
                num_heads=heads,
                intermediate_dim=columns,
                activation=gelu_approximate,
                dropout=dropout,
                layer_norm_epsilon=1e-12,
                kernel_initializer=normal(),
                name=f"transformer_layer_{number}",
            )
            for number, (heads, columns) in enumerate(zip(layer_heads, layer_intermediate_dims, strict=True))
        ]
        self.pooled_dense = keras.layers.Dense(
            hidden_dim, kernel_initializer=normal(), activation="tanh", name="pooled_dense"
        )

        # === Functional model ===
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "segment_ids", "padding_mask")
        }
        embedded = self.token_embedding(inputs["token_ids"])
        parts = [embedded, self.position_embedding(embedded), self.segment_embedding(inputs["segment_ids"])]
        x = self.embeddings_dropout(self.embeddings_layer_norm(self.embeddings_add(parts)))
        mask = {"padding_mask": inputs["padding_mask"]}
        if self.relative_bias is not None:
            may_read = WindowMask(name="window_mask")(inputs["padding_mask"])
            mask = {"attention_mask": Reading(may_read, self.relative_bias(inputs["padding_mask"]))}
        for layer in self.transformer_layers:
            if self.relative_bias is not None:
                layer(x)  # builds the projections of its attention, which alone can take a `Reading` afterwards
                use_own_forward(layer)
            x = layer(x, **mask)
        outputs = {"sequence_output": x, "pooled_output": self.pooled_dense(x[:, 0, :])}
        super(BertBackbone, self).__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = len(self.transformer_layers)
        self.num_heads = max(layer_heads)
        self.hidden_dim = hidden_dim
        self.intermediate_dim = max(layer_intermediate_dims)
        self.dropout = dropout
        self.max_sequence_length = max_sequence_length
        self.num_segments = num_segments
        self.cls_token_index = 0
        self.head_dim = head_dim
        self.layer_heads = tuple(layer_heads)
        self.layer_intermediate_dims = tuple(layer_intermediate_dims)
        self.relative_heads = tuple(tuple(heads) for heads in relative_heads)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("num_layers", "num_heads", "intermediate_dim"):
            del config[name]
        return {**config, **{name: getattr(self, name) for name in SLIM_SETTINGS}}
