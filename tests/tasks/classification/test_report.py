"""Reports, predictions and errors of classified texts, whatever labels and texts hold."""

import csv
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from app.evaluation.scoring import shorten_tables
from app.tasks.classification.report import (
    KINDS,
    MULTI_LABEL_KINDS,
    build_text_report,
    prediction_rows,
    text_error_rows,
    text_report,
)
from app.tasks.classification.scores import choose_answers, compute_text_scores

HOSTILE = (
    "line\nend\r\n\x85\u2028",
    '<b>&"quoted", comma',
    "nul\x00\x1b[31m",
    "x" * 200 + "1",
    "x" * 200 + "2",
    "אבגדה",
    "\u202etxt.exe",
    "漢字ラベル",
    "half \ud83d of a pair",
    "back\\slash\\n|",
    "back\\slash\n|",
    "out of scope",
)
PLAIN = ("card", "loan", "fee")


def split(labels, *, multi_label=False, texts=60, min_score=0.6, seed=0):
    """(gold, answers, scores, texts) of a model that is often right; texts out of scope among them."""
    random = np.random.default_rng(seed)
    gold = random.integers(-1, len(labels), texts)
    logits = random.normal(size=(texts, len(labels)))
    logits[np.arange(texts), gold] += 2 * (gold >= 0)
    if multi_label:
        gold = np.eye(len(labels), dtype=bool)[gold] | (random.random(logits.shape) < 0.1)
    settings = {} if multi_label else {"min_score": min_score, "temperature": 0.7}
    scores = compute_text_scores(gold, logits, labels, **settings)
    answers = choose_answers(logits, multi_label=multi_label, **settings)
    return gold, answers, scores, [f"text {number}: {labels[number % len(labels)]}" for number in range(texts)]


def tables_of(report):
    """Heading -> rows of cells."""
    blocks = report.rstrip("\n").split("\n\n\n")
    found = {}
    for block in blocks[1:]:
        heading, _, table = block.partition("\n\n")
        lines = [re.split("  +", line.strip()) for line in table.split("\n") if not line.startswith("--")]
        found[heading.partition(" (")[0]] = lines[1:]
    return found


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_report_holds_the_scores(multi_label):
    _, _, scores, _ = split(PLAIN, multi_label=multi_label)
    report = text_report(scores, title="bank: test split", notes=["a note"])
    lines = report.split("\n")
    assert lines[:2] == ["bank: test split", "=" * 16]
    assert lines[2] == f"macro-F1 {scores.macro.f1:.4f} over the 3 of 3 labels that occur"
    assert "a note" in lines
    tables = tables_of(report)
    for row in scores.classes:
        expected = [row.name, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", str(row.support)]
        expected += ["0.500"] if multi_label else []
        assert expected in tables["Labels"]
    assert [row[0] for row in tables["Labels"][3:]] == (
        ["macro avg", "micro avg", "weighted avg", "subset accuracy"]
        if multi_label
        else ["macro avg", "weighted avg", "accuracy"]
    )
    assert tables["Calibration"][0][1:] == [f"{scores.uncalibrated.error:.4f}", f"{scores.uncalibrated.loss:.4f}"]
    if multi_label:
        assert "Coverage" not in tables and len(tables["Calibration"]) == 1
        return
    assert tables["Calibration"][1][1:] == [f"{scores.calibration.error:.4f}", f"{scores.calibration.loss:.4f}"]
    gold, predicted, count = scores.confused[0]
    assert tables["Most confused labels"][0][:2] == [f"{gold} → {predicted}", str(count)]
    assert f"minimum score 0.6: {scores.answering.coverage:.1%} of the texts are answered" in report
    assert f"out-of-scope recall {scores.answering.out_of_scope_recall:.4f}" in report


def test_the_coverage_table_answers_at_least_as_many_texts_as_it_says():
    _, _, scores, _ = split(PLAIN)
    curve = scores.answering.curve
    rows = tables_of(text_report(scores, title="t"))["Coverage"]
    shown = [(float(row[0].rstrip("%")) / 100, float(row[1])) for row in rows]
    for wanted, (coverage, accuracy) in zip((0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0), shown, strict=True):
        point = next(point for point in curve if point[0] >= wanted - 1e-9)
        assert (coverage, accuracy) == (pytest.approx(point[0], abs=1e-3), pytest.approx(point[1], abs=1e-4))
    assert shown[-1][0] == 1


def test_the_threshold_of_each_of_several_labels_is_in_its_row():
    gold = np.array([[True, False, True], [False, True, True], [True, False, False]])
    scores = compute_text_scores(gold, np.where(gold, 2.0, -2.0), PLAIN, thresholds=np.array([0.25, 0.5, 0.75]))
    rows = {row[0]: row for row in tables_of(text_report(scores, title="t"))["Labels"]}
    assert [rows[name][5] for name in PLAIN] == ["0.250", "0.500", "0.750"] and len(rows["macro avg"]) == 5
    page = build_text_report(scores, [], title="t")
    assert page.tables[0].columns[-1] == "threshold" and {len(row) for row in page.tables[0].rows} == {6}


def test_of_many_labels_the_worst_come_first_and_a_screen_shows_no_more_than_those():
    labels = [f"label {number:04}" for number in range(300)]
    _, _, scores, _ = split(labels, texts=900)
    report = text_report(scores, title="t")
    rows = tables_of(report)["Labels"]
    values = [float(row[3]) for row in rows if row[0].startswith("label ")]
    assert values == sorted(values) and len(values) > 200
    shown = shorten_tables(report, where="RUN/report.txt")
    assert len(shown.split("\n")) < 90 and f"... {len(values) - 20} more rows: RUN/report.txt" in shown
    assert [row for row in tables_of(shown)["Labels"] if row[0] == "accuracy"] == [rows[-1]]
    assert f"{rows[0][0]} " in shown and f"{rows[19][0]} " in shown
    small = text_report(split(PLAIN)[2], title="t")
    assert shorten_tables(small, where="x") == small


def test_labels_that_do_not_occur_are_named_beside_the_table():
    scores = compute_text_scores(np.array([0, 0]), np.array([[2.0, 0, 0], [2.0, 0, 0]]), PLAIN)
    report = text_report(scores, title="t")
    assert "not counted in macro-F1: loan, fee" in report
    assert [row[0] for row in tables_of(report)["Labels"]] == ["card", "macro avg", "weighted avg", "accuracy"]


def test_hostile_names_keep_the_report_in_lines_and_columns():
    _, _, scores, _ = split(HOSTILE, texts=400)
    report = text_report(scores, title="a\nb")
    assert report.startswith("a\\nb\n====\n")
    assert len(report.splitlines()) == report.count("\n")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", report)
    block = next(block for block in report.split("\n\n\n") if block.startswith("Labels"))
    widths = {cell_len(line) for line in block.split("\n")[2:]}
    assert len(widths) == 1 and max(map(cell_len, report.split("\n"))) <= 150
    first = [line[:48].strip() for line in block.split("\n")[4:]]
    assert len(set(first)) == len(first)  # long names that differ at the end differ still
    assert "\u200eאבגדה\u200e" in report


@pytest.mark.parametrize("multi_label", [False, True])
def test_predictions_are_one_line_a_text_and_can_be_read_back(multi_label):
    gold, answers, _, texts = split(HOSTILE, texts=100, multi_label=multi_label)
    written = prediction_rows(gold, answers, HOSTILE, texts)
    assert len(written.splitlines()) == 101 and written.encode("utf-8").count(b"\n") == 101
    rows = list(csv.DictReader(io.StringIO(written)))

    def read(cell):
        found = re.sub(
            r"\\(?:\\|n|r|t|x(..)|u(....))",
            lambda match: (
                chr(int(match[1] or match[2], 16))
                if match[1] or match[2]
                else {"\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t"}[match[0]]
            ),
            cell,
        )
        return found

    for index, row in enumerate(rows):
        assert (int(row["number"]), read(row["text"])) == (index + 1, texts[index])
        for side, values in (("gold", gold), ("predicted", answers.predicted)):
            if multi_label:
                found = [read(name.replace("\\|", "|")) for name in re.split(r"(?<!\\)\|", row[side]) if name]
                assert found == [HOSTILE[number] for number in np.flatnonzero(values[index])]
            else:
                assert read(row[side]) == ("" if values[index] < 0 else HOSTILE[values[index]])
        if multi_label:
            scores = [float(score) for score in row["score"].split("|") if score]
            assert scores == pytest.approx(answers.score[index][answers.predicted[index]], abs=1e-6)
        else:
            assert float(row["score"]) == pytest.approx(answers.score[index], abs=1e-6)


@given(st.text(max_size=40).filter(bool))
def test_no_text_breaks_a_line_of_the_predictions(text):
    answers = choose_answers(np.array([[2.0, 0.0]]))
    written = prediction_rows(np.array([0]), answers, (text, f"{text}2"), [text])
    assert len(written.splitlines()) == 2
    row = list(csv.reader(io.StringIO(written)))[1]
    assert row[1] == row[4] and len(row) == 5
    assert "\n" not in row[1] and (row[1] == text) == ("\\" not in row[1])


def test_every_wrong_text_is_an_error_of_its_kind():
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.55, 0.45], [0.55, 0.45]]))
    gold = np.array([0, 1, -1, 0, -1])
    rows = list(text_error_rows(gold, choose_answers(logits, min_score=0.6), PLAIN[:2], list("abcde")))
    assert rows == [
        {"number": 2, "kind": "confusion", "gold": "loan", "predicted": "card", "score": 0.9, "text": "b"},
        {"number": 3, "kind": "out of scope answered", "gold": None, "predicted": "card", "score": 0.9, "text": "c"},
        {"number": 4, "kind": "in scope not answered", "gold": "card", "predicted": None, "score": 0.55, "text": "d"},
    ]


def test_of_several_labels_each_that_is_missed_or_spurious_is_an_error():
    gold, answers, scores, texts = split(PLAIN, multi_label=True)
    rows = list(text_error_rows(gold, answers, PLAIN, texts))
    missed = [row for row in rows if row["kind"] == "missed"]
    assert len(missed) == (gold & ~answers.predicted).sum() > 0
    assert len(rows) - len(missed) == (answers.predicted & ~gold).sum() > 0
    for row in rows:
        label = row["gold"] if row["kind"] == "missed" else row["predicted"]
        place = row["number"] - 1, PLAIN.index(label)
        assert gold[place] == (row["kind"] == "missed") and answers.predicted[place] != gold[place]
        assert (row["gold"] is None) == (row["kind"] == "spurious") and (row["predicted"] is None) == bool(gold[place])
        assert row["score"] == pytest.approx(answers.score[place], abs=1e-6)
    wrong = (gold != answers.predicted).any(axis=1)
    report = build_text_report(scores, rows, title="t")
    assert [example.where for example in report.examples] == [f"text {n + 1}" for n in np.flatnonzero(wrong)]
    assert report.kinds == MULTI_LABEL_KINDS


def test_errors_of_hostile_texts_are_json():
    gold, answers, _, texts = split(HOSTILE, texts=300)
    rows = list(text_error_rows(gold, answers, HOSTILE, texts))
    assert json.loads(json.dumps(rows)) == rows
    assert {row["kind"] for row in rows} == set(KINDS)
    assert len(rows) == (gold != answers.predicted).sum()


def test_the_parts_of_a_page_fit_together():
    gold, answers, scores, texts = split(HOSTILE, texts=300)
    errors = list(text_error_rows(gold, answers, HOSTILE, texts))
    report = build_text_report(scores, errors, title="t")
    assert report.tiles[0] == ("macro-F1", f"{scores.macro.f1:.4f}")
    assert dict(report.tiles)["out-of-scope recall"] == f"{scores.answering.out_of_scope_recall:.4f}"
    assert report.text == text_report(scores, title="t")
    assert report.size in report.text
    for table in report.tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
    bars, matrix, coverage, reliability = report.charts
    assert len(bars.names) == len(bars.values) == len(bars.notes) == len(HOSTILE)
    assert len(set(matrix.rows)) == len(matrix.rows) == len(HOSTILE) + 1 and matrix.rows[-1] == "out of scope"
    counts = np.array(matrix.counts)
    assert counts.sum() == len(texts) and counts.trace() == len(texts) - len(errors)
    assert set(report.labels) == set(matrix.rows[:-1])
    assert len(coverage.series["accuracy"]) == 100 and coverage.series["accuracy"][-1][0] == 1
    assert reliability.diagonal and list(reliability.series) == ["as trained", "calibrated, temperature 0.70"]
    for lines in (coverage, reliability):
        for points in lines.series.values():
            assert list(points) == sorted(points) and all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points)
    assert len(report.examples) == len(errors) and {kind for each in report.examples for kind in each.kinds} == set(
        KINDS
    )
    shown = "".join(segment.text for each in report.examples for _, line in each.lines for segment in line)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)


def test_charts_of_many_labels_show_the_worst():
    labels = [f"label {number}" for number in range(160)]
    gold = np.repeat(np.arange(160), 4)
    predicted = gold.copy()
    predicted[4 * 150 : 4 * 151] = 0  # all of label 150
    predicted[4 * 7] = 8
    scores = compute_text_scores(gold, np.eye(160)[predicted], labels)
    bars, matrix = build_text_report(scores, [], title="t").charts[:2]
    assert bars.names[0] == "label 150" and "100 of 160" in bars.caption
    assert list(bars.values) == sorted(bars.values)
    assert len(matrix.rows) == 150 and {"label 150", "label 0", "label 7", "label 8"} <= set(matrix.rows)
    assert "150 of 160" in matrix.caption
    few = compute_text_scores(gold[:80], np.eye(20)[gold[:80]], labels[:20])
    assert build_text_report(few, [], title="t").charts[0].names == tuple(labels[:20])


def test_a_long_text_is_shortened_on_the_page_alone():
    answers = choose_answers(np.array([[2.0, 0.0]]))
    (row,) = text_error_rows(np.array([1]), answers, PLAIN[:2], ["word " * 1000])
    assert len(row["text"]) == 5000
    scores = compute_text_scores(np.array([1]), np.array([[2.0, 0.0]]), PLAIN[:2])
    (example,) = build_text_report(scores, [row], title="t").examples
    assert len(example.lines[0][1][0].text) == 600


@pytest.mark.parametrize(
    ("gold", "logits"),
    [
        (np.array([-1, -1]), np.array([[1.0, 0.0], [0.0, 3.0]])),
        (np.array([1]), np.array([[1.0, 0.0]])),
        (np.array([0]), np.array([[1.0]])),
        (np.array([0, 1]), np.array([[-np.inf, 1], [np.inf, 1]])),
        (np.zeros((1, 2), bool), np.array([[-1.0, -3.0]])),
        (np.ones((1, 1), bool), np.array([[-np.inf]])),
    ],
)
def test_the_smallest_splits_have_a_report(gold, logits):
    labels = PLAIN[: logits.shape[1]]
    scores = compute_text_scores(gold, logits, labels)
    answers = choose_answers(logits, multi_label=gold.ndim == 2)
    texts = ["text"] * len(gold)
    errors = list(text_error_rows(gold, answers, labels, texts))
    report = build_text_report(scores, errors, title="t")
    assert f"macro-F1 {scores.macro.f1:.4f}" in report.text
    assert len(report.examples) == len({row["number"] for row in errors})
    assert len(prediction_rows(gold, answers, labels, texts).splitlines()) == len(gold) + 1


def test_texts_of_another_number_are_refused():
    answers = choose_answers(np.array([[1.0, 0.0]]))
    with pytest.raises(ValueError, match="same texts"):
        prediction_rows(np.array([0]), answers, PLAIN[:2], ["a", "b"])
    with pytest.raises(ValueError, match="same texts"):
        list(text_error_rows(np.array([0, 1]), answers, PLAIN[:2], ["a", "b"]))
