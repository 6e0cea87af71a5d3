"""Labelled texts of TensorFlow Datasets, on the library's own mock data."""

from contextlib import contextmanager

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from app.config import InputError
from app.tasks.classification.corpus import check_texts_head, open_texts
from app.tasks.classification.labelled_text import TextFormat

USUAL = TextFormat()
PAIRS = TextFormat(text_column="", pair_columns=("sentence1", "sentence2"))


@contextmanager
def prepared(rows, **types):
    """Makes every dataset hold `rows`."""

    def as_dataset(self, **_):
        return tf.data.Dataset.from_generator(
            lambda: iter(rows), output_signature={name: tf.TensorSpec([], kind) for name, kind in types.items()}
        )

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        yield


def read(source, text_format=USUAL, *, split="train", **arguments):
    return list(open_texts(source, split=split, text_format=text_format, **arguments).examples())


def test_a_prepared_dataset_is_read_with_its_own_label_names():
    rows = [{"text": "Schön war es.", "label": 1}, {"text": "So so.", "label": 0}]
    with prepared(rows, text=tf.string, label=tf.int64):
        texts = read("tfds:imdb_reviews")
    assert [(*text.texts, *text.labels) for text in texts] == [("Schön war es.", "pos"), ("So so.", "neg")]
    assert texts[1].place == "tfds:imdb_reviews, split train, text 2"


def test_pairs_are_read_and_a_class_number_below_zero_is_no_label():
    rows = [{"sentence1": "x", "sentence2": "y", "label": 1}, {"sentence1": "x", "sentence2": "z", "label": -1}]
    types = {"sentence1": tf.string, "sentence2": tf.string, "label": tf.int64}
    with prepared(rows[:1], **types):
        (text,) = read("tfds:glue/mrpc", PAIRS)
        assert (text.texts, text.labels) == (("x", "y"), ("equivalent",))
    with prepared(rows, **types):
        with pytest.raises(InputError, match="tfds:glue/mrpc, split test, text 2: the label is empty"):
            read("tfds:glue/mrpc", PAIRS, split="test")
        assert [text.labels for text in read("tfds:glue/mrpc", PAIRS, split="test", labelled=False)] == [(), ()]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "tfds:imdb_reviews, split train is empty"),
        ([{"text": b"\xff", "label": 0}], r"split train, text 1: invalid UTF-8 \(byte 0xff\)"),
        ([{"text": "", "label": 0}], "split train, text 1: the text is empty"),
        ([{"text": "x", "label": 1}], "split train, text 1: unknown label 'pos'; the labels are 'neg'"),
    ],
)
def test_bad_texts_are_named(rows, message):
    with prepared(rows, text=tf.string, label=tf.int64), pytest.raises(InputError, match=message):
        read("tfds:imdb_reviews", labels=["neg"])


def test_a_dataset_without_the_features_is_named_with_those_it_has(tmp_path):
    with pytest.raises(InputError, match=r"tfds:mnist: no feature 'text' .*the features are 'image', 'label'"):
        read("tfds:mnist", TextFormat(tfds_dir=str(tmp_path)))


def test_a_dataset_that_is_not_prepared_is_never_downloaded(tmp_path):
    with pytest.raises(InputError, match=f"tfds:imdb_reviews is not prepared in {tmp_path}, and this program does not"):
        read("tfds:imdb_reviews", TextFormat(tfds_dir=str(tmp_path)))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "folder", "message"),
    [("tfds:", "", "names no dataset"), ("tfds:imdb_reviews", "/none", "data.tfds_dir: /none is no folder")],
)
def test_what_is_wrong_with_a_dataset_without_the_library_is_said_before_tensorflow(source, folder, message):
    with pytest.raises(InputError, match=message):
        check_texts_head(source, split="train", text_format=TextFormat(tfds_dir=folder))
