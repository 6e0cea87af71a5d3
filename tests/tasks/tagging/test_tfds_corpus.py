"""Corpora of TensorFlow Datasets, on the library's own mock data."""

from contextlib import contextmanager

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from app.config import DataConfig, InputError
from app.data.sentence import Sentence
from app.tasks.tagging.corpus import open_corpus, summarize
from app.tasks.tagging.tfds import read_tfds

# Class numbers of tfds:conll2003: 0 O, 1 B-PER, 2 I-PER, 3 B-ORG, 4 I-ORG, 5 B-LOC, 6 I-LOC, ...
ROWS = [(["EU", "rejects", "Ångström"], [3, 0, 1]), (["Peter", "Blackburn"], [1, 2])]


@contextmanager
def prepared(rows, asked=None):
    """Makes every dataset hold `rows` and notes the splits asked for."""

    def as_dataset(self, split=None, **_):
        if asked is not None:
            asked.append(str(split))
        return tf.data.Dataset.from_generator(
            lambda: ({"tokens": words, "ner": tags} for words, tags in rows),
            output_signature={
                "tokens": tf.TensorSpec([None], tf.string),
                "ner": tf.TensorSpec([None], tf.int64),
            },
        )

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        yield


def test_a_prepared_dataset_is_read_with_its_own_label_names():
    with prepared(ROWS):
        corpus = open_corpus("tfds:conll2003", split="train", config=DataConfig())
        assert list(corpus.examples()) == [
            Sentence(("EU", "rejects", "Ångström"), ("B-ORG", "O", "B-PER"), 0),
            Sentence(("Peter", "Blackburn"), ("B-PER", "I-PER"), 1),
        ]
        summary = summarize(corpus)
    assert (summary.types, summary.sentences, summary.scheme) == (("ORG", "PER"), 2, "iob2")


@pytest.mark.parametrize(
    ("split", "names"), [("train", {"train"}), ("valid", {"validation", "dev"}), ("test", {"test"})]
)
def test_each_split_is_asked_for_by_a_name_the_library_uses(split, names):
    asked = []
    with prepared(ROWS, asked):
        next(read_tfds("tfds:conll2003", split=split, scheme="iob2"))
    assert len(asked) == 1
    assert asked[0] in names


def test_tags_in_the_wrong_place_are_repaired_or_refused():
    repairs = []
    with prepared([*ROWS, (["in", "Rome"], [0, 6])]):
        sentences = list(read_tfds("tfds:conll2003", split="test", on_repair=repairs.append))
        assert (sentences[2].tags, repairs) == (("O", "B-LOC"), [1])
        with pytest.raises(InputError, match="split test, sentence 3: I-LOC after O must be B-LOC"):
            list(read_tfds("tfds:conll2003", split="test", strict=True))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "split train is empty"),
        ([(["a", "b"], [0])], "sentence 1: 2 words but 1 tags"),
        ([([], [])], "sentence 1: a sentence of 0 words"),
        ([(["a b"], [0])], "sentence 1: the word 'a b' is empty or holds a blank"),
        ([(["a"], [5])], "sentence 1: unknown tag 'B-LOC', the entity types are PER"),
    ],
)
def test_bad_sentences_are_named(rows, message):
    with prepared(rows), pytest.raises(InputError, match=message):
        list(read_tfds("tfds:conll2003", split="train", types=["PER"]))


def test_a_dataset_that_is_not_prepared_is_never_downloaded(tmp_path):
    with pytest.raises(InputError) as error:
        list(read_tfds("tfds:conll2003", split="train", tfds_dir=str(tmp_path)))
    assert f"tfds:conll2003 is not prepared in {tmp_path}, and this program does not download it" in str(
        error.value
    )
    assert "download_and_prepare()" in str(error.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfds:", "names no dataset"),
        ("tfds:no_such_corpus", "knows no dataset 'no_such_corpus'"),
        ("tfds:conll2003/no_such_config", "tfds:conll2003/no_such_config: .*no_such_config"),
        ("tfds:mnist", "is no named-entity corpus: it needs the feature tokens"),
    ],
)
def test_unknown_and_unfit_datasets_are_named(source, message, tmp_path):
    with pytest.raises(InputError, match=message):
        list(read_tfds(source, split="train", tfds_dir=str(tmp_path)))


def test_a_broken_installation_of_the_library_is_named(monkeypatch):
    monkeypatch.delattr(tfds, "builder")  # what an import error inside the library leaves behind
    with pytest.raises(InputError, match="the installed tensorflow-datasets does not work"):
        list(read_tfds("tfds:conll2003", split="train"))
