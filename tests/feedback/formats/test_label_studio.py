"""Corrections in Label Studio's JSON."""

import json

import pytest
from correction_files import ADA, entities_of, region, task_of, write

from app.feedback.correction import Correction
from app.feedback.formats import detect_form, read_annotated, read_corrections, write_corrections


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("🎉🎉 Ada!", 3, 6),  # characters, as since 2021
        ("🎉🎉 Ada!", 5, 8),  # UTF-16 units
        ("a\r\n\r\nAda!", 5, 8),
        ("a\r\n\r\nAda!", 3, 6),  # a browser has one line end
        ("🎉\r\nAda!", 3, 6),  # UTF-16 units, one line end
        ("🎉\r\nAda!", 4, 7),  # UTF-16 units, two
        ("🎉\r\nAda!", 2, 5),  # characters, one
    ],
)
@pytest.mark.parametrize("said", ["Ada", None])
def test_offsets_of_label_studio_are_found_whatever_they_count(tmp_path, text, start, end, said):
    path = write(tmp_path, "export.json", task_of(text, region(start, end, "PER", said)), whole=True)
    assert detect_form(path) == "label_studio"
    found, refused = read_corrections(path, task="tagging")
    assert (entities_of(found), refused) == ([[("Ada", "PER")]], [])


def test_line_ends_in_the_texts_of_label_studio_are_no_other_text(tmp_path):
    path = write(tmp_path, "export.json", task_of("Ada\nLovelace", region(0, 12, "PER", "Ada\\nLovelace")), whole=True)
    found, _ = read_corrections(path, task="tagging")
    assert entities_of(found) == [[("Ada\nLovelace", "PER")]]


def test_annotations_of_label_studio_have_an_author_and_a_time(tmp_path):
    first = task_of(ADA, region(0, 12, "PER"), completed_by=7, updated_at="2026-03-04T05:06:07Z")
    second = task_of("b", completed_by={"email": "a@b.com", "id": 3})
    skipped = task_of("c", was_cancelled=True)
    waiting = {"id": 9, "data": {"text": "d"}, "annotations": []}
    truth = task_of(ADA, region(0, 3, "PER"))
    truth["annotations"] += task_of("", region(4, 12, "PER"), ground_truth=True)["annotations"]
    path = write(tmp_path, "export.json", first, second, skipped, waiting, truth, whole=True)
    found, refused = read_corrections(path, task="tagging")
    assert [(each.author, each.time[:10]) for each in found[:2]] == [
        ("label_studio:7", "2026-03-04"), ("a@b.com", found[1].time[:10]),
    ]  # fmt: skip
    assert entities_of(found) == [[("Ada Lovelace", "PER")], [], [("Lovelace", "PER")]]
    assert refused == [
        (f"{path}, item 3", "it was skipped"),
        (f"{path}, item 4", "nobody has annotated it yet"),
    ]


def test_one_task_of_label_studio_is_read_as_its_webhook_has_it():
    found, refused = read_annotated(task_of(ADA, region(0, 12, "PER"), completed_by=7), task="tagging")
    assert (entities_of(found), refused, found[0].author) == ([[("Ada Lovelace", "PER")]], [], "label_studio:7")
    assert read_annotated({"data": {"text": "a"}}, task="tagging")[1][0].where == "the task"
    assert read_annotated([], task="tagging")[1] == [("the task", "it must be a JSON object")]
    found, refused = read_annotated(task_of(ADA, region(0, 12, "DATE")), task="tagging", labels=["PER"])
    assert found == [] and "must be one of PER, received 'DATE'" in refused[0].reason


def test_choices_of_label_studio_are_labels_and_not_entities(tmp_path):
    def choice(*chosen):
        return {"from_name": "c", "to_name": "t", "type": "choices", "value": {"choices": list(chosen)}}

    tasks = task_of("a", choice("x")), task_of("b", choice("x", "y")), task_of("c", region(0, 1, "PER"))
    path = write(tmp_path, "export.json", *tasks, whole=True)
    found, refused = read_corrections(path, task="classification")
    assert [each.answer for each in found] == [{"label": "x"}, {"labels": ["x", "y"]}]
    assert refused == [(f"{path}, item 3", "it has no label")]
    found, refused = read_corrections(path, task="tagging")
    assert entities_of(found) == [[("c", "PER")]] and [each.reason for each in refused] == ["it has no entities"] * 2


def test_what_label_studio_imports_has_the_prediction_too(tmp_path):
    correction = Correction(
        ADA, "tagging", {"entities": [{"start": 0, "end": 12, "label": "PER"}]},
        {"entities": [{"start": 0, "end": 3, "label": "PER", "score": 0.5}]}, model="ner", version=2,
    )  # fmt: skip
    write_corrections(tmp_path / "f.json", [correction], form="label_studio", task="tagging")
    (task,) = json.loads((tmp_path / "f.json").read_text())
    (result,) = task["predictions"][0]["result"]
    assert task["predictions"][0]["model_version"] == "ner:2" and result["score"] == 0.5
    assert result["value"] == {"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}


def test_another_text_than_the_file_says_is_refused(tmp_path):
    path = write(tmp_path, "export.json", task_of(ADA, region(0, 3, "PER", "London")), whole=True)
    found, ((where, why),) = read_corrections(path, task="tagging")
    assert found == [] and where == f"{path}, item 1"
    assert why == "PER at 0 to 3 is 'Ada' in the text, but 'London' in the file"
