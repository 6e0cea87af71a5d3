"""A part of a training corpus set aside for validation."""

import json
import random
from collections import Counter

import pytest

from app.config import InputError
from app.tasks.classification.corpus import open_texts
from app.tasks.classification.holdout import split_off_texts
from app.tasks.classification.labelled_text import TextFormat

USUAL = TextFormat()
SEVERAL = TextFormat(multi_label=True)


@pytest.fixture
def corpus(tmp_path):
    def write(texts, text_format=USUAL):
        path = tmp_path / "corpus.jsonl"
        path.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in texts))
        return open_texts(str(path), split="train", text_format=text_format)

    return write


def content(part):
    return [(text.texts[0], text.labels) for text in part.examples()]


def numbered(**counts):
    return [(f"{label} {i}", label) for label, count in counts.items() for i in range(count)]


def test_of_each_label_its_share_is_set_aside_in_a_file_that_is_sorted_by_label(corpus):
    train, valid = split_off_texts(corpus(numbered(a=100, b=40, c=10)), fraction=0.1, seed=0)
    assert Counter(labels for _, labels in content(valid)) == {("a",): 10, ("b",): 4, ("c",): 1}
    assert Counter(labels for _, labels in content(train)) == {("a",): 90, ("b",): 36, ("c",): 9}
    assert [text.number for text in valid.examples()] == list(range(15))
    assert (train.split, valid.split) == ("train", "valid")
    assert valid.source.endswith("corpus.jsonl (the 10 % set aside)")


def test_the_same_texts_are_set_aside_in_any_order_and_others_with_another_seed(corpus):
    texts = numbered(a=50, b=50)
    before = set(content(split_off_texts(corpus(texts), fraction=0.2, seed=1)[1]))
    random.Random(0).shuffle(texts)
    opened = corpus(texts)
    train, valid = split_off_texts(opened, fraction=0.2, seed=1)
    assert set(content(valid)) == before
    assert sorted(content(train) + content(valid)) == sorted(content(opened))
    assert set(content(split_off_texts(opened, fraction=0.2, seed=2)[1])) != before


def test_many_small_classes_give_their_share_together(corpus):
    texts = numbered(**{f"label_{i:02}": 4 for i in range(50)})
    _, valid = split_off_texts(corpus(texts), fraction=0.1, seed=0)
    counts = Counter(labels for _, labels in content(valid))
    assert counts.total() == 20 and max(counts.values()) == 1


def test_a_text_that_is_there_several_times_is_on_one_side(corpus):
    texts = [(f"{label} {i}", label) for label in "ab" for i in range(20) for _ in range(3)]
    train, valid = split_off_texts(corpus(texts), fraction=0.2, seed=0)
    assert not set(content(train)) & set(content(valid))
    assert len(content(valid)) == 24


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_every_label_keeps_a_text_to_learn_from(corpus, fraction):
    train, valid = split_off_texts(corpus(numbered(a=1, b=2, c=3, d=30)), fraction=fraction, seed=0)
    assert {labels for _, labels in content(train)} == {("a",), ("b",), ("c",), ("d",)}
    assert content(valid)


def test_rare_sets_of_labels_are_set_aside_as_long_as_each_label_stays(corpus):
    pairs = [(f"{i} {j}", [f"l{i}", f"l{j}"]) for i in range(12) for j in range(i)]
    texts = [*pairs, ("x", ["single", "l1"]), ("y", [])]
    train, valid = split_off_texts(corpus(texts, SEVERAL), fraction=0.3, seed=0)
    labels = {label for _, found in content(train) for label in found}
    assert labels == {f"l{i}" for i in range(12)} | {"single"}
    assert 15 <= len(content(valid)) <= 21


def test_labels_of_one_text_each_cannot_be_split(corpus):
    with pytest.raises(InputError, match=r"no label has a second text, so data\.valid_fraction=0\.1 cannot set"):
        split_off_texts(corpus(numbered(a=1, b=1)), fraction=0.1, seed=0)
