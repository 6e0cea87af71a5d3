"""Corrections in the files of other tools, there and back."""

import gzip
import json
import re
from dataclasses import replace

import pytest
from correction_files import ADA, entities_of, write
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from app.config import InputError
from app.feedback.correction import Correction, check_correction
from app.feedback.formats import FORMS, detect_form, read_corrections, write_corrections
from app.feedback.spans import Span, place_entities, snap_entities
from app.feedback.store import Store
from app.text.words import split_words

PIECES = [
    "Ada", "Lovelace", "don't", "U.S.", "👩‍👩‍👧", "🎉", "𝒳", "e\u0301t\u00e9", "n\u0303o", "東京", "naïve", "#", "O",
    '"', ",", "|", "\\n", "a@b.com", "-DOCSTART-", "\u05e9\u05dc\u05d5\u05dd", "\u0301", "1.5",
    "...", "B-PER", "\u200d", "%", "'s", "=1+1",
]  # fmt: skip
BLANKS = [" ", "  ", "\r\n", "\n", "\t", "\u00a0", "\u2028", "\r", "", "\n\n", "\u200b", "\x0b"]
LABELS = ["PER", "LOC", "MISC"]
STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@st.composite
def tagged(draw) -> Correction:
    """A text of awkward pieces with entities on some of its words."""
    parts = draw(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(BLANKS)), min_size=1, max_size=12))
    text = draw(st.sampled_from(BLANKS)) + "".join(piece + blank for piece, blank in parts)
    words = split_words(text)
    assume(words)
    entities, at = [], 0
    while at < len(words):
        length = draw(st.integers(0, 3))
        if length and draw(st.booleans()):
            last = min(at + length, len(words)) - 1
            label = draw(st.sampled_from(LABELS))
            entities.append({"start": words[at].start, "end": words[last].end, "label": label})
        at += max(length, 1)
    return Correction(text, "tagging", {"entities": entities})


classified = st.builds(
    lambda text, label: Correction(text, "classification", {"label": label}),
    st.text(STORABLE, min_size=1).filter(str.strip),
    st.sampled_from(["good", "bad", "Größe 5", "🎉, \"x\""]),
)  # fmt: skip
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def round_trip(path, corrections, form, task):
    left_out = write_corrections(path, corrections, form=form, task=task)
    found, refused = read_corrections(path, form=form, task=task) if path.stat().st_size else ([], [])
    return found, [each.reason for each in (*left_out, *refused)]


@pytest.mark.parametrize("form", FORMS)
@quick
@given(corrections=st.lists(tagged(), min_size=1, max_size=4))
def test_entities_come_back_from_every_form(tmp_path, form, corrections):
    found, refused = round_trip(tmp_path / "file", corrections, form, "tagging")
    assert refused == []
    assert [(each.text, each.answer) for each in found] == [(each.text, each.answer) for each in corrections]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "conll"])
@quick
@given(corrections=st.lists(classified, min_size=1, max_size=4))
def test_labels_come_back_from_every_form(tmp_path, form, corrections):
    found, refused = round_trip(tmp_path / "file", corrections, form, "classification")
    assert refused == []
    assert [(each.text, each.answer) for each in found] == [(each.text, each.answer) for each in corrections]


@pytest.mark.parametrize("form", ["jsonl", "csv", "label_studio", "doccano", "spacy"])
def test_several_labels_and_none_come_back(tmp_path, form):
    several = Correction("a", "classification", {"labels": ["x", "y"]})
    none = Correction("b", "classification", {"label": None})
    found, refused = round_trip(tmp_path / "file", [several, none], form, "classification")
    if form == "doccano":
        assert refused == ["it has no label, which doccano cannot tell from a text that waits"]
        assert [each.answer for each in found] == [several.answer]
    else:
        assert [each.answer for each in found] == [several.answer, none.answer] and refused == []


@quick
@given(correction=tagged(), author=st.text(STORABLE, max_size=9))
def test_nothing_is_lost_in_json_lines(tmp_path, correction, author):
    whole = check_correction(
        replace(
            correction, author=author, model="ner", version=4, digest="ab", source="page", verdict="accepted",
            prediction={"entities": [{"start": 0, "end": 1, "label": "PER", "score": 0.25}]}, time="2026-01-02",
        )
    )  # fmt: skip
    assert write_corrections(tmp_path / "file.jsonl", [whole], task="tagging") == []
    assert read_corrections(tmp_path / "file.jsonl", task="tagging") == ([whole], [])


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_what_is_written_is_recognized(tmp_path, form):
    correction = Correction(ADA, "tagging", {"entities": [{"start": 0, "end": 12, "label": "PER"}]}, id="x")
    write_corrections(tmp_path / "file", [correction], form=form, task="tagging")
    if form != "csv":
        assert detect_form(tmp_path / "file") == form
    endings = {"jsonl": "jsonl", "conll": "conll", "csv": "csv"}
    named = (tmp_path / "file").rename(tmp_path / f"file.{endings.get(form, 'json')}")
    assert detect_form(named) == form
    (found,), refused = read_corrections(named, task="tagging")
    assert (found.answer, refused) == (correction.answer, [])


def test_a_compressed_file_is_read(tmp_path):
    correction = Correction("a", "classification", {"label": "x"})
    for form in ("jsonl", "csv", "label_studio"):
        write_corrections(tmp_path / "file", [correction], form=form, task="classification")
        path = tmp_path / f"file.{'csv' if form == 'csv' else 'json'}.gz"
        path.write_bytes(gzip.compress((tmp_path / "file").read_bytes()))
        (found,), _ = read_corrections(path, task="classification")
        assert found.text == "a"


def test_a_file_that_is_read_twice_is_stored_once(tmp_path):
    path = write(tmp_path, "data.jsonl", {"text": ADA, "label": [[0, 12, "PER"]]}, {"text": ADA, "label": []})
    with Store.open(f"sqlite:///{tmp_path}/f.sqlite") as store:
        for _ in range(2):
            found, _ = read_corrections(path, task="tagging", author="bob")
            store.add(found)
        assert store.count(author="bob") == 2
        assert {each.source for each in store.read()} == {"import:data.jsonl"}


def test_rows_of_predict_and_of_corpora_are_read_as_json_lines(tmp_path):
    entity = {"start": 0, "end": 12, "label": "PER", "text": "Ada Lovelace", "score": 0.9}
    path = write(tmp_path, "a.jsonl", {"text": ADA, "entities": [entity]}, {"text": "b", "entities": []})
    assert entities_of(read_corrections(path, task="tagging")[0]) == [[("Ada Lovelace", "PER")], []]
    rows = {"text": "a", "label": "x", "score": 0.9, "scores": {"x": 0.9}}, {"text": "b", "label": None}
    path = write(tmp_path, "b.jsonl", *rows, {"text": "c", "labels": ["x"], "scores": {"x": 0.9}})
    answers = [each.answer for each in read_corrections(path, task="classification")[0]]
    assert answers == [{"label": "x"}, {"label": None}, {"labels": ["x"]}]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 13, "PER")], ["Ada Lovelace"]),  # a blank behind
        ([(3, 12, "PER")], ["Lovelace"]),  # one before
        ([(1, 6, "PER")], ["Ada Lovelace"]),  # parts of words
        ([(22, 29, "LOC")], ["London."]),  # whole words, of which the full stop is one
        ([(22, 28, "LOC"), (0, 3, "PER"), (0, 3, "PER")], ["Ada", "London"]),
    ],
)
def test_entities_lie_on_whole_words(spans, expected):
    found = place_entities(ADA, [Span(*each) for each in spans])
    assert [ADA[each["start"] : each["end"]] for each in found] == expected
    assert snap_entities(ADA, found) == found


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ([0, 40, "PER"], "PER at 0 to 40 is outside the text, which has 29 characters"),
        ([-1, 3, "PER"], "PER at -1 to 3 is outside the text"),
        ([5, 5, "PER"], "PER at 5 to 5 is empty: the end must be after the start"),
        ([3, 4, "PER"], "PER at 3 to 4 covers no word, only ' '"),
        ([0, 3, "DATE"], "must be one of LOC, PER, received 'DATE'"),
        ([0, 3, 5], "the label of an entity must be a text, received 5"),
        (["0", 3, "PER"], "start of an entity must be a whole number, received '0'"),
        ([0, 3], "an entity must be [start, end, label]"),
        ([8, 15, "LOC"], "must not overlap, received PER at 0 to 12 and LOC at 4 to 18"),
    ],
)
@pytest.mark.parametrize("form", ["doccano", "spacy"])
def test_a_text_with_an_entity_that_cannot_be_used_is_listed_with_place_and_reason(tmp_path, form, span, reason):
    bad = [[0, 12, "PER"], span] if span[2:] == ["LOC"] else [span]
    records = {"doccano": lambda s: {"text": ADA, "label": s}, "spacy": lambda s: [ADA, {"entities": s}]}[form]
    path = write(tmp_path, "f.jsonl", records([[0, 3, "PER"]]), records(bad), records([]))
    found, refused = read_corrections(path, form=form, task="tagging", labels=["PER", "LOC"])
    assert entities_of(found) == [[("Ada", "PER")], []]
    ((where, why),) = refused
    assert where == f"{path}, line 2" and reason in why


def test_lines_that_are_no_records_are_listed_and_the_others_used(tmp_path):
    path = tmp_path / "f.jsonl"
    good, number, half = (json.dumps({"text": text, "label": "x"}) + "\n" for text in ("a", 3, "\ud800"))
    path.write_text(f'{good}{{"text": \n\n[1]\n{number}{half}{{"label": "x"}}\n')
    found, refused = read_corrections(path, task="classification")
    assert [each.text for each in found] == ["a"]
    assert [each.where.rpartition(" ")[2] for each in refused] == ["2", "4", "5", "6", "7"]
    assert "half of a surrogate pair" in refused[-2].reason
    assert refused[-1].reason == "it has no text"


@pytest.mark.parametrize(
    ("name", "content", "task", "said"),
    [
        ("missing.jsonl", None, "tagging", "missing"),
        ("missing.csv", None, "tagging", "missing.csv is missing"),
        ("f.jsonl", "", "tagging", "is empty"),
        ("f.json", "[{]", "tagging", "is not valid JSON"),
        ("f.json", '{"a": 1}', "tagging", "name its form"),
        ("f.csv", "text,class\na,b\n", "classification", "must name the columns text and label, received text, class"),
        ("f.csv", "text,label\na,b\n", "tagging", "must name the columns text and entities"),
        ("f.conll", "a O\n", "classification", "is conll, which holds entities"),
        ("f.xml", "<a>", "stars", "can be read only as jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_one_sentence(tmp_path, name, content, task, said):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as raised:
        read_corrections(path, task=task)
    assert said in str(raised.value) and name in str(raised.value)


@pytest.mark.parametrize(
    "record", ['{"text": ' + "9" * 5000 + "}", '{"text": ' + "[" * 100_000, '{"text": "a", "label": {"a": 1', "[[]]"]
)
@pytest.mark.parametrize("form", ["jsonl", "doccano", "spacy", "label_studio"])
def test_a_damaged_record_is_explained_without_words_of_python(tmp_path, form, record):
    path = tmp_path / "f.jsonl"
    path.write_text('{"text": "a"}\n' + record + '\n{"data": {"text": "a"}, "annotations": [null]}\n{"text": {}}\n')
    _, refused = read_corrections(path, form=form, task="classification")
    assert len(refused) >= 3
    said = " ".join(each.reason for each in refused)
    assert not re.search(r"Error|Expecting|recursion|NoneType|sys\.|attribute|object is", said), said


def test_more_labels_than_the_model_gives_are_left_out(tmp_path):
    path = write(tmp_path, "f.jsonl", {"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": ["x"]})
    found, ((where, why),) = read_corrections(path, task="classification", labels=["x", "y"], several=False)
    assert [each.text for each in found] == ["b"] and where.endswith("line 1") and "must have one label" in why
    assert len(read_corrections(path, task="classification", labels=["x", "y"], several=True)[0]) == 2


def test_what_cannot_be_written_is_listed(tmp_path):
    entities = {"entities": [{"start": 0, "end": 3, "label": "TWO WORDS"}]}
    corrections = [
        Correction(ADA, "tagging", entities, id="a"),
        Correction(ADA, "tagging", {}, verdict="flagged", id="b"),
        Correction("x", "classification", {"label": "c"}, id="c"),
        Correction(ADA, "tagging", {"entities": []}, verdict="accepted", id="d"),
    ]
    refused = write_corrections(tmp_path / "f.conll", corrections, form="conll", task="tagging")
    assert [each.where for each in refused] == ["correction a", "correction b", "correction c"]
    assert "'TWO WORDS'" in refused[0].reason and "nobody has said what is right (flagged)" in refused[1].reason
    assert "of the task classification" in refused[2].reason
    with pytest.raises(InputError, match="must be one of jsonl, conll"):
        write_corrections(tmp_path / "f", [], form="xml", task="tagging")
