import numpy as np
import pytest
import toy

from app.compression.trim_vocabulary import choose_pieces
from app.encoder.backbone import build_backbone
from app.encoder.slimming import cut_vocabulary
from app.text.word_pieces import WordPieces

LETTERS = "abcdefgh"
VOCABULARY = [*toy.SPECIAL, "[unused0]", *LETTERS, *(f"##{c}" for c in LETTERS), "bad", "cab", "##age", "##bed"]


def counted(words: list[str]) -> np.ndarray:
    ids = WordPieces(VOCABULARY, lowercase=True).encode(words).ids
    return np.bincount(ids, minlength=len(VOCABULARY))


def test_pieces_of_the_text_special_ones_and_single_characters_stay_in_their_order():
    kept = [VOCABULARY[i] for i in choose_pieces(VOCABULARY, counted(["bad", "cab"]), at_least=1)]
    assert kept == [piece for piece in VOCABULARY if piece not in ("[unused0]", "##age", "##bed")]


def test_a_piece_must_be_there_often_enough_unless_it_stands_at_the_beginning():
    counts = counted(["bad", "bad", "cab"])
    assert "cab" not in [VOCABULARY[i] for i in choose_pieces(VOCABULARY, counts, at_least=2)]
    assert 5 in choose_pieces(VOCABULARY, counts, at_least=2, first=6)


def test_no_word_becomes_unreadable_and_words_of_the_text_keep_their_pieces():
    kept = [VOCABULARY[i] for i in choose_pieces(VOCABULARY, counted(["bad", "cabbed"]), at_least=1)]
    before, after = (WordPieces(pieces, lowercase=True) for pieces in (VOCABULARY, kept))
    for word in ("cabage", "bad", "hag", "cabbed"):
        pieces = [kept[i] for i in after.encode([word]).ids]
        assert "".join(piece.removeprefix("##") for piece in pieces) == word
    assert [kept[i] for i in after.encode(["bad", "cabbed"]).ids] == [
        VOCABULARY[i] for i in before.encode(["bad", "cabbed"]).ids
    ]


def test_embedding_rows_follow_their_pieces_and_give_the_same_hidden_states(vocabulary):
    backbone = build_backbone(toy.backbone_config(vocabulary))
    ids = [0, 1, 2, 3, 4, 7, 9, 12]
    cut = cut_vocabulary(backbone, ids)
    assert cut.vocabulary == [backbone.vocabulary[i] for i in ids]

    def hidden(model, tokens):
        features = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": np.ones_like(tokens)}
        return model(features)["sequence_output"].numpy()

    new = np.array([[2, 5, 6, 7, 3]])
    old = np.array([[ids[i] for i in new[0]]])
    assert hidden(cut.model, new) == pytest.approx(hidden(backbone.model, old), abs=0)
