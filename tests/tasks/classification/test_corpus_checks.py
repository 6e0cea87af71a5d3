"""What is odd about labelled texts without being wrong on any line."""

import json
from dataclasses import replace

import pytest

from app.config import InputError
from app.config.loading import load_config
from app.tasks.classification.corpus import TextSummary, open_texts, summarize_texts, text_format_of
from app.tasks.classification.corpus_checks import (
    check_same_kind,
    check_scored_texts,
    check_split_head,
    check_texts,
    describe_shared_texts,
    find_shared_texts,
)
from app.tasks.classification.labelled_text import TextFormat

USUAL = TextFormat()
SEVERAL = TextFormat(multi_label=True)


def summary(counts, **changed):
    made = TextSummary("my.csv", tuple(sorted(counts)), counts, sum(counts.values()), 99, False, 0, "digest")
    return replace(made, **changed)


@pytest.fixture
def corpus(tmp_path):
    def write(texts, name="train.jsonl", *, split="train", text_format=USUAL):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in texts))
        return open_texts(str(path), split=split, text_format=text_format)

    return write


def test_nothing_is_said_of_a_usual_corpus():
    assert check_texts(summary({"a": 5, "b": 5}), USUAL) == []


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["sport", "Sport", "news"], ["'Sport', 'sport'"]),
        (["bad  news", "bad news"], ["'bad  news', 'bad news'"]),
        (["\u00c9TAT", "E\u0301TAT"], [r"'E\u0301TAT', '\xc9TAT'"]),
        (["a", "b", "Out_Of_Scope"], ["'Out_Of_Scope', 'out_of_scope'"]),
        (["sport", "sports"], []),
    ],
)
def test_labels_that_look_alike_are_pointed_out(labels, names):
    warnings = check_texts(summary(dict.fromkeys(labels, 5)), USUAL)
    assert len(warnings) == len(names)
    for warning, name in zip(warnings, names, strict=True):
        assert name in warning and warning.startswith("my.csv ")


def test_a_label_with_a_single_text_is_pointed_out():
    (warning,) = check_texts(summary({"a": 5, "b": 1, "c": 2}), USUAL)
    assert warning.startswith("my.csv has a single text for label 'b': ")
    (warning,) = check_texts(summary({"a": 9, **{f"x{i}": 1 for i in range(7)}}), USUAL)
    assert "for each of 7 labels: 'x0', 'x1', 'x2', 'x3', 'x4' and 2 more" in warning


def test_a_single_label_is_refused():
    with pytest.raises(InputError, match=r"my\.csv has a single label \('a'\), at least two are needed"):
        check_texts(summary({"a": 5}), USUAL)
    one_set = summary({"a": 5, "b": 5}, label_sets=(("a", "b"),))
    with pytest.raises(InputError, match=r"my\.csv: every text has the same labels \('a', 'b'\)"):
        check_texts(one_set, SEVERAL)
    assert check_texts(summary({"a": 5}, label_sets=((), ("a",))), SEVERAL) == []


def test_many_labels_are_pointed_out_and_refused_where_nothing_can_be_learnt():
    assert check_texts(summary({f"l{i}": 2 for i in range(1000)}), USUAL) == []
    (warning,) = check_texts(summary({f"l{i}": 2 for i in range(1001)}), USUAL)
    assert "my.csv has 1,001 labels: are they in another column (data.label_column)?" in warning
    with pytest.raises(InputError, match=r"1,200 labels for 1,800 texts \('l0', .*data\.label_column"):
        check_texts(summary({f"l{i}": 1 + i % 2 for i in range(1200)}), USUAL)
    with pytest.raises(InputError, match="30 labels for 30 texts"):
        check_texts(summary({f"l{i}": 1 for i in range(30)}), USUAL)
    assert "each of 3 labels" in check_texts(summary({"a": 1, "b": 1, "c": 1}), USUAL)[0]


def test_labels_that_seem_to_be_several_are_pointed_out():
    counts = {"a": 5, "a|b": 5}
    (warning,) = check_texts(summary(counts), USUAL)
    assert "labels with '|' in them, such as 'a|b', each learnt as one label: are they several" in warning
    assert check_texts(summary(counts), replace(USUAL, label_separator="")) == []


def test_texts_with_different_labels_are_pointed_out_with_their_lines(corpus):
    texts = [("x", "a"), ("x", "b"), ("y", "a"), ("y", "a"), ("z", "b")]
    opened = corpus(texts)
    (warning,) = check_texts(summarize_texts(opened, USUAL), USUAL)
    path = opened.source
    assert warning == (
        f"{path} has 1 text(s) with different labels ('x' is 'a' in {path}, line 1 and 'b' in {path}, line 2)"
    )
    assert check_scored_texts(summarize_texts(opened, USUAL), USUAL, labels=["a", "b"]) == [warning]
    (warning,) = check_texts(summarize_texts(corpus(texts, text_format=SEVERAL), SEVERAL), SEVERAL)
    assert "1 text(s) with different labels: all labels of a text stand in one row (" in warning


def test_the_same_text_twice_with_one_label_is_no_warning(corpus):
    texts = [("x", "a"), ("x", "a"), ("y", "b"), ("z", "b")]
    assert check_texts(summarize_texts(corpus(texts), USUAL), USUAL) == []


def test_labels_that_a_scored_corpus_lacks_are_pointed_out():
    assert check_scored_texts(summary({"a": 5, "b": 1}), USUAL, labels=["a", "b"]) == []
    (warning,) = check_scored_texts(summary({"a": 5}), USUAL, labels=["a", "b"])
    assert warning == "my.csv has no text of label 'b': nothing is known of scores there"
    (warning,) = check_scored_texts(summary({}, texts=3, out_of_scope=3), USUAL, labels=["a", "b"])
    assert warning.startswith("my.csv holds only texts out of scope")


def test_texts_of_the_training_corpus_in_another_are_counted(corpus):
    train = corpus([("x", "a"), ("y", "b"), ("z", "b")])
    test = corpus([("x ", "a"), ("x", "b"), ("u", "a"), ("v", "out_of_scope")], "test.jsonl", split="test")
    valid = corpus([("w", "a")], "valid.jsonl", split="valid")
    shared = find_shared_texts(train, {"valid": valid, "test": test})
    assert (shared["test"].texts, shared["test"].of_texts, shared["valid"].texts) == (2, 4, 0)
    assert describe_shared_texts(shared, {"valid": "valid.jsonl", "test": "test.jsonl"}) == [
        "test.jsonl: 2 of 4 texts are in the training corpus too, so scores on it are too good"
    ]


def test_pairs_beside_single_texts_are_refused():
    check_same_kind(summary({"a": 1}), pairs=False)
    with pytest.raises(InputError, match=r"test\.csv has pairs of texts, the model learns from single texts"):
        check_same_kind(summary({"a": 1}, source="test.csv", pairs=True), pairs=False)


def test_how_a_corpus_is_read_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text;label\nx;a\ny;b\nz;a\nu;b\n")
    found = summarize_texts(open_texts(str(path), split="train", text_format=USUAL), USUAL)
    assert check_texts(found, USUAL) == list(found.notes) != []
    assert check_scored_texts(found, USUAL, labels=["a", "b"]) == list(found.notes)


def test_a_table_with_a_text_and_a_pair_is_read_as_the_message_about_it_advises(tmp_path):
    path = tmp_path / "both.csv"
    path.write_text("text,text_a,text_b,label\nx,a,b,one\ny,c,d,two\n")
    base = ["task=classification", f"data.train_path={path}"]

    def texts_by(*settings: str) -> list[tuple[str, ...]]:
        config = load_config(None, [*base, *settings])
        check_split_head(str(path), config=config, split="train")
        corpus = open_texts(str(path), split="train", text_format=text_format_of(config))
        return [text.texts for text in corpus.examples()]

    with pytest.raises(InputError, match="empty data.text_column if the pair is meant, or data.pair_columns if"):
        texts_by()
    assert texts_by("data.text_column=") == [("a", "b"), ("c", "d")]
    assert texts_by("data.pair_columns=") == [("x",), ("y",)]
