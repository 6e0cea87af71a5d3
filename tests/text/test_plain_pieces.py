"""Word pieces in plain Python against TF Text, piece for piece."""

import random

import pytest
from texts import EXAMPLES
from toy import PIECES

from app.config import InputError
from app.text.plain_pieces import PlainWordPieces
from app.text.word_pieces import WordPieces
from app.text.words import split_words

LETTERS = [chr(code) for code in (*range(33, 127), *range(0xA1, 0x250), *range(0x391, 0x3CA), *range(0x410, 0x450))]
VOCABULARY = [
    *PIECES, *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "##ing", "un", "##known", "ab", "##b", "##bc",
    "straße", "中", "文", "##文", "\u0301", "e\u0301", "##\u0301", "⁇", "№", "no", "ffi",
]  # fmt: skip
VOCABULARY = list(dict.fromkeys(VOCABULARY))


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def both(request):
    return PlainWordPieces(VOCABULARY, lowercase=request.param), WordPieces(VOCABULARY, lowercase=request.param)


def assert_equal(both, words):
    plain, other = (pieces.encode(words) for pieces in both)
    for number, word in enumerate(words):
        found, expected = (rows.ids[rows.splits[number] : rows.splits[number + 1]].tolist() for rows in (plain, other))
        assert found == expected, (word, [hex(ord(letter)) for letter in word])
    assert (plain.ids.dtype, plain.splits.dtype) == (other.ids.dtype, other.splits.dtype)


def test_every_character_of_unicode_is_read_alike(both):
    codes = [code for code in range(1, 0x3400) if not 0xD800 <= code < 0xE000]
    codes += [*range(0xA000, 0xAC00), *range(0xF900, 0x14700), *range(0x16000, 0x18000), *range(0x1B000, 0x20000)]
    codes += [*range(0x3400, 0xA000, 97), *range(0xAC00, 0xD800, 97), *range(0x20000, 0x110000, 997)]
    assert_equal(both, [f"a{chr(code)}b" for code in codes])
    assert_equal(both, [chr(code) for code in codes])


def test_words_of_texts_are_cut_alike(both):
    texts = [*EXAMPLES, "Unknown unknowning abbc ABBC ﬃ № naïve STRASSE Straße İstanbul ǅ 中文字 don't #tag a\u200db"]
    assert_equal(both, [text[word.start : word.end] for text in texts for word in split_words(text)])


def test_words_put_together_at_random_are_cut_alike(both):
    chance = random.Random(3)
    letters = [*LETTERS, "##", "b", "bc", "\u0301", "\u200b", "中", "\u0600", " ", "\0", "🎉", "\ufffd", "ς", "[UNK]"]
    assert_equal(both, ["".join(chance.choices(letters, k=chance.randint(1, 9))) for _ in range(5000)])


def test_long_words_are_unknown_alike(both):
    counts = (1, 24, 25, 26, 49, 50, 51, 99, 100, 101, 5000)
    assert_equal(both, [letter * count for letter in "aé中🎉B" for count in counts])


def test_nothing_gives_nothing_and_special_pieces_must_be_there(both):
    for pieces in both:
        rows = pieces.encode([])
        assert rows.ids.tolist() == [] and rows.splits.tolist() == [0]
    assert [getattr(both[0], name) for name in ("pad_id", "unknown_id", "start_id", "end_id", "mask_id")] == [
        getattr(both[1], name) for name in ("pad_id", "unknown_id", "start_id", "end_id", "mask_id")
    ]
    with pytest.raises(InputError, match=r"missing: \[MASK\]"):
        PlainWordPieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]"], lowercase=True)
