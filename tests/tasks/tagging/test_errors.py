"""Error kinds: who is paired with whom, and that the counts add up to the scores."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tasks.tagging.scores import KINDS, Span, compute_scores, count_errors, error_rows, match_spans, strict_spans

TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")
tag_lists = st.lists(st.sampled_from(TAGS), min_size=1, max_size=12)


def kinds_of(gold, predicted):
    return [pair.kind for pair in match_spans(gold, predicted)]


@pytest.mark.parametrize(
    ("predicted", "kind"),
    [
        ([Span(2, 4, "PER")], "correct"),
        ([Span(2, 4, "ORG")], "wrong type"),
        ([Span(2, 5, "PER")], "wrong boundary"),
        ([Span(3, 5, "ORG")], "wrong type and boundary"),
        ([], "missed"),
    ],
)
def test_each_kind_of_error_has_its_name(predicted, kind):
    assert kinds_of([Span(2, 4, "PER")], predicted) == [kind]


def test_neighbours_that_share_no_word_are_one_missed_and_one_invented():
    assert kinds_of([Span(2, 4, "PER")], [Span(4, 5, "PER")]) == ["missed", "invented"]


def test_the_larger_overlap_is_paired_and_the_other_half_is_invented():
    gold, halves = [Span(0, 5, "ORG")], [Span(0, 2, "ORG"), Span(2, 5, "PER")]

    assert kinds_of(gold, halves) == ["invented", "wrong type and boundary"]  # in the order of the sentence


def test_of_equal_overlaps_the_same_type_is_paired_first_then_the_one_further_left():
    gold = [Span(0, 4, "ORG")]

    pairs = match_spans(gold, [Span(0, 2, "PER"), Span(2, 4, "ORG")])
    assert [(pair.kind, pair.predicted) for pair in pairs] == [
        ("invented", Span(0, 2, "PER")),
        ("wrong boundary", Span(2, 4, "ORG")),
    ]
    pairs = match_spans(gold, [Span(0, 2, "ORG"), Span(2, 4, "ORG")])
    assert pairs[0].predicted == Span(0, 2, "ORG")


def test_one_long_prediction_over_two_entities_is_one_boundary_error_and_one_missed():
    gold = [Span(0, 1, "PER"), Span(2, 5, "PER")]

    assert kinds_of(gold, [Span(0, 5, "PER")]) == ["missed", "wrong boundary"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(tag_lists, st.randoms(use_true_random=False)), min_size=1, max_size=5))
def test_counts_add_up_to_true_positives_false_negatives_and_false_positives(drawn):
    gold = [tags for tags, _ in drawn]
    predicted = [[rng.choice((tag, tag, rng.choice(TAGS))) for tag in tags] for tags, rng in drawn]
    counts = count_errors(gold, predicted)
    micro = compute_scores(gold, predicted).strict.micro

    found = sum(len(strict_spans(tags)) for tags in predicted)
    wrong_gold = sum(counts.kinds[kind] for kind in KINDS if kind != "invented")
    wrong_predicted = sum(counts.kinds[kind] for kind in KINDS if kind != "missed")
    assert micro.support - wrong_gold == found - wrong_predicted == round(micro.recall * micro.support)
    assert sum(counts.confusion.values()) == micro.support + counts.kinds["invented"]
    for kind in KINDS:
        assert sum(by_kind[kind] for by_kind in counts.by_type.values()) == counts.kinds[kind]


@settings(max_examples=100, deadline=None)
@given(tag_lists, st.randoms(use_true_random=False))
def test_every_span_is_in_exactly_one_pair_whatever_the_order_of_work(gold_tags, rng):
    predicted_tags = [rng.choice(TAGS) for _ in gold_tags]
    gold, predicted = strict_spans(gold_tags), strict_spans(predicted_tags)
    pairs = match_spans(gold, predicted)

    assert sorted(pair.gold for pair in pairs if pair.gold) == gold
    assert sorted(pair.predicted for pair in pairs if pair.predicted) == predicted
    for pair in pairs:
        if pair.gold and pair.predicted:
            assert min(pair.gold.end, pair.predicted.end) > max(pair.gold.start, pair.predicted.start)
    assert match_spans(gold, predicted) == pairs


def test_only_wrong_sentences_are_listed_with_both_sides_and_the_kind():
    words = [["Ada", "Lovelace", "wrote"], ["in", "London", "."]]
    gold = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "O"]]
    predicted = [["B-PER", "O", "O"], ["O", "B-LOC", "O"]]

    (row,) = error_rows(words, gold, predicted, [4, 4])
    right = {"start": 0, "end": 2, "label": "PER", "text": "Ada Lovelace"}
    wrong = {"start": 0, "end": 1, "label": "PER", "text": "Ada"}
    assert row == {
        "sentence": 0,
        "document": 4,
        "words": words[0],
        "gold": [right],
        "predicted": [wrong],
        "errors": [{"kind": "wrong boundary", "gold": right, "predicted": wrong}],
    }
    assert json.loads(json.dumps(row)) == row


def test_rows_and_counts_agree_on_the_wrong_sentences():
    rng = random.Random(0)
    gold = [[rng.choice(TAGS) for _ in range(8)] for _ in range(50)]
    predicted = [[rng.choice((tag, tag, "O")) for tag in tags] for tags in gold]
    words = [[f"w{index}" for index in range(8)] for _ in gold]

    rows = list(error_rows(words, gold, predicted, [0] * 50))
    counts = count_errors(gold, predicted)
    assert len(rows) == counts.wrong_sentences
    assert sum(len(row["errors"]) for row in rows) == sum(counts.kinds.values())


def test_words_and_documents_must_fit_the_tags():
    with pytest.raises(ValueError, match="one tag per word"):
        list(error_rows([["a", "b"]], [["O"]], [["O"]], [0]))
    with pytest.raises(ValueError, match="documents must have one entry per sentence, received 2"):
        list(error_rows([["a"]], [["O"]], [["O"]], [0, 1]))
