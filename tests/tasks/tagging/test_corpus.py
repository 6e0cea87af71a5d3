"""Corpora from any source, their counts and label sets; the sample corpus and the real ones."""

import json

import pytest

from app.config import DataConfig, InputError
from app.tasks.tagging.corpus import check_same_labels, open_corpus, summarize
from app.text.words import split_words

CONLL = "EU B-ORG\nsaid O\n\nPeter B-PER\nBlackburn I-PER\n\nin O\nRome I-LOC\n"


@pytest.fixture
def corpus_path(tmp_path):
    path = tmp_path / "corpus.conll"
    path.write_text(CONLL, encoding="utf-8")
    return str(path)


def open_test(path, types=None, **settings):
    return open_corpus(str(path), split="test", config=DataConfig(**settings), types=types)


def test_a_corpus_can_be_read_again(corpus_path):
    corpus = open_test(corpus_path)
    first = list(corpus.examples())
    assert len(first) == 3
    assert list(corpus.examples()) == first


def test_one_pass_counts_everything(corpus_path):
    summary = summarize(open_test(corpus_path))
    assert summary.labels == ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
    assert summary.entities == {"LOC": 1, "ORG": 1, "PER": 1}
    assert (summary.sentences, summary.words, summary.documents, summary.repaired) == (3, 6, 3, 1)
    assert (summary.source, summary.scheme) == (corpus_path, "iob2")


def test_types_on_dates_sums_and_addresses_are_told_from_names(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Ada B-PER\nowes O\n$ B-SUM\n40 I-SUM\nto O\na@b.org B-MAIL\nin O\nMay B-PER\n", encoding="utf-8")
    assert summarize(open_test(path)).non_name_types == ("MAIL", "SUM")


def test_strict_fails_where_a_tag_would_be_repaired(corpus_path):
    with pytest.raises(InputError, match="line 8: I-LOC after O must be B-LOC"):
        summarize(open_test(corpus_path, strict=True))


@pytest.mark.parametrize(
    ("name", "file_format"),
    [("a.jsonl", "auto"), ("a.JSON", "auto"), ("a.txt", "jsonl"), ("a.conll", "jsonl")],
)
def test_the_format_follows_from_the_name_or_the_setting(tmp_path, name, file_format):
    path = tmp_path / name
    path.write_text(json.dumps({"tokens": ["Rome"], "tags": ["B-LOC"]}), encoding="utf-8")
    assert summarize(open_test(path, format=file_format)).types == ("LOC",)


def test_the_scheme_of_the_setting_is_kept(corpus_path):
    assert summarize(open_test(corpus_path, scheme="iob1")).repaired == 0


def test_an_empty_path_is_named():
    with pytest.raises(InputError, match=r"data\.valid_path is empty, expected a file or tfds:NAME"):
        open_corpus("", split="valid", config=DataConfig())


def test_missing_and_empty_files_fail_before_work_starts(tmp_path):
    (tmp_path / "empty.conll").touch()
    for name, message in [("none.conll", "is missing"), ("empty.conll", "is empty")]:
        with pytest.raises(InputError, match=message):
            open_test(tmp_path / name)


def test_a_corpus_without_an_entity_has_no_label_set(tmp_path):
    path = tmp_path / "plain.conll"
    path.write_text("nothing O\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"plain\.conll: no entity labels"):
        _ = summarize(open_test(path)).labels


def test_a_fixed_label_set_refuses_other_types(corpus_path):
    with pytest.raises(InputError, match="line 8: unknown tag 'I-LOC', the entity types are ORG, PER"):
        summarize(open_test(corpus_path, types=["PER", "ORG"]))
    for types, message in [([], "no entity labels"), (["PER", "PER"], "duplicate label")]:
        with pytest.raises(InputError, match=message):
            open_test(corpus_path, types=types)


def test_label_sets_of_two_corpora_are_compared(corpus_path):
    summary = summarize(open_test(corpus_path))
    check_same_labels([*summary.labels, "B-Z", "I-Z"], summary)
    with pytest.raises(InputError, match="holds entity types that the label set lacks: LOC, ORG; .* has PER"):
        check_same_labels(["O", "B-PER", "I-PER"], summary)


@pytest.fixture(scope="module")
def sample(request):
    folder = request.config.rootpath / "data" / "sample"
    return {split: open_test(folder / f"{split}.conll", strict=True) for split in ("train", "valid", "test")}


def test_the_sample_corpus_is_large_enough_and_clean(sample):
    summaries = [summarize(corpus) for corpus in sample.values()]
    assert sum(summary.sentences for summary in summaries) >= 900
    assert sum(summary.documents for summary in summaries) >= 120
    for summary in summaries:
        assert summary.types == ("LOC", "MISC", "ORG", "PER")
        assert summary.scheme == "iob2"
        assert min(summary.entities.values()) > 60


def test_no_sentence_of_the_sample_corpus_stands_in_it_twice(sample):
    sentences = [" ".join(s.words).lower() for corpus in sample.values() for s in corpus.examples()]
    assert len(sentences) == len(set(sentences))


def test_no_document_of_the_sample_corpus_is_in_two_splits(sample):
    # A document repeats its names; two documents hardly ever share several that no other document has.
    names = {}
    for split, corpus in sample.items():
        for sentence in corpus.examples():
            for word, tag in zip(sentence.words, sentence.tags, strict=True):
                if tag == "B-PER":
                    names.setdefault(word, set()).add((split, sentence.document))
    shared = [places for places in names.values() if len({split for split, _ in places}) > 1]
    pairs = [tuple(sorted(places)) for places in shared if len(places) == 2]
    assert max(pairs.count(pair) for pair in pairs) < 3


def test_words_of_the_sample_corpus_are_split_as_raw_text_is(sample):
    words = [word for corpus in sample.values() for sentence in corpus.examples() for word in sentence.words]
    kept = [word for word in words if len(split_words(word + " ")) == 1]
    assert len(kept) / len(words) > 0.999


@pytest.mark.parametrize(
    ("split", "sentences", "words", "documents", "entities"),
    [
        ("train", 14_041, 203_621, 946, {"LOC": 7140, "MISC": 3438, "ORG": 6321, "PER": 6600}),
        ("valid", 3_250, 51_362, 216, {"LOC": 1837, "MISC": 922, "ORG": 1341, "PER": 1842}),
        ("test", 3_453, 46_435, 231, {"LOC": 1668, "MISC": 702, "ORG": 1661, "PER": 1617}),
    ],
)
def test_conll_2003_has_its_published_counts(corpora, split, sentences, words, documents, entities):
    path = corpora / "conll2003" / f"{split}.txt"
    if not path.exists():
        pytest.skip("CoNLL-2003 is not at hand")
    summary = summarize(open_test(path, strict=True))
    assert (summary.sentences, summary.words, summary.documents) == (sentences, words, documents)
    assert (summary.entities, summary.repaired, summary.scheme) == (entities, 0, "iob2")


def test_wikigold_is_iob1_with_145_documents(corpora):
    path = corpora / "wikigold" / "wikigold.conll.txt"
    if not path.exists():
        pytest.skip("Wikigold is not at hand")
    summary = summarize(open_test(path))
    assert (summary.scheme, summary.documents, summary.words) == ("iob1", 145, 39_007)
    assert summary.repaired == 0
