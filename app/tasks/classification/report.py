"""Tasks room: what there is to read of classified texts: reports, predictions and errors of a split.

Labels and texts may hold anything. In reports they stand on one line, without what steers a terminal or turns the
direction of a line, and long names are shortened in the middle; in the CSV of predictions what would break a line is
escaped and can be read back; in rows for JSON they stand as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from unicodedata import bidirectional

import numpy as np
from rich.cells import cell_len

from app.tasks.calibration import BINS
from app.tasks.classification.scores import MOST_CONFUSED, NO_LABEL, Answers, Row, TextScores
from app.tasks.report import Bars, Example, Lines, Matrix, Report, Segment, Table

CONFUSION, ANSWERED, NOT_ANSWERED = "confusion", "out of scope answered", "in scope not answered"
MISSED, SPURIOUS = "missed", "spurious"
KINDS = (CONFUSION, ANSWERED, NOT_ANSWERED)
MULTI_LABEL_KINDS = (MISSED, SPURIOUS)
PREDICTION_COLUMNS = ("number", "gold", "predicted", "score", "text")
OUT_OF_SCOPE = "out of scope"  # in gold and, of a text without an answer, in predictions
LABELS_IN_ORDER = 20  # bars of more labels are sorted by F1
MOST_BARS, MOST_CELLS = 100, 150  # labels in charts
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_LONGEST_NAME, _LONGEST_TEXT = 48, 600
_CURVE_POINTS = 100
# Line ends, other controls, and halves of surrogate pairs, which UTF-8 cannot hold.
_BREAKS_LINES = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_TURNS_LINES = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNREADABLE = re.compile(f"[{_BREAKS_LINES}{_TURNS_LINES}\ufffe\uffff]")
_UNWRITABLE = re.compile(rf"[\\{_BREAKS_LINES}]")
_LEFT_TO_RIGHT = "\u200e"


def text_report(scores: TextScores, *, title: str, notes: Sequence[str] = ()) -> str:
    """The whole of `report.txt`: headline, labels, most confused pairs, calibration, coverage.

    Args:
        scores: from `compute_text_scores`.
        title: first line, for example the run and the split.
        notes: further lines under the headline.
    """
    title = _one_line(title)
    head = [title, "=" * cell_len(title), *_headline(scores), *notes]
    blocks = ["\n".join(head)]
    tables = _tables(scores)
    for table in tables:
        rows = [list(table.columns), *([_steady(first), *others] for first, *others in table.rows)]
        blocks.append(f"{table.heading} ({table.caption})\n\n{_aligned(rows, rule=len(rows) - table.averages)}")
    if absent := _absent(scores):
        blocks.insert(2, absent)
    return "\n\n\n".join(blocks) + "\n"


def build_text_report(
    scores: TextScores, errors: Sequence[Mapping[str, Any]], *, title: str, notes: Sequence[str] = ()
) -> Report:
    """The parts of a page.

    Args:
        scores: from `compute_text_scores`.
        errors: rows of `text_error_rows` on the same texts.
        title: of the text.
        notes: further lines under the headline of the text.
    """
    names = _names(scores)
    return Report(
        size=_size(scores),
        text=text_report(scores, title=title, notes=notes),
        tiles=_tiles(scores),
        charts=tuple(
            chart
            for chart in (_bars(scores), _matrix(scores), _coverage_lines(scores), _reliability_lines(scores))
            if chart is not None
        ),
        tables=tuple(_tables(scores)),
        examples=tuple(_example(list(rows), names) for _, rows in groupby(errors, key=lambda row: row["number"])),
        labels=tuple(names.values()),
        kinds=MULTI_LABEL_KINDS if scores.multi_label else KINDS,
    )


def prediction_rows(gold: np.ndarray, answers: Answers, labels: Sequence[str], texts: Sequence[str]) -> str:
    r"""The predictions of a split as CSV with a header, one line a text.

    Line ends and other controls are written as in Python (`\n`, `\x00`, `\u2028`), and so is the backslash (`\\`):
    nothing is lost. A text out of scope, or without an answer, has no label. Several labels stand in the order of their
    numbers with `|` between them (a `|` of their own is `\|`), and so do the scores of those that are predicted.

    Args:
        gold: int [texts] or bool [texts, labels].
        answers: from `choose_answers` on the same texts.
        labels: names, by number.
        texts: as they were read.
    """
    _check_texts(gold, answers, texts)
    names = [_written(label) for label in labels]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(PREDICTION_COLUMNS)
    for index, text in enumerate(texts):
        if gold.ndim == 2:
            right, found = np.flatnonzero(gold[index]), np.flatnonzero(answers.predicted[index])
            sides = ["|".join(names[number].replace("|", "\\|") for number in side) for side in (right, found)]
            score = "|".join(f"{value:.6f}" for value in answers.score[index][found])
        else:
            sides = ["" if side[index] == NO_LABEL else names[side[index]] for side in (gold, answers.predicted)]
            score = f"{answers.score[index]:.6f}"
        writer.writerow((index + 1, *sides, score, _written(text)))
    return file.getvalue()


def text_error_rows(
    gold: np.ndarray, answers: Answers, labels: Sequence[str], texts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """What is wrong, one JSON-ready row each, as `errors/SPLIT.jsonl` holds it.

    Args:
        gold: int [texts] or bool [texts, labels].
        answers: from `choose_answers` on the same texts.
        labels: names, by number.
        texts: as they were read.

    Yields:
        {"number": of the text, from 1, "kind", "gold": label or None, "predicted": label or None, "score", "text"}. Of
        several labels one row for each that is missed (predicted is None) or spurious (gold is None), with the
        probability of that label.
    """
    _check_texts(gold, answers, texts)
    if gold.ndim == 2:
        for index, number in np.argwhere(gold != answers.predicted):
            label, missed = labels[number], gold[index, number]
            sides = (label, None) if missed else (None, label)
            kind = MISSED if missed else SPURIOUS
            yield _error_row(index, kind, *sides, score=answers.score[index, number], text=texts[index])
        return
    for index in np.flatnonzero(gold != answers.predicted):
        right, found = (None if side == NO_LABEL else labels[side] for side in (gold[index], answers.predicted[index]))
        kind = ANSWERED if right is None else NOT_ANSWERED if found is None else CONFUSION
        yield _error_row(index, kind, right, found, score=answers.score[index], text=texts[index])


def _check_texts(gold: np.ndarray, answers: Answers, texts: Sequence[str]) -> None:
    if gold.shape != answers.predicted.shape or len(gold) != len(texts):
        raise ValueError(
            "gold, answers and texts must be of the same texts, "
            f"received {gold.shape}, {answers.predicted.shape} and {len(texts)}"
        )


def _error_row(
    index: int, kind: str, gold: str | None, predicted: str | None, *, score: float, text: str
) -> dict[str, Any]:
    return {
        "number": int(index) + 1,
        "kind": kind,
        "gold": gold,
        "predicted": predicted,
        "score": round(float(score), 6),
        "text": text,
    }


# Names and texts as they are shown and written.


def _one_line(text: str) -> str:
    return _UNREADABLE.sub(lambda found: _escape(found[0]), text)


def _written(text: str) -> str:
    return _UNWRITABLE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _names(scores: TextScores) -> dict[str, str]:
    """Label -> how it is shown; no two alike, nor like OUT_OF_SCOPE."""
    shown: dict[str, str] = {}
    taken = {OUT_OF_SCOPE}
    for number, label in enumerate(scores.labels):
        name = _one_line(label)
        if len(name) > _LONGEST_NAME:
            half = (_LONGEST_NAME - 1) // 2
            name = f"{name[: _LONGEST_NAME - 1 - half]}…{name[-half:]}"
        while name in taken:
            name = f"{name} (label {number + 1})"
        taken.add(name)
        shown[label] = name
    return shown


def _steady(name: str) -> str:
    """A name that leaves the numbers after it where they are, though its letters run from right to left."""
    if _LEFT_TO_RIGHT not in name and any(bidirectional(letter) in ("R", "AL", "AN") for letter in name):
        return f"{_LEFT_TO_RIGHT}{name}{_LEFT_TO_RIGHT}"
    return name


def _aligned(rows: Sequence[Sequence[str]], *, rule: int) -> str:
    """Columns by their width in a terminal, the first to the left; a rule under the header and before one later row."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for index, (first, *others) in enumerate(rows):
        if index in (1, rule) and index:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [" " * (width - cell_len(cell)) + cell for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first + " " * (widths[0] - cell_len(first)), *cells]))
    return "\n".join(lines)


# Numbers.


def _headline(scores: TextScores) -> list[str]:
    occurring = sum(row.occurs for row in scores.classes)
    lines = [f"macro-F1 {scores.macro.f1:.4f} over the {occurring} of {len(scores.labels)} labels that occur"]
    if scores.multi_label:
        exact = "texts that get exactly the right labels"
        lines.append(f"micro-F1 {scores.micro.f1:.4f}, subset accuracy {scores.accuracy:.4f} ({exact})")
    else:
        lines.append(f"accuracy {scores.accuracy:.4f}, weighted F1 {scores.weighted.f1:.4f}")
    lines.append(_size(scores))
    answering = scores.answering
    if answering and _has_gaps(scores):
        lines += [
            f"minimum score {scores.min_score:.4g}: {answering.coverage:.1%} of the texts are answered, "
            f"accuracy of the answers {_number(answering.accuracy)}",
            f"accuracy in scope {_number(answering.in_scope_accuracy)} (no answer is wrong), "
            f"out-of-scope recall {_number(answering.out_of_scope_recall)} (no answer is right)",
        ]
    return lines


def _size(scores: TextScores) -> str:
    outside = scores.texts - scores.in_scope
    return (
        f"{scores.texts:,} texts, {f'{outside:,} of them out of scope, ' if outside else ''}{len(scores.labels)} labels"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _absent(scores: TextScores) -> str:
    names = _names(scores)
    absent = [names[row.name] for row in scores.classes if not row.occurs]
    if not absent:
        return ""
    listed = ", ".join(map(_steady, absent[:10])) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
    return f"Neither in gold nor in the predictions, and so not counted in macro-F1: {listed}"


def _has_gaps(scores: TextScores) -> bool:
    """Whether a text is out of scope or gets no answer."""
    return bool(scores.answering and (scores.in_scope < scores.texts or scores.answering.coverage < 1))


def _tiles(scores: TextScores) -> tuple[tuple[str, str], ...]:
    tiles = [("macro-F1", scores.macro.f1)]
    if scores.multi_label:
        tiles += [("micro-F1", scores.micro.f1), ("subset accuracy", scores.accuracy)]
    else:
        tiles += [("accuracy", scores.accuracy), ("weighted F1", scores.weighted.f1)]
    if scores.calibration:
        tiles.append(("calibration error", scores.calibration.error))
    if scores.answering and _has_gaps(scores):
        optional = (
            ("coverage", scores.answering.coverage),
            ("accuracy of the answers", scores.answering.accuracy),
            ("out-of-scope recall", scores.answering.out_of_scope_recall),
        )
        tiles += [(name, value) for name, value in optional if value is not None]
    return tuple((name, f"{value:.4f}") for name, value in tiles)


def _tables(scores: TextScores) -> list[Table]:
    tables = [_label_table(scores)]
    if scores.confused:
        tables.append(_confused_table(scores))
    if scores.calibration and scores.uncalibrated:
        tables.append(_calibration_table(scores))
    if scores.answering:
        tables.append(_coverage_table(scores))
    return tables


def _label_table(scores: TextScores) -> Table:
    names = _names(scores)
    listed = [row for row in scores.classes if row.occurs]
    order = ""
    if len(listed) > LABELS_IN_ORDER:
        listed, order = sorted(listed, key=lambda row: row.f1), ", worst first"
    rows: list[tuple[str, ...]] = [_cells(row, names[row.name]) for row in listed]
    averages = [scores.macro, scores.micro, scores.weighted] if scores.multi_label else [scores.macro, scores.weighted]
    rows += [_cells(row, row.name) for row in averages]
    if scores.multi_label:
        caption = "precision, recall and F1 of each label that occurs"
        rows.append(("subset accuracy", "", "", f"{scores.accuracy:.3f}", f"{scores.texts:,}"))
    else:
        caption = "texts in scope, by their most probable label"
        rows.append(("accuracy", "", "", f"{scores.accuracy:.3f}", f"{scores.in_scope:,}"))
    columns: tuple[str, ...] = ("label", "precision", "recall", "F1", "support")
    if scores.thresholds is not None:
        columns += ("threshold",)
        least = dict(zip(scores.labels, scores.thresholds.tolist(), strict=True))
        shown = [f"{least[row.name]:.3f}" for row in listed] + [""] * (len(averages) + 1)
        rows = [(*cells, threshold) for cells, threshold in zip(rows, shown, strict=True)]
        caption += "; a text gets the labels whose probability reaches their threshold"
    return Table("Labels", caption + order, columns, tuple(rows), averages=len(averages) + 1)


def _cells(row: Row, name: str) -> tuple[str, ...]:
    return name, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.support:,}"


def _confused_table(scores: TextScores) -> Table:
    names = _names(scores)
    support = {row.name: row.support for row in scores.classes}
    rows = tuple(
        (f"{_steady(names[gold])} → {_steady(names[predicted])}", f"{count:,}", f"{count / support[gold]:.1%}")
        for gold, predicted, count in scores.confused
    )
    caption = f"gold → predicted, at most {MOST_CONFUSED}, and the share of the texts of the gold label"
    return Table("Most confused labels", caption, ("gold → predicted", "texts", "share"), rows)


def _calibration_table(scores: TextScores) -> Table:
    assert scores.calibration and scores.uncalibrated
    found = [("as trained (temperature 1)", scores.uncalibrated)]
    if scores.temperature != 1:
        found.append((f"calibrated (temperature {scores.temperature:.3f})", scores.calibration))
    rows = tuple((name, f"{each.error:.4f}", f"{each.loss:.4f}") for name, each in found)
    caption = f"over {BINS} bins of confidence; likelihood of the gold labels, in nats"
    columns = ("probabilities", "expected calibration error", "negative log-likelihood")
    return Table("Calibration", caption, columns, rows)


def _coverage_table(scores: TextScores) -> Table:
    assert scores.answering
    curve = scores.answering.curve
    places = np.searchsorted(curve[:, 0], np.array(COVERAGES) - 1e-9)  # the first that covers as much
    rows = tuple(
        (f"{coverage:.1%}", f"{accuracy:.4f}", f"{score:.4f}") for coverage, accuracy, score in curve[np.unique(places)]
    )
    caption = "what a minimum score would do; an answer to a text out of scope is wrong"
    return Table("Coverage", caption, ("answered", "accuracy of the answers", "minimum score"), rows)


# Charts.


def _bars(scores: TextScores) -> Bars | None:
    names = _names(scores)
    rows = [row for row in scores.classes if row.occurs]
    caption = "In the order of the labels"
    if len(rows) > LABELS_IN_ORDER:
        total = len(rows)
        rows = sorted(rows, key=lambda row: row.f1)[:MOST_BARS]
        caption = f"Worst first, {len(rows)} of {total} labels" if len(rows) < total else "Worst first"
    if not rows:
        return None
    return Bars(
        heading="F1 of each label",
        caption=caption,
        names=tuple(names[row.name] for row in rows),
        values=tuple(row.f1 for row in rows),
        notes=tuple(f"{row.f1:.3f}" for row in rows),
    )


def _matrix(scores: TextScores) -> Matrix | None:
    if scores.confusion is None or scores.answering is None:
        return None
    names = list(_names(scores).values())
    counts, caption = scores.confusion, "Texts in scope, by their most probable label"
    if _has_gaps(scores):
        counts, caption = scores.answering.confusion, f'All texts; without an answer: "{OUT_OF_SCOPE}"'
        names.append(OUT_OF_SCOPE)
    kept = np.arange(len(names))
    if len(names) > MOST_CELLS:
        mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
        kept = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CELLS])
        caption += f"; the {MOST_CELLS} of {len(names)} with most mistakes"
    shown = tuple(names[number] for number in kept)
    return Matrix("Confusion matrix", caption, shown, shown, tuple(map(tuple, counts[np.ix_(kept, kept)].tolist())))


def _coverage_lines(scores: TextScores) -> Lines | None:
    if scores.answering is None:
        return None
    curve = scores.answering.curve
    if len(curve) > _CURVE_POINTS:
        curve = curve[np.unique(np.linspace(0, len(curve) - 1, _CURVE_POINTS).astype(int))]
    return Lines(
        heading="Coverage",
        caption="Accuracy of what is answered at all minimum scores; an answer to a text out of scope is wrong",
        x_label="share of the texts that are answered",
        y_label="accuracy of the answers",
        series={"accuracy": tuple((x, y) for x, y, _ in curve.tolist())},
    )


def _reliability_lines(scores: TextScores) -> Lines | None:
    if scores.calibration is None or scores.uncalibrated is None:
        return None
    series = {"as trained": scores.uncalibrated.curve}
    if scores.temperature != 1:
        series[f"calibrated, temperature {scores.temperature:.2f}"] = scores.calibration.curve
    return Lines(
        heading="Reliability",
        caption="Of texts of about one confidence, the share that is right; below the diagonal the model is too sure",
        x_label="confidence",
        y_label="share that is right",
        series=series,
        diagonal=True,
    )


def _example(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Example:
    """What is wrong with one text."""
    text = _one_line(rows[0]["text"])
    text = text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
    lines: list[tuple[str, tuple[Segment, ...]]] = [("text", (Segment(text),))]
    for row in rows:
        gold, found = (OUT_OF_SCOPE if row[side] is None else names[row[side]] for side in ("gold", "predicted"))
        score = Segment(f" ({row['score']:.2f})")
        if row["kind"] in MULTI_LABEL_KINDS:
            lines.append((row["kind"], (Segment(gold if row["kind"] == MISSED else found, wrong=True), score)))
        else:
            lines += [("gold", (Segment(gold),)), ("predicted", (Segment(found, wrong=True), score))]
    return Example(f"text {rows[0]['number']:,}", tuple(dict.fromkeys(row["kind"] for row in rows)), tuple(lines))
