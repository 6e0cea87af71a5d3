"""Raw text to words and sentences."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.text.words import split_sentences, split_words


def words_of(text):
    return [text[start:end] for start, end in split_words(text)]


@pytest.mark.parametrize(
    "split",
    [
        'He said : " Stop ! "',
        "It cost $ 40 , US$ 1,250.50 or 3.5 % more .",
        "Germany 's team did n't , could n't 've , we 'll and they 're",
        "the players ' union",
        "Mr. O'Brien and Dr. J. K. Rowling of Acme Corp. met on Jan. 5 in St. Louis",
        "the U.S.-led U.N. force at 5 p.m. on Monday",
        "AT&T and S&P fell ; the tie-up won 3-1 ( 1-0 ) on 1996-08-22 at 10:30",
        "AL-AIN , United Arab Emirates",
        "see https://example.com/a?b=c,d or www.example.org . Mail ann.b+c@example.co.uk !",
        "Amazon.com fell",
        "he / she read 1/2 of it -- really ... and -- then",
        "the 1980s , the 10th and the A320",
        "a .500 average , +44 171 and - 3",
        "Tell @ann_b about #python",
    ],
)
def test_words_are_split_as_in_conll_2003(split):
    text = split
    for apart, joined in [(" 's", "'s"), (" n't", "n't"), (" 've", "'ve"), (" 'll", "'ll"), (" 're", "'re"),
                          (" ' ", "' "), (" ,", ","), (" .", "."), (" ;", ";"), (" !", "!"), ("$ ", "$"),
                          (" %", "%"),
                          ("( ", "("), (" )", ")"), (" / ", "/"), (" : \" ", ': "'), (" \"", '"'),
                          ("a.500", "a .500"), ("- 3", "-3")]:  # fmt: skip
        text = text.replace(apart, joined)
    assert words_of(text) == split.split(" ")
    assert words_of(split) == split.split(" ")  # text that is split already stays as it is


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\r\n\u00a0\u2028", []),
        ("foo\x00bar\x00", ["foo", "bar"]),
        ("a\u200bb \ufeffc \u200fשלום\u200f", ["a", "b", "c", "שלום"]),
        ("cafe\u0301 nai\u0308ve", ["cafe\u0301", "nai\u0308ve"]),
        ("Fußball in Łódź", ["Fußball", "in", "Łódź"]),
        ("שלום, עולם!", ["שלום", ",", "עולם", "!"]),
        ("مرحبا بالعالم؟", ["مرحبا", "بالعالم", "؟"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("東京タワーへ。", ["東", "京", "タワーへ", "。"]),
        ("हिन्दी में।", ["हिन्दी", "में", "।"]),
        ("hi👩\u200d👩\u200d👧\u200d👦🇩🇪👍🏽!", ["hi", "👩\u200d👩\u200d👧\u200d👦", "🇩🇪", "👍🏽", "!"]),
        ("\u0301 \u20dd", ["\u0301", "\u20dd"]),
        ("don’t Ann’s", ["do", "n’t", "Ann", "’s"]),
        ("x\ud800y", ["x", "y"]),
        ("-DOCSTART-", ["-", "DOCSTART", "-"]),
    ],
)
def test_any_script_is_split(text, words):
    assert words_of(text) == words


@settings(max_examples=200)
@given(st.text(st.characters(), max_size=60) | st.text("aA.'’-1 \n\"?@:/&$\u0301\u200d東👍", max_size=60))
def test_words_are_slices_in_order_that_leave_out_only_blanks(text):
    position = 0
    for start, end in split_words(text):
        assert position <= start < end <= len(text)
        assert not any(character.isspace() or character == "\x00" for character in text[start:end])
        assert not any(
            character.isprintable() and not character.isspace() for character in text[position:start]
        )
        position = end
    assert not any(character.isprintable() and not character.isspace() for character in text[position:])


@settings(max_examples=100)
@given(st.text("aAZ.'?!\"” ()\n東。", max_size=60))
def test_sentences_joined_are_the_words(text):
    sentences = split_sentences(text)
    assert [word for sentence in sentences for word in sentence] == split_words(text)
    assert all(sentences)


@pytest.mark.parametrize(
    "sentences",
    [
        ["He left.", "She stayed."],
        ["Mr. Smith met Gen. Lee.", "They talked about J. K. Rowling!"],
        ["It is in the U.S. Navy yard.", "He left the U.S.", "The end."],
        ["Acme Inc. bought it.", "Why?", '"Why not?"', "Nobody knows..."],
        ['"We won," he said.', '"It was late."', "(So it was.)", "Then they left."],
        ["version 3.5 is out.", "3 people saw it at 5 p.m. on Monday."],
        ["A headline", "\n\nA paragraph that goes\non in the next line."],
        ["1. First point", "\n2. Second point"],
        ["今日は。", "明日。"],
        ["He asked.. and was told no."],
    ],
)
def test_sentences_are_found(sentences):
    joiner = "" if "。" in sentences[0] else " "
    text = joiner.join(sentences)
    found = [text[sentence[0].start : sentence[-1].end] for sentence in split_sentences(text)]
    assert found == [sentence.strip() for sentence in sentences]


@pytest.mark.parametrize(
    "unit",
    ["a", "a ", "a.", "A.", "a-", "'s", "'", "a'", "1", "1.", "1,", "a@", "@", "a@b.", "http://", "www.",
     "a.com/",
     "\u0301", "a\u0301", "\u200d", "👍\u200d", "🇩", "東", "\x00", "\n", "\"", ".", "-", "Inc.", "Mr. ", "_",
     "x&", "&X", "n't", "A.B-", ") ", "US$", "#a_", "\ud800"],
)  # fmt: skip
def test_repetition_does_not_make_a_pattern_start_over(unit):
    text = unit * (100_000 // len(unit))  # quadratic time would show as minutes
    assert all(start < end for start, end in split_words(text))


@pytest.mark.parametrize(("character", "count"), [("a", 1), ("\n", 0), ("\u0301", 1), ("...", 1)])
def test_a_million_equal_characters_are_split(character, count):
    assert len(split_words((character * 1_000_000)[:1_000_000])) == count


def test_a_document_of_a_million_characters_is_split_into_sentences():
    text = 'Ann Smith of the U.S. said: "It\'s 3.5 % in St. Louis." Nobody cared. ' * 14_000
    assert len(text) > 950_000
    assert len(split_sentences(text)) == 28_000
