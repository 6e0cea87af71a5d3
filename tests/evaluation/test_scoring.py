"""Which corpora a configuration means: with `data.train_on_valid` the validation corpus is learnt from, not scored."""

import dataclasses
from types import SimpleNamespace

import pytest

from app.config import Config, DataConfig, InputError
from app.tasks.corpora import check_other_splits, open_split, read_scored_split, summarize
from app.tasks.tagging.labels import labels_from
from app.tasks.tagging.task import TAGGING

LABELS = labels_from(["LOC", "PER"])
MODEL = SimpleNamespace(labels=LABELS, task=TAGGING, facts={})  # what reading a corpus asks of a model


@pytest.fixture
def config(tmp_path):
    (tmp_path / "train.conll").write_text("-DOCSTART- O\n\nAda B-PER\n\nRome B-LOC\n\n-DOCSTART- O\n\nBob B-PER\n")
    (tmp_path / "valid.jsonl").write_text('{"tokens": ["Paris"], "tags": ["B-LOC"]}\n')
    (tmp_path / "test.conll").write_text("Rome B-LOC\n")
    names = {"train": "train.conll", "valid": "valid.jsonl", "test": "test.conll"}
    data = DataConfig(**{f"{split}_path": str(tmp_path / name) for split, name in names.items()})
    return Config(data=data)


def changed(config, **settings):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **settings))


def words(corpus):
    return [(sentence.document, *sentence.words) for sentence in corpus.examples()]


def test_each_split_is_its_own_corpus(config):
    assert words(open_split(config, "train")) == [(0, "Ada"), (0, "Rome"), (1, "Bob")]
    assert words(open_split(config, "valid")) == [(0, "Paris")]
    assert open_split(changed(config, test_path=""), "test") is None


def test_both_are_learnt_from_and_one_is_scored(config):
    both = changed(config, train_on_valid=True)
    train = open_split(both, "train")
    assert words(train) == [(0, "Ada"), (0, "Rome"), (1, "Bob"), (2, "Paris")]
    summary = summarize(train, both)
    assert (summary.sentences, summary.documents) == (4, 3)
    assert summary.source == f"{config.data.train_path} and {config.data.valid_path}"
    assert open_split(both, "valid") is None
    assert words(open_split(both, "test")) == [(0, "Rome")]


def test_a_split_that_cannot_be_scored_says_why(config):
    corpus, summary = read_scored_split(config, "test", model=MODEL, purpose="it is wanted")
    assert words(corpus) == [(0, "Rome")] and summary.words == 1
    for settings, reason in (
        ({"valid_path": ""}, "data.valid_path is empty; it is wanted"),
        ({"train_on_valid": True}, r"data.valid_path has been learnt from \(data.train_on_valid=true\); it is wanted"),
    ):
        with pytest.raises(InputError, match=reason):
            read_scored_split(changed(config, **settings), "valid", model=MODEL, purpose="it is wanted")


def test_a_fault_in_a_corpus_that_is_to_be_scored_shows_before_work_starts(config):
    people = SimpleNamespace(labels=labels_from(["PER"]), task=TAGGING, facts={})
    with pytest.raises(InputError, match="LOC"):
        read_scored_split(config, "test", model=people, purpose="it is wanted")


def last_words(corpus):
    return {sentence.words[-1] for sentence in corpus.examples()}


def write_documents(path, count):
    names = ("Rome B-LOC", "Ada B-PER")
    path.write_text("".join(f"-DOCSTART- O\n\n{names[n % 2]}\nw{n} O\n\n" for n in range(count)))
    return str(path)


def test_a_part_of_the_training_corpus_is_the_validation_corpus(config, tmp_path):
    path = write_documents(tmp_path / "mine.conll", 40)
    parted = changed(config, train_path=path, valid_path="", valid_fraction=0.25)
    names = {split: last_words(open_split(parted, split)) for split in ("train", "valid")}
    assert len(names["train"]) == 30 and len(names["valid"]) == 10 and not names["train"] & names["valid"]
    again, _ = read_scored_split(parted, "valid", model=MODEL, purpose="it is wanted")
    assert last_words(again) == names["valid"]
    other = open_split(changed(parted, valid_seed=1), "valid")
    assert last_words(other) != names["valid"]
    assert words(open_split(parted, "test")) == [(0, "Rome")]
    whole = changed(parted, train_on_valid=True)
    assert len(words(open_split(whole, "train"))) == 40 and open_split(whole, "valid") is None


def test_a_test_corpus_that_is_missing_is_an_error_that_names_the_one_there_is(config):
    parted = changed(config, test_path="", valid_path="", valid_fraction=0.5)
    with pytest.raises(InputError, match=r"data.test_path is empty; it is wanted, or score on evaluation.split=valid"):
        read_scored_split(parted, "test", model=MODEL, purpose="it is wanted")


def test_before_training_what_is_odd_about_the_corpora_is_said(config, tmp_path, capsys):
    path = write_documents(tmp_path / "mine.conll", 40)
    (tmp_path / "empty.conll").write_text("so O\n")
    parted = changed(config, train_path=path, valid_path="", valid_fraction=0.25)
    parted = changed(parted, test_path=str(tmp_path / "empty.conll"))
    check_other_splits(parted, LABELS, train=open_split(parted, "train"), words=60)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{path} (the 25 % set aside): 10 sentences, 10 documents"
    assert said[1] == f"warning: {tmp_path / 'empty.conll'} holds no entity: entity F1 on it says nothing"
    alone = changed(parted, valid_fraction=0.0, test_path="")
    check_other_splits(alone, LABELS, train=open_split(alone, "train"), words=80)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("no validation corpus (data.valid_path is empty)") and "data.valid_fraction=0.1" in said


def test_text_of_the_training_corpus_in_the_test_corpus_is_said(config, tmp_path, capsys):
    document = "-DOCSTART- O\n\nAda B-PER\n" + "and O\n" * 9 + "w{} O\n\nyes O\n\n"
    text = "".join(map(document.format, range(5)))
    for name in ("mine", "copy"):
        (tmp_path / f"{name}.conll").write_text(text)
    mine = changed(config, train_path=str(tmp_path / "mine.conll"), test_path=str(tmp_path / "copy.conll"))
    check_other_splits(mine, LABELS, train=open_split(mine, "train"), words=60)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("warning: ") and "copy.conll: 5 of 5 sentences" in said and "5 whole document(s)" in said
    check_other_splits(mine, LABELS, train=open_split(mine, "train"), words=mine.data.memory_limit_words + 1)
    assert capsys.readouterr().err == ""
