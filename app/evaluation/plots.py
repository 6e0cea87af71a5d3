"""The report's charts, drawn by matplotlib as inline SVG that follows the page's colours.

Colours are written as the page's CSS variables and text as text, so that one drawing serves light and
dark pages and stays small. matplotlib is imported here and nowhere else, without pyplot.
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from app.evaluation.frontier import Contestant
from app.tasks.tagging.errors import ErrorCounts
from app.tasks.tagging.scores import Scores

# It would tell every user of a container that its home cannot be written.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

TYPE_COLOURS = 8  # the page defines --type-0 ... --type-7; further types start again at 0

# Stand-ins that matplotlib accepts as colours; _page_svg replaces each by a CSS variable.
_INK, _MUTED, _LINE, _CARD, _ACCENT, _SECOND = (f"#0{number}0101" for number in range(1, 7))
_TYPES = [f"#0{number}0202" for number in range(TYPE_COLOURS)]
_VARIABLES = {
    **dict(zip((_INK, _MUTED, _LINE, _CARD, _ACCENT, _SECOND),
               ("ink", "muted", "line", "card", "accent", "second"), strict=True)),
    **{colour: f"type-{number}" for number, colour in enumerate(_TYPES)},
}  # fmt: skip
_RUNTIME_MARKS = "osD^vP"
_WIDTH = 5.0  # inches; the page scales the drawing to the width of its card
_STYLE: Any = {  # matplotlib types its settings as one literal of all their names
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10,
    "text.parse_math": False,  # a type named $x$ is a name
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _INK,
    "xtick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": _MUTED,
}


def learning_curve(history: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation loss and validation entity F1 by epoch, or ``""`` when there is none of them.

    Args:
        history: rows of ``history.jsonl``; the last finite value of each epoch is drawn.
    """
    f1 = _by_epoch(history, "valid/entity_f1")
    losses = {name: _by_epoch(history, key) for name, key in (("training", "loss"), ("validation", "valid/loss"))}
    losses = {name: points for name, points in losses.items() if points}
    if not losses and not f1:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(2.9)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        for name, points in losses.items():
            axes.plot(*_points(points), color=_SECOND, marker="o", markersize=4, linewidth=2, clip_on=False,
                      linestyle="-" if name == "training" else "--", label=f"{name} loss")  # fmt: skip
        if losses:
            axes.set_ylabel("loss per word", color=_SECOND)
            axes.set_ylim(bottom=0)
        if len(losses) > 1:
            figure.legend(loc="outside lower center", ncols=2, handlelength=3.5)
        if f1:
            right = axes.twinx() if losses else axes
            right.plot(*_points(f1), color=_ACCENT, marker="o", markersize=4, linewidth=2, clip_on=False)
            right.set_ylabel("validation entity F1", color=_ACCENT)
            right.tick_params(axis="y", length=0)
            best = max(f1, key=lambda epoch: f1[epoch])
            right.annotate(f"{f1[best]:.3f}", (best, f1[best]), xytext=(0, 7), textcoords="offset points",
                           ha="center", color=_ACCENT, fontsize=10, fontweight="bold")  # fmt: skip
            right.margins(y=0.18)
        return _page_svg(figure, "learning-curve", "Losses and validation entity F1 by epoch")


def type_bars(scores: Scores) -> str:
    """Entity F1 of each type as bars, with precision and recall as marks."""
    rows = scores.strict.types
    if not rows:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(1.0 + 0.42 * len(rows))
        places = range(len(rows))
        axes.barh(places, [row.f1 for row in rows], height=0.56, color=_ACCENT, label="F1")
        axes.scatter([row.precision for row in rows], places, marker="d", s=52, color=_SECOND,
                     edgecolors=_CARD, linewidths=0.8, zorder=3, clip_on=False, label="precision")  # fmt: skip
        axes.scatter([row.recall for row in rows], places, marker="o", s=46, color=_INK,
                     edgecolors=_CARD, linewidths=0.8, zorder=3, clip_on=False, label="recall")  # fmt: skip
        for place, row in enumerate(rows):
            axes.text(1.05, place, f"{row.f1:.3f}", va="center", fontweight="bold")
            axes.text(1.2, place, f"{row.support:,}", va="center", ha="left", color=_MUTED, fontsize=9)
        for x, name in ((1.05, "F1"), (1.2, "entities")):
            axes.text(x, -0.72, name, va="bottom", color=_MUTED, fontsize=8)
        axes.set_yticks(places, [_short(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.6)
        axes.set_xlim(0, 1)
        axes.grid(axis="x")
        axes.tick_params(length=0)
        marks, names = axes.get_legend_handles_labels()
        figure.legend(marks[-1:] + marks[:-1], names[-1:] + names[:-1], loc="outside lower center", ncols=3)
        return _page_svg(figure, "type-bars", "Entity F1, precision and recall of each type")


def confusion_matrix(errors: ErrorCounts) -> str:
    """Gold types (rows) against predicted types (columns); shade by share of the row."""
    labels: list[str | None] = [*errors.by_type, None]
    size = len(labels)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(1.0 + min(0.42 * size, 12))
        for row, gold in enumerate(labels):
            counts = [errors.confusion.get((gold, predicted), 0) for predicted in labels]
            for column, count in enumerate(counts):
                _cell(axes, row, column, count, share=count / max(1, sum(counts)))
        axes.texts[-1].set_text("-")  # no entity on either side: nothing to count
        names = [_short(label or "none") for label in labels]
        axes.set_xticks(range(size), names, rotation=90 if size > 6 else 0, color=_INK)
        axes.set_yticks(range(size), names)
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_label_position("top")
        axes.xaxis.tick_top()
        axes.set_xlabel("predicted", labelpad=8)
        axes.set_ylabel("gold")
        return _page_svg(figure, "confusion", "Gold entity types against predicted entity types")


def error_kinds(errors: ErrorCounts) -> str:
    """Number of errors of each kind, each bar split by entity type if these are few."""
    kinds = list(errors.kinds)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(2.9)
        left = [0] * len(kinds)
        split = errors.by_type if len(errors.by_type) <= TYPE_COLOURS else {"all types": errors.kinds}
        for number, (label, counts) in enumerate(split.items()):
            values = [counts[kind] for kind in kinds]
            axes.barh(kinds, values, left=left, height=0.56, color=_TYPES[number],
                      edgecolor=_CARD, linewidth=0.8, label=_short(label))  # fmt: skip
            left = [total + value for total, value in zip(left, values, strict=True)]
        widest = max([*left, 1])
        for place, total in enumerate(left):
            axes.text(total + widest * 0.02, place, f"{total:,}", va="center", fontweight="bold")
        axes.set_xlim(0, widest * 1.14)
        axes.set_yticks(range(len(kinds)), [kind.replace("type and", "type\nand") for kind in kinds])
        axes.set_ylim(len(kinds) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        if len(split) > 1:
            figure.legend(loc="outside lower center", ncols=4)
        return _page_svg(figure, "error-kinds", "Number of errors by kind and entity type")


def frontier_png(contestants: Sequence[Contestant], *, best: set[str], setting: tuple[int, int]) -> bytes:
    """Entity F1 against size and against latency, as a PNG: a colour per run, a mark per runtime.

    A line joins what nothing beats in the two numbers of its panel, a ring marks what nothing beats in all three.

    Args:
        contestants: what was measured.
        best: names of those with a ring.
        setting: (pieces, threads) of the latency.
    """
    runs = list(dict.fromkeys(each.run for each in contestants))
    runtimes = list(dict.fromkeys(each.runtime for each in contestants))
    pieces, threads = setting
    figure = Figure(figsize=(11.0, 5.4), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    sides = (
        ("megabytes", lambda each: each.bytes / 1e6),
        (f"milliseconds for {pieces} pieces, {threads} threads", lambda each: each.latency_ms[setting]),
    )
    drawn: list[tuple[Axes, list[tuple[float, float]]]] = []
    heights = [100 * each.f1 for each in contestants]
    for axes, (title, place) in zip(figure.subplots(1, 2, sharey=True), sides, strict=True):
        places = [place(each) for each in contestants]
        steps = _undominated(places, heights)
        axes.plot(*steps, color="#999999", linewidth=1.2, drawstyle="steps-post", zorder=2)
        for each, x, y in zip(contestants, places, heights, strict=True):
            colour = f"C{runs.index(each.run) % 10}"
            mark = _RUNTIME_MARKS[runtimes.index(each.runtime) % len(_RUNTIME_MARKS)]
            ring = {"edgecolors": "black", "linewidths": 1.4} if each.name in best else {"linewidths": 0}
            axes.scatter(x, y, color=colour, marker=mark, s=64, zorder=3, **ring)
        drawn.append((axes, list(zip(places, heights, strict=True))))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(labelsize=8)
        axes.set_xlabel(title)
        axes.grid(which="both", linewidth=0.4, color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(0.15)
    figure.axes[0].set_ylabel("entity F1")
    _frontier_legend(figure, runs, runtimes)
    figure.draw_without_rendering()  # settles the layout, in which labels then find free places
    figure.set_layout_engine("none")
    for axes, points in drawn:
        _label_points(axes, points, [each.variant for each in contestants])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _frontier_legend(figure: Figure, runs: Sequence[str], runtimes: Sequence[str]) -> None:
    axes = figure.axes[0]
    for number, run in enumerate(runs):
        axes.scatter([], [], color=f"C{number % 10}", marker="s", label=run)
    for number, runtime in enumerate(runtimes):
        mark = _RUNTIME_MARKS[number % len(_RUNTIME_MARKS)]
        axes.scatter([], [], color="#777777", marker=mark, label=runtime)
    axes.plot([], [], color="#999999", linewidth=1.2, label="frontier of this panel")
    axes.scatter([], [], color="white", edgecolors="black", linewidths=1.4,
                 label="nothing is smaller, better and faster at once")  # fmt: skip
    widest = max(len(text) for text in axes.get_legend_handles_labels()[1])
    figure.legend(loc="outside lower center", ncols=max(1, min(4, 150 // (widest + 6))), frameon=False, fontsize=9)


def _label_points(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Writes a name beside each point, where it covers no mark and no other name; a line leads to one further away."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    centres = [axes.transData.transform(point) for point in points]
    taken = [Bbox.from_bounds(x - 10, y - 10, 20, 20) for x, y in centres]
    for line in axes.get_lines():
        corners = np.asarray(line.get_path().transformed(line.get_transform()).vertices)
        taken += [Bbox(np.stack([before, after])) for before, after in pairwise(corners)]
    frame = axes.get_window_extent(renderer)
    around = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)]
    for point, name, (x, y) in zip(points, names, centres, strict=True):
        text = axes.annotate(name, point, (0, 0), textcoords="offset pixels", fontsize=8, color="#444444",
                             ha="center", va="center", parse_math=False)  # fmt: skip
        size = text.get_window_extent(renderer)
        width, height = size.width + 4, size.height + 2
        places = [
            (right * (11 + width / 2 + far), up * ((11 if right == 0 else 3) + height / 2 + far), far)
            for far in range(0, 200, 20)
            for right, up in around
        ]

        def box(place: tuple[float, float, int]) -> Bbox:
            return Bbox.from_bounds(x + place[0] - width / 2, y + place[1] - height / 2, width, height)  # noqa: B023

        free = (
            place
            for place in places
            if not any(box(place).overlaps(other) for other in taken)
            and frame.contains(*box(place).min) and frame.contains(*box(place).max)
        )
        place = next(free, places[0])
        taken.append(box(place))
        text.set_position(place[:2])
        if place[2]:
            axes.annotate("", point, place[:2], textcoords="offset pixels", zorder=1,
                          arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6})  # fmt: skip


def _undominated(costs: Sequence[float], gains: Sequence[float]) -> tuple[list[float], list[float]]:
    """The points that no other one beats in both numbers, from the cheapest to the best."""
    best: list[tuple[float, float]] = []
    for cost, gain in sorted(zip(costs, gains, strict=True), key=lambda point: (point[0], -point[1])):
        if not best or gain > best[-1][1]:
            best.append((cost, gain))
    return [cost for cost, _ in best], [gain for _, gain in best]


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _cell(axes: Axes, row: int, column: int, count: int, *, share: float) -> None:
    if count:
        colour = _ACCENT if row == column else _SECOND
        shade = 0.12 + 0.88 * share
        axes.add_patch(Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, color=colour, alpha=shade, lw=0))
    text = _CARD if share > 0.55 else _INK if count else _MUTED
    axes.text(column, row, f"{count:,}", ha="center", va="center", color=text, fontsize=10)


def _by_epoch(history: Sequence[Mapping[str, Any]], name: str) -> dict[float, float]:
    points = {}
    for row in history:
        epoch, value = row.get("epoch"), row.get(name)
        if isinstance(epoch, int | float) and isinstance(value, int | float) and math.isfinite(value):
            points[float(epoch)] = float(value)
    return points


def _points(by_epoch: Mapping[float, float]) -> tuple[list[float], list[float]]:
    epochs = sorted(by_epoch)
    return epochs, [by_epoch[epoch] for epoch in epochs]


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


def _page_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element: page colours and font, ids of its own, no fixed size."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Only the width of a label is estimated from the font here; the browser has the glyphs.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # fmt: skip
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].strip()
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--{variable})")
    # matplotlib's own <style> would apply to the whole page.
    drawing = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"font-family: [^;\"]*", "font-family: inherit", drawing)
    drawing = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    view_box = re.search(r'viewBox="[^"]*"', drawing)
    assert view_box is not None  # matplotlib always writes one
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {view_box[0]} role="img" aria-label="{description}" {spaces} version="1.1">'
    return re.sub(r"<svg [^>]*>", head, drawing, count=1)
