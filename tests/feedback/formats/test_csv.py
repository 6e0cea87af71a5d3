"""Corrections in CSV."""

import pytest

from app.config import InputError
from app.feedback.formats import read_corrections


def test_csv_of_spreadsheets_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffId;Text;Label\r\n1;"a; ""b""\r\nc";good\r\n\r\n2;d;\r\n3;e\r\n4;f;x|y\r\n'.encode())
    found, refused = read_corrections(path, task="classification")
    assert [(each.text, each.answer) for each in found] == [
        ('a; "b"\r\nc', {"label": "good"}), ("d", {"label": None}), ("f", {"labels": ["x", "y"]}),
    ]  # fmt: skip
    assert refused == [(f"{path}, line 6", "it has 2 fields, the header has 3")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_csv_in_another_encoding_is_explained(tmp_path, encoding):
    path = tmp_path / "f.csv"
    path.write_bytes("text,label\nçà et là,good\n".encode(encoding))
    with pytest.raises(InputError, match=r"f.csv cannot be read as CSV: it is not UTF-8") as raised:
        read_corrections(path, task="classification")
    assert ("save it as UTF-8 (iconv -f UTF-16" in str(raised.value)) == (encoding != "latin-1")
