"""report.html: one well-formed page that shows what it should and runs nothing from the data."""

import json
import re
import sys
from xml.etree import ElementTree

from app.evaluation import html_report as page_module
from app.evaluation.html_report import html_report
from app.tasks.tagging.errors import KINDS, count_errors, error_rows
from app.tasks.tagging.scores import compute_scores

SVG = "{http://www.w3.org/2000/svg}"
WORDS = [["Ada", "Lovelace", "met", "<script>alert(1)</script>"], ["in", "London", "&", "\x00Paris"]]
GOLD = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-LOC", "O", "B-LOC"]]
PREDICTED = [["B-PER", "O", "O", "B-LOC"], ["B-LOC", "O", "O", "B-LOC"]]
HISTORY = [
    {"epoch": 1, "loss": 0.9, "valid/entity_f1": 0.5},
    {"epoch": 2, "loss": 0.4, "valid/entity_f1": 0.75},
    {"epoch": 3, "loss": float("nan")},
]


def page(words=WORDS, gold=GOLD, predicted=PREDICTED, **changes):
    arguments = {
        "title": "runs/one: test",
        "history": HISTORY,
        "config_text": "data:\n  train_path: <here>\n",
        "environment": {"python": "3.11", "packages": {"tensorflow": "2.15.1"}},
        **changes,
    }
    return html_report(
        scores=compute_scores(gold, predicted),
        errors=count_errors(gold, predicted),
        examples=list(error_rows(words, gold, predicted, [0] * len(words))),
        **arguments,
    )


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
    tiles = texts(parsed(page(words_per_second=1234.4)), "div", "tile")
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
    assert ".example:not(.wrong-boundary)" in text


def test_a_long_sentence_is_cut_around_its_error_and_long_lists_are_sampled(monkeypatch):
    monkeypatch.setattr(page_module, "MAX_EXAMPLES", 5)
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
    assert "every entity is right" in page(predicted=GOLD)
    empty = parsed(page([["a"]], [["O"]], [["O"]]))
    assert "entity F1" in "".join(empty.itertext())


def test_many_types_fit():
    names = [f"TYPE_{index:02}_WITH_A_LONG_NAME" for index in range(20)]
    gold = [[f"B-{name}" for name in names]]
    predicted = [[f"B-{name}" for name in reversed(names)]]

    assert len(list(parsed(page([names], gold, predicted)).iter(f"{SVG}svg"))) == 4


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
