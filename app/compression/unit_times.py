"""Compression room: how long heads, feed-forward columns and layers take in an int8 file on this machine.

Operations say it badly: the projections of a head and a column are products with int8 weights, but its scores and sums
over the text are products of floats, and what stands between them is no product at all.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from app.compression.importance import Costs, LayerUnits
from app.config import ExportConfig, RunError
from app.data.packing import FEATURES
from app.evaluation.litert import TFLiteModel
from app.export.tflite import TFLiteWriter
from app.tasks.network import TaskModel

ROUNDS = 60
WARM_UP_ROUNDS = 5


def measure_int8_ms(taggers: Sequence[TaskModel], *, length: int, boundary_ids: tuple[int, int]) -> list[float]:
    """Milliseconds of a processor that the int8 files of some networks take for one text, in turns, the least of all.

    It is the time of the thread that computes: what else runs on the machine does not count.

    Args:
        taggers: float32, as `load_model` gives them.
        length: of the text in pieces.
        boundary_ids: ids of `[CLS]` and `[SEP]`.
    """
    ones = {name: np.ones((1, length), np.int32) for name in FEATURES}
    with tempfile.TemporaryDirectory() as folder:
        models = []
        for number, tagger in enumerate(taggers):
            path = Path(folder) / f"{number}.tflite"
            config = ExportConfig(int8_table="int8")
            writer = TFLiteWriter(tagger, config, boundary_ids=boundary_ids, representative=lambda: [])
            path.write_bytes(writer.write("int8"))
            models.append(TFLiteModel(path, threads=1))
        seconds = [[_time(partial(model.forward, ones)) for model in models] for _ in range(ROUNDS)]
    return [1000 * min(times) for times in zip(*seconds[WARM_UP_ROUNDS:], strict=True)]


def _time(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def find_costs(layers: Sequence[LayerUnits], measure: Callable[[Sequence[Sequence[LayerUnits]]], list[float]]) -> Costs:
    """What a head, a column and a layer cost, by leaving out half of the heads, half of the columns and the last layer.

    Args:
        layers: all units of a network.
        measure: networks of such units -> milliseconds of each.

    Raises:
        RunError: a network with fewer heads or columns takes no less, or has none to leave out.
    """
    heads, columns = halve(layers)
    whole, with_heads, with_columns, *rest = measure([layers, heads, columns, *([layers[:-1]] if layers[1:] else [])])
    head_count = sum(len(layer.heads) - len(less.heads) for layer, less in zip(layers, heads, strict=True))
    column_count = sum(len(layer.columns) - len(less.columns) for layer, less in zip(layers, columns, strict=True))
    if not (head_count and column_count and with_heads < whole and with_columns < whole):
        raise RunError(
            f"compression.prune_structured.costs=int8 cannot be measured: with {head_count} heads fewer the int8 file "
            f"takes {with_heads:.2f} ms instead of {whole:.2f}, with {column_count:,} columns fewer "
            f"{with_columns:.2f}; costs=operations needs no measurement"
        )
    units = Costs(head=(whole - with_heads) / head_count, column=(whole - with_columns) / column_count)
    layer = max(0.0, whole - rest[0] - units.of_layer(layers[-1])) if rest else 0.0
    return Costs(head=units.head, column=units.column, layer=layer, unit="time")


def halve(layers: Sequence[LayerUnits]) -> tuple[list[LayerUnits], list[LayerUnits]]:
    """The layers with half of their heads, and with half of their columns; one at least stays of each."""
    fewer_heads = [replace(layer, heads=_half(layer.heads)) for layer in layers]
    return fewer_heads, [replace(layer, columns=_half(layer.columns)) for layer in layers]


def _half(units: tuple[int, ...]) -> tuple[int, ...]:
    return units[: max(1, len(units) // 2)]
