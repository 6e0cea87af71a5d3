"""Corpora are known by their content: what is the run's own, where other scores go, what a resumed run may read."""

import dataclasses
import json
import os
from types import SimpleNamespace

import pytest
import tensorflow as tf
import toy

from app.config import Config, DataConfig, InputError, PredictConfig
from app.run.directory import RunDirectory
from app.tasks.bundle import save_facts, save_model
from app.tasks.corpora import (
    START,
    TEACHERS,
    check_same_corpora,
    describe_corpora,
    describe_weights,
    evaluation_name,
    is_of_run,
    note_corpora,
    read_corpora,
    summarize_unlabelled,
)
from app.tasks.running_text import find_sources
from app.tasks.tagging.corpus import open_corpus, summarize
from app.tasks.tagging.report import conll_rows
from app.tasks.tagging.task import TAGGING
from app.text.shapes import NUM_SHAPES
from app.training.sessions import TaskTraining

OWN = "Ada B-PER\nmet O\n\nRome B-LOC\n"
OTHER = "Ada B-PER\nmet O\n\nOslo B-LOC\n"
COPIES = {  # the same sentences
    "renamed.conll": OWN,
    "iob1.conll": "Ada I-PER\nmet O\n\nRome I-LOC\n",
    "lines.jsonl": '{"tokens": ["Ada", "met"], "tags": ["B-PER", "O"], "document": "a"}\n'
    '{"tokens": ["Rome"], "tags": ["B-LOC"], "document": "b"}\n',
}
CHANGED = {
    "word": OTHER,
    "tag": "Ada B-LOC\nmet O\n\nRome B-PER\n",
    "sentence border": "Ada B-PER\n\nmet O\nRome B-LOC\n",
    "documents": "-DOCSTART- O\n\nAda B-PER\nmet O\n\nRome B-LOC\n",
    "order": "Rome B-LOC\n\nAda B-PER\nmet O\n",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run in `home/run`, trained and scored from `home`, whose corpora have relative paths."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for split in ("train", "valid", "test"):
        (home / f"{split}.conll").write_text(OWN if split == "test" else OWN.replace("met", split))
    data = DataConfig(train_path="train.conll", valid_path="valid.conll", test_path="test.conll", scheme="auto")
    run_dir = RunDirectory(home / "run")
    run_dir.write_config(dataclasses.replace(Config(), data=data))
    corpora = describe_corpora(data, {split: opened(data, split)[1] for split in ("train", "valid", "test")})
    return SimpleNamespace(home=home, data=data, run_dir=run_dir, corpora=corpora, tmp_path=tmp_path)


def opened(data: DataConfig, split: str):
    corpus = open_corpus(getattr(data, f"{split}_path"), split=split, config=data)
    return corpus, summarize(corpus)


def is_own(place, data: DataConfig, split: str = "test") -> bool:
    return is_of_run(place.run_dir, data, split, *opened(data, split))


def with_test(place, content: str, name: str = "other.conll") -> DataConfig:
    path = place.tmp_path / name
    path.write_text(content)
    scheme = "iob1" if name == "iob1.conll" else "auto"
    return dataclasses.replace(place.data, test_path=str(path), scheme=scheme)


@pytest.mark.parametrize("name", COPIES)
def test_the_same_sentences_are_the_runs_own_corpus_wherever_and_however_they_are_written(place, name):
    note_corpora(place.run_dir, place.corpora)
    assert is_own(place, with_test(place, COPIES[name], name))


@pytest.mark.parametrize("change", CHANGED)
def test_other_sentences_are_another_corpus(place, change):
    note_corpora(place.run_dir, place.corpora)
    assert not is_own(place, with_test(place, CHANGED[change]))


@pytest.mark.parametrize("recorded", [True, False])
def test_from_another_folder_the_same_relative_path_is_another_corpus(place, monkeypatch, recorded):
    if recorded:
        note_corpora(place.run_dir, place.corpora)
    else:
        place.run_dir.write_text(place.run_dir.predictions("test", "conll"), conll_rows(*predictions(OWN)))
    assert is_own(place, place.data)
    away = place.tmp_path / "away"
    away.mkdir()
    (away / "test.conll").write_text(OTHER)
    monkeypatch.chdir(away)
    assert not is_own(place, place.data)


def predictions(content: str, predicted: str = "O"):
    words, gold = [], []
    for block in content.strip().split("\n\n"):
        rows = [line.split() for line in block.split("\n")]
        words.append([row[0] for row in rows])
        gold.append([row[1] for row in rows])
    return words, gold, [[predicted] * len(tags) for tags in gold]


def test_a_run_without_digests_is_known_by_path_and_by_what_it_predicted(place):
    assert is_own(place, place.data)  # it has no scores that could be lost
    place.run_dir.update_metrics({"test/entity_f1": 0.5})
    assert not is_own(place, place.data)  # scores of what is not known
    place.run_dir.write_text(place.run_dir.predictions("test", "conll"), conll_rows(*predictions(OWN, "B-PER")))
    assert is_own(place, place.data)
    assert not is_own(place, with_test(place, OWN))  # on doubt it is another corpus
    (place.home / "test.conll").write_text(OTHER)
    assert not is_own(place, place.data)


@pytest.mark.parametrize("change", [{"max_length": 64}, {"overlap_tokens": 8}, {"packing": "sentence"}])
def test_rows_made_otherwise_are_not_the_runs_own_scores_and_stand_in_the_name(place, change):
    note_corpora(place.run_dir, place.corpora)
    data = dataclasses.replace(place.data, **change)
    assert not is_own(place, data)
    ((key, value),) = change.items()
    assert evaluation_name(place.run_dir, data, opened(data, "test")[1]).endswith(f".{key}-{value}")


def test_scores_with_another_minimum_score_are_not_those_of_the_run_where_answers_may_be_none(place):
    note_corpora(place.run_dir, place.corpora)
    corpus, summary = opened(place.data, "test")
    own = PredictConfig()
    for predict, is_same, ending in (
        (None, True, ""),
        (own, True, ""),
        (dataclasses.replace(own, batch_size=7, drop_non_names=False), True, ""),
        (dataclasses.replace(own, min_score=0.8), False, ".min_score-0.8"),
        (dataclasses.replace(own, target_precision=0.9), False, ".target_precision-0.9"),
    ):
        assert is_of_run(place.run_dir, place.data, "test", corpus, summary, predict=predict) is is_same
        plain = evaluation_name(place.run_dir, place.data, summary)
        assert evaluation_name(place.run_dir, place.data, summary, predict=predict) == plain + ending


def test_the_report_of_a_run_is_about_test_or_else_about_validation(place):
    note_corpora(place.run_dir, place.corpora)
    assert is_own(place, place.data, "test")
    assert not is_own(place, place.data, "valid") and not is_own(place, place.data, "train")
    for changes, own in (({"test_path": ""}, True), ({"test_path": "", "train_on_valid": True}, False)):
        data = dataclasses.replace(place.data, **changes)
        place.run_dir.write_config(dataclasses.replace(Config(), data=data))
        assert is_own(place, data, "valid") is own


def test_corpora_of_the_same_file_name_have_folders_of_their_own(place):
    def name_of(folder: str, content: str) -> str:
        path = place.tmp_path / folder / "test.conll"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        data = dataclasses.replace(place.data, test_path=str(path))
        return evaluation_name(place.run_dir, data, opened(data, "test")[1])

    first, second = name_of("wnut17", OWN), name_of("wikigold", OTHER)
    assert first.startswith("test.conll-") and second.startswith("test.conll-") and first != second
    assert name_of("wnut17", OWN) == first


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data/wikigold/test.conll", "test.conll"),
        ("tfds:conll2003", "tfds-conll2003"),
        ("a b/ü ü?.conll", "ü-ü-.conll"),
        ("..", "corpus"),
        ("x/" + "é" * 200, "é" * 50),
        ("folder/", "folder"),
    ],
)
def test_the_name_of_a_folder_is_one_that_a_file_system_takes(place, source, expected):
    summary = dataclasses.replace(opened(place.data, "test")[1], source=source)
    name = evaluation_name(place.run_dir, place.data, summary)
    assert name == f"{expected}-{summary.digest[:12]}"
    os.mkdir(place.tmp_path / name)


def test_what_a_run_has_read_is_recorded_with_absolute_paths(place):
    note_corpora(place.run_dir, place.corpora)
    found = read_corpora(place.run_dir)
    assert found["test"]["sources"] == [str(place.home / "test.conll")]
    assert len({each["sha256"] for each in found.values()}) == 3
    both = dataclasses.replace(place.data, train_on_valid=True)
    sources = describe_corpora(both, {"train": opened(place.data, "train")[1]})["train"]["sources"]
    assert sources == [str(place.home / "train.conll"), str(place.home / "valid.conll")]
    assert describe_corpora(DataConfig(test_path="tfds:x"), {"test": opened(place.data, "test")[1], "train": None}) == {
        "test": {"sources": ["tfds:x"], "sha256": place.corpora["test"]["sha256"]}
    }


@pytest.mark.parametrize("content", ["", "[]", '{"test": {}}', '{"test": 3}', "null"])
def test_a_damaged_record_is_named(place, content):
    place.run_dir.write_text(place.run_dir.corpora_json, content)
    with pytest.raises(InputError, match=r"corpora\.json does not hold the corpora of a run"):
        read_corpora(place.run_dir)


@pytest.mark.parametrize(
    ("split", "scored", "message"),
    [
        ("train", False, r"data\.train_path: the sentences in .*train\.conll are not those .* --overwrite"),
        ("valid", False, r"data\.valid_path: the sentences in .*valid\.conll are not those .* --overwrite"),
        ("test", True, r"data\.test_path: .* or score the new one with --mode=evaluate; or start over"),
        ("test", False, None),
    ],
)
def test_a_run_does_not_resume_on_another_corpus_of_the_same_path(place, split, scored, message):
    check_same_corpora(place.run_dir, place.corpora)  # of an older run nothing is known
    note_corpora(place.run_dir, place.corpora)
    place.run_dir.update_metrics({"test/entity_f1": 0.5} if scored else {})
    check_same_corpora(place.run_dir, place.corpora)
    (place.home / f"{split}.conll").write_text(OTHER)
    now = place.corpora | describe_corpora(place.data, {split: opened(place.data, split)[1]})
    if message:
        with pytest.raises(InputError, match=message):
            check_same_corpora(place.run_dir, now)
    else:
        check_same_corpora(place.run_dir, now)
    assert json.loads(place.run_dir.corpora_json.read_text()) == place.corpora


@pytest.mark.parametrize("what", [TEACHERS, START])
def test_a_run_does_not_resume_with_other_weights_of_the_run_that_it_learns_from(vocabulary, tmp_path, what):
    other, run = tmp_path / "other", RunDirectory(tmp_path / "run")
    model = toy.make_tagger(vocabulary, seed=1)
    save_model(model, other / "model", shape_count=NUM_SHAPES, card="One.\n")
    note_corpora(run, describe_weights(what, [str(other)]))
    known = dataclasses.replace(model, facts={"temperature": 2.0})  # what it learns of its own certainty
    save_facts(known, other / "model")
    check_same_corpora(run, describe_weights(what, [str(other)]))
    save_model(toy.make_tagger(vocabulary, seed=2), other / "model", shape_count=NUM_SHAPES, card="Another one.\n")
    setting = {TEACHERS: r"distill\.teachers", START: "init_from"}[what]
    with pytest.raises(InputError, match=rf"{setting}: the weights in .*other are not those .* --overwrite"):
        check_same_corpora(run, describe_weights(what, [str(other)]))


def test_of_weights_that_are_no_run_nothing_is_known():
    assert describe_weights(TEACHERS, ["minilm"]) == {}


def test_a_run_does_not_resume_on_other_text_without_labels(tmp_path):
    path, run = tmp_path / "a.txt", RunDirectory(tmp_path / "run")

    def described() -> dict:
        return summarize_unlabelled(TAGGING, find_sources(str(path)))[1]

    path.write_text("Ada met Bob.\n")
    note_corpora(run, described())
    check_same_corpora(run, described())
    path.write_text("Ada met Eve.\n")
    with pytest.raises(InputError, match=r"data\.unlabelled_path: the words in .*a\.txt are not those that"):
        check_same_corpora(run, described())


def test_stored_rows_follow_the_text_and_two_runs_share_a_folder_without_harm(vocabulary, tmp_path):
    encoder = toy.make_encoder(toy.make_tagger(vocabulary))
    stores = []
    for word in ("met", "saw"):  # the same numbers of everything, under the same path
        path = tmp_path / "train.conll"
        path.write_text(f"Ada B-PER\n{word} O\nBob B-PER\n")
        data = DataConfig(train_path=str(path), cache="tfrecord", cache_dir=str(tmp_path / "cache"))
        corpus, summary = opened(data, "train")
        config = dataclasses.replace(Config(), data=data)
        training = TaskTraining(config, RunDirectory(tmp_path / word), tf.distribute.get_strategy(), "float32")
        rows = encoder.training_rows(corpus.examples())
        stores.append(training.store(rows, encoder, words=summary.words, made_from=summary))
    for store, word in zip(stores, ("met", "saw"), strict=True):
        (batch,) = store.make_dataset(batch_size=1, seed=0, epochs=1)
        assert toy.PIECES.index(word) in batch["token_ids"].numpy()[0]
