"""Corrections in spaCy's training data."""

import pytest
from correction_files import ADA, entities_of, write

from app.config import InputError
from app.feedback.formats import detect_form, read_corrections


@pytest.mark.parametrize("biluo", [True, False])
def test_the_training_format_of_spacy_is_read(tmp_path, biluo):
    tags = ["B-PER", "L-PER", "O", "O", "U-LOC", "-"] if biluo else ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]
    words = [("Ada", " "), ("Lovelace", " "), ("lived", " "), ("in", " "), ("London", ""), (".", "")]
    tokens = [{"id": i, "orth": w, "space": s, "ner": t} for i, ((w, s), t) in enumerate(zip(words, tags, strict=True))]
    cats = [{"label": "bio", "value": 1.0}, {"label": "other", "value": 0.0}]
    paragraph = {"raw": None, "sentences": [{"tokens": tokens, "brackets": []}], "cats": cats}
    by_offset = {"raw": ADA, "sentences": [], "entities": [[0, 12, "PER"], [22, 28, "LOC"]], "cats": cats}
    document = {"id": 0, "paragraphs": [paragraph, {**paragraph, "raw": ADA}, by_offset]}
    path = write(tmp_path, "train.json", document, whole=True)
    assert detect_form(path) == "spacy"
    found, refused = read_corrections(path, task="tagging")
    assert entities_of(found) == [[("Ada Lovelace", "PER"), ("London", "LOC")]] * 3 and refused == []
    assert {each.text for each in found} == {ADA}
    found, _ = read_corrections(path, task="classification")
    assert [each.answer for each in found] == [{"label": "bio"}] * 3


def test_a_binary_file_of_spacy_is_explained(tmp_path):
    with pytest.raises(InputError, match="is a DocBin, which only spaCy reads"):
        read_corrections(tmp_path / "train.spacy", task="tagging")
