"""The TFLite file that takes raw strings, by TensorFlow's interpreter with TF Text's operations."""

import pytest
import texts
import toy

from app.config import Config, InputError, ModelConfig, PredictConfig
from app.data.sentence import Sentence
from app.evaluation.runtimes import build_predictor
from app.export.metadata import list_operators
from app.export.text_tflite import TextModel, compare_text_tflite, write_text_tflite
from app.tasks.tagging.answers import as_texts, tag_texts
from app.tasks.tagging.task import TAGGING


@pytest.fixture(scope="module")
def parts(vocabulary):
    tagger = toy.make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0), seed=4)
    encoder = toy.make_encoder(tagger)
    return write_text_tflite(tagger, encoder, Config()), build_predictor(tagger, encoder, batch_size=8)


def test_raw_text_of_any_kind_gets_the_answers_of_predict_but_for_rounding(parts):
    content, predictor = parts
    model, given = TextModel(content), [text for text in texts.random_texts(40, seed=1) if "\x00" not in text]
    expected = [row["entities"] for row in tag_texts(given, predictor)]
    assert sum(map(len, expected)) > 20
    found = [row["entities"] for row in model.answer(predictor.model, given)]
    spans = [[{(e["label"], e["start"], e["end"]) for e in row} for row in rows] for rows in (found, expected)]
    assert sum(len(a ^ b) for a, b in zip(*spans, strict=True)) <= 0.05 * sum(map(len, expected))
    assert model.answer(predictor.model, [""]) == [{"entities": []}]


def test_it_needs_no_operations_but_those_of_tensorflow_and_tf_text(parts):
    custom = {name.removeprefix("custom:") for name in list_operators(parts[0]) if name.startswith("custom:")}
    assert {name for name in custom if not name.startswith("Flex")} == {
        "FastBertNormalize", "FastWordpieceTokenizeWithOffsets",
    }  # fmt: skip


def test_it_is_scored_on_the_corpus_as_plain_text(parts):
    content, predictor = parts
    alone = [Sentence(s.words, (), number) for number, s in enumerate(toy.make_sentences(30, seed=13))]
    right = [
        # A full stop is trimmed off the names of a text.
        Sentence(s.words, tuple("O" if w == "." else t for w, t in zip(s.words, found.tags, strict=True)), s.document)
        for s, found in zip(alone, predictor.answer(alone), strict=True)
    ]
    assert any(set(sentence.tags) != {"O"} for sentence in right)
    gold = [sum(tag.startswith("B-") for tag in sentence.tags) for sentence in right]
    found = compare(content, right, predictor, PredictConfig())
    assert found.float_f1 > 0.95 and found.f1 > 0.9 and found.labelled == sum(gold)
    # The file gives every entity with its score, so none is left out of the float model's answers either.
    assert compare(content, right, predictor, PredictConfig(min_score=1.0)) == found
    wrong = [Sentence(s.words, ("O",) * len(s.words), s.document) for s in right]
    nothing = compare(content, wrong, predictor, PredictConfig())
    assert nothing.f1 == nothing.float_f1 == 0


def compare(content, sentences, predictor, config):
    gold = sum(tag.startswith("B-") for sentence in sentences for tag in sentence.tags)
    return compare_text_tflite(content, predictor.model, sentences, predictor, config, labelled=gold)


def test_each_entity_of_a_text_counts_where_it_begins(parts):
    _, predictor = parts
    sentences = toy.make_sentences(30, seed=13)
    gold = [sum(tag.startswith("B-") for tag in sentence.tags) for sentence in sentences]
    counts, predicted = [], 0
    for text, entities in as_texts(sentences):
        (row,) = tag_texts([text], predictor)
        counts += TAGGING.count_text(predictor.model, text, entities, row)
        predicted += len(row["entities"])
        nothing = TAGGING.count_text(predictor.model, text, set(), row)
        assert [(right, support) for right, _, support in nothing] == [(0, 0)] * text.count("\n")
    assert [support for _, _, support in counts] == gold
    assert sum(found for _, found, _ in counts) == predicted > 0


def test_entities_of_a_corpus_are_found_in_its_text():
    sentences = [Sentence(("Ada", "Byron", "left", "."), ("B-PER", "I-PER", "O", "O"), 0),
                 Sentence(("Rome",), ("B-LOC",), 0), Sentence(("Oslo",), ("B-LOC",), 1)]  # fmt: skip
    (first, found), (second, other) = as_texts(sentences)
    assert (first, second) == ("Ada Byron left .\nRome\n", "Oslo\n")
    assert {first[start:end] for _, start, end in found} == {"Ada Byron", "Rome"} and other == {("LOC", 0, 4)}


def test_another_file_is_refused():
    with pytest.raises(InputError, match="not a TFLite file that takes text"):
        TextModel(b"nothing")
