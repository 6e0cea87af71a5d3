"""What is odd about corpora without being wrong on any line."""

import dataclasses
import json

import pytest

from app.config import DataConfig, InputError
from app.tasks.tagging.corpus import (
    CorpusSummary,
    check_scored,
    check_types,
    describe_shared_text,
    find_shared_text,
    open_corpus,
)
from app.tasks.tagging.corpus_heads import check_text_head


def summary(entities: dict[str, int]) -> CorpusSummary:
    return CorpusSummary("my.conll", "iob2", tuple(sorted(entities)), entities, 9, 99, 3, 0, "digest")


@pytest.mark.parametrize(
    ("types", "names"),
    [
        (["PER", "Per", "LOC"], ["'PER', 'Per'"]),
        (["\u00c9TAT", "E\u0301TAT"], [r"'E\u0301TAT', '\xc9TAT'"]),
        (["ORG", "\uff2f\uff32\uff27"], [r"'ORG', '\uff2f\uff32\uff27'"]),
        (["stra\u00dfe", "STRASSE"], ["stra"]),
        (["PER", "LOC", "PERS"], []),
    ],
)
def test_types_that_look_alike_are_pointed_out(types, names):
    warnings = check_types(summary(dict.fromkeys(types, 5)))
    assert len(warnings) == len(names)
    for warning, name in zip(warnings, names, strict=True):
        assert name in warning and warning.startswith("my.conll ")


def test_many_types_are_pointed_out_and_refused_where_nothing_can_be_learnt():
    assert check_types(summary({f"T{i}": 1 for i in range(200)})) == []
    (warning,) = check_types(summary({f"T{i}": 2 for i in range(201)}))
    assert "201 entity types: are the tags in another column" in warning
    with pytest.raises(InputError, match=r"my\.conll has 300 entity types for 450 entities .*data\.tag_column"):
        check_types(summary({f"T{i}": 1 + i % 2 for i in range(300)}))


def test_a_scored_corpus_without_an_entity_is_pointed_out():
    assert check_scored(summary({"PER": 1})) == []
    assert check_scored(dataclasses.replace(summary({}), types=("PER",))) == [
        "my.conll holds no entity: entity F1 on it says nothing"
    ]


LONG = "this sentence number {} is long enough to be compared".split()


@pytest.fixture
def corpus(tmp_path):
    """A corpus of documents, each a list of sentences: a number for a long one, a text for a short one."""

    def write(name, *documents):
        path = tmp_path / name
        with path.open("w") as file:
            for key, sentences in enumerate(documents):
                for each in sentences:
                    tokens = [word.format(each) for word in LONG] if isinstance(each, int) else each.split()
                    print(json.dumps({"tokens": tokens, "tags": ["O"] * len(tokens), "document": key}), file=file)
        return open_corpus(str(path), split="train", config=DataConfig())

    return write


def found(train, other):
    shared = find_shared_text(train, {"test": other})
    return shared["test"], describe_shared_text(shared, {"test": other.source})


def test_text_of_the_training_corpus_in_another_is_counted(corpus):
    train = corpus("train.jsonl", [1, 2, 3, "so ."], [4, 5], [6])
    shared, warnings = found(train, corpus("test.jsonl", [4, 5], [6, 7], [8], ["so ."]))
    assert (shared.sentences, shared.of_sentences, shared.documents) == (3, 5, 1)
    (warning,) = warnings
    assert "test.jsonl: 3 of 5 sentences of 8 words or more and 1 whole document(s) are in the training" in warning


@pytest.mark.parametrize(
    ("documents", "warned"),
    [
        ([[*range(100, 120), 1]], False),  # one sentence of 21
        ([[*range(100, 108), 1]], True),  # of nine
        ([[1, 2], *([number] for number in range(100, 180))], True),  # a whole document
        ([["so .", "no ."]] * 4, False),  # too short to tell anything
    ],
)
def test_a_little_in_common_is_no_warning(corpus, documents, warned):
    train = corpus("train.jsonl", [1, 2], ["so .", "no ."], [3])
    assert bool(found(train, corpus("test.jsonl", *documents))[1]) == warned


def test_no_document_of_conll_2003_is_in_two_parts(corpora):
    paths = {split: corpora / "conll2003" / f"{split}.txt" for split in ("valid", "test")}
    if not all(path.exists() for path in paths.values()):
        pytest.skip("CoNLL-2003 is not at hand")
    valid, test = (open_corpus(str(path), split="test", config=DataConfig(scheme="iob2")) for path in paths.values())
    assert found(valid, test)[1] == []


@pytest.mark.parametrize("name", ["[ab]", "a*", "x,y"])
def test_text_in_a_folder_or_file_of_any_name_is_found_before_tensorflow_as_it_is_after(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / name).write_text("Some text.\n")
    (tmp_path / name / "z.txt").write_text("More text.\n")
    one, several = f"{tmp_path}/{name}/{name}", f"{tmp_path}/{name}/*.txt"
    for source in (one, several, f"{one},{several}"):
        check_text_head(source)
    with pytest.raises(InputError, match="no file matches"):
        check_text_head(f"{tmp_path}/{name}/*.md")
