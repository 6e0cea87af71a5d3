"""Which line ends of real-looking texts end a sentence; `test_graph_text.py` compares the graph on the same texts."""

import random

import pytest
from line_texts import MARKED, wrapped

from app.text.lines import find_line_boundaries
from app.text.words import split_sentences, split_words


def lines_that_begin(text: str, firsts: set[int]) -> list[bool]:
    """Of each line with words but the first: whether its first word is one of the places."""
    found, at = [], 0
    words = [word.start for word in split_words(text)]
    for line in text.splitlines(keepends=True):
        inside = [start for start in words if at <= start < at + len(line)]
        if inside:
            found.append(inside[0] in firsts)
        at += len(line)
    return found[1:]


def expected_lines(marked: str) -> tuple[str, list[bool]]:
    """The text without the marks, and which of its lines with words begin a sentence."""
    expected, pending = [], False
    text = marked.replace("¶", "")
    for number, line in enumerate(marked.splitlines()):
        if split_words(line.replace("¶", "")):
            expected += [pending] if number else []
            pending = False
        pending |= "¶" in line
    return text, expected


def begin_in_python(texts):
    return [{sentence[0].start for sentence in split_sentences(text)} for text in texts]


@pytest.mark.parametrize("name", MARKED)
def test_lines_end_sentences_unless_they_only_break_prose(name):
    text, expected = expected_lines(MARKED[name])
    assert lines_that_begin(text, *begin_in_python([text])) == expected


def test_random_lines_are_of_both_kinds():
    rng = random.Random(0)
    texts = [wrapped(rng) for _ in range(700)]
    found = [begins for text in texts for begins in lines_that_begin(text, *begin_in_python([text]))]
    assert sum(found) > 300 and len(found) - sum(found) > 100


@pytest.mark.parametrize("unit", ["\n", "> \n", "a\n", "a b\n\n", "\r", "- \n", "a" * 70 + "\n", " " * 50 + "\n"])
def test_lines_take_linear_time(unit):
    text = unit * (60_000 // len(unit))  # quadratic time would show as minutes
    assert find_line_boundaries(text) == sorted(find_line_boundaries(text))
