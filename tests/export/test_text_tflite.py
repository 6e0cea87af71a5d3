"""The TFLite file that takes raw strings, by TensorFlow's interpreter with TF Text's operations."""

import pytest
import texts
import toy

from app.config import Config, InputError, ModelConfig
from app.data.sentence import Sentence
from app.evaluation.runtimes import build_predictor
from app.export.flatbuffer import list_operators
from app.export.text_tflite import TextModel, as_texts, score_text_tflite, write_text_tflite
from app.tasks.tagging.answers import tag_texts
from app.tasks.tagging.scores import micro_f1


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
    found = model.tag(given)
    spans = [[{(e["label"], e["start"], e["end"]) for e in row} for row in rows] for rows in (found, expected)]
    assert sum(len(a ^ b) for a, b in zip(*spans, strict=True)) <= 0.05 * sum(map(len, expected))
    assert model.tag([""]) == [[]]


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
    counts, float_counts = score_text_tflite(content, right, predictor)
    assert micro_f1(float_counts.sum(axis=0)) > 0.95 and micro_f1(counts.sum(axis=0)) > 0.9
    gold = [sum(tag.startswith("B-") for tag in sentence.tags) for sentence in right]
    assert counts[:, 2].tolist() == float_counts[:, 2].tolist() == gold  # each entity counts where it begins
    wrong = [Sentence(s.words, ("O",) * len(s.words), s.document) for s in right]
    nothing, predicted = (each.sum(axis=0) for each in score_text_tflite(content, wrong, predictor))
    assert nothing[[0, 2]].tolist() == predicted[[0, 2]].tolist() == [0, 0] and nothing[1] > 0


def test_entities_of_a_corpus_are_found_in_its_text():
    sentences = [Sentence(("Ada", "Byron", "left", "."), ("B-PER", "I-PER", "O", "O"), 0),
                 Sentence(("Rome",), ("B-LOC",), 0), Sentence(("Oslo",), ("B-LOC",), 1)]  # fmt: skip
    (first, found), (second, other) = as_texts(sentences)
    assert (first, second) == ("Ada Byron left .\nRome\n", "Oslo\n")
    assert {first[start:end] for _, start, end in found} == {"Ada Byron", "Rome"} and other == {("LOC", 0, 4)}


def test_another_file_is_refused():
    with pytest.raises(InputError, match="not a TFLite file that takes text"):
        TextModel(b"nothing")
