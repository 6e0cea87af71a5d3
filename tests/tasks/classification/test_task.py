"""What the task says of its answers, without a network."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import toy

from app.config import DataConfig
from app.tasks.classification.labelled_text import LabelledText
from app.tasks.classification.scores import counts_per_text
from app.tasks.classification.task import CLASSIFICATION, make_row
from app.tasks.whole_text_rows import describe_long_texts
from app.text.word_pieces import WordPieces


def model_of(count: int, **facts):
    return SimpleNamespace(labels=tuple(f"label {number}" for number in range(count)), facts=facts)


def text_of(*labels: str) -> LabelledText:
    return LabelledText(("text",), labels, 0, 0)


@pytest.mark.parametrize(("count", "best"), [(3, 1), (2000, 1777)])
def test_an_answer_is_counted_as_it_was_given_however_equal_the_rounded_scores_are(count, best):
    model, logits = model_of(count), np.zeros(count, np.float32)
    logits[best] = 1e-5
    row = make_row(model, logits, {"temperature": 1.0, "min_score": 0.0}, is_empty=False)
    assert len(set(row["scores"].values())) == 1 and row["label"] == f"label {best}"
    for gold in (best, 0):
        counted = CLASSIFICATION.count_text(model, "text", text_of(f"label {gold}"), row)
        np.testing.assert_array_equal(counted, counts_per_text(np.array([gold]), np.array([best]), count))


def test_a_text_without_an_answer_counts_as_none():
    model, logits = model_of(3), np.array([2.0, 1.0, 0.0], np.float32)
    for settings, is_empty in (({"min_score": 0.99}, False), ({"min_score": 0.0}, True)):
        row = make_row(model, logits, {"temperature": 1.0, **settings}, is_empty=is_empty)
        assert row["label"] is None
        counted = CLASSIFICATION.count_text(model, "text", text_of("label 0"), row)
        assert counted[0].tolist() == [0, 0, 1] + 2 * [0, 0, 0]  # right, predicted, gold of each label


def test_several_labels_are_counted_as_given():
    model = model_of(2, multi_label=True)
    row = {"labels": ["label 1"], "scores": {"label 0": 0.5, "label 1": 0.5}}
    (counted,) = CLASSIFICATION.count_text(model, "text", text_of("label 0", "label 1"), row)
    assert counted.tolist() == [0, 0, 1, 1, 1, 1]


def test_it_is_said_once_how_much_of_what_is_learnt_are_windows_of_long_texts(capsys):
    data = DataConfig(max_length=12, overlap_tokens=4)
    encoder = CLASSIFICATION.build_encoder(WordPieces(toy.PIECES, lowercase=False), ("a", "b"), data, {})
    short, long = text_of("a"), dataclasses.replace(text_of("b"), texts=("the old house . " * 10,))
    texts = [short, short, long, dataclasses.replace(long, labels=())]
    for _ in range(2):
        rows = list(encoder.training_rows(texts))
    windows = sum(int((row.labels >= 0).sum()) for row in rows)
    said = capsys.readouterr().err
    share = f"{windows - 2} windows that count as a text each: they are {(windows - 2) / windows:.0%} of what"
    assert windows > 4 and said.count("warning: 1 of 3 texts do not fit") == 1 and share in said
    list(encoder.training_rows([short, short]))
    assert capsys.readouterr().err == ""
    assert describe_long_texts(100, long=2, windows=103, max_length=12) == ""  # hardly more than their share
    assert describe_long_texts(0, long=0, windows=0, max_length=12) == ""
