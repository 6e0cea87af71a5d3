"""Corrected texts as examples of each task."""

import importlib

import numpy as np
import pytest

from app.data.sentence import Sentence
from app.tasks.classification.task import CLASSIFICATION
from app.tasks.tagging.answers import LONGEST_SENTENCE_WORDS, read_entities
from app.tasks.tagging.labels import tags_from_spans
from app.tasks.tagging.task import TAGGING
from app.tasks.whole_text import Text

TEXT = "Angela Merkel met J. Smith-Jones in St. Louis. It was at Yahoo! Inc. of Rome."
LABELS = ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")


def marked(text: str, *entities: tuple[str, str]) -> list[dict]:
    return [{"start": text.index(part), "end": text.index(part) + len(part), "label": kind} for part, kind in entities]


def tags(sentences: list[Sentence]) -> list[str]:
    pairs = [pair for each in sentences for pair in zip(each.words, each.tags, strict=True)]
    return [f"{word}/{tag}" for word, tag in pairs if tag != "O"]


def test_entities_by_character_become_tags_of_the_words_that_are_predicted():
    entities = marked(TEXT, ("Angela Merkel", "PER"), ("St. Louis", "LOC"))
    first, *others = TAGGING.read_correction(TEXT, {"entities": entities}, labels=LABELS, facts={}, number=-3)
    assert first.words[-3:] == ("St.", "Louis", ".") and {each.document for each in (first, *others)} == {-3}
    assert tags([first, *others]) == ["Angela/B-PER", "Merkel/I-PER", "St./B-LOC", "Louis/I-LOC"]


def test_an_entity_takes_all_of_the_words_that_it_covers_in_part():
    found = read_entities(TEXT, marked(TEXT, ("mith-Jo", "PER"), ("t. L", "LOC")), number=0)
    assert tags(found) == ["Smith-Jones/B-PER", "St./B-LOC", "Louis/I-LOC"]


def test_sentences_that_an_entity_goes_across_are_one_sentence():
    assert len(read_entities(TEXT, [], number=0)) == 3
    first, second = read_entities(TEXT, marked(TEXT, ("Yahoo! Inc.", "ORG")), number=0)
    assert tags([second]) == ["Yahoo/B-ORG", "!/I-ORG", "Inc./I-ORG"] and second.words[-1] == "."
    assert first.words[-1] == "." and second.words[0] == "It"


def test_a_sentence_without_end_is_cut_as_it_is_when_it_is_tagged():
    words = ["word"] * (LONGEST_SENTENCE_WORDS + 10)
    text = " ".join(words)
    start = 5 * (LONGEST_SENTENCE_WORDS - 1)
    found = read_entities(text, [{"start": start, "end": start + 9, "label": "PER"}], number=0)
    assert [len(each.words) for each in found] == [LONGEST_SENTENCE_WORDS, 10]
    assert (found[0].tags[-1], found[1].tags[:2]) == ("B-PER", ("B-PER", "O"))


@pytest.mark.parametrize(
    ("entities", "why"),
    [
        ([{"start": 6, "end": 7, "label": "PER"}], "marks ' ', which holds no word"),
        (marked(TEXT, ("Smith", "PER"), ("Jones", "PER")), "has two entities at the word 'Smith-Jones'"),
    ],
)
def test_entities_that_no_words_can_have_are_told(entities, why):
    with pytest.raises(ValueError, match=why):
        read_entities(TEXT, entities, number=0)


def test_every_way_to_mark_the_words_of_a_text_comes_back_as_it_was():
    text, rng = "Ada met Bob, and Cleo saw U.S. troops in St. Louis on Monday.", np.random.default_rng(3)
    (plain,) = read_entities(text, [], number=0)
    starts = []
    for word in plain.words:
        starts.append(text.index(word, starts[-1] + 1 if starts else 0))
    for _ in range(50):
        cuts = np.sort(rng.choice(len(starts) + 1, 4, replace=False))
        spans = [("PER", int(cuts[0]), int(cuts[1])), ("LOC", int(cuts[2]), int(cuts[3]))]
        entities = [
            {"start": starts[first], "end": starts[last - 1] + len(plain.words[last - 1]), "label": kind}
            for kind, first, last in spans
        ]
        (found,) = read_entities(text, entities[::-1], number=0)
        assert found.tags == tags_from_spans(spans, len(starts))


def read(answer: dict, text: str = "It broke.", **facts) -> list:
    return CLASSIFICATION.read_correction(text, answer, labels=("bad", "good"), facts=facts, number=-1)


def test_a_label_becomes_that_of_the_text_and_none_is_only_scored():
    (found,) = read({"label": "bad"})
    assert (found.texts, found.labels, found.out_of_scope) == (("It broke.",), ("bad",), False)
    assert CLASSIFICATION.is_learnable(found)
    (found,) = read({"label": None})
    assert found.out_of_scope and not CLASSIFICATION.is_learnable(found)
    with pytest.raises(ValueError, match="must have one label, received bad, good"):
        read({"labels": ["good", "bad"]})


def test_several_labels_pairs_and_none_of_several_are_read():
    (found,) = read({"labels": ["good", "bad"]}, "It broke.\tIt works.", multi_label=True, pairs=True)
    assert (found.texts, found.labels) == (("It broke.", "It works."), ("bad", "good"))
    (found,) = read({"labels": []}, multi_label=True)
    assert not found.out_of_scope and CLASSIFICATION.is_learnable(found)


def test_a_new_set_of_known_labels_is_learnt_after_those_that_are_known():
    examples = read({"labels": ["good", "bad"]}, multi_label=True)
    facts = {"multi_label": True, "label_sets": ([], [1]), "thresholds": (0.4, 0.5)}
    found = CLASSIFICATION.extend_facts(facts, examples, labels=("bad", "good"))
    assert found == {**facts, "label_sets": [[], [1], [0, 1]]}
    assert CLASSIFICATION.extend_facts({"temperature": 2.0}, examples, labels=("bad", "good")) == {"temperature": 2.0}


def test_a_task_of_ones_own_learns_where_its_answer_is_a_target_or_a_label(registry):
    task = importlib.import_module("third_task.task").TEXT_LENGTH
    settings = {"labels": ("a", "b"), "facts": {}, "number": -1}
    assert task.read_correction("x y", {"target": 2}, **settings) == [Text("x y", 2)]
    assert task.read_correction("x y", {"label": "b"}, **settings) == [Text("x y", 1)]
    with pytest.raises(ValueError, match='must have a "target"'):
        task.read_correction("x y", {"length": 2.5}, **settings)
