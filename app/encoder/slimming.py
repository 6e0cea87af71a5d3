"""Encoder room: a backbone with fewer layers, heads, feed-forward columns or word pieces, its other weights kept."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.encoder.bert import Backbone, make_bert_backbone, read_settings
from app.encoder.parts import parts_of
from app.encoder.relative import relative_bias_of


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
    relative_heads, columns = _cut_columns(read_settings(old).relative_heads, kept)
    settings = dataclasses.replace(
        read_settings(old),
        num_layers=len(kept),
        num_heads=max(len(layer.heads) for layer in kept),
        intermediate_dim=max(len(layer.columns) for layer in kept),
        head_dim=parts_of(old.transformer_layers[0]).attention_parts.size,
        layer_heads=tuple(len(layer.heads) for layer in kept),
        layer_intermediate_dims=tuple(len(layer.columns) for layer in kept),
        relative_heads=relative_heads,
    )
    new = make_bert_backbone(settings)
    _copy_outside(old, new)
    _copy_relative(old, new, columns)
    new.token_embedding.set_weights(old.token_embedding.get_weights())
    for target, layer in zip(new.transformer_layers, kept, strict=True):
        _copy_layer(old.transformer_layers[layer.number], target, layer)
    return dataclasses.replace(backbone, model=new)


def cut_vocabulary(backbone: Backbone, ids: Sequence[int]) -> Backbone:
    """The backbone with these word pieces only, in their order; embedding table and vocabulary shrink together."""
    old = backbone.model
    new = make_bert_backbone(dataclasses.replace(read_settings(old), vocabulary_size=len(ids)))
    _copy_outside(old, new)
    _copy_relative(old, new)
    new.token_embedding.set_weights([table[np.asarray(ids)] for table in old.token_embedding.get_weights()])
    for source, target in zip(old.transformer_layers, new.transformer_layers, strict=True):
        target.set_weights(source.get_weights())
    return dataclasses.replace(backbone, model=new, vocabulary=[backbone.vocabulary[i] for i in ids])


def _copy_outside(old: Any, new: Any) -> None:
    for name in ("position_embedding", "segment_embedding", "embeddings_layer_norm", "pooled_dense"):
        getattr(new, name).set_weights(getattr(old, name).get_weights())


def _cut_columns(
    relative_heads: Sequence[Sequence[int]], kept: Sequence[KeptLayer]
) -> tuple[tuple[tuple[int, ...], ...], list[int]]:
    """What is left of `BertSettings.relative_heads`, and the columns of the table that some head still reads."""
    if not relative_heads:
        return (), []
    read = [[relative_heads[layer.number][head] for head in layer.heads] for layer in kept]
    columns = sorted({column for heads in read for column in heads})
    return tuple(tuple(columns.index(column) for column in heads) for heads in read), columns


def _copy_relative(old: Any, new: Any, columns: Sequence[int] | None = None) -> None:
    """The table of an MPNet, on request these columns of it only."""
    source, target = relative_bias_of(old), relative_bias_of(new)
    if source is not None and target is not None:
        table = source.table.numpy()
        target.set_weights([table if columns is None else table[:, np.asarray(columns)]])


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
