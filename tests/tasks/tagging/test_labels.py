"""Tagging schemes, label lists and spans."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import InputError
from app.tasks.tagging.labels import (
    decode_tags,
    detect_scheme,
    from_iob2,
    labels_from,
    spans,
    tag_fault,
    tags_from_offsets,
    tags_from_spans,
    to_iob2,
    type_fault,
    types_from,
)

TYPES = ("PER", "ORG", "creative-work")


@st.composite
def iob2_tags(draw, max_entities=6):
    """Legal IOB2 tags of one sentence."""
    tags = []
    for kind, length in draw(
        st.lists(st.tuples(st.sampled_from(("", *TYPES)), st.integers(1, 3)), max_size=max_entities)
    ):
        tags += ["O"] * length if not kind else [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
    return tuple(tags)


any_tags = st.lists(st.sampled_from(("O", *(f"{p}-{kind}" for p in "BI" for kind in TYPES))), max_size=12)


@given(iob2_tags(), st.sampled_from(("iob1", "iob2", "iobes")))
def test_tags_survive_every_scheme_and_need_no_repair_on_the_way_back(tags, scheme):
    written = from_iob2(tags, scheme)
    assert decode_tags(written, scheme) == (tags, 0)
    assert not any(tag_fault(tag, scheme) for tag in written)


@given(iob2_tags())
def test_iob1_and_iobes_translate_into_each_other(tags):
    iob1, iobes = from_iob2(tags, "iob1"), from_iob2(tags, "iobes")
    assert from_iob2(to_iob2(iobes, "iobes"), "iob1") == iob1
    assert from_iob2(to_iob2(iob1, "iob1"), "iobes") == iobes


def test_iob1_tag_after_another_type_starts_a_new_entity():
    assert to_iob2(["I-PER", "I-ORG", "I-ORG"], "iob1") == ("B-PER", "B-ORG", "I-ORG")


def test_iob1_writes_b_only_between_entities_of_one_type():
    assert from_iob2(["B-PER", "B-PER", "O", "B-PER", "B-ORG"], "iob1") == (
        "I-PER", "B-PER", "O", "I-PER", "I-ORG",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tags", "repaired", "count"),
    [
        (["O", "I-PER", "I-PER"], ("O", "B-PER", "I-PER"), 1),
        (["I-PER"], ("B-PER",), 1),
        (["B-PER", "I-ORG", "I-ORG"], ("B-PER", "B-ORG", "I-ORG"), 1),
        (["B-PER", "I-PER", "O"], ("B-PER", "I-PER", "O"), 0),
        ([], (), 0),
    ],
)
def test_inside_tag_without_its_entity_begins_one(tags, repaired, count):
    assert decode_tags(tags, "iob2") == (repaired, count)


def test_unfinished_iobes_entities_are_kept_and_counted():
    assert decode_tags(["B-PER", "I-PER", "O", "E-ORG"], "iobes") == (("B-PER", "I-PER", "O", "B-ORG"), 2)


@given(any_tags)
def test_repair_keeps_entities_and_leaves_legal_tags(tags):
    repaired, count = decode_tags(tags, "iob2")
    assert decode_tags(repaired, "iob2") == (repaired, 0)
    assert spans(repaired) == spans(tags)
    assert count == sum(a != b for a, b in zip(tags, repaired, strict=True))
    assert tags_from_spans(spans(repaired), len(tags)) == repaired


@given(any_tags)
def test_spans_are_those_of_seqeval(tags):
    from seqeval.metrics.sequence_labeling import get_entities

    # One symbol per type: seqeval's default mode takes all behind the last hyphen for the type.
    tags = [tag.replace("creative-work", "WORK") for tag in tags]
    assert spans(tags) == [(kind, start, end + 1) for kind, start, end in get_entities(tags)]


@given(st.lists(iob2_tags(), max_size=8))
def test_a_scheme_is_detected_or_reads_the_same_entities(sentences):
    for scheme in ("iob1", "iob2", "iobes"):
        written = [from_iob2(tags, scheme) for tags in sentences]
        detected = detect_scheme(written)
        assert [to_iob2(tags, detected) for tags in written] == sentences


def test_scheme_is_decided_from_the_whole_corpus():
    assert detect_scheme([["O", "I-PER"], ["I-ORG", "B-ORG"]]) == "iob1"
    assert detect_scheme([["O", "I-PER"], ["O", "B-ORG"]]) == "iob2"
    assert detect_scheme([["B-PER", "I-PER"], ["O", "S-ORG"]]) == "iobes"
    assert detect_scheme([["O"], []]) == "iob2"


@pytest.mark.parametrize(
    "tag", ["", "o", "B", "B-", "PER", "X-PER", "B_PER", "b-PER", "B-P ER", "-DOCSTART-"]
)
def test_malformed_tags_are_unknown(tag):
    assert "unknown tag" in tag_fault(tag, "auto")


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("B-PER\u200b", r"U\+200B \(zero width space\) in 'PER\\u200b'"),
        ("B-\ufeffPER", r"U\+FEFF"),
        ("I-PE\u200eR", r"U\+200E \(left-to-right mark\)"),
        ("B-PER\u00a0", r"U\+00A0 \(no-break space\)"),
        ("B-P\u2028R", r"U\+2028"),
        ("B-PER\x00", r"U\+0000 \(control character"),
        ("B-PE\u00adR", r"U\+00AD \(soft hyphen\)"),
        ("B-PER\ud800", r"U\+D800 .*surrogate pair"),
        ("B-PE\u200dR", r"U\+200D"),
        ("B-LOC|B-ORG", "is several, of nested entities.*outer entity"),
        ("O|B-ORG", "is several"),
        ("I-LOC|O", "is several"),
        ("B-LOC,I-ORG", "is several"),
        ("B-" + "x" * 201, "at most 200 characters, received 201"),
    ],
)
def test_tags_that_would_make_types_nobody_meant_are_refused(tag, message):
    assert re.search(message, tag_fault(tag, "auto")), tag_fault(tag, "auto")


@pytest.mark.parametrize(
    "kind", ["PER", "creative-work", "LOC.GPE", "Ö", "O\u0308rt", "سازمان\u200cها", "人名", "A/B", "a|b"]
)
def test_types_may_be_written_in_any_script(kind):
    assert tag_fault(f"B-{kind}", "iob2") == "" == type_fault(kind)


def test_a_type_of_another_case_is_named_as_what_may_be_meant():
    assert tag_fault("B-Per", "iob2", {"LOC", "PER"}).endswith("the entity types are LOC, PER; did you mean 'PER'?")


def test_prefixes_of_another_scheme_are_unknown():
    assert tag_fault("S-PER", "iob2") == "unknown tag 'S-PER', allowed: O, B-TYPE, I-TYPE"
    assert tag_fault("S-PER", "iobes") == ""


def test_types_outside_a_fixed_set_are_unknown():
    assert tag_fault("B-GPE", "iob2", {"PER", "LOC"}) == "unknown tag 'B-GPE', the entity types are LOC, PER"
    assert tag_fault("O", "iob2", set()) == ""


def test_label_list_is_sorted_with_outside_first():
    labels = labels_from(["PER", "LOC"])
    assert labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert types_from(labels) == ["LOC", "PER"]


@pytest.mark.parametrize(
    ("types", "message"),
    [([], "no entity labels"), (["PER", "PER"], "duplicate label"), (["", "PER"], "must not be empty")],
)
def test_zero_duplicate_and_empty_types_are_refused(types, message):
    with pytest.raises(InputError, match=message):
        labels_from(types)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "empty"),
        (["O", "B-PER", "I-PER", "B-PER"], "duplicate labels in the label list: B-PER"),
        (["O", "B-PER"], "labels must be O"),
        (["B-PER", "I-PER", "O"], "labels must be O"),
        (["O"], "no entity labels"),
    ],
)
def test_broken_label_lists_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        types_from(labels)


WORDS = [(0, 3), (4, 12), (12, 13)]


def test_offsets_become_tags():
    assert tags_from_offsets(WORDS, [(12, 13, "X"), (0, 12, "PER")]) == ("B-PER", "I-PER", "B-X")


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ([(0, 12, "PER"), (4, 13, "ORG")], "entities overlap: PER at 0-12 and ORG at 4-13"),
        ([(0, 3, "PER"), (0, 3, "ORG")], "entities overlap"),
        ([(0, 2, "PER")], "PER at 0-2 is misaligned"),
        ([(1, 3, "PER")], "misaligned"),
        ([(3, 4, "PER")], "misaligned"),
    ],
)
def test_entities_off_word_boundaries_or_overlapping_are_refused(entities, message):
    with pytest.raises(InputError, match=message):
        tags_from_offsets(WORDS, entities)
