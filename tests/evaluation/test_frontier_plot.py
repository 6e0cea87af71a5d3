"""The picture of a frontier: nothing a reader looks for is cut off or covered."""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.transforms import Bbox

from app.evaluation import frontier_plot
from app.evaluation.frontier import Contestant

SETTING = (64, 2)


def contestant(variant: str, size: float, f1: float, milliseconds: float, *, run: str = "run") -> Contestant:
    return Contestant(run, variant, "LiteRT", int(size * 1e6), f1, {SETTING: milliseconds}, 1.0, 4, variant)


def test_names_of_points_cover_no_point_no_line_and_no_other_name():
    figure = Figure(figsize=(5, 4), dpi=160)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [(90.0, 90.9), (90.2, 90.9), (90.5, 90.9), (45.0, 90.9), (23.0, 90.8), (22.8, 90.8), (12.0, 90.7)]
    axes.scatter(*zip(*points, strict=True), s=64)
    axes.plot([12.0, 23.0, 45.0], [90.7, 90.8, 90.9], drawstyle="steps-post")
    axes.margins(0.15)
    figure.draw_without_rendering()
    frontier_plot._label_points(axes, points, [f"variant {number}" for number in range(len(points))])
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    marks = [Bbox.from_bounds(*(axes.transData.transform(point) - 8), 16, 16) for point in points]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(mark) for mark in marks)
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert axes.get_window_extent().containsx(box.x0) and axes.get_window_extent().containsx(box.x1)


def test_the_line_of_a_panel_joins_what_nothing_beats_in_its_two_numbers():
    assert frontier_plot._undominated([3.0, 1.0, 2.0, 2.0], [0.9, 0.7, 0.6, 0.8]) == ([1.0, 2.0, 3.0], [0.7, 0.8, 0.9])


def test_the_frontier_names_runs_in_full_and_is_a_picture(monkeypatch):
    named: list[str] = []
    legend = Figure.legend
    monkeypatch.setattr(
        Figure, "legend", lambda figure, **how: named.extend(figure.axes[0].get_legend_handles_labels()[1])
        or legend(figure, **how)
    )  # fmt: skip
    run = "a_run_with_a_name_of_more_than_sixteen_characters"
    found = [contestant("int8", 24, 0.905, 9.0, run=run), contestant("float32", 90, 0.906, 30.0, run=run)]
    png = frontier_plot.frontier_png(found, best={found[0].name}, setting=SETTING)
    assert np.ptp(imread(io.BytesIO(png))) == 1.0
    assert run in named
