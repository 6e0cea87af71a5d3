"""The report's charts, drawn by matplotlib as inline SVG that follows the page's colours.

Colours are written as the page's CSS variables and text as text, so that one drawing serves light and
dark pages and stays small. matplotlib is imported without pyplot.
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from types import MappingProxyType
from typing import Any
from unicodedata import east_asian_width

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from app.evaluation.pages import printable
from app.tasks.report import Bars, Lines, Matrix

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
_BAR_MARKS = (("d", 52, _SECOND), ("o", 46, _INK))  # shape, area in square points, colour
_LINE_STYLES = ("-", "--", "-.", ":")
_COUNTED_CLASSES = 12  # matrices of more have no room for numbers
_MARKED_POINTS = 30  # the dots of more would run together
_LONGEST_NAME = 60  # characters
_LETTERS = (9.0, 8.5, 8.0, 7.5, 7.0, 6.5, 6.0, 5.5, 5.0, 4.5, 4.0)  # points, in heat maps
_AXIS_NAME, _EDGE = 0.45, 0.1  # inches that a heat map leaves for the name of an axis and beyond the cells
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


@dataclass(frozen=True)
class Drawing:
    """A chart as an `<svg>` element; a wide one wants the width of two."""

    svg: Markup
    wide: bool = False


def draw_chart(chart: Bars | Matrix | Lines, *, name: str) -> Drawing | None:
    """Draws a part of a report, or returns None where it has nothing to show.

    Args:
        chart: what to draw.
        name: letters, digits and hyphens that no other drawing of the page is named with.
    """
    with matplotlib.rc_context(_STYLE):
        if isinstance(chart, Bars):
            return _draw_bars(chart, name)
        if isinstance(chart, Matrix):
            return _draw_matrix(chart, name)
        return _draw_lines(chart, name)


def draw_learning_curve(history: Sequence[Mapping[str, Any]], curves: Mapping[str, str]) -> Drawing | None:
    """Training and validation loss and validation scores by epoch, or None when there is none of them.

    Args:
        history: rows of ``history.jsonl``; the last finite value of each epoch is drawn.
        curves: names of the scores -> their keys in the history; the best value of the first one is written beside it.
    """
    scores = {name: _by_epoch(history, key) for name, key in curves.items()}
    losses = {name: _by_epoch(history, key) for name, key in (("training", "loss"), ("validation", "valid/loss"))}
    scores, losses = ({name: by for name, by in found.items() if by} for found in (scores, losses))
    if not losses and not scores:
        return None
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(2.9)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        for name, points in losses.items():
            axes.plot(*_points(points), color=_SECOND, marker="o", markersize=4, linewidth=2, clip_on=False,
                      linestyle="-" if name == "training" else "--", label=f"{name} loss")  # fmt: skip
        if losses:
            axes.set_ylabel("loss per label", color=_SECOND)
            axes.set_ylim(bottom=0)
        if scores:
            _draw_scores(axes.twinx() if losses else axes, scores)
        if len(losses) > 1 or len(scores) > 1:
            figure.legend(loc="outside lower center", ncols=2, handlelength=3.5)
        return _page_svg(figure, "learning-curve", "Losses and validation scores by epoch")


def _draw_scores(axes: Axes, scores: Mapping[str, dict[float, float]]) -> None:
    """The scores of the learning curve, on the axis at the right."""
    for number, (name, points) in enumerate(scores.items()):
        label = f"validation {_shown(name)}" if len(scores) > 1 else None  # a single one has the axis' name
        axes.plot(*_points(points), color=_ACCENT if not number else _TYPES[1 + number % (TYPE_COLOURS - 1)],
                  marker="o", markersize=4, linewidth=2, clip_on=False, label=label)  # fmt: skip
    name, points = next(iter(scores.items()))
    axes.set_ylabel("validation scores" if len(scores) > 1 else f"validation {_shown(name)}", color=_ACCENT)
    axes.tick_params(axis="y", length=0)
    best = max(points, key=lambda epoch: points[epoch])
    axes.annotate(f"{points[best]:.3f}", (best, points[best]), xytext=(0, 7), textcoords="offset points",
                  ha="center", color=_ACCENT, fontsize=10, fontweight="bold")  # fmt: skip
    axes.margins(y=0.18)


def _draw_bars(bars: Bars, name: str) -> Drawing | None:
    """One bar below the other; many bars stand in two columns over the width of two drawings."""
    count = len(bars.names)
    if not count:
        return None
    # Inches for each bar, points of its letters, columns.
    pitch, letters, columns = (0.42, 10, 1) if count <= 12 else (0.3, 9, 1) if count <= 24 else (0.24, 8, 2)
    rows = math.ceil(count / columns)
    names = [line for each in bars.names for line in _bar_name(each, letters=letters).splitlines()]
    beside = sum(
        max(_extent(_shown(text), letters) for text in texts) for texts in (names, bars.notes, bars.sizes) if texts
    )
    figure = _empty_figure(1.0 + pitch * rows, width=columns * max(_WIDTH, beside + 1.1))
    for column, axes in enumerate(np.ravel(figure.subplots(1, columns))):
        numbers = range(column * rows, min(count, (column + 1) * rows))
        _draw_column(axes, bars, numbers, rows=rows, letters=letters)
    marks, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > 1:
        first = len(bars.marks)  # matplotlib lists the bars after what is marked on them
        figure.legend(marks[first:] + marks[:first], labels[first:] + labels[:first],
                      loc="outside lower center", ncols=4)  # fmt: skip
    return _page_svg(figure, name, bars.heading)


def _draw_column(axes: Axes, bars: Bars, numbers: range, *, rows: int, letters: int) -> None:
    """Bars of some of the names, in a place that has room for so many rows."""
    places = range(len(numbers))
    ends = [0.0] * len(numbers)
    split = bars.parts if 1 < len(bars.parts) <= TYPE_COLOURS else {bars.measure: bars.values}
    for part, (label, values) in enumerate(split.items()):
        shown = [values[number] for number in numbers]
        colour, line = (_TYPES[part], 0.8) if len(split) > 1 else (_ACCENT, 0.0)
        axes.barh(places, shown, left=ends, height=0.56, color=colour, edgecolor=_CARD, linewidth=line,
                  label=_legend_name(label))  # fmt: skip
        ends = [end + value for end, value in zip(ends, shown, strict=True)]
    for (label, values), (shape, area, colour) in zip(bars.marks.items(), cycle(_BAR_MARKS), strict=False):
        axes.scatter([values[number] for number in numbers], places, marker=shape, s=area, color=colour,
                     edgecolors=_CARD, linewidths=0.8, zorder=3, clip_on=False, label=_legend_name(label))  # fmt: skip
    names = [_bar_name(bars.names[number], letters=letters) for number in numbers]
    axes.set_yticks(places, names, fontsize=letters)
    axes.set_ylim(rows - 0.5, -0.6)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    _write_notes(axes, bars, numbers, ends=ends, letters=letters)


def _write_notes(axes: Axes, bars: Bars, numbers: range, *, ends: Sequence[float], letters: int) -> None:
    widest = max(*bars.values, 1)
    if not bars.marks and not bars.sizes:
        axes.set_xlim(0, 1.14 * widest)
        if all(float(value).is_integer() for value in bars.values):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        for place, (end, number) in enumerate(zip(ends, numbers, strict=True)):
            axes.text(end + 0.02 * widest, place, _shown(bars.notes[number]),
                      va="center", fontweight="bold", fontsize=letters)  # fmt: skip
        return
    axes.set_xlim(0, widest)  # the notes stand in columns beyond, where no mark can cover them
    beyond = 10.0  # points
    look: dict[str, Any]
    for head, texts, look in (
        (bars.measure, bars.notes, {"fontweight": "bold", "fontsize": letters}),
        (bars.sizes_name, bars.sizes, {"color": _MUTED, "fontsize": min(letters, 9)}),
    ):
        if not texts:
            continue
        column: list[tuple[float, str, dict[str, Any]]]
        column = [(-0.72, _shown(head), {"va": "bottom", "color": _MUTED, "fontsize": 8})]
        column += [(place, _shown(texts[number]), {"va": "center", **look}) for place, number in enumerate(numbers)]
        for y, text, place_look in column:
            axes.annotate(text, (1, y), (beyond, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                          annotation_clip=False, **place_look)  # fmt: skip
        beyond += 8 + 72 * max(_extent(text, letters) for _, text, _ in column)


def _draw_matrix(matrix: Matrix, name: str) -> Drawing | None:
    size = max(len(matrix.rows), len(matrix.columns))
    if not size:
        return None
    return _draw_counts(matrix, name) if size <= _COUNTED_CLASSES else _draw_heat_map(matrix, name)


def _draw_counts(matrix: Matrix, name: str) -> Drawing:
    """A matrix of few classes, with a number in each cell; shade by share of the row."""
    rows, columns = ([_shown(each) for each in names] for names in (matrix.rows, matrix.columns))
    left, above = 0.6 + max(_extent(each, 10) for each in rows), max(_extent(each, 9) for each in columns)
    largest = max(count for counts in matrix.counts for count in counts)
    cell = 0.1 + _extent(f"{largest:,}", 10)  # inches
    width = _WIDTH if left + cell * len(columns) <= _WIDTH else left + max(cell, 0.42) * len(columns)
    turned = len(columns) > 6 or above > (width - left) / len(columns)
    figure, axes = _figure(1.0 + 0.42 * len(rows) + (max(0.0, above - 0.4) if turned else 0), width=width)
    titles = _draw_cells(axes, matrix)
    for row, counts in enumerate(matrix.counts):
        for column, count in enumerate(counts):
            share = count / max(1, sum(counts))
            colour = _CARD if share > 0.55 else _INK if count else _MUTED
            text = "-" if (row, column) in matrix.blank else f"{count:,}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    axes.set_xticks(range(len(columns)), columns, rotation=90 if turned else 0, color=_INK)
    axes.set_yticks(range(len(rows)), rows)
    return _finish_matrix(figure, axes, matrix, name, titles)


def _draw_heat_map(matrix: Matrix, name: str) -> Drawing:
    """A matrix of many classes: shades without numbers, which the cells name when pointed at."""
    rows, columns = ([_shown(each) for each in names] for names in (matrix.rows, matrix.columns))
    letters, left, cell = _fit_names(rows, len(columns))
    every = max(1, math.ceil(letters / (0.9 * 72 * cell)))  # of hundreds of classes not all names fit
    top = _AXIS_NAME + max(_extent(each, letters) for each in columns)
    across, down = cell * len(columns), cell * len(rows)
    width, height = left + across + _EDGE, top + down + _EDGE
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, _EDGE / height, across / width, down / height))
    titles = _draw_cells(axes, matrix, is_map=True)
    axes.set_xticks(range(0, len(columns), every), columns[::every], rotation=90, color=_INK, fontsize=letters)
    axes.set_yticks(range(0, len(rows), every), rows[::every], fontsize=letters)
    axes.set_xticks([place - 0.5 for place in range(len(columns) + 1)], minor=True)
    axes.set_yticks([place - 0.5 for place in range(len(rows) + 1)], minor=True)
    axes.grid(which="minor", linewidth=0.4)
    axes.tick_params(pad=1.5)
    return _finish_matrix(figure, axes, matrix, name, titles)


def _fit_names(rows: Sequence[str], columns: int) -> tuple[float, float, float]:
    """Finds sizes at which no name of a row is cut, and cells as large as the rest of the width allows.

    Returns:
        size of the letters in points, width left of the cells and width of a cell in inches; together wider than one
        drawing only if the cells would get too small otherwise.
    """
    widths = {letters: _AXIS_NAME + max(_extent(each, letters) for each in rows) for letters in _LETTERS}
    cell = (_WIDTH - widths[8.0] - _EDGE) / columns
    if cell >= 0.2:
        return 8.0, widths[8.0], cell
    for letters, left in widths.items():
        cell = min(0.3, (2 * _WIDTH - left - _EDGE) / columns)
        if letters <= 0.9 * 72 * cell:
            break
    return letters, left, cell


def _draw_cells(axes: Axes, matrix: Matrix, *, is_map: bool = False) -> dict[str, str]:
    """Draws the cells that are not zero.

    Returns:
        what each of them says when pointed at, by its id.
    """
    titles = {}
    for row, (gold, counts) in enumerate(zip(matrix.rows, matrix.counts, strict=True)):
        total = sum(counts)
        for column, (predicted, count) in enumerate(zip(matrix.columns, counts, strict=True)):
            if not count:
                continue
            share, is_right = count / total, gold == predicted
            shade = 0.12 + 0.88 * share
            if is_map:  # errors are rare there, and stand out: the diagonal is pale, and small shares count for more
                shade = 0.08 + 0.17 * share if is_right else 0.3 + 0.7 * share**0.4
            size = 1.0 if is_map else 0.93
            cell = Rectangle((column - size / 2, row - size / 2), size, size, alpha=shade, lw=0,
                             color=_ACCENT if is_right else _SECOND, gid=f"cell-{row}-{column}")  # fmt: skip
            axes.add_patch(cell)
            titles[f"cell-{row}-{column}"] = f"{gold} \N{RIGHTWARDS ARROW} {predicted}: {count:,} of {total:,}"
    return titles


def _finish_matrix(figure: Figure, axes: Axes, matrix: Matrix, name: str, titles: Mapping[str, str]) -> Drawing:
    axes.set_xlim(-0.5, len(matrix.columns) - 0.5)
    axes.set_ylim(len(matrix.rows) - 0.5, -0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("gold")
    return _page_svg(figure, name, matrix.heading, titles=titles)


def _draw_lines(lines: Lines, name: str) -> Drawing | None:
    series = {
        label: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for label, points in lines.series.items()
    }
    series = {label: points for label, points in series.items() if points}
    if not series:
        return None
    figure, axes = _figure(3.4)
    colours = [_ACCENT, _SECOND, *_TYPES[2:]]
    for number, (label, points) in enumerate(series.items()):
        axes.plot(*zip(*points, strict=True), color=colours[number % len(colours)], linewidth=2, clip_on=False,
                  linestyle=_LINE_STYLES[number // len(colours) % len(_LINE_STYLES)], label=_legend_name(label),
                  marker="o" if len(points) <= _MARKED_POINTS else "", markersize=4)  # fmt: skip
    if lines.diagonal:
        everything = [value for points in series.values() for point in points for value in point]
        ends = (min(0.0, *everything), max(1.0, *everything))
        axes.plot(ends, ends, color=_MUTED, linewidth=1.2, linestyle=":", zorder=1)
        axes.set_xlim(ends)
        axes.set_ylim(ends)
    axes.set_xlabel(_shown(lines.x_label))
    axes.set_ylabel(_shown(lines.y_label))
    axes.grid()
    axes.tick_params(length=0)
    if len(series) > 1:
        figure.legend(loc="outside lower center", ncols=min(3, len(series)))
    return _page_svg(figure, name, lines.heading)


def _figure(height: float, *, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = _empty_figure(height, width=width)
    return figure, figure.add_subplot()


def _empty_figure(height: float, *, width: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


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


def _shown(name: str) -> str:
    """A name as it is drawn: on one line, without what XML cannot hold, and cut only where it would fill the page."""
    name = printable(" ".join(name.split()))
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _legend_name(name: str) -> str:
    """A name as a legend shows it; matplotlib leaves out those that begin with an underscore."""
    shown = _shown(name)
    return f"\N{ZERO WIDTH SPACE}{shown}" if shown.startswith("_") else shown


def _bar_name(name: str, *, letters: int) -> str:
    """A name beside a bar; a long one of several words is broken in two, at the space nearest to its middle."""
    shown = _shown(name)
    spaces = [place for place, letter in enumerate(shown) if letter == " "]
    if letters < 10 or len(shown) <= 20 or not spaces:  # bars with small letters stand too close for two lines
        return shown
    middle = min(spaces, key=lambda place: abs(place - len(shown) / 2))
    return f"{shown[:middle]}\n{shown[middle + 1 :]}"


def _extent(text: str, letters: float) -> float:
    """Roughly how many inches a text takes in letters of so many points, in any sans serif of the reader's."""
    ems = sum(1.0 if east_asian_width(letter) in "WF" else 0.7 if letter.isupper() else 0.6 for letter in text)
    return ems * letters / 72


def _page_svg(
    figure: Figure, name: str, description: str, *, titles: Mapping[str, str] = MappingProxyType({})
) -> Drawing:
    """The figure as an ``<svg>`` element: page colours and font, ids of its own, no fixed size.

    Args:
        figure: what was drawn.
        name: before all ids.
        description: for those who cannot see it.
        titles: id of a part -> what is shown when it is pointed at.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Only the width of a label is estimated from the font here; the browser has the glyphs.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # fmt: skip
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].strip()
    # matplotlib's own <style> would apply to the whole page.
    drawing = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawing, flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', drawing)
    assert view_box is not None  # matplotlib always writes one
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    label = escape(printable(description))
    width = figure.get_figwidth()
    wide = width > _WIDTH + 0.01
    # Letters have one size in all drawings of a page; where it is narrow, those of a wide one shrink a little only.
    style = f' style="max-width: {7.2 * width:.1f}rem; min-width: {5.6 * width:.1f}rem"' if wide else ""
    head = f'<svg {view_box[0]} role="img" aria-label="{label}" {spaces} version="1.1"{style}>'

    def page_tag(found: re.Match[str]) -> str:
        """A tag in the page's terms; texts, which may look like anything, stay as they are."""
        tag = re.sub(
            r"#0\d(?:0101|0202)\b", lambda colour: f"var(--{_VARIABLES.get(colour[0], 'ink')})", found[0]
        )
        tag = re.sub(r"font-family: [^;\"]*", "font-family: inherit", tag)
        part = re.search(r' id="([^"]*)"', tag)
        tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", tag)
        title = titles.get(part[1]) if part else None
        return tag if title is None else f"{tag}<title>{escape(printable(title))}</title>"

    body = re.sub(r"<[^>]*>", page_tag, drawing[drawing.index(">") + 1 :])
    return Drawing(Markup(head + body), wide=wide)
