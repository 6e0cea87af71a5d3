"""Scores against seqeval, scikit-learn, and the CoNLL script's algorithm written down a second time."""

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from sklearn.metrics import precision_recall_fscore_support

from app.tasks.tagging.scores import compute_scores, conlleval_spans, flat_metrics, strict_spans

TYPES = ("PER", "ORG", "WORK-OF-ART")
TAGS = ("O", *(f"{prefix}-{name}" for name in TYPES for prefix in "BI"))


@st.composite
def tag_pairs(draw):
    """Any sequences of IOB2 tags, well formed or not; half of the predictions stay near the gold tags."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any))
    gold = [draw(st.lists(st.sampled_from(TAGS), min_size=n, max_size=n)) for n in lengths]
    other = [draw(st.lists(st.sampled_from((*TAGS, None)), min_size=n, max_size=n)) for n in lengths]
    near = draw(st.booleans())
    predicted = [
        [
            tag if new is None or (near and index % 3) else new
            for index, (tag, new) in enumerate(zip(*pair, strict=True))
        ]
        for pair in zip(gold, other, strict=True)
    ]
    return gold, predicted


def conlleval_counts(gold, predicted):
    """Chunks (correct, found, in gold) by type, word by word as the CoNLL-2000 script counts them.

    Written from the published algorithm: the state of both columns is kept from word to word, and an
    end of sentence is a word outside every chunk.
    """

    def split(tag):
        prefix, _, name = tag.partition("-")
        return prefix, name

    def ends(last, now):
        return last[0] != "O" and (now[0] in "BO" or last[1] != now[1])

    def starts(last, now):
        return now[0] == "B" or (now[0] == "I" and (last[0] == "O" or last[1] != now[1]))

    outside = ("O", "")
    rows = []
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        rows += [(split(one), split(other)) for one, other in zip(gold_tags, predicted_tags, strict=True)]
        rows.append((outside, outside))
    correct, found, support = Counter(), Counter(), Counter()
    last_gold = last_predicted = outside
    both_open = False
    for now_gold, now_predicted in rows:
        gold_ends, predicted_ends = ends(last_gold, now_gold), ends(last_predicted, now_predicted)
        if both_open and gold_ends and predicted_ends:
            correct[last_gold[1]] += 1
            both_open = False
        elif both_open and gold_ends != predicted_ends:
            both_open = False
        gold_starts, predicted_starts = starts(last_gold, now_gold), starts(last_predicted, now_predicted)
        support[now_gold[1]] += gold_starts
        found[now_predicted[1]] += predicted_starts
        if gold_starts and predicted_starts and now_gold[1] == now_predicted[1]:
            both_open = True
        last_gold, last_predicted = now_gold, now_predicted
    return correct, found, support


def prf(correct, found, support):
    precision = correct / found if found else 0.0
    recall = correct / support if support else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if correct else 0.0


@settings(max_examples=120, deadline=None)
@given(tag_pairs())
def test_conlleval_scores_equal_the_scripts_algorithm_on_any_tags(pair):
    entity = compute_scores(*pair).conlleval
    correct, found, support = conlleval_counts(*pair)

    micro = entity.micro
    assert (micro.precision, micro.recall, micro.f1) == pytest.approx(
        prf(correct.total(), found.total(), support.total())
    )
    assert micro.support == support.total()
    for row in entity.types:
        expected = prf(correct[row.name], found[row.name], support[row.name])
        assert (row.precision, row.recall, row.f1) == pytest.approx(expected)
    assert {row.name for row in entity.types} == {name for name in TYPES if support[name] or found[name]}


@settings(max_examples=80, deadline=None)
@given(tag_pairs())
def test_strict_scores_equal_seqevals_strict_mode_on_any_tags(pair):
    gold, predicted = pair
    entity = compute_scores(gold, predicted).strict
    strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}

    for score, name in ((precision_score, "precision"), (recall_score, "recall"), (f1_score, "f1")):
        assert getattr(entity.micro, name) == pytest.approx(score(gold, predicted, average="micro", **strict))
        if entity.types:
            by_type = score(gold, predicted, average=None, **strict)
            assert [getattr(row, name) for row in entity.types] == pytest.approx(list(by_type))
            macro = score(gold, predicted, average="macro", **strict)
            assert getattr(entity.macro, name) == pytest.approx(macro)


@settings(max_examples=40, deadline=None)
@given(tag_pairs())
def test_token_scores_equal_scikit_learns_and_count_every_word_once(pair):
    gold, predicted = pair
    scores = compute_scores(gold, predicted)
    flat_gold, flat_predicted = list(chain(*gold)), list(chain(*predicted))

    for average, row in (("macro", scores.token.macro), ("weighted", scores.token.weighted)):
        expected = precision_recall_fscore_support(
            flat_gold, flat_predicted, average=average, zero_division=0
        )
        assert (row.precision, row.recall, row.f1) == pytest.approx(expected[:3])
    assert scores.token.accuracy == pytest.approx(accuracy_score(gold, predicted))
    assert {row.name for row in scores.token.tags} == {*flat_gold, *flat_predicted}
    assert sum(row.support for row in scores.token.tags) == scores.words == len(flat_gold)
    assert scores.sentences == len(gold)


def test_an_inside_tag_alone_is_an_entity_for_the_conll_script_only():
    tags = ["O", "I-PER", "I-PER", "O", "B-ORG", "I-PER"]

    assert [(s.start, s.end, s.label) for s in strict_spans(tags)] == [(4, 5, "ORG")]
    assert [(s.start, s.end, s.label) for s in conlleval_spans(tags)] == [
        (1, 3, "PER"),
        (4, 5, "ORG"),
        (5, 6, "PER"),
    ]


def test_a_hand_worked_example():
    gold = [["B-PER", "I-PER", "O", "B-ORG"], ["B-LOC", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-LOC"], ["I-LOC", "B-PER"]]
    scores = compute_scores(gold, predicted)

    # Strict: PER (0, 2) right of found PER, LOC and PER. The script also finds LOC in sentence two.
    assert (scores.strict.micro.precision, scores.strict.micro.recall) == pytest.approx((1 / 3, 1 / 3))
    assert (scores.conlleval.micro.precision, scores.conlleval.micro.recall) == pytest.approx((2 / 4, 2 / 3))
    assert scores.stray_inside == 1
    assert scores.token.accuracy == pytest.approx(3 / 6)
    assert [row.name for row in scores.token.tags] == ["B-LOC", "I-LOC", "B-ORG", "B-PER", "I-PER", "O"]


def test_perfect_tags_score_one_and_a_tagger_of_nothing_scores_zero():
    gold = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "B-LOC"]]

    perfect = flat_metrics(compute_scores(gold, gold))
    assert {value for name, value in perfect.items() if "f1" in name or "accuracy" in name} == {1.0}
    nothing = compute_scores(gold, [["O"] * 3, ["O"] * 3])
    assert (nothing.strict.micro.f1, nothing.conlleval.micro.f1) == (0.0, 0.0)
    assert nothing.token.accuracy == pytest.approx(2 / 6)


def test_a_split_without_entities_has_scores_of_zero_and_full_accuracy():
    scores = compute_scores([["O", "O"], []], [["O", "O"], []])

    assert scores.strict.types == ()
    assert scores.strict.micro.f1 == scores.strict.macro.f1 == 0.0
    assert scores.token.accuracy == scores.token.macro.f1 == 1.0


def test_metrics_carry_their_split_and_name_both_conventions():
    metrics = flat_metrics(compute_scores([["B-PER", "O"]], [["I-PER", "O"]]), prefix="valid")

    assert metrics["valid/entity_f1"] == 0.0
    assert metrics["valid/entity_f1_conlleval"] == 1.0
    assert metrics["valid/entity_f1_PER"] == 0.0
    assert metrics["valid/words"] == 2
    assert metrics["valid/sentences"] == 1
    assert all(name.startswith("valid/") for name in metrics)


def test_a_type_with_the_name_of_a_metric_does_not_hide_it():
    metrics = flat_metrics(compute_scores([["B-conlleval", "O"]], [["I-conlleval", "O"]]))

    assert metrics["test/entity_f1_conlleval"] == 1.0


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([["O"]], [["O"], ["O"]], "same sentences, received 1 and 2"),
        ([["O"], ["O", "O"]], [["O"], ["O"]], "sentence 1 must have one predicted tag per word"),
        ([["O"]], [["PER"]], "predicted tags must be O, B-TYPE or I-TYPE .* received 'PER'"),
        ([["S-PER"]], [["O"]], "gold tags must be .* received 'S-PER'"),
        ([[]], [[]], "nothing to score"),
    ],
)
def test_tags_that_cannot_be_scored_are_named(gold, predicted, message):
    with pytest.raises(ValueError, match=message):
        compute_scores(gold, predicted)
