"""Which updates go live, and what is said of those that do not."""

from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import toy

from app.config import PredictConfig
from app.config.update import UpdateConfig
from app.data.sentence import Sentence
from app.evaluation.gate import Loss
from app.evaluation.report_page import render_page
from app.feedback.verdict import Part, compare, decide, describe, find_changes
from app.tasks.classification.labelled_text import LabelledText
from app.tasks.classification.task import CLASSIFICATION
from app.tasks.tagging.answers import TaggedSentence
from app.tasks.tagging.task import TAGGING


def part(name: str, loss: float, low: float, high: float, texts: int = 100) -> Part:
    return Part(name, name, texts, 0.9, 0.9 - loss / 100, Loss(loss, low, high))


SAME = part("test", 0.0, -0.4, 0.4)
BETTER = part("held_out", -9.0, -14.0, -3.0)


@pytest.mark.parametrize(
    ("old", "held_out", "settings", "reason"),
    [
        (SAME, BETTER, {}, ""),
        (part("test", 0.4, 0.1, 0.7), BETTER, {}, ""),  # within the margin
        (part("test", 1.2, -0.1, 2.5), BETTER, {}, ""),  # beyond it, by chance
        (part("test", 1.2, 0.1, 2.5), BETTER, {}, "it loses 1.20 points on test (95 % interval -2.50 to -0.10)"),
        (part("test", 1.2, 0.1, 2.5), BETTER, {"max_f1_loss": 2.0}, ""),
        (SAME, part("held_out", -2.0, -5.0, 1.0), {}, "its gain of 2.00 points on held_out may be chance"),
        (SAME, part("held_out", -2.0, -5.0, 1.0), {"require_better": False}, ""),
        (SAME, part("held_out", 2.0, -1.0, 5.0), {"require_better": False}, "it loses 2.00 points on held_out"),
        (SAME, part("held_out", -9.0, -14.0, -3.0, texts=9), {}, "9 corrected texts held out are too few"),
        (SAME, part("held_out", -9.0, -14.0, -3.0, texts=9), {"min_held_out": 9}, ""),
        (SAME, part("held_out", -9.0, -14.0, -3.0, texts=9), {"require_better": False}, ""),
        (SAME, None, {}, "0 corrected texts held out are too few"),
        (SAME, None, {"require_better": False}, ""),
    ],
)
def test_an_update_passes_if_it_is_better_on_corrections_and_no_worse_on_the_old_corpus(
    old, held_out, settings, reason
):
    verdict = decide(old, held_out, [], UpdateConfig(**settings))
    assert verdict.passed == (not reason)
    assert verdict.passed or reason in verdict.reasons[0]
    assert verdict.record()["parts"].keys() == {"test", *(["held_out"] if held_out else [])}


def test_what_could_not_be_told_is_noted():
    verdict = decide(part("test", 0.2, -0.3, 0.9), None, [], UpdateConfig(require_better=False))
    assert verdict.passed and "test is too small to rule out" in verdict.notes[0]
    assert "too few to tell whether it is better" in verdict.notes[1]


def test_the_sentences_of_a_text_are_drawn_together():
    """Ten texts of ten sentences each, all of a text better or worse: ten draws decide, not a hundred."""
    right = np.repeat(np.random.default_rng(0).permutation([1] * 8 + [0] * 2), 10)
    counts = {"before": np.stack([1 - right, np.ones(100), np.ones(100)], 1), "after": np.ones((100, 3))}
    sides = [SimpleNamespace(counts=counts[name], headline=0.0) for name in ("before", "after")]
    settings = {"name": "held_out", "title": "held out", "confidence": 0.95}
    alone = compare(TAGGING, *sides, **settings)
    together = compare(TAGGING, *sides, **settings, owners=[number // 10 for number in range(100)])
    assert (alone.texts, together.texts) == (100, 10)
    assert together.loss.value == pytest.approx(alone.loss.value)
    assert together.loss.high - together.loss.low > 2 * (alone.loss.high - alone.loss.low)


def tagged(*tags: str) -> TaggedSentence:
    return TaggedSentence(list(tags), np.zeros(0, np.float32), np.zeros((len(tags), 5), np.float32))


@pytest.fixture(scope="module")
def tagger(vocabulary):
    return toy.make_tagger(vocabulary)


@pytest.fixture
def changed(tagger):
    """(scores before, scores after) of four sentences: better, worse, as wrong as before, and the same."""
    gold = [("B-PER", "O", "B-LOC"), ("B-PER", "O", "O"), ("O", "O", "B-LOC"), ("O", "O", "O")]
    before = [("B-PER", "O", "O"), ("B-PER", "O", "O"), ("B-PER", "O", "O"), ("O", "O", "O")]
    after = [("B-PER", "O", "B-LOC"), ("B-LOC", "O", "O"), ("B-LOC", "O", "O"), ("O", "O", "O")]
    words = [("Ada", "saw", "Rome"), ("Bob", "met", "&<b>"), ("Dan", "in", "Lima"), ("the", "old", "house")]
    sentences = [Sentence(each, tags, number) for number, (each, tags) in enumerate(zip(words, gold, strict=True))]
    sides = ([tagged(*tags) for tags in side] for side in (before, after))
    return tuple(TAGGING.score(tagger, sentences, side, PredictConfig()) for side in sides)


def test_every_changed_answer_is_shown_as_better_worse_or_otherwise_wrong(tagger, changed):
    found = find_changes(tagger, tagger, *changed, title="test")
    assert [(each.where, each.kind) for each in found] == [
        ("test, sentence 1", "better"), ("test, sentence 2", "worse"), ("test, sentence 3", "otherwise wrong"),
    ]  # fmt: skip
    lines = dict(found[1].lines)
    assert [(each.text, each.label, each.wrong) for each in lines["after"]] == [
        ("Bob", "LOC", True), (" ", "", False), ("met &<b>", "", False),
    ]  # fmt: skip
    assert [each.wrong for each in lines["right"]] == [False] * 3 and lines["before"] == lines["right"]


def test_the_reports_show_the_verdict_and_the_worse_answers_first(tagger, changed):
    changes = find_changes(tagger, tagger, *changed, title="test")
    verdict = decide(SAME, BETTER, [], UpdateConfig())
    opening = describe(verdict, changes, title="Update of <ner>", sizes="7 texts")
    assert opening.text.startswith("Update of <ner>: passed\n7 texts\n")
    assert "worse: test, sentence 2" in opening.text and "[Bob LOC (wrong)] met &<b>" in opening.text
    assert opening.text.index("worse: test") < opening.text.index("better: test")
    page = render_page(
        TAGGING.report(changed[1], [], title="t"), title="t", history=[], curves={}, config_text="", environment={},
        opening=opening,
    )  # fmt: skip
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    headings = [each.text for each in root.iter("h2")]
    assert headings[:2] == ["Update of <ner>: passed", "What changed"] and "How it was made" in headings
    articles = [each for each in root.iter("article") if "What changed" not in (each.text or "")]
    assert "worse" in "".join(articles[0].itertext()) and "Bob" in "".join(articles[0].itertext())


def test_a_classifier_shows_the_text_and_its_labels(vocabulary):
    model = toy.make_classifier(vocabulary)
    examples = [LabelledText(("Ada saw Rome",), ("person",), 0, 0), LabelledText(("house",), (), 1, 0, True)]
    logits = np.array([[0, 3, 0], [0, 0, 3]], np.float32), np.array([[0, 0, 3], [0, 0, 3]], np.float32)
    sides = [CLASSIFICATION.score(model, examples, [*each], PredictConfig()) for each in logits]
    (found,) = find_changes(model, model, *sides, title="test")
    assert found.kind == "worse" and found.where == "test, text 1"
    shown = {name: [(each.text, each.wrong) for each in segments] for name, segments in found.lines}
    assert shown == {
        "text": [("Ada saw Rome", False)], "before": [("person", False)], "after": [("place", True)],
        "right": [("person", False)],
    }  # fmt: skip
    assert [each.text for each in CLASSIFICATION.show(model, examples[1])] == ["no label"]
