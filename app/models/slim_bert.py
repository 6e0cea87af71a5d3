"""Models room: a KerasNLP `BertBackbone` whose layers differ in attention heads and feed-forward width.

`BertBackbone` has one number of heads and one feed-forward width for all layers, and its heads share out the width of
the network. Where heads and columns have been removed none of this holds.
"""

from collections.abc import Sequence
from typing import Any

from keras_nlp.layers import PositionEmbedding, ReversibleEmbedding, TransformerEncoder
from keras_nlp.models import BertBackbone
from keras_nlp.src.utils.keras_utils import gelu_approximate

from app.one_keras import keras


@keras.saving.register_keras_serializable(package="app")
class SlimEncoder(TransformerEncoder):
    """A `TransformerEncoder` whose heads have a width of their own."""

    def __init__(self, *, head_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head_dim = head_dim

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
        attention._build_from_signature(query=inputs_shape, value=inputs_shape)
        self._self_attention_layer = attention  # in place of one whose heads share out the width

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "head_dim": self.head_dim}


@keras.saving.register_keras_serializable(package="app")
class SlimBertBackbone(BertBackbone):
    """An encoder with `BertBackbone`'s inputs, outputs, layers and names; each layer has its own size.

    Args:
        vocabulary_size: word pieces.
        hidden_dim: width of the network.
        head_dim: width of an attention head.
        layer_heads: attention heads of each layer.
        layer_intermediate_dims: feed-forward width of each layer.
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
        self.transformer_layers = [
            SlimEncoder(
                head_dim=head_dim,
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
        for layer in self.transformer_layers:
            x = layer(x, padding_mask=inputs["padding_mask"])
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

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("num_layers", "num_heads", "intermediate_dim"):
            del config[name]
        own = ("head_dim", "layer_heads", "layer_intermediate_dims")
        return {**config, **{name: getattr(self, name) for name in own}}
