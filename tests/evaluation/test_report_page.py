"""report.html: one well-formed page that shows what it should and runs nothing from the data."""

import json
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from app.evaluation import report_page
from app.evaluation.report_page import render_page
from app.tasks.classification.report import build_text_report, text_error_rows
from app.tasks.classification.scores import choose_answers, compute_text_scores
from app.tasks.report import Bars, Example, Lines, Matrix, Report, Segment, Table
from app.tasks.tagging.report import build_report
from app.tasks.tagging.scores import KINDS, compute_scores, count_errors, error_rows

SVG = "{http://www.w3.org/2000/svg}"
WORDS = [["Ada", "Lovelace", "met", "<script>alert(1)</script>"], ["in", "London", "&", "\x00Paris"]]
GOLD = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-LOC", "O", "B-LOC"]]
PREDICTED = [["B-PER", "O", "O", "B-LOC"], ["B-LOC", "O", "O", "B-LOC"]]
HISTORY = [
    {"epoch": 1, "loss": 0.9, "valid/entity_f1": 0.5},
    {"epoch": 2, "loss": 0.4, "valid/entity_f1": 0.75},
    {"epoch": 3, "loss": float("nan")},
]


def tagging_report(words=WORDS, gold=GOLD, predicted=PREDICTED):
    rows = list(error_rows(words, gold, predicted, [0] * len(words)))
    return build_report(compute_scores(gold, predicted), count_errors(gold, predicted), rows, title="runs/one: test")


def page(words=WORDS, gold=GOLD, predicted=PREDICTED, **changes):
    return shown(tagging_report(words, gold, predicted), **changes)


def shown(report, **changes):
    arguments = {
        "title": "runs/one: test",
        "history": HISTORY,
        "curves": {"entity F1": "valid/entity_f1"},
        "config_text": "data:\n  train_path: <here>\n",
        "environment": {"python": "3.11", "packages": {"tensorflow": "2.15.1"}},
        **changes,
    }
    return render_page(report, **arguments)


def parsed(text):
    doctype, markup = text.split("\n", 1)
    assert doctype == "<!DOCTYPE html>"
    return ElementTree.fromstring(markup)


def texts(root, tag, style=None):
    found = [item for item in root.iter(tag) if style is None or style in item.get("class", "").split()]
    return ["".join(item.itertext()) for item in found]


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere():
    text = page()
    root = parsed(text)

    assert root.tag == "html"
    assert not list(root.iter("script")) + list(root.iter("link")) + list(root.iter("img"))
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http" not in without_names
    assert "@import" not in text


def test_words_are_text_never_markup():
    text = page(title="<b>bold</b>", notes=["<i>"])

    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<b>bold" not in text
    assert "\x00" not in text


def test_types_are_text_in_tables_and_charts():
    gold, predicted = [["B-<x>&$a_1$", "O"]], [["O", "B-<x>&$a_1$"]]
    text = page([["a", "b"]], gold, predicted)

    root = parsed(text)
    assert "<x>&$a_1$" in texts(root, "td")
    assert any("<x>&$a_1$" in drawn for drawn in texts(root, f"{SVG}text"))


def test_tiles_show_the_headline_numbers_and_the_speed_only_when_given():
    tiles = texts(parsed(page(speed=("words/s", 1234.4))), "div", "tile")
    scores = compute_scores(GOLD, PREDICTED)

    assert tiles[0] == f"{scores.strict.micro.f1:.4f}entity F1"
    assert tiles[-1] == "1,234words/s"
    assert not any("words/s" in tile for tile in texts(parsed(page()), "div", "tile"))


def test_all_four_charts_are_drawn_in_the_pages_colours_with_ids_of_their_own():
    root = parsed(page())
    drawings = list(root.iter(f"{SVG}svg"))
    ids = [item.get("id") for item in root.iter() if item.get("id")]

    assert [drawing.get("role") for drawing in drawings] == ["img"] * 4
    assert len(ids) == len(set(ids))
    for drawing in drawings:
        markup = ElementTree.tostring(drawing, encoding="unicode")
        assert "var(--" in markup
        assert not re.search(r"(fill|stroke): #(?!none)", markup)


def test_the_curves_of_any_task_are_drawn_and_named():
    history = [{"epoch": epoch, "valid/accuracy": 0.5 + epoch / 10, "valid/macro_f1": epoch / 10} for epoch in (1, 2)]
    alone = page(history=history, curves={"accuracy": "valid/accuracy"})
    both = page(history=history, curves={"accuracy": "valid/accuracy", "macro-F1": "valid/macro_f1"})

    assert "validation accuracy" in texts(parsed(alone), f"{SVG}text")
    assert {"validation accuracy", "validation macro-F1"} <= set(texts(parsed(both), f"{SVG}text"))
    assert "Learning curve" not in page(history=history)  # of another metric


def test_without_history_the_learning_curve_is_left_out():
    assert "Learning curve" in page()
    for history in ([], [{"step": 10, "loss": 0.5}], [{"epoch": 1, "loss": float("inf")}]):
        assert "Learning curve" not in page(history=history)


def test_gold_and_predicted_spans_are_marked_and_wrong_ones_outlined():
    root = parsed(page())
    example = next(item for item in root.iter("article"))
    gold, predicted = (item for item in example.iter("div") if item.get("class") == "line")

    assert texts(gold, "mark") == ["Ada LovelacePER", "<script>alert(1)</script>ORG"]
    assert texts(predicted, "mark") == ["AdaPER", "<script>alert(1)</script>LOC"]
    assert [mark.get("class") for mark in gold.iter("mark")] == ["wrong", "wrong"]
    correct = [mark for mark in root.iter("mark") if mark.get("class") is None]
    assert ["".join(mark.itertext()) for mark in correct] == ["\ufffdParisLOC"] * 2


def test_every_present_kind_has_a_button_that_hides_the_other_sentences():
    text = page()
    labels = texts(parsed(text), "label")

    assert labels[0] == "all 2"
    assert [label.rsplit(" ", 1)[0] for label in labels[1:]] == [
        kind for kind in KINDS if kind in ("wrong type", "wrong boundary", "missed", "invented")
    ]
    root = parsed(text)
    shown_kinds = [each.get("class").split()[1:] for each in root.iter("article")]
    for box, name in zip(list(root.iter("input"))[1:], labels[1:], strict=True):
        style = f"kind-{box.get('id').removeprefix('pick-')}"
        assert f"#errors:has(#{box.get('id')}:checked) .example:not(.{style}) {{ display: none; }}" in text
        assert sum(style in styles for styles in shown_kinds) == int(name.rsplit(" ", 1)[1])


def test_a_long_sentence_is_cut_around_its_error_and_long_lists_are_sampled(monkeypatch):
    monkeypatch.setattr(report_page, "MAX_EXAMPLES", 5)
    words = [[f"w{index}" for index in range(1000)]] * 12
    gold = [["O"] * 500 + ["B-PER"] + ["O"] * 499] * 12
    root = parsed(page(words, gold, [["O"] * 1000] * 12))

    lines = texts(root, "span", "words")
    assert len(lines) == 2 * 5
    assert "w500" in lines[0]
    assert "w0 " not in lines[0]
    assert len(lines[0].split()) < 60
    assert "5 of 12 wrong sentences" in "".join(root.itertext())


def test_a_perfect_run_and_one_without_entities_have_a_page():
    assert "everything is right" in page(predicted=GOLD)
    empty = parsed(page([["a"]], [["O"]], [["O"]]))
    assert "entity F1" in "".join(empty.itertext())


def test_many_types_fit():
    names = [f"TYPE_{index:02}_WITH_A_LONG_NAME" for index in range(20)]
    gold = [[f"B-{name}" for name in names]]
    predicted = [[f"B-{name}" for name in reversed(names)]]

    assert len(list(parsed(page([names], gold, predicted)).iter(f"{SVG}svg"))) == 4


HOSTILE = "<b>&\"'`$\\x_{{ 1 }}{% x %}\x00\ud800\uffff;}</style>--></svg> id=\"#010101\" "
CLEAN = HOSTILE.replace("\x00", "\ufffd").replace("\ud800", "\ufffd").replace("\uffff", "\ufffd")


def hostile_report(classes: int):
    names = tuple(f"_{HOSTILE}{number}" for number in range(classes))
    flat = (0.5,) * classes
    counts = tuple(tuple(3 if row == column else 1 for column in range(classes)) for row in range(classes))
    segments = (Segment(HOSTILE), Segment(HOSTILE, names[0], True), Segment("", names[-1]))
    return Report(
        size=HOSTILE,
        text="",
        tiles=((HOSTILE, HOSTILE),),
        charts=(
            Bars(HOSTILE, HOSTILE, names, flat, names, measure=HOSTILE, marks={HOSTILE: flat}, sizes=names,
                 sizes_name=HOSTILE),
            Bars(HOSTILE, HOSTILE, names, flat, names, parts={f"_{HOSTILE}": flat, HOSTILE: flat}),
            Matrix(HOSTILE, HOSTILE, names, names, counts),
            Lines(HOSTILE, HOSTILE, HOSTILE, HOSTILE, {name: ((0.0, 0.1), (1.0, 0.9)) for name in names}),
        ),
        tables=(Table(HOSTILE, HOSTILE, (HOSTILE,), tuple((name,) for name in names), averages=1),),
        examples=(Example(HOSTILE, (HOSTILE,), ((HOSTILE, segments),)),),
        labels=names,
        kinds=(HOSTILE,),
        unit=HOSTILE,
    )  # fmt: skip


@pytest.mark.parametrize("classes", [2, 14])
def test_hostile_names_and_texts_are_shown_as_they_are_wherever_they_stand(classes):
    text = shown(hostile_report(classes), title=HOSTILE, notes=[HOSTILE], config_text=HOSTILE,
                 environment={HOSTILE: HOSTILE}, curves={HOSTILE: "valid/entity_f1"}, speed=(HOSTILE, 1.0))  # fmt: skip
    root = parsed(text)

    assert len(list(root.iter("b"))) == 2  # the values of the tiles
    assert len(list(root.iter("style"))) == 1 and len(list(root.iter(f"{SVG}svg"))) == 5
    text.encode("utf-8")  # no lone surrogate is left
    assert texts(root, "title") == texts(root, "h1") == [CLEAN]
    assert texts(root, "mark") == [f"{CLEAN}_{CLEAN}0", f"_{CLEAN}{classes - 1}"]
    assert texts(root, "label") == ["all 1", f"{CLEAN} 1"]
    assert texts(root, "pre")[0] == CLEAN
    pointed_at = f"_{CLEAN}0 \N{RIGHTWARDS ARROW} _{CLEAN}1: 1 of {classes + 2}"
    assert texts(root, f"{SVG}title").count(pointed_at) == 1


def test_hostile_names_are_drawn_as_text_in_every_chart():
    name = f"_{HOSTILE.strip()}"
    names, flat = (name, "other"), (0.5, 0.5)
    charts = (
        Bars("", "", names, flat, ("", "")),
        Bars("", "", ("one", "two"), flat, ("", ""), parts={name: flat, "other": flat}),
        Matrix("", "", names, ("one", "two"), ((1, 2), (3, 4))),
        Lines("", "", "", "", {name: ((0.0, 0.1), (1.0, 0.9)), "other": ((0.0, 0.1),)}),
    )
    for chart in charts:
        text = shown(Report(size="", text="", tiles=(), charts=(chart,)), history=[])
        drawn = "".join(texts(parsed(text), f"{SVG}text")).replace("\u200b", "").replace(" ", "")
        assert f"_{CLEAN}".replace(" ", "")[:40] in drawn


def test_a_report_of_77_classes_has_a_page():
    names = tuple(f"a_class_with_a_rather_long_name_{number}" for number in range(77))
    counts = tuple(tuple(int(row == column) for column in range(77)) for row in range(77))
    values = tuple(number / 77 for number in range(77))
    report = Report(
        size="77 texts",
        text="",
        tiles=(("accuracy", "1.0"),),
        charts=(Bars("Classes", "", names, values, names), Matrix("Confusion matrix", "", names, names, counts)),
        unit="text",
    )
    root = parsed(shown(report))
    full = [card for card in root.iter("section") if card.get("class") == "card full"]

    # The learning curve is narrow and alone; the two large drawings can be moved sideways on a small screen.
    assert [card.find("h2").text for card in full] == ["Learning curve", "Classes", "Confusion matrix"]
    assert [card.find("div").get("class") for card in full] == [None, "scroll", "scroll"]


def test_configuration_and_environment_are_folded_away():
    details = list(parsed(page()).iter("details"))

    assert [item.get("open") for item in details] == [None, None]
    assert "".join(details[0].find("pre").itertext()).startswith("data:\n  train_path: <here>")
    assert json.loads("".join(details[1].find("pre").itertext()))["packages"] == {"tensorflow": "2.15.1"}


def test_the_same_evaluation_gives_the_same_page_and_leaves_pyplot_alone():
    before = "matplotlib.pyplot" in sys.modules

    assert page() == page()
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_the_hardware_stands_above_the_folded_environment():
    environment = {
        "cpu": "Xeon <8481C>", "cores": 4, "usable_cores": 2, "cpu_flags": ["avx2", "amx_bf16"], "memory_bytes": 16e9,
        "container": {"memory_bytes": 8e9, "cores": 1.5}, "gpus": [{"name": "NVIDIA H100", "memory": "81559 MiB"}],
        "nvidia_driver": "535.1", "cuda": "12.2",
    }  # fmt: skip
    root = parsed(page(environment=environment))
    (table,) = [item for item in root.iter("table") if item.get("class") == "hardware"]
    assert texts(table, "tr") == [
        "ProcessorXeon <8481C>; 2 of 4 cores usable; avx2, amx_bf16", "Memory16.0 GB", "Container8.0 GB, 1.5 cores",
        "GPUsNVIDIA H100 81559 MiB; driver 535.1; CUDA 12.2",
    ]  # fmt: skip


def test_an_environment_of_an_earlier_version_shows_what_it_knows():
    (table,) = [
        item for item in parsed(page(environment={"cpu": "Xeon", "cores": 2})).iter("table")
        if item.get("class") == "hardware"
    ]  # fmt: skip
    assert texts(table, "tr") == ["ProcessorXeon"]


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium to lay the page out")
def test_no_table_of_classified_texts_is_cut_off_at_a_width_of_1200(tmp_path):
    random = np.random.default_rng(0)
    gold, logits, labels = random.integers(0, 3, 60), random.normal(size=(60, 3)), ("card", "loan", "fee")
    scores = compute_text_scores(gold, logits, labels, temperature=2.261)
    errors = list(text_error_rows(gold, choose_answers(logits), labels, ["text"] * 60))
    measure = (
        "<script>onload = () => document.title = [...document.querySelectorAll('.tables .scroll')]"
        ".map(box => box.scrollWidth - box.clientWidth).join()</script></body>"
    )
    text = shown(build_text_report(scores, errors, title="t")).replace("</body>", measure)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    laid_out = subprocess.run(
        [*command, "--window-size=1200,900", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    beyond = re.findall("<title>(.*)</title>", laid_out)[0]
    assert beyond.split(",") == ["0"] * 4  # pixels of each table that can only be scrolled to
