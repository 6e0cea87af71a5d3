"""The predictor: every word once, in order, whatever the batches."""

from dataclasses import replace

import numpy as np
import pytest
from toy import OTHERS, PEOPLE, make_encoder, make_sentences, make_tagger

from app.config import ModelConfig
from app.data.packing import FEATURES
from app.data.sentence import Sentence
from app.evaluation import predictor as predictor_module
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import build_keras_forward, build_predictor

SENTENCES = make_sentences(60, sentences_per_document=7)


@pytest.fixture(scope="module")
def tagger(vocabulary):
    return make_tagger(vocabulary, model=ModelConfig(head="crf"))


def predictor_of(tagger, *, batch_size: int = 4, **encoder) -> Predictor:
    return build_predictor(tagger, make_encoder(tagger, **encoder), batch_size=batch_size)


def spelling_predictor(tagger, rows) -> Predictor:
    """Its logits are the piece ids it was given, so that every emission tells which word it is of."""

    def forward(features):
        return np.repeat(features["token_ids"][..., None], len(tagger.labels), axis=-1).astype(np.float32)

    return Predictor(tagger, rows, forward, 3)


@pytest.mark.parametrize("max_length", [12, 32, 64])
def test_every_word_gets_the_logits_of_its_own_first_piece_in_the_order_of_the_corpus(tagger, max_length):
    encoder = make_encoder(tagger, max_length=max_length, overlap=4)
    words = [word for sentence in SENTENCES for word in sentence.words]
    emissions = spelling_predictor(tagger, encoder.scoring_rows).compute_emissions(
        encoder.scoring_rows(SENTENCES), units=len(words)
    )
    rows = encoder.pieces.encode(words)
    assert emissions[:, 0].astype(int).tolist() == rows.ids[rows.splits[:-1]].tolist()


def test_sentences_come_back_in_their_order_with_a_tag_a_word(tagger):
    found = list(predictor_of(tagger).answer(SENTENCES, probabilities=True))
    assert [len(one.tags) for one in found] == [len(sentence.words) for sentence in SENTENCES]
    assert [one.probabilities.shape for one in found] == [(len(sentence.words),) for sentence in SENTENCES]
    assert all(0 < one.probabilities.min() and one.probabilities.max() <= 1 + 1e-5 for one in found)
    alone = [list(predictor_of(tagger).answer([s])) for s in make_sentences(5, sentences_per_document=1)]
    together = list(predictor_of(tagger).answer(make_sentences(5, sentences_per_document=1)))
    assert [one.tags for (one,) in alone] == [one.tags for one in together]


def test_tags_and_probabilities_do_not_depend_on_the_batch_size(tagger):
    runs = [list(predictor_of(tagger, batch_size=n).answer(SENTENCES, probabilities=True)) for n in (1, 3, 64)]
    for other in runs[1:]:
        assert [one.tags for one in other] == [one.tags for one in runs[0]]
        for one, two in zip(other, runs[0], strict=True):
            np.testing.assert_allclose(one.probabilities, two.probabilities, atol=1e-5)


def test_a_corpus_read_in_parts_is_tagged_like_one_read_at_once(tagger, monkeypatch):
    whole = [one.tags for one in predictor_of(tagger).answer(SENTENCES)]
    monkeypatch.setattr(predictor_module, "EXAMPLES_AHEAD", 10)
    monkeypatch.setattr(predictor_module, "BATCHES_AHEAD", 2)
    read = []

    def stream():
        for sentence in SENTENCES:
            read.append(sentence)
            yield sentence

    tagged = predictor_of(tagger).answer(stream())
    first = next(tagged)
    assert len(read) < 20  # documents of 7 sentences; the rest has not been read yet
    assert [first.tags, *(one.tags for one in tagged)] == whole


def test_a_word_scored_twice_or_never_is_an_assertion_error(tagger):
    rows = list(make_encoder(tagger).scoring_rows(SENTENCES))
    words = sum(len(sentence.words) for sentence in SENTENCES)
    predictor = spelling_predictor(tagger, None)
    with pytest.raises(AssertionError, match=r"word 0 of \d+ was scored 2 times, not once"):
        predictor.compute_emissions([*rows, rows[0]], units=words)
    with pytest.raises(AssertionError, match=r"was scored 0 times, not once"):
        predictor.compute_emissions(rows[:-1], units=words)
    overlapping = replace(rows[1], unit_ids=np.where(rows[1].unit_ids == rows[1].unit_ids.max(), 0, rows[1].unit_ids))
    with pytest.raises(AssertionError, match="was scored 2 times"):
        predictor.compute_emissions([rows[0], overlapping, *rows[2:]], units=words)


def test_a_sentence_longer_than_a_row_is_tagged_whole(tagger):
    rng = np.random.default_rng(0)
    words = tuple(str(word) for word in rng.choice([*OTHERS, *PEOPLE], 1500))
    (found,) = predictor_of(tagger, overlap=12).answer([Sentence(words, (), 0)])
    assert len(found.tags) == 1500


def test_words_without_a_known_piece_and_words_of_very_many_pieces_are_tagged(tagger):
    words = ("house", "\x07", "🎉", "ss" * 4000, "x" * 100_000, "house")
    (found,) = predictor_of(tagger).answer([Sentence(words, (), 0)])
    assert len(found.tags) == 6


def test_nothing_to_tag_is_nothing_tagged(tagger):
    assert list(predictor_of(tagger).answer([])) == []


def test_a_sentence_of_its_own_document_is_not_changed_by_its_neighbours(tagger):
    predictor = predictor_of(tagger, by_document=False)
    one = [found.tags for found in predictor.answer(SENTENCES, probabilities=True)]
    shuffled = [found.tags for found in predictor.answer(SENTENCES[::-1], probabilities=True)]
    assert one == shuffled[::-1]


def test_many_networks_scored_on_a_row_each_are_no_reason_for_tensorflow_to_warn(vocabulary, caplog):
    features = {name: np.ones((1, 8), np.int32) for name in FEATURES}
    for seed in range(8):
        build_keras_forward(make_tagger(vocabulary, seed=seed, num_layers=1))(features)
    assert "retracing" not in caplog.text
