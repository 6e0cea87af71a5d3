"""Word shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.shapes import NUM_SHAPES, SHAPE_NAMES, word_shape, word_shapes


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("lower", "dog 's n't well-known café ’ll"),
        ("title", "London São Ǆungla Zoe\u0301"),
        ("single_capital", "A Ü"),
        ("upper_short", "UN EU USA"),
        ("upper", "LONDON NATO"),
        ("capitals_with_periods", "J. U.S. U.S Mr. U.S.-led F.C."),
        ("hyphenated_capitals", "Anglo-American Smith-Jones AL-AIN O'Brien-Smith"),
        ("hyphenated_mixed", "London-based al-Qaida Hanna-kaisa"),
        ("mixed", "McDonald iPhone O'Brien AT&T eBay"),
        ("digits", "1996 7 ٣"),
        ("digits_with_punctuation", "3-1 1,250.50 +44 $40 1996-08-22 10:30"),
        ("alphanumeric", "A320 6th F1 1980s 3-yr"),
        ("uncased_letters", "東 שלום हिन्दी"),
        ("punctuation", ', ... -- ( " ’'),
        ("other", "$ 👍 🇩🇪 + \x00"),
    ],
)
def test_words_have_the_shape_a_reader_sees(shape, words):
    assert {word: SHAPE_NAMES[word_shape(word)] for word in words.split(" ")} == dict.fromkeys(
        words.split(" "), shape
    )


def test_names_and_numbers_agree():
    assert len(set(SHAPE_NAMES)) == NUM_SHAPES == 16
    assert SHAPE_NAMES[0] == "special"


@given(st.lists(st.text(st.characters(), max_size=12), max_size=20))
def test_every_word_has_a_shape_and_none_that_of_padding(words):
    shapes = word_shapes(words)
    assert shapes.dtype == np.int32
    assert shapes.shape == (len(words),)
    assert shapes.tolist() == [word_shape(word) for word in words]
    assert all(0 < shape < NUM_SHAPES for shape in shapes)


def test_a_very_long_word_is_other():
    assert SHAPE_NAMES[word_shape("A" * 1_000_000)] == "other"
