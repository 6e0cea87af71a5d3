"""JSON lines."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.config import InputError
from app.data.sentence import Sentence
from app.tasks.tagging.jsonl import read_jsonl
from app.text.words import split_sentences


@pytest.fixture
def file(tmp_path):
    def write(*records):
        path = tmp_path / "corpus.jsonl"
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def test_words_with_tags_are_one_sentence(file):
    path = file({"tokens": ["Ada", "wrote"], "tags": ["B-PER", "O"]}, "", {"tokens": ["So"], "tags": ["O"]})
    assert list(read_jsonl(path)) == [
        Sentence(("Ada", "wrote"), ("B-PER", "O"), 0),
        Sentence(("So",), ("O",), 1),
    ]


def test_text_with_offsets_is_split_into_words_and_sentences_of_one_document(file):
    text = "Ada Lovelace's book. She read it in London."
    entities = [
        {"start": 36, "end": 42, "label": "LOC", "text": "London"},
        {"start": 0, "end": 12, "label": "PER"},
    ]
    assert list(read_jsonl(file({"text": text, "entities": entities}))) == [
        Sentence(("Ada", "Lovelace", "'s", "book", "."), ("B-PER", "I-PER", "O", "O", "O"), 0),
        Sentence(("She", "read", "it", "in", "London", "."), ("O", "O", "O", "O", "B-LOC", "O"), 0),
    ]


def test_an_entity_is_never_cut_by_a_sentence_boundary(file):
    path = file(
        {"text": "They saw Who? The Film twice.", "entities": [{"start": 9, "end": 22, "label": "MISC"}]}
    )
    (sentence,) = read_jsonl(path)
    assert sentence.tags == ("O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O", "O")


def test_consecutive_lines_with_one_document_key_share_a_document(file):
    row = {"tokens": ["a"], "tags": ["O"]}
    keys = ["x", "x", None, None, 7, 7, "x"]
    path = file({"text": " ", "entities": [], "document": "x"}, *({**row, "document": key} for key in keys))
    assert [sentence.document for sentence in read_jsonl(path)] == [0, 0, 1, 2, 3, 3, 4]


def test_schemes_are_detected_and_faults_repaired(file):
    path = file(
        {"tokens": ["a", "b"], "tags": ["S-PER", "O"]}, {"tokens": ["c", "d"], "tags": ["B-PER", "O"]}
    )
    repairs = []
    assert [sentence.tags for sentence in read_jsonl(path, on_repair=repairs.append)] == [("B-PER", "O")] * 2
    assert repairs == [1]
    with pytest.raises(
        InputError, match="line 2: B-PER at the beginning of a sentence must be S-PER in IOBES"
    ):
        list(read_jsonl(path, strict=True))


def test_offsets_need_no_scheme(file):
    path = file({"text": "Ada Lovelace wrote", "entities": [{"start": 0, "end": 12, "label": "PER"}]})
    assert next(read_jsonl(path, scheme="iobes", strict=True)).tags == ("B-PER", "I-PER", "O")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "not valid JSON"),
        ('{"tokens": ["Ada"], "tags": ["O"], "tags": ["O"]}', "the key .tags. is there more than once"),
        ("[1]", "expected an object"),
        ("[" * 100_000, "not valid JSON"),
        ({"words": ["a"]}, "expected an object with tokens and tags, or with text and entities"),
        ({"text": "a", "entities": [], "tokens": ["a"]}, "expected an object"),
        ({"tokens": "ab", "tags": ["O"]}, "\"tokens\" must be a list of texts, received 'ab'"),
        ({"tokens": ["a"], "tags": [0]}, '"tags" must be a list of texts'),
        ({"tokens": ["a"]}, "1 tokens but 0 tags"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
        ({"tokens": [], "tags": []}, "a sentence of 0 words"),
        ({"tokens": ["a"] * 10_001, "tags": ["O"] * 10_001}, "a sentence of 10,001 words"),
        ({"text": "a " * 10_001, "entities": []}, "a sentence of 10,001 words"),
        ({"tokens": ["a b"], "tags": ["O"]}, "holds a blank"),
        ({"tokens": [""], "tags": ["O"]}, "is empty"),
        ({"tokens": ["\ud800"], "tags": ["O"]}, "half of a surrogate pair"),
        ({"tokens": ["a"], "tags": ["PER"]}, "unknown tag 'PER'"),
        ({"tokens": ["a"], "tags": ["B-GPE"]}, "unknown tag 'B-GPE', the entity types are PER"),
        ({"text": "a", "entities": [{"start": 0, "end": 1, "label": "GPE"}]}, "unknown tag 'B-GPE'"),
        ({"tokens": ["a"], "tags": ["O"], "document": ["x"]}, '"document" must be'),
        ({"text": 1, "entities": []}, '"text" must be a text'),
        ({"text": "a"}, '"entities" must be a list'),
        ({"text": "a", "entities": [3]}, "an entity needs start and end"),
        ({"text": "a", "entities": [{"start": "0", "end": 1, "label": "PER"}]}, "an entity needs start"),
        ({"text": "a", "entities": [{"start": False, "end": True, "label": "PER"}]}, "an entity needs start"),
        (
            {"text": "a", "entities": [{"start": 0, "end": 2, "label": "PER"}]},
            "outside the text of 1 characters",
        ),
        ({"text": "a", "entities": [{"start": 0, "end": 0, "label": "PER"}]}, "outside the text"),
        ({"text": "a", "entities": [{"start": 0, "end": 1, "label": "P R"}]}, "a label must be one word"),
        ({"text": "ab c", "entities": [{"start": 0, "end": 1, "label": "PER"}]}, "PER at 0-1 is misaligned"),
        (
            {"text": "ab", "entities": [{"start": 0, "end": 2, "label": "PER"}] * 2},
            "entities overlap: PER at 0-2 and PER at 0-2",
        ),
        (
            {"text": "ab", "entities": [{"start": 0, "end": 2, "label": "PER", "text": "b"}]},
            "PER at 0-2 is 'ab' in the text but 'b' in the entity",
        ),
    ],
)
def test_bad_lines_are_named(file, record, message):
    path = file({"tokens": ["fine"], "tags": ["O"]}, record)
    with pytest.raises(InputError, match=message) as error:
        list(read_jsonl(path, types=["PER"]))
    assert str(error.value).startswith(f"{path}, line 2: ")


ZOE = "Zoë met 🎉 Bob in Köln"  # the places of Bob and Köln in characters: 10-13, 17-21
LABEL = {"start": 0, "end": 3, "label": "PER"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["a"], "tag": ["O"]}, "unknown key 'tag', did you mean 'tags'"),
        ({"token": ["a"], "tags": ["O"]}, "unknown key 'token', did you mean 'tokens'"),
        ({"Text": "a", "entities": []}, "unknown key 'Text', did you mean 'text'"),
        ({"text": "a", "entites": []}, "unknown key 'entites', did you mean 'entities'"),
        ({"text": "a", "entities": [], "documnt": 3}, "unknown key 'documnt', did you mean 'document'"),
        ({"tokens": ["a"], "ner_tags": ["O"]}, """there is no "tags" beside 'tokens', 'ner_tags'"""),
        ({"text": "a", "spans": []}, "the keys are 'text', 'spans'"),
        ({"words": ["a"], "labels": ["O"]}, "the keys are 'words', 'labels'"),
        ({"text": ZOE, "entities": [{"start": 14, "end": 17, "label": "PER"}]}, "misaligned.*count bytes of UTF-8"),
        ({"text": ZOE, "entities": [{"start": 21, "end": 26, "label": "PER"}]}, "outside the text.*bytes of UTF-8"),
        (
            {"text": ZOE, "entities": [{"start": 11, "end": 14, "label": "PER"}, LABEL]},
            "misaligned.*count units of UTF-16",
        ),
        (
            {"text": ZOE, "entities": [{"start": 11, "end": 14, "label": "PER", "text": "Bob"}]},
            "'ob ' in the text but 'Bob' in the entity.*count units of UTF-16",
        ),
        ({"text": ZOE, "entities": [{"start": 10, "end": 12, "label": "PER"}]}, "misaligned.*the end seems to be"),
        (
            {"text": "Ada met", "entities": [{"start": 0, "end": 2, "label": "PER", "text": "Ada"}]},
            "the end seems to be the last character",
        ),
        ({"text": "Ada", "entities": [LABEL | {"label": "PER\ud800"}]}, r"invisible characters, received U\+D800"),
        ({"text": "Ada", "entities": [LABEL | {"label": "PER\u200b"}]}, r"U\+200B \(zero width space\)"),
        ({"text": "Ada", "entities": [LABEL | {"label": ""}]}, "a label must be one word"),
        ({"tokens": ["Ada"], "tags": ["B-PER\ud800"]}, r"U\+D800"),
        ({"tokens": ["Ada"], "tags": ["B-PER|B-ORG"]}, "nested entities"),
        ({"text": "Ada \ud83d", "entities": [LABEL]}, r'"text" holds half of a surrogate pair .*character 5'),
    ],
)  # fmt: skip
def test_lines_that_another_convention_explains_say_so(file, record, message):
    path = file({"tokens": ["fine"], "tags": ["O"]}, record)
    with pytest.raises(InputError, match=message) as error:
        list(read_jsonl(path))
    assert str(error.value).startswith(f"{path}, line 2: ")


def test_an_offset_that_nothing_explains_gets_no_explanation(file):
    with pytest.raises(InputError) as error:
        list(read_jsonl(file({"text": ZOE, "entities": [{"start": 5, "end": 11, "label": "PER"}]})))
    assert str(error.value).endswith("it must begin and end where words do")


def test_keys_of_other_programs_are_ignored(file):
    extra = {"id": 1, "document_id": "x", "meta": {}, "label": [], "lang": "en", "test": True}
    assert len(list(read_jsonl(file({"tokens": ["a"], "tags": ["O"]} | extra)))) == 1


def test_a_byte_order_mark_inside_a_file_is_no_text(file):
    line = json.dumps({"tokens": ["a"], "tags": ["O"]})
    assert len(list(read_jsonl(file(line, "\ufeff" + line)))) == 2


def test_files_without_a_sentence_are_empty(file):
    with pytest.raises(InputError, match="is empty"):
        list(read_jsonl(file("", {"text": "", "entities": []})))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_offsets_of_any_text_come_back_as_the_same_entities(file, data):
    text = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
    words = [word for sentence in split_sentences(text) for word in sentence]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(words)), max_size=4)))
    entities = [
        {"start": words[a].start, "end": words[b - 1].end, "label": "PER"}
        for a, b in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    path = file({"text": text, "entities": entities})
    if not words:
        return
    sentences = list(read_jsonl(path))
    assert [word for sentence in sentences for word in sentence.words] == [text[a:b] for a, b in words]
    assert sum(tag == "B-PER" for sentence in sentences for tag in sentence.tags) == len(entities)
    assert all(not sentence.tags[0].startswith("I-") for sentence in sentences)
