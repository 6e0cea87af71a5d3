"""The picture of a frontier: a score against size and against latency."""

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

from app.evaluation.frontier import Contestant

_RUNTIME_MARKS = "osD^vP"


def frontier_png(
    contestants: Sequence[Contestant], *, best: set[str], setting: tuple[int, int], score: str = "entity F1"
) -> bytes:
    """A score against size and against latency, as a PNG: a colour per run, a mark per runtime.

    A line joins what nothing beats in the two numbers of its panel, a ring marks what nothing beats in all three.

    Args:
        contestants: what was measured.
        best: names of those with a ring.
        setting: (pieces, threads) of the latency.
        score: its name.
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
    figure.axes[0].set_ylabel(score)
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
