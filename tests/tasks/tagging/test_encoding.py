"""Sentences of a corpus to rows: numbering, labels, documents, and words no vocabulary knows."""

import numpy as np
import pytest
from toy import LABELS, make_sentences, make_tagger, write_vocabulary

from app.data.packing import IGNORED
from app.data.sentence import Sentence
from app.tasks.tagging.encoding import SentenceEncoder
from app.text.shapes import word_shapes
from app.text.word_pieces import WordPieces


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    tagger = make_tagger(write_vocabulary(tmp_path_factory.mktemp("vocabulary")))
    return WordPieces(tagger.backbone.vocabulary, lowercase=tagger.backbone.lowercase)


def make_encoder(pieces, **settings) -> SentenceEncoder:
    return SentenceEncoder(pieces, LABELS, word_shapes, **{"max_length": 32, "overlap": 8, **settings})


@pytest.mark.parametrize("max_length", [24, 32, 128])
def test_labels_and_words_of_a_corpus_are_all_there_for_training_and_for_scoring(pieces, max_length):
    sentences = make_sentences(600, sentences_per_document=2)
    encoder = make_encoder(pieces, max_length=max_length)
    tags = [tag for sentence in sentences for tag in sentence.tags]
    for rows in (list(encoder.training_rows(sentences)), list(encoder.scoring_rows(sentences))):
        labels = {w: label for row in rows for w, label in zip(row.unit_ids, row.labels, strict=True) if w != IGNORED}
        assert sorted(labels) == list(range(len(tags)))
        assert [LABELS[labels[word]] for word in range(len(tags))] == tags


def test_sentences_of_other_documents_are_never_in_the_same_window(pieces):
    sentences = make_sentences(12, sentences_per_document=1)
    assert all(row.padding_mask.max() == 1 for row in make_encoder(pieces).scoring_rows(sentences))
    together = next(iter(make_encoder(pieces, max_length=128).training_rows(sentences)))
    ends = np.flatnonzero(together.token_ids == pieces.end_id)
    assert sorted(set(together.padding_mask[ends])) == list(range(1, len(ends) + 1))


def test_without_documents_each_sentence_stands_alone(pieces):
    sentences = make_sentences(9, sentences_per_document=3)
    rows = list(make_encoder(pieces, max_length=128, by_document=False).scoring_rows(sentences))
    assert len(rows) == 9


def test_a_word_that_leaves_no_piece_is_unknown_and_still_scored(pieces):
    sentence = Sentence(("Ada", "\u200b", "\x00", "met", "☃"), (), 0)
    (row,) = make_encoder(pieces).scoring_rows([sentence])
    assert row.unit_ids[row.unit_ids != IGNORED].tolist() == [0, 1, 2, 3, 4]
    assert (row.labels == IGNORED).all()
    assert row.token_ids[2] == pieces.unknown_id


def test_a_word_of_hundreds_of_pieces_does_not_push_its_neighbours_out(pieces):
    sentence = Sentence(("met", "." * 3000, "Ada"), ("O", "O", "B-PER"), 0)
    rows = list(make_encoder(pieces).training_rows([sentence]))
    assert sorted(word for row in rows for word in row.unit_ids if word != IGNORED) == [0, 1, 2]


def test_an_overlong_word_and_a_sentence_cut_in_two_cost_no_label(pieces):
    words = ("." * 3000, *("met", "Ada", "Lovelace", "met") * 20)
    tags = ("O", *("O", "B-PER", "I-PER", "O") * 20)
    rows = list(make_encoder(pieces, max_length=24).training_rows([Sentence(words, tags, 0)]))
    assert sum(int((row.labels != IGNORED).sum()) for row in rows) == len(words)


def test_a_label_that_packing_would_lose_is_not_lost_in_silence(pieces, monkeypatch):
    lose_all = lambda document, left, right: np.full(right - left, IGNORED, np.int32)  # noqa: E731
    monkeypatch.setattr("app.data.packing.EncodedDocument.learnable_labels", lose_all)
    with pytest.raises(AssertionError, match="labels were to be learnt"):
        list(make_encoder(pieces).training_rows([Sentence(("Ada", "met"), ("B-PER", "O"), 0)]))
