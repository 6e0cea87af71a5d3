"""Corrections in doccano's JSON lines."""

import pytest
from correction_files import ADA, entities_of, write

from app.feedback.formats import detect_form, read_corrections


@pytest.mark.parametrize(
    "record",
    [
        {"id": 3, "text": ADA, "label": [[0, 12, "PER"]], "Comments": []},
        {"id": 3, "data": ADA, "label": [[0, 12, "PER"]]},
        {"text": ADA, "labels": [[0, 12, "PER"]]},
        {"text": ADA, "entities": [{"id": 1, "label": "PER", "start_offset": 0, "end_offset": 12}], "relations": []},
    ],
)
def test_exports_of_doccano_are_read(tmp_path, record):
    path = write(tmp_path, "all.jsonl", record, record)
    assert detect_form(path) == "doccano"
    found, refused = read_corrections(path, task="tagging")
    assert (entities_of(found), refused) == ([[("Ada Lovelace", "PER")]] * 2, [])
