"""A corpus of labelled texts from any source, and what one pass over it finds."""

import dataclasses
import json
import subprocess
import sys

import pytest

from app.config import InputError
from app.tasks.classification.corpus import join_texts, open_texts, summarize_texts
from app.tasks.classification.labelled_text import TextFormat

USUAL = TextFormat()
SEVERAL = TextFormat(multi_label=True)
TEXTS = [("It broke.", "bad"), ("Broken,\nand late.", "bad"), ("It came.", "good")]


@pytest.fixture
def corpus(tmp_path):
    """A corpus of (text, label) as JSON lines; several labels are a list."""

    def write(texts, name="corpus.jsonl", *, split="train", text_format=USUAL, **arguments):
        path = tmp_path / name
        lines = [
            json.dumps({"text": text, "label": label} if isinstance(text, str) else {**text, "label": label})
            for text, label in texts
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
        return open_texts(str(path), split=split, text_format=text_format, **arguments)

    return write


def test_one_pass_counts_a_corpus(corpus):
    summary = summarize_texts(corpus([*TEXTS, ("Hm?", "out_of_scope")], split="test"), USUAL)
    assert summary.labels == ("bad", "good")
    assert summary.counts == {"bad": 2, "good": 1}
    assert (summary.texts, summary.words, summary.out_of_scope, summary.pairs) == (4, 8, 1, False)
    assert (summary.label_sets, summary.conflicts) == ((), 0)


def test_sets_of_labels_are_counted_where_a_text_may_have_several(corpus):
    texts = [("x", ["b", "a"]), ("y", ["a"]), ("z", []), ("u", ["a", "b"])]
    summary = summarize_texts(corpus(texts, text_format=SEVERAL), SEVERAL)
    assert summary.label_sets == ((), ("a",), ("a", "b"))
    assert summary.counts == {"a": 3, "b": 2}


def test_a_digest_is_of_the_content_and_not_of_the_file(corpus, tmp_path):
    (tmp_path / "a.csv").write_text(
        'id,text,label\r\n1,It broke.,bad\r\n2,"Broken,\r\nand late.",bad\r\n3,It came.,good\n'
    )
    (tmp_path / "b.tsv").write_text('label\ttext\nbad\tIt broke.\nbad\t"Broken,\nand late."\ngood\tIt came.')
    for name, text in (("bad/1", "It broke.\n"), ("bad/2", "Broken,\r\nand late."), ("good/1", "It came.")):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / f"{name}.txt").write_text(text)
    digests = {
        summarize_texts(open_texts(str(tmp_path / name), split="train", text_format=USUAL), USUAL).digest
        for name in ("a.csv", "b.tsv", "c")
    }
    assert digests == {summarize_texts(corpus(TEXTS), USUAL).digest}


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS[::-1],
        TEXTS[1:],
        [*TEXTS[:2], ("It came.", "bad")],
        [*TEXTS[:2], ("It  came.", "good")],
        [*TEXTS[:2], ("It came.", "out_of_scope")],
    ],
)
def test_any_other_content_has_another_digest(corpus, texts):
    digest = summarize_texts(corpus(TEXTS), USUAL).digest
    assert summarize_texts(corpus(texts, "other.jsonl", split="test"), USUAL).digest != digest


def test_a_corpus_is_read_from_its_beginning_each_time(corpus):
    opened = corpus(TEXTS)
    next(first := opened.examples())
    assert [text.number for text in opened.examples()] == [0, 1, 2]
    assert next(first).number == 1


def test_texts_with_different_labels_are_counted_with_the_first_places(corpus):
    texts = [("x", "a"), ("y", "a"), (" x\n", "b"), ("x", "c"), ("y", "a"), ("z", "out_of_scope"), ("z", "a")]
    opened = corpus(texts, split="test")
    summary = summarize_texts(opened, USUAL)
    assert summary.conflicts == 2
    first, second = summary.conflict_examples
    assert (first.first, first.labels) == (f"{opened.source}, line 1", ("a",))
    assert (first.second, first.others) == (f"{opened.source}, line 3", ("b",))
    assert (second.labels, second.others) == ((), ("a",))


def test_corpora_are_joined_without_texts_out_of_scope(corpus):
    parts = [corpus(TEXTS[:2], "a.jsonl"), corpus([("Hm?", "out_of_scope"), TEXTS[2]], "b.jsonl", split="valid")]
    joined = join_texts(parts)
    assert [(*text.texts, *text.labels) for text in joined.examples()] == TEXTS
    assert [text.number for text in joined.examples()] == [0, 1, 2]
    assert [text.place for text in joined.examples()][2] == f"{parts[1].source}, line 2"
    assert (joined.split, joined.source) == ("train", f"{parts[0].source} and {parts[1].source}")


def test_pairs_and_single_texts_are_not_joined(corpus):
    parts = [corpus(TEXTS, "a.jsonl"), corpus([({"text_a": "x", "text_b": "y"}, "bad")], "b.jsonl")]
    with pytest.raises(InputError, match=r"a\.jsonl and .*b\.jsonl: one has pairs of texts, the other has not"):
        list(join_texts(parts).examples())


def test_pairs_are_told_apart_by_both_texts(corpus):
    pairs = [({"text_a": "x", "text_b": "y"}, "a"), ({"text_a": "x", "text_b": "z"}, "b")]
    summary = summarize_texts(corpus(pairs), USUAL)
    assert (summary.pairs, summary.words, summary.conflicts) == (True, 4, 0)


def test_an_empty_path_and_an_empty_label_set_are_named(corpus):
    with pytest.raises(InputError, match=r"data\.valid_path is empty, expected a file, a folder or tfds:NAME"):
        open_texts("", split="valid", text_format=USUAL)
    with pytest.raises(InputError, match="the label set that it must have is empty"):
        corpus(TEXTS, labels=[])


def test_a_record_cannot_be_changed(corpus):
    text = next(corpus(TEXTS).examples())
    with pytest.raises(dataclasses.FrozenInstanceError):
        text.labels = ()


def test_nothing_heavy_is_imported_to_read_a_corpus(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny,b\n")
    program = f"""
import sys
from app.tasks.classification import corpus, corpus_checks, holdout
text_format = corpus.TextFormat()
corpus.check_texts_head({str(tmp_path / "a.csv")!r}, split="train", text_format=text_format)
opened = corpus.open_texts({str(tmp_path / "a.csv")!r}, split="train", text_format=text_format)
corpus_checks.check_texts(corpus.summarize_texts(opened, text_format), text_format)
print([name for name in ("numpy", "tensorflow", "keras", "tensorflow_datasets") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
