"""Corrections in CoNLL columns."""

import pytest
from correction_files import entities_of

from app.config import InputError
from app.feedback.formats import read_corrections


def test_conll_files_of_others_are_read(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Ada NNP I-PER\nLovelace NNP I-PER\nsings VB O\n. . O\n\nLondon NNP I-LOC\n")
    found, _ = read_corrections(path, task="tagging")
    assert [each.text for each in found] == ["Ada Lovelace sings .", "London"]
    assert entities_of(found) == [[("Ada Lovelace", "PER")], [("London", "LOC")]]
    path.write_text("# text = Ada sings.\nAda\tB-PER\nsings\tO\n.\tO\n")
    (found,), _ = read_corrections(path, task="tagging")
    assert found.text == "Ada sings."
    with pytest.raises(InputError, match="line 2"):
        path.write_text("Ada B-PER\nsings\n")
        read_corrections(path, task="tagging")
