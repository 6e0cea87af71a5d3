"""A part of the training corpus set aside for validation."""

import json
import tracemalloc

import pytest

from app.config import DataConfig, InputError
from app.data.sentence import Sentence
from app.tasks.tagging.conll import write_conll
from app.tasks.tagging.corpus import open_corpus, split_off, summarize


def make(lengths, *, marked=True):
    """Sentences of documents of so many sentences each; every word is unique."""
    number = 0
    for document, length in enumerate(lengths):
        for _ in range(length):
            yield Sentence((f"w{number}", f"d{document}"), ("B-LOC" if number % 3 else "B-PER", "O"), document)
            number += 1


@pytest.fixture
def parts(tmp_path):
    """Writes a corpus and parts it: lists of the first words of the sentences, and the corpora."""

    def part(lengths, fraction, *, seed=0, marked=True):
        path = tmp_path / "corpus.conll"
        write_conll(path, make(lengths))
        if not marked:
            path.write_text(path.read_text().replace("-DOCSTART- O\n\n", ""))
        corpus = open_corpus(str(path), split="train", config=DataConfig(scheme="iob2"))
        return split_off(corpus, fraction=fraction, seed=seed)

    return part


def words(corpus):
    return [sentence.words[0] for sentence in corpus.examples()]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize(
    ("lengths", "marked"),
    [([12] * 60, True), ([1, 30, 2, 7] * 30, True), ([1] * 700, False), ([3] * 200, True)],
    ids=["long documents", "mixed", "no documents", "short documents"],
)
def test_every_sentence_is_in_one_part_and_the_part_is_as_large_as_asked(parts, lengths, marked, fraction):
    train, valid = map(words, parts(lengths, fraction, marked=marked))
    everything = [f"w{number}" for number in range(sum(lengths))]
    assert sorted([*train, *valid]) == sorted(everything)
    assert train == [word for word in everything if word in set(train)]  # in corpus order
    assert len(valid) / len(everything) == pytest.approx(fraction, abs=0.08)


def test_a_document_is_never_parted_and_documents_are_numbered_anew(parts):
    for corpus in parts([5, 1, 14, 3] * 25, 0.2):
        numbers = [(sentence.words[1], sentence.document) for sentence in corpus.examples()]
        assert [document for _, document in numbers] == sorted(document for _, document in numbers)
        assert len(set(numbers)) == len({name for name, _ in numbers}) == numbers[-1][1] + 1
        assert {name: sum(n == name for n, _ in numbers) for name, _ in numbers} == {
            name: (5, 1, 14, 3)[int(name[1:]) % 4] for name, _ in numbers
        }


def test_sentences_without_documents_stay_with_their_neighbours(parts):
    numbers = [int(word[1:]) for word in words(parts([1] * 400, 0.1, marked=False)[1])]
    assert [numbers[at : at + 10] for at in range(0, 40, 10)] == [
        list(range(first, first + 10)) for first in numbers[::10]
    ]


def test_the_choice_depends_on_the_seed_and_the_corpus_alone(parts):
    first = words(parts([4] * 100, 0.2)[1])
    assert words(parts([4] * 100, 0.2)[1]) == first
    assert words(parts([4] * 100, 0.2, seed=1)[1]) != first
    train, valid = parts([4] * 100, 0.2)
    assert words(valid) == words(valid) == first and words(train) == words(train)


@pytest.mark.parametrize(("lengths", "held_out"), [([3, 3], 3), ([1] * 5, 1), ([2] * 9, 2)])
def test_of_a_small_corpus_at_least_one_document_is_set_aside(parts, lengths, held_out):
    train, valid = map(words, parts(lengths, 0.1))
    assert len(valid) == held_out and train


def test_a_single_document_cannot_be_parted(parts):
    with pytest.raises(InputError, match=r"is a single document.*valid_fraction=0\.1.*-DOCSTART-.*data\.valid_path"):
        parts([50], 0.1)


def test_both_parts_have_the_labels_of_the_whole(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [{"tokens": ["a"], "tags": [f"B-T{number}"]} for number in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)))
    corpus = open_corpus(str(path), split="train", config=DataConfig())
    for part in split_off(corpus, fraction=0.25, seed=0):
        summary = summarize(part)
        assert summary.types == tuple(f"T{number}" for number in range(8))
        assert sum(summary.entities.values()) == summary.sentences < 8


def test_repairs_are_counted_in_the_part_they_are_in(tmp_path):
    path = tmp_path / "corpus.conll"
    path.write_text("a B-X\nb O\nc I-X\n\n" * 40)
    corpus = open_corpus(str(path), split="train", config=DataConfig(scheme="iob2"))
    train, valid = (summarize(part) for part in split_off(corpus, fraction=0.25, seed=3))
    assert (train.repaired, valid.repaired) == (train.sentences, valid.sentences) == (30, 10)


def test_memory_does_not_grow_with_the_corpus(parts):
    train, valid = parts([2] * 600, 0.1)
    tracemalloc.start()
    assert sum(1 for _ in train.examples()) + sum(1 for _ in valid.examples()) == 1200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000
