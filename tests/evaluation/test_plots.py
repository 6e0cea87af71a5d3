"""Charts: nothing a reader looks for is cut off or covered."""

import re
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from app.evaluation import plots
from app.tasks.report import Bars, Lines, Matrix

SVG = "{http://www.w3.org/2000/svg}"
LONG = "balance_not_updated_after_cheque_or_cash_deposit"  # the longest of a real corpus with 77 classes


def drawn(chart: Bars | Matrix | Lines) -> tuple[ElementTree.Element, plots.Drawing]:
    drawing = plots.draw_chart(chart, name="chart")
    return ElementTree.fromstring(drawing.svg), drawing


@dataclass
class Written:
    """A text of a drawing: where it begins or, if it stands before that place, ends; letters in points."""

    text: str
    x: float
    y: float
    letters: float
    turned: bool


def written(root: ElementTree.Element) -> list[Written]:
    found = []
    for text in root.iter(f"{SVG}text"):
        moved = re.search(r"translate\(([-\d.]+) ([-\d.]+)\) rotate\(-90\)", text.get("transform", ""))
        x, y = moved.groups() if moved else (text.get("x"), text.get("y"))
        letters = re.search(r"font-size: ([\d.]+)px", text.get("style"))[1]
        found.append(Written("".join(text.itertext()), float(x), float(y), float(letters), bool(moved)))
    return found


def words_of(root: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def parts_of(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {part.get("id"): part for part in root.iter(f"{SVG}g") if part.get("id")}


def matrix(names: tuple[str, ...], *, errors: dict[tuple[int, int], int]) -> Matrix:
    size = len(names)
    counts = tuple(
        tuple(40 if row == column else errors.get((row, column), 0) for column in range(size)) for row in range(size)
    )
    return Matrix("Confusion matrix", "", names, names, counts)


def opacity(part: ElementTree.Element) -> float:
    return float(re.search(r"opacity: ([\d.]+)", part.find(f"{SVG}path").get("style"))[1])


def test_the_learning_curve_shows_the_loss_of_validation_beside_that_of_training():
    history = [{"epoch": e, "loss": 1 / e, "valid/loss": 2 / e, "valid/entity_f1": 0.5} for e in (1, 2, 3)]
    curves = {"entity F1": "valid/entity_f1"}
    drawing = plots.draw_learning_curve(history, curves).svg
    assert "training loss" in drawing and "validation loss" in drawing and "validation entity F1" in drawing
    older = [{"epoch": row["epoch"], "loss": row["loss"]} for row in history]
    assert "validation" not in plots.draw_learning_curve(older, curves).svg.split("version=")[1]


def test_marks_at_a_score_of_one_are_not_cut_in_half():
    bars = Bars("", "", ("LOC", "PER"), (1.0, 1.0), ("1", "1"), measure="F1", marks={"recall": (1.0, 1.0)})
    marks = [part for name, part in parts_of(drawn(bars)[0]).items() if "PathCollection" in name]
    assert marks and not any("clip-path" in ElementTree.tostring(mark, encoding="unicode") for mark in marks)


def test_the_parts_of_a_bar_have_colours_of_their_own_and_the_legend_names_them():
    bars = Bars("", "", ("missed",), (5,), ("5",), parts={"LOC": (2,), "_PER": (3,)})
    root, drawing = drawn(bars)
    assert {"LOC", "\u200b_PER", "5", "missed"} <= set(words_of(root))
    assert "var(--type-0)" in drawing.svg and "var(--type-1)" in drawing.svg


@pytest.mark.parametrize("count", [3, 20, 77])
def test_every_bar_has_its_whole_name_and_its_note_beyond_the_marks(count):
    names = (LONG, *(f"class {number}" for number in range(count - 1)))
    notes = tuple(f"note {number}" for number in range(count))
    bars = Bars("", "", names, (0.9,) * count, notes, measure="F1", marks={"recall": (1.0,) * count})
    root, _ = drawn(bars)
    assert set(names) | set(notes) <= set(words_of(root))
    marks = [
        float(use.get("x")) for name, part in parts_of(root).items() if "PathCollection" in name
        for use in part.iter(f"{SVG}use")
    ]  # fmt: skip
    first = next(text for text in written(root) if text.text == "note 0")
    longest = next(text for text in written(root) if text.text == LONG)
    assert len(marks) >= count and min(marks) + 5 < first.x
    assert longest.x > 0.55 * longest.letters * len(LONG)  # it ends there
    assert float(root.get("viewBox").split()[3]) < 14 * 72  # points: it fits a page


def test_a_matrix_of_few_classes_has_numbers_and_a_dash_where_nothing_can_stand():
    chart = Matrix("", "", ("LOC", "none"), ("LOC", "none"), ((1234, 7), (5, 0)), blank=((1, 1),))
    root, drawing = drawn(chart)
    assert {"1,234", "7", "5", "-"} <= set(words_of(root)) and "0" not in words_of(root)
    assert not drawing.wide


@pytest.mark.parametrize("count", [2, 12, 15, 77, 200])
def test_no_name_of_a_matrix_is_cut_or_runs_into_the_next(count):
    names = (LONG, *(f"another_class_{number}" for number in range(count - 1)))
    root, _ = drawn(matrix(names, errors={}))
    shown = [text for text in written(root) if text.text in names]
    rows, columns = ([text for text in shown if text.turned is turned] for turned in (False, True))
    if count < 200:  # of hundreds every second is written
        assert [row.text for row in rows] == [column.text for column in columns] == list(names)
    for before, after in pairwise(rows):
        assert after.y - before.y >= after.letters
    for before, after in pairwise(columns):
        assert after.x - before.x >= after.letters
    assert rows[0].text == LONG and rows[0].x > 0.55 * rows[0].letters * len(LONG)  # it ends there
    assert columns[0].text == LONG and columns[0].y > 0.55 * columns[0].letters * len(LONG)
    width, height = map(float, root.get("viewBox").split()[2:])
    assert width < 10.01 * 72 and height < 14 * 72 and len(rows) > count / 4


def test_in_a_matrix_of_77_classes_one_error_stands_out_more_than_what_is_right_and_can_be_pointed_at():
    names = tuple(f"class_{number}" for number in range(77))
    root, drawing = drawn(matrix(names, errors={(3, 5): 1, (70, 2): 20}))
    parts = {name: part for name, part in parts_of(root).items() if name.startswith("chart-cell-")}
    one, many, right = (parts[f"chart-cell-{place}"] for place in ("3-5", "70-2", "3-3"))

    assert len(parts) == 77 + 2 and drawing.wide
    assert opacity(many) > opacity(one) > opacity(right)
    assert "var(--second)" in one.find(f"{SVG}path").get("style")
    assert "var(--accent)" in right.find(f"{SVG}path").get("style")
    assert one.find(f"{SVG}title").text == "class_3 \N{RIGHTWARDS ARROW} class_5: 1 of 41"
    assert set(words_of(root)) == {*names, "gold", "predicted"}  # no numbers


def test_lines_have_named_axes_a_legend_and_on_request_the_diagonal():
    series = {"as trained": ((0.1, 0.1), (0.9, 0.7)), "with a temperature": ((0.1, 0.1), (0.9, 0.88))}
    plain, _ = drawn(Lines("", "", "confidence", "accuracy", series))
    diagonal, _ = drawn(Lines("", "", "confidence", "accuracy", series, diagonal=True))
    assert {"confidence", "accuracy", *series} <= set(words_of(plain))

    def dotted(root: ElementTree.Element) -> list[ElementTree.Element]:
        return [path for path in root.iter(f"{SVG}path") if "stroke-dasharray" in path.get("style", "")]

    assert (len(dotted(plain)), len(dotted(diagonal))) == (0, 1)
    start, end = re.findall(r"[\d.]+ [\d.]+", dotted(diagonal)[0].get("d"))
    (x, y), (right, top) = (map(float, point.split()) for point in (start, end))
    assert right > x and top < y  # up to the right, y of a picture counts from above


def test_what_has_nothing_to_show_is_not_drawn():
    nothing = (
        Bars("", "", (), (), ()), Matrix("", "", (), (), ()), Lines("", "", "", "", {}),
        Lines("", "", "", "", {"a": ((float("nan"), 1.0),)}),
    )  # fmt: skip
    assert [plots.draw_chart(chart, name="chart") for chart in nothing] == [None] * 4
