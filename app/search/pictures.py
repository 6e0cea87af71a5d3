"""Search room: pictures of a study by `optuna.visualization.matplotlib`, as PNG for a page."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib

matplotlib.use("agg")  # before pyplot, which Optuna draws with

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.category import StrCategoryFormatter
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as draw

from app.search.findings import Findings, Row

logging.getLogger("matplotlib").setLevel(logging.ERROR)
_DPI = 110
_GRID = "#e1e5eb"
_COUNTED = ("Trial", "Step")  # what Optuna writes at the axes that count
_UNITS = {"score": ("score", 1.0), "size": ("size in MB", 1e6), "latency": ("latency in ms", 1.0)}


@dataclass(frozen=True)
class Picture:
    """A picture with its heading, a line of explanation, and the PNG in base64."""

    heading: str
    caption: str
    png: str


_SLICES_IN_A_ROW = 4


def draw_study(study: optuna.Study, found: Findings) -> list[Picture]:
    """The pictures that have something to show."""
    pictures = []
    for heading, caption, make in _wanted(study, found):
        with plt.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                drawn = make()
                _restyle(drawn)
                pictures.append(Picture(heading, caption, _as_png(drawn)))
            except (ValueError, RuntimeError) as error:  # Optuna's, of a study with too few or too equal trials
                logging.getLogger(__name__).debug("%s is left out: %s", heading, error)
            finally:
                plt.close("all")
    return pictures


def _wanted(study: optuna.Study, found: Findings) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(heading, caption, what draws it) of each picture."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    if not complete:
        return
    names = found.config.tune.objectives
    for name in names if len(names) > 1 else ():
        if name != "score":
            caption = "Each dot a trial; dark: no other trial is better in every objective; star: the knee"
            yield f"Score against {name}", caption, partial(_draw_front, found, name)
    for number, name in enumerate(names):
        target: dict[str, Any] = {"target_name": name}
        if len(names) > 1:  # with a target, Optuna no longer knows which way is better
            target["target"] = partial(_value_of, number=number)
        of = f": {name}" if len(names) > 1 else ""
        for heading, caption, fewest, draw_one in _OF_OBJECTIVES:
            if len(complete) >= fewest:
                yield f"{heading}{of}", caption, partial(draw_one, study, **target)
    if len(names) == 1 and any(trial.intermediate_values for trial in complete):
        caption = "Each line a trial; short ones were stopped early"
        yield "Scores by epoch", caption, partial(draw.plot_intermediate_values, study)


def _value_of(trial: FrozenTrial, *, number: int) -> float:
    return float(trial.values[number])


def _draw_front(found: Findings, name: str) -> Any:
    """Score against another objective of all complete trials, the front dark and joined, the knee starred."""
    _, axes = plt.subplots(figsize=(7.0, 4.2))
    label, unit = _UNITS[name]
    rows = [row for row in found.rows if row.state == "complete"]

    def points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
        return [row.values[name] / unit for row in rows], [row.values["score"] for row in rows]

    axes.scatter(*points(rows), color="#b0b8c4", label="trials")
    front = sorted(found.front, key=lambda row: row.values[name])
    axes.plot(*points(front), color="#1f4e9c", marker="o", label="front")
    if found.best:
        axes.scatter(*points([found.best]), color="#c0392b", marker="*", s=220, zorder=3, label="knee")
    for row in front:
        axes.annotate(str(row.number), (row.values[name] / unit, row.values["score"]), xytext=(5, 4),
                      textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xlabel(label)
    axes.set_ylabel("validation score")
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def _draw_slices(study: optuna.Study, **target: Any) -> Any:
    """Optuna's slices in rows that a page is wide enough for; without its colour bar, as the caption says the order."""
    drawn: Any = draw.plot_slice(study, **target)
    each = list(drawn.ravel()) if isinstance(drawn, np.ndarray) else [drawn]
    figure = each[0].figure
    _drop_colour_bar(each[-1])
    rows = -(-len(each) // _SLICES_IN_A_ROW)
    grid = figure.add_gridspec(rows, min(len(each), _SLICES_IN_A_ROW), hspace=0.45)
    for number, axes in enumerate(each):
        row, column = divmod(number, _SLICES_IN_A_ROW)
        axes.set_subplotspec(grid[row, column])
        axes.set_xlabel(_in_two_lines(axes.get_xlabel()))
        axes.tick_params(labelleft=not column)
        axes.set_ylabel("" if column else target["target_name"])
        _thin_out(axes)
    figure.set_size_inches(max(7.0, 2.6 * min(len(each), _SLICES_IN_A_ROW)), 3.6 * rows)
    return drawn


def _thin_out(axes: Any) -> None:
    """Names of categories without Optuna's quotation marks, and no more numbers at a logarithmic axis than fit."""
    axis = axes.xaxis
    if isinstance(axis.get_major_formatter(), StrCategoryFormatter):
        axes.set_xticks(axes.get_xticks(), [label.get_text().strip("'") for label in axes.get_xticklabels()])
    if axes.get_xscale() == "log":
        low, high = axis.get_view_interval()
        between = (2, 3, 5) if high < 4 * low else (3,) if high < 30 * low else ()
        axis.set_minor_locator(LogLocator(subs=between))
        for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
            set_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_lines(study: optuna.Study, **target: Any) -> Any:
    """Optuna's parallel coordinates, with room for the scale of each setting and the best trials the darkest.

    Its colour bar repeats the first scale, and lies where the last one is written.
    """
    axes: Any = draw.plot_parallel_coordinate(study, **target)
    lines = axes.collections[0]
    _drop_colour_bar(axes)
    for scale in axes.figure.axes:
        scale.set_subplotspec(axes.get_subplotspec())
    lines.set_cmap("Blues" if target["target_name"] == "score" else "Blues_r")
    low, high = lines.get_clim()
    paler = 0.3 * (high - low)  # than the palest line, which would be white
    lines.set_clim(*((low - paler, high) if target["target_name"] == "score" else (low, high + paler)))
    names = sorted({key for trial in study.get_trials(deepcopy=False) for key in trial.params})  # as Optuna has them
    axes.set_xticks(axes.get_xticks(), [target["target_name"], *map(_in_two_lines, names)], rotation=0)
    axes.figure.set_size_inches(max(7.0, 1.7 * (len(names) + 1)), 4.6)
    return axes


def _drop_colour_bar(axes: Any) -> None:
    for drawn in axes.collections:
        if drawn.colorbar:
            drawn.colorbar.remove()


def _in_two_lines(key: str) -> str:
    section, dot, name = key.rpartition(".")
    return f"{section}{dot}\n{name}"


_OF_OBJECTIVES: tuple[tuple[str, str, int, Callable[..., Any]], ...] = (  # heading, caption, fewest trials, by what
    ("History", "Each trial in its order, and the best so far", 1, draw.plot_optimization_history),
    ("Importance", "How much each setting explains of the differences between trials (fANOVA)", 2,
     draw.plot_param_importances),
    ("Slices", "Each setting by itself; darker: later trials", 2, _draw_slices),
    ("Parallel coordinates", "Each line a trial; darker: better", 2, _draw_lines),
)  # fmt: skip


def _restyle(drawn: Any) -> None:
    """Takes away what the page says already, Optuna's titles and its grey, and fractions of trials and epochs."""
    figure = (drawn.ravel()[0] if isinstance(drawn, np.ndarray) else drawn).figure
    figure.suptitle("")
    for axes in figure.axes:
        for place in ("left", "center", "right"):
            axes.set_title("", loc=place)
        axes.set_facecolor("white")
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_label_text() in _COUNTED:
                axis.set_major_locator(MaxNLocator(integer=True))
            for line in axis.get_gridlines():
                line.set_color(_GRID)


def _as_png(drawn: Any) -> str:
    """One of several axes, or a figure, as PNG in base64."""
    axes = drawn.ravel()[0] if isinstance(drawn, np.ndarray) else drawn
    file = io.BytesIO()
    axes.figure.savefig(file, format="png", dpi=_DPI, bbox_inches="tight")
    return base64.b64encode(file.getvalue()).decode("ascii")
