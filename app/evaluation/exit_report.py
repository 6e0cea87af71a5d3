"""Evaluation room: what reports say of exits: the threshold in use, what it saved, and what others would cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from app.config import PredictConfig
from app.evaluation.exits import TFLiteEarlyForward
from app.evaluation.predictor import EarlyForward, Predictor
from app.tasks.exit_table import ExitRow, cells_of, choose_row, describe_table, leaves_by_unit, read_table
from app.tasks.network import TaskModel
from app.tasks.report import Lines, Report, Table


def add_exits(report: Report, predictor: Predictor) -> Report:
    """A report that says how early the network was left; as it is for a network without exits.

    Args:
        report: of a split.
        predictor: that has just answered it.
    """
    if not predictor.model.config.exit_layers:
        return report
    text = f"{report.text.rstrip()}\n\n{describe_use(predictor.model, predictor.early, predictor.config)}\n"
    if predictor.early:
        depth = predictor.early.measure()
        layers = len(predictor.model.backbone.model.transformer_layers)
        tiles = ("operations saved by exits", _saved(depth)), (f"mean layer of {layers}", f"{depth['exit_layer']:.2f}")
        report = dataclasses.replace(report, tiles=(*report.tiles, *tiles))
    if rows := _read_rows(predictor):
        name = predictor.task.headline_name
        table = describe_table(rows, headline=name, chosen=_threshold_of(predictor))
        text += f"\nWhat thresholds cost on validation; * is in use\n{table}\n"
        report = dataclasses.replace(
            report,
            charts=(*report.charts, *draw_exits(predictor)),
            tables=(*report.tables, _make_table(predictor, rows)),
        )
    return dataclasses.replace(report, text=text)


def describe_use(model: TaskModel, early: EarlyForward | None, config: PredictConfig) -> str:
    """One line on the threshold in use and what it saved, or on why everything went through all layers.

    Args:
        model: with exits.
        early: that answered; None if it was a network without exits.
        config: by which a threshold was chosen.
    """
    from_file = isinstance(early, TFLiteEarlyForward)
    if not early or not early.threshold:
        rows = read_table(model.facts, model.config.exit_layers)
        other = "exported with a lower predict.max_f1_loss" if early else "this export has none"
        why = _why_whole(rows, config) or other
        return f"{_name_exits(model)}: not used, {why}"
    depth, layers = early.measure(), len(model.backbone.model.transformer_layers)
    chosen_by = "the threshold of the file" if from_file else f"predict.max_f1_loss={config.max_f1_loss:g}"
    leaving = f"{_what_leaves(model)} left below a doubt of {early.threshold:.4g} ({chosen_by})"
    return (
        f"{_name_exits(model)}: {leaving}; {_saved(depth)} of the encoder's operations saved, mean layer "
        f"{depth['exit_layer']:.2f} of {layers}"
    )


def describe_choice(model: TaskModel, rows: Sequence[ExitRow], config: PredictConfig) -> str:
    """One line on the threshold that will be in use, and what it did on validation."""
    row = choose_row(rows, max_loss=config.max_f1_loss)
    if not row:
        return f"{_name_exits(model)}: not used, {_why_whole(rows, config)}"
    lost = 100 * (rows[0].score - row.score)
    return (
        f"{_name_exits(model)}: {_what_leaves(model)} leave below a doubt of {row.threshold:.4g} "
        f"(predict.max_f1_loss={config.max_f1_loss:g}); on valid that saved {100 * (1 - row.operations):.1f} % of the "
        f"encoder's operations and {'lost' if lost >= 0 else 'gained'} {abs(lost):.2f} points"
    )


def draw_exits(predictor: Predictor) -> list[Lines]:
    """What thresholds cost on validation, and which is in use; nothing without exits, or if that was not measured."""
    rows = _read_rows(predictor)
    if not rows:
        return []
    name = predictor.task.headline_name
    points = {row.threshold: (100 * (1 - row.operations), row.score) for row in rows}
    used = _threshold_of(predictor)
    return [
        Lines(
            "Early exits",
            f"{name} of the validation split by the operations of the encoder that are saved; each mark is a threshold",
            "operations saved, %",
            name,
            {name: tuple(points.values()), **({"in use": (points[used],)} if used in points else {})},
        )
    ]


def _make_table(predictor: Predictor, rows: Sequence[ExitRow]) -> Table:
    columns, cells = cells_of(rows, headline=predictor.task.headline_name)
    chosen = _threshold_of(predictor)
    marked = tuple(
        (f"{first} (in use)" if row.threshold == chosen else first, *others)
        for row, (first, *others) in zip(rows, cells, strict=True)
    )
    caption = (
        "What each cost on the validation split, in points of 100 below the whole network. Of those that lose no more "
        "than predict.max_f1_loss, the one that saves most is in use."
    )
    if leaves_by_unit(predictor.model.facts):
        caption += " Context that another row answers leaves at the first exit, whatever the threshold."
    return Table("Thresholds of early exits", caption, columns, marked)


def _read_rows(predictor: Predictor) -> list[ExitRow]:
    return read_table(predictor.model.facts, predictor.model.config.exit_layers)


def _threshold_of(predictor: Predictor) -> float:
    return predictor.early.threshold if predictor.early else 0.0


def _name_exits(model: TaskModel) -> str:
    layers = model.config.exit_layers
    return f"exit after layer {layers[0]}" if len(layers) == 1 else f"exits after layers {', '.join(map(str, layers))}"


def _what_leaves(model: TaskModel) -> str:
    return model.task.unit if leaves_by_unit(model.facts) else "texts"


def _why_whole(rows: Sequence[ExitRow], config: PredictConfig) -> str:
    """Why no threshold is chosen; empty if one is."""
    if not rows:
        return "thresholds were not measured on a validation split"
    if config.max_f1_loss <= 0:
        return "predict.max_f1_loss=0"
    if not choose_row(rows, max_loss=config.max_f1_loss):
        return f"no threshold was within predict.max_f1_loss={config.max_f1_loss:g} points on validation"
    return ""


def _saved(depth: Mapping[str, float]) -> str:
    return f"{100 * (1 - depth['exit_operations']):.1f} %"
