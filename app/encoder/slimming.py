"""Encoder room: a backbone with fewer layers, heads, feed-forward columns or word pieces, its other weights kept."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.encoder.bert import Backbone, make_bert_backbone, read_settings
from app.encoder.parts import parts_of


@dataclass(frozen=True)
class KeptLayer:
    """What stays of a layer.

    Attributes:
        number: of the layer, from 0.
        heads: numbers of its attention heads, ascending, at least one.
        columns: numbers of its feed-forward columns, ascending, at least one.
    """

    number: int
    heads: tuple[int, ...]
    columns: tuple[int, ...]


def cut_layers(backbone: Backbone, kept: Sequence[KeptLayer]) -> Backbone:
    """The backbone with these layers, heads and columns only: the same numbers as if the others gave 0."""
    old = backbone.model
    settings = dataclasses.replace(
        read_settings(old),
        num_layers=len(kept),
        num_heads=max(len(layer.heads) for layer in kept),
        intermediate_dim=max(len(layer.columns) for layer in kept),
        head_dim=parts_of(old.transformer_layers[0]).attention_parts.size,
        layer_heads=tuple(len(layer.heads) for layer in kept),
        layer_intermediate_dims=tuple(len(layer.columns) for layer in kept),
    )
    new = make_bert_backbone(settings)
    _copy_outside(old, new)
    new.token_embedding.set_weights(old.token_embedding.get_weights())
    for target, layer in zip(new.transformer_layers, kept, strict=True):
        _copy_layer(old.transformer_layers[layer.number], target, layer)
    return dataclasses.replace(backbone, model=new)


def cut_vocabulary(backbone: Backbone, ids: Sequence[int]) -> Backbone:
    """The backbone with these word pieces only, in their order; embedding table and vocabulary shrink together."""
    old = backbone.model
    new = make_bert_backbone(dataclasses.replace(read_settings(old), vocabulary_size=len(ids)))
    _copy_outside(old, new)
    new.token_embedding.set_weights([table[np.asarray(ids)] for table in old.token_embedding.get_weights()])
    for source, target in zip(old.transformer_layers, new.transformer_layers, strict=True):
        target.set_weights(source.get_weights())
    return dataclasses.replace(backbone, model=new, vocabulary=[backbone.vocabulary[i] for i in ids])


def _copy_outside(old: Any, new: Any) -> None:
    for name in ("position_embedding", "segment_embedding", "embeddings_layer_norm", "pooled_dense"):
        getattr(new, name).set_weights(getattr(old, name).get_weights())


def _copy_layer(source: Any, target: Any, kept: KeptLayer) -> None:
    heads, columns = np.asarray(kept.heads), np.asarray(kept.columns)
    from_parts, to_parts = parts_of(source), parts_of(target)
    from_attention, to_attention = from_parts.attention_parts, to_parts.attention_parts
    for old, new in zip(from_attention.projections[:3], to_attention.projections[:3], strict=True):
        kernel, bias = old.get_weights()  # [width, heads, size], [heads, size]
        new.set_weights([kernel[:, heads], bias[heads]])
    kernel, bias = from_attention.output.get_weights()  # [heads, size, width], [width]
    to_attention.output.set_weights([kernel[heads], bias])
    kernel, bias = from_parts.inner.get_weights()  # [width, columns], [columns]
    to_parts.inner.set_weights([kernel[:, columns], bias[columns]])
    kernel, bias = from_parts.outer.get_weights()  # [columns, width], [width]
    to_parts.outer.set_weights([kernel[columns], bias])
    for old, new in zip(from_parts.norms, to_parts.norms, strict=True):
        new.set_weights(old.get_weights())
