"""Raw text in a TensorFlow graph: the same words, sentences, shapes and windows as the rules in Python."""

import random

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from line_texts import MARKED, wrapped
from texts import BITS, BLANKS, INVISIBLE, random_texts
from toy import LABELS, PIECES

from app.data.graph_rows import GraphRows
from app.data.sentence import Sentence
from app.tasks.tagging.encoding import SentenceEncoder
from app.text.characters import character_tables
from app.text.graph_sentences import GraphSentences, number_parts
from app.text.graph_words import GraphShapes, GraphWords
from app.text.shapes import word_shapes
from app.text.word_pieces import WordPieces
from app.text.words import split_sentences


@pytest.fixture(scope="module")
def split_in_graph():
    """Texts to ([(start, end)], [begins a sentence], [shape]) of each."""
    split, find, shape = GraphWords(), GraphSentences(), GraphShapes()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(texts):
        words = split(texts)
        letters = tf.ragged.range(words.starts, words.ends)
        letters = letters.with_flat_values(tf.gather(words.codes, letters.flat_values))
        begins = find(words, tf.strings.unicode_encode(letters, "UTF-8"))
        offsets = tf.gather(words.text_starts, words.texts)
        shapes = shape(words.types, words.starts, words.ends)
        return words.texts, words.starts - offsets, words.ends - offsets, begins, shapes

    def call(texts):
        encoded = tf.constant([text.encode() for text in texts], tf.string, shape=[len(texts)])
        owners, starts, ends, begins, shapes = (column.numpy() for column in run(encoded))
        for number in range(len(texts)):
            own = owners == number
            places = list(zip(starts[own].tolist(), ends[own].tolist(), strict=True))
            yield places, begins[own].tolist(), shapes[own].tolist()

    return call


def split_in_python(text):
    sentences = split_sentences(text)
    words = [word for sentence in sentences for word in sentence]
    begins = [number == 0 for sentence in sentences for number in range(len(sentence))]
    return [tuple(word) for word in words], begins, word_shapes([text[a:b] for a, b in words]).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_nasty_texts_are_split_as_in_python(split_in_graph, seed):
    texts = random_texts(600, seed=seed)
    for text, found in zip(texts, split_in_graph(texts), strict=True):
        assert found == split_in_python(text), repr(text)


@pytest.mark.parametrize("seed", range(2))
def test_lines_of_any_kind_are_split_as_in_python(split_in_graph, seed):
    rng = random.Random(seed)
    texts = [*(text.replace("¶", "") for text in MARKED.values()), *(wrapped(rng) for _ in range(700))]
    for text, found in zip(texts, split_in_graph(texts), strict=True):
        assert found == split_in_python(text), repr(text)


@settings(max_examples=150)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
        | st.lists(st.sampled_from([*BITS, *BLANKS, *INVISIBLE]), max_size=30).map("".join),
        max_size=4,
    )
)
def test_any_text_is_split_as_in_python(split_in_graph, texts):
    for text, found in zip(texts, split_in_graph(texts), strict=True):
        assert found == split_in_python(text), repr(text)


def test_the_sample_corpus_is_split_as_in_python(split_in_graph):
    lines = [line for line in open("data/sample/test.conll", encoding="utf-8").read().split("\n\n")]
    text = " ".join(" ".join(row.split()[0] for row in line.splitlines() if row.strip()) for line in lines)
    (found,) = split_in_graph([text])
    assert found == split_in_python(text)
    assert sum(found[1]) > 100


@pytest.mark.parametrize("unit", ["a", "a.", ".", "'s", "\n", "\u0301", "www.", "a@b.", "Mr. ", "👍\u200d", '" '])
def test_long_texts_take_linear_time(split_in_graph, unit):
    text = unit * (60_000 // len(unit))
    (found,) = split_in_graph([text])
    assert found == split_in_python(text)


def test_bytes_that_are_not_utf_8_do_not_stop_the_graph():
    words = GraphWords()(tf.constant([b"Ada \xff\xfe Bob", b"\xc3"]))
    assert words.texts.numpy().tolist().count(0) >= 2


def test_every_character_has_a_type_and_ascii_stands_for_itself():
    tables = character_tables()
    assert tables.type_of.shape == (0x110000,)
    printable = np.arange(0x21, 0x7F)
    assert (tables.symbol[tables.type_of[printable]] == printable).all()
    assert tables.symbol.max() < 0x80 and tables.symbol.min() > 0


@pytest.mark.parametrize(
    ("max_length", "overlap", "by_document"),
    [(16, 4, True), (24, 0, True), (32, 9, True), (64, 20, True), (24, 8, False)],
)
def test_rows_are_those_of_python(max_length, overlap, by_document):
    pieces = WordPieces(list(PIECES), lowercase=False)
    encoder = SentenceEncoder(pieces, LABELS, word_shapes, max_length, overlap, by_document)
    rows = GraphRows(encoder)
    rng = np.random.default_rng(max_length)
    vocabulary = [*PIECES[5:-1], "?", "." * 9, "Rome" + "s" * 40, "\u200b"]
    for _ in range(12):
        sentences = [
            Sentence(tuple(rng.choice(vocabulary, rng.integers(1, 40))), (), document)
            for document in range(rng.integers(1, 5))
            for _ in range(rng.integers(1, 9))
        ]
        words = [word for sentence in sentences for word in sentence.words]
        begins = np.array([number == 0 for s in sentences for number in range(len(s.words))])
        owners = np.array([s.document for s in sentences for _ in s.words])
        first = np.concatenate([[True], owners[1:] != owners[:-1]]) if by_document else begins
        stream = rows.encode(tf.constant(words), tf.constant(word_shapes(words)), tf.constant(begins))
        windows = rows.cut(stream, tf.constant(begins), tf.constant(first))
        expected = list(encoder.scoring_rows(sentences))
        features, scored, places = rows.batch(stream, windows, tf.range(len(expected)))
        assert len(windows.left) == len(expected)
        longest = features["token_ids"].shape[1]
        for name, column in features.items():
            wanted = np.stack([getattr(row, name) for row in expected])
            np.testing.assert_array_equal(column, wanted[:, :longest])
            assert not wanted[:, longest:].any()
        assert scored.numpy().tolist() == list(range(len(words)))
        assert [expected[row].unit_ids[place] for row, place in places.numpy()] == list(range(len(words)))


def test_sentences_that_never_end_are_cut_in_parts():
    begins = tf.constant([True] + [False] * 6 + [True, False, False, True])
    assert np.flatnonzero(number_parts(begins, 3)).tolist() == [0, 3, 6, 7, 10]
