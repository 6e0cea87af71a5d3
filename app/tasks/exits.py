"""Tasks room: a network cut at its exits, to be run from one to the next with the rows that are left.

Rows that are sure leave the batch: Xin et al. 2020, "DeeBERT: Dynamic Early Exiting for Accelerating BERT Inference",
and for tagging Li et al. 2021, "Accelerating BERT Inference for Sequence Labeling via Early-Exit" (SENTEE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.encoder.forward import run_layers
from app.encoder.parts import parts_of
from app.one_keras import keras
from app.tasks.network import LOGITS, TaskModel, connect
from app.tasks.task import Head

STATES, WINDOWS = "states", "padding_mask"


@dataclass(frozen=True)
class Step:
    """The layers up to an exit, or to the end, from the exit below.

    Attributes:
        layer: number of layers when they are done.
        head: that stands there.
        network: the features of rows for the first step, for others {states: [batch, length, width], padding_mask} ->
            {states, logits: float32 [batch, length, labels]}.
    """

    layer: int
    head: Head
    network: keras.Model


def build_steps(model: TaskModel) -> list[Step]:
    """The network of a model in as many steps as it has heads, on its weights."""
    encoder = model.backbone.model
    depth = len(encoder.transformer_layers)
    heads: list[tuple[int, Any]] = [*((each.layer, each.head) for each in model.exits), (depth, model.head)]
    steps: list[Step] = []
    for layer, head in heads:
        if steps:
            inputs = {
                STATES: keras.Input((None, encoder.hidden_dim), name=STATES),
                WINDOWS: keras.Input((None,), dtype="int32", name=WINDOWS),
            }
            states = run_layers(encoder, inputs[STATES], inputs[WINDOWS], begin=steps[-1].layer, depth=layer)
        else:
            segments = model.task.segments(model.facts)
            inputs, states = connect(model.backbone, model.shapes, segments=segments, depth=layer)
        outputs = {STATES: states[-1], LOGITS: head.connect(states[-1], inputs)}
        steps.append(Step(layer, head, keras.Model(inputs, outputs, name=f"to_layer_{layer}")))
    return steps


def measure_costs(model: TaskModel) -> np.ndarray:
    """Share of the encoder's operations that are done after 0, 1, ... layers: float64 [layers + 1], from 0 to 1.

    Of each layer its products of matrices count, for one piece; so layers whose heads or columns were cut count less.
    """
    costs = [0.0]
    for layer in model.backbone.model.transformer_layers:
        parts = parts_of(layer)
        products = (*parts.attention_parts.projections, parts.inner, parts.outer)
        costs.append(sum(float(np.prod(each.kernel.shape)) for each in products))
    return np.cumsum(costs) / sum(costs)
