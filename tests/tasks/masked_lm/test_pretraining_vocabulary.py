"""Word pieces learnt from text."""

import pytest

from app.config import InputError
from app.tasks.masked_lm.pipeline import compute_vocabulary
from app.text import SPECIAL_PIECES
from app.text.word_pieces import WordPieces

TEXT = "The tall tower leans over the town.\nTowers lean, towns sleep.\n\nÉmile walked taller than the tower.\n" * 5


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def test_special_pieces_come_first_and_every_word_can_be_written_with_the_rest(corpus):
    pieces = compute_vocabulary(corpus, size=70, lowercase=True)
    assert pieces[:5] == list(SPECIAL_PIECES) and len(set(pieces)) == len(pieces) <= 70
    found = WordPieces(pieces, lowercase=True)
    assert found.unknown_id not in found.encode(TEXT.split()).ids
    assert "tower" in pieces and not any(piece != piece.lower() for piece in pieces[5:])


def test_a_cased_vocabulary_keeps_case_and_accents(corpus):
    pieces = compute_vocabulary(corpus, size=90, lowercase=False)
    assert {"T", "É"} <= {piece.removeprefix("##")[0] for piece in pieces[5:]}


def test_the_same_text_gives_the_same_pieces(corpus):
    assert compute_vocabulary(corpus, size=60, lowercase=True) == compute_vocabulary(corpus, size=60, lowercase=True)


def test_an_empty_corpus_is_bad_input(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n \n")
    with pytest.raises(InputError, match="empty"):
        compute_vocabulary(str(tmp_path / "empty.txt"), size=60, lowercase=True)
