"""Which corpora a configuration means: with `data.train_on_valid` the validation corpus is learnt from, not scored."""

import dataclasses

import pytest

from app.config import DataConfig, InputError
from app.data.corpus import summarize
from app.data.labels import labels_from
from app.modes.scoring import open_scored_split, open_split

LABELS = labels_from(["LOC", "PER"])


@pytest.fixture
def data(tmp_path):
    (tmp_path / "train.conll").write_text("-DOCSTART- O\n\nAda B-PER\n\nRome B-LOC\n\n-DOCSTART- O\n\nBob B-PER\n")
    (tmp_path / "valid.jsonl").write_text('{"tokens": ["Paris"], "tags": ["B-LOC"]}\n')
    (tmp_path / "test.conll").write_text("Rome B-LOC\n")
    names = {"train": "train.conll", "valid": "valid.jsonl", "test": "test.conll"}
    return DataConfig(**{f"{split}_path": str(tmp_path / name) for split, name in names.items()})


def words(corpus):
    return [(sentence.document, *sentence.words) for sentence in corpus.sentences()]


def test_each_split_is_its_own_corpus(data):
    assert words(open_split(data, "train")) == [(0, "Ada"), (0, "Rome"), (1, "Bob")]
    assert words(open_split(data, "valid")) == [(0, "Paris")]
    assert open_split(dataclasses.replace(data, test_path=""), "test") is None


def test_both_are_learnt_from_and_one_is_scored(data):
    both = dataclasses.replace(data, train_on_valid=True)
    train = open_split(both, "train")
    assert words(train) == [(0, "Ada"), (0, "Rome"), (1, "Bob"), (2, "Paris")]
    summary = summarize(train)
    assert (summary.sentences, summary.documents) == (4, 3)
    assert summary.source == f"{data.train_path} and {data.valid_path}"
    assert open_split(both, "valid") is None
    assert words(open_split(both, "test")) == [(0, "Rome")]


def test_a_split_that_cannot_be_scored_says_why(data):
    assert words(open_scored_split(data, "test", labels=LABELS, purpose="it is wanted")) == [(0, "Rome")]
    for changed, reason in (
        ({"valid_path": ""}, "data.valid_path is empty; it is wanted"),
        ({"train_on_valid": True}, r"data.valid_path has been learnt from \(data.train_on_valid=true\); it is wanted"),
    ):
        with pytest.raises(InputError, match=reason):
            open_scored_split(dataclasses.replace(data, **changed), "valid", labels=LABELS, purpose="it is wanted")


def test_a_fault_in_a_corpus_that_is_to_be_scored_shows_before_work_starts(data):
    with pytest.raises(InputError, match="LOC"):
        open_scored_split(data, "test", labels=labels_from(["PER"]), purpose="it is wanted")
