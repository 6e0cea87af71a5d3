"""Tasks room: the thresholds at which texts leave a network early, and what each costs. Imports no TensorFlow.

A model with exits keeps them among its facts, `exits`, as validation measured them:

    {"layers": [2, 4], "headline": "entity_f1", "by_unit": [[threshold, score, operations, layer], ...]}

from the whole network (threshold 0) to the one where everything leaves at the first exit. `by_unit` was measured with
the units of a row, its words, leaving one by one; of models whose rows leave as a whole the rows are in `table`. Models
that an earlier version trained may have both, of which `by_unit` is in use.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from app.config import InputError, PredictConfig

FACT = "exits"


@dataclass(frozen=True)
class ExitRow:
    """What a threshold costs.

    Attributes:
        threshold: what leaves, does so at the first exit where its doubt is below it (`Head.measure_doubts`); 0 = at
            none.
        score: the headline of the validation split, 0 to 1.
        operations: share of the encoder's operations that were computed, each layer counted by its own, 0 to 1.
        layer: mean number of layers of a unit, a word or a text.
    """

    threshold: float
    score: float
    operations: float
    layer: float


def leaves_by_unit(facts: Mapping[str, Any]) -> bool:
    """Whether thresholds were measured for units that leave one by one."""
    found = facts.get(FACT)
    return isinstance(found, Mapping) and bool(found.get("by_unit"))


def read_table(facts: Mapping[str, Any], exit_layers: Sequence[int]) -> list[ExitRow]:
    """The rows, from threshold 0 on; empty if none were measured, or of other exits.

    Args:
        facts: of a model.
        exit_layers: of the model.

    Raises:
        InputError: the tables are damaged.
    """
    found = facts.get(FACT) or {}
    if fault := find_fault(found):
        raise InputError(f"the thresholds at which texts leave the model early are damaged: {fault}; train it again")
    if not exit_layers or list(found.get("layers", ())) != list(exit_layers):
        return []
    table = found["by_unit" if leaves_by_unit(facts) else "table"]
    return [ExitRow(*map(float, row)) for row in table]


def find_fault(found: Any) -> str:
    """What is wrong with what a model keeps of its exits; empty if nothing is, or it keeps nothing."""
    if found == {}:
        return ""
    if not isinstance(found, Mapping) or not isinstance(found.get("layers"), (list, tuple)):
        return f"it must be an object with layers, received {_shorten(found)}"
    for name in ("table", "by_unit"):
        table = found.get(name, () if {"table", "by_unit"} & set(found) else None)
        if not isinstance(table, (list, tuple)):
            return f"{name} must be a list of rows, received {_shorten(table)}"
        for row in table:
            if not isinstance(row, (list, tuple)) or len(row) != len(fields(ExitRow)) or not all(map(_is_number, row)):
                return f"a row of {name} must be {len(fields(ExitRow))} finite numbers, received {_shorten(row)}"
        thresholds = [row[0] for row in table]
        if thresholds and (thresholds[0] != 0 or thresholds != sorted(set(thresholds))):
            return f"the thresholds of {name} must rise from 0, received {_shorten(thresholds)}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _shorten(value: Any) -> str:
    return textwrap.shorten(repr(value), 80)


def make_fact(
    exit_layers: Sequence[int], headline: str, rows: Sequence[ExitRow], *, by_unit: bool = False
) -> dict[str, Any]:
    """What `read_table` reads; `by_unit`: units left one by one."""
    written = [list(astuple(row)) for row in rows]
    return {FACT: {"layers": list(exit_layers), "headline": headline, "by_unit" if by_unit else "table": written}}


def choose_row(rows: Sequence[ExitRow], *, max_loss: float) -> ExitRow | None:
    """The row with the fewest operations that lost no more than `max_loss` points of 100 against the whole network.

    None where every text is to go through all layers: `max_loss` is 0, nothing was measured, or no exit is good enough.
    """
    if not rows or max_loss <= 0:
        return None
    allowed = [row for row in rows if loses_at_most(rows, row, max_loss)]
    best = min(allowed, key=lambda row: (row.operations, row.threshold))
    return best if best.threshold > 0 else None


def loses_at_most(rows: Sequence[ExitRow], row: ExitRow, points: float) -> bool:
    """Whether a row of a table is no more than so many points of 100 below the whole network."""
    return row.score >= rows[0].score - points / 100 - 1e-9


def find_loss(facts: Mapping[str, Any], threshold: float) -> float:
    """Points of 100 that were lost on validation at a threshold; 0 if that is not known."""
    rows = read_table(facts, (facts.get(FACT) or {}).get("layers", ()))
    return next((100 * (rows[0].score - row.score) for row in rows if row.threshold == threshold), 0.0)


def find_threshold(facts: Mapping[str, Any], exit_layers: Sequence[int], config: PredictConfig) -> float:
    """The threshold for `predict.max_f1_loss`, see `read_table`; 0 = every text goes through all layers."""
    row = choose_row(read_table(facts, exit_layers), max_loss=config.max_f1_loss)
    return row.threshold if row else 0.0


def cells_of(rows: Sequence[ExitRow], *, headline: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table for people: names of the columns, and the rows.

    Points are those of 100 below the whole network, as in `predict.max_f1_loss`.
    """
    columns = ("leave below", headline, "points lost", "operations saved", "mean layer")
    return columns, [
        (
            f"{row.threshold:.4g}" if row.threshold else "never",
            f"{row.score:.4f}",
            f"{100 * (rows[0].score - row.score):.2f}",
            f"{100 * (1 - row.operations):.1f} %",
            f"{row.layer:.2f}",
        )
        for row in rows
    ]


def describe_table(rows: Sequence[ExitRow], *, headline: str, chosen: float = 0.0) -> str:
    """The table as lines; a star marks the threshold in use."""
    columns, cells = cells_of(rows, headline=headline)
    widths = [max(11, len(name)) for name in columns]
    lines = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(each, widths, strict=True)) for each in (columns, *cells)
    ]
    stars = ("", *(" *" if row.threshold == chosen else "" for row in rows))
    return "\n".join(f"{line}{star}" for line, star in zip(lines, stars, strict=True))
