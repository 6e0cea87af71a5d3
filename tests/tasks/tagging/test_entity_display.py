"""Entities in their text, for a person at a terminal."""

import io

import pytest
from rich.console import Console

from app.tasks.display import EntityDisplay, LabelDisplay


def shown(row, *, colour=False, monkeypatch=None):
    file = io.StringIO()
    display = EntityDisplay(file, ["LOC", "PER"])
    if colour:
        display._console = Console(
            file=file, force_terminal=True, color_system="standard", highlight=False, soft_wrap=True, markup=False
        )
    display.show(row)
    return file.getvalue()


def entity(start, end, label, score):
    return {"start": start, "end": end, "label": label, "score": score}


ENTITIES = [entity(0, 3, "PER", 0.974), entity(18, 22, "LOC", 1.0)]
ROW = {"text": "Ada met Bob in [b]Rome[/b] :smile:", "entities": ENTITIES}


def test_label_and_score_follow_each_entity_and_a_legend_comes_first():
    legend, text = shown(ROW).splitlines()
    assert legend == "entities:  LOC   PER  and how sure the model is of each, of 1"
    assert text == "[Ada PER 0.97] met Bob in [b][Rome LOC 1.00][/b] :smile:"


def test_types_have_colours_of_their_own():
    text = shown(ROW, colour=True)
    colours = [text.split(f"[{word}")[0].rpartition("\x1b[")[2] for word in ("Ada", "Rome")]
    assert len(set(colours)) == 2 and all(";" in colour for colour in colours)


@pytest.mark.parametrize(
    ("fields", "line"), [({"id": 7}, "7"), ({"file": "a\x1b.txt", "id": 7}, "a␛.txt"), ({"id": "\ud800"}, "\ufffd")]
)
def test_the_name_of_a_document_stands_above_it(fields, line):
    assert shown(fields | ROW).splitlines()[1] == line


def test_the_place_in_a_ranking_stands_above_a_text():
    ranked = {"uncertainty": 0.41234, "rank": 3}
    assert shown({"id": "a"} | ROW | ranked).splitlines()[1] == "a  3. uncertainty 0.412"
    file = io.StringIO()
    LabelDisplay(file, ["good"]).show({"text": "Ada", "label": "good", "score": 0.9, "scores": {"good": 0.9}} | ranked)
    assert file.getvalue().splitlines()[0] == "3. uncertainty 0.412"
    often = shown(ROW | ranked | {"occurrences": 1200}).splitlines()[1]
    assert often == "3. uncertainty 0.412, 1,200 times in the input"


def test_no_character_of_the_text_steers_the_terminal():
    text = "a\x1b[31m\x00\x07\x9b \u202e\u2066\tb\nc\rd"
    shown_text = shown({"text": text + "Ada", "entities": [entity(len(text), len(text) + 3, "PER", 0.5)]})
    assert shown_text.split("\n", 1)[1] == "a␛[31m␀␇\ufffd \ufffd\ufffd    b\nc␍d[Ada PER 0.50]\n"


def test_a_line_longer_than_the_screen_is_not_broken():
    assert len(shown({"text": "word " * 500, "entities": []}).splitlines()) == 2
