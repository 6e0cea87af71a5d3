"""Label Studio's protocol: configurations, predictions, webhooks; benchmarks/label_studio.py tries a real one."""

import shutil

import pytest
from served import ask, serving

from app.config import InputError
from app.feedback.correction import Correction
from app.serving.label_studio import make_prediction, read_control, with_prediction

LABELS = """<View><Labels name="label" toName="text"><Label value="PER"/><Label value="Place" alias="LOC"/></Labels>
<Text name="text" value="$words"/></View>"""
CHOICES = """<View><Text name="t" value="$text"/><Choices name="c" toName="t" choice="multiple"><Choice value="good"/>
<Choice value="bad"/></Choices></View>"""
TEXT = "🎉🎉 Ada Smith met Bob in Rome ."
PROJECT = {"id": 7, "label_config": LABELS}


@pytest.fixture(scope="module")
def url(served_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("studio") / "run"
    shutil.copytree(served_run, run)
    with serving(run, runtime="tflite") as url:
        yield url


def test_the_control_that_the_model_can_fill_is_found():
    control = read_control(LABELS, task="tagging", labels={"PER", "LOC", "ORG"})
    assert (control.kind, control.name, control.target, control.key) == ("labels", "label", "text", "words")
    assert control.labels == ("PER", "LOC")
    control = read_control(CHOICES, task="classification", labels={"good"})
    assert (control.kind, control.several, control.key) == ("choices", True, "text")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "received nothing"),
        ("<View>", "not valid XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View/>', "without a DOCTYPE"),
        (CHOICES, "has no <Labels>"),
        (LABELS.replace("$words", "words"), "must name in toName"),
        (LABELS.replace("PER", "Person").replace("LOC", "City"), "City, Person, the model has LOC, PER"),
        (None, "received nothing"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_in_a_sentence(config, message):
    with pytest.raises(InputError, match=message.replace("$", r"\$")):
        read_control(config, task="tagging", labels={"PER", "LOC"})


def test_setup_and_predictions(url):
    assert ask(url, "/health")[1]["status"] == "UP"
    body = {"project": "7.1", "schema": LABELS, "access_token": "x"}
    assert ask(url, "/setup", body) == (200, {"model_version": "ner 1"})
    status, answer = ask(url, "/label_studio/ner/setup", {"schema": CHOICES})
    assert status == 400 and "has no <Labels>" in answer["error"]
    tasks = [{"id": 1, "data": {"words": TEXT}}, {"id": 2, "data": {"other": "x"}}]
    status, found = ask(url, "/predict", {"tasks": tasks, "label_config": LABELS, "project": "7.1"})
    expected = ask(url, "/entities", {"texts": [TEXT]})[1]["answers"][0]["entities"]
    assert status == 200 and found["model_version"] == "ner 1" and len(expected) > 1
    first, second = found["results"]
    shown = [{**each["value"], "score": each["score"]} for each in first["result"]]
    wanted = [{**each, "labels": [each["label"]]} for each in expected]
    assert shown == [{name: each[name] for name in ("start", "end", "text", "labels", "score")} for each in wanted]
    assert first["score"] == min(each["score"] for each in expected) and second["result"] == []
    places = {(each["from_name"], each["to_name"], each["type"]) for each in first["result"]}
    assert places == {("label", "text", "labels")}


def test_choices_are_those_of_the_project():
    row = {"text": "x", "labels": ["good", "fast"], "scores": {"good": 0.9, "fast": 0.8, "bad": 0.1}}
    control = read_control(CHOICES, task="classification", labels={"good", "bad"})
    found = make_prediction(row, control, version="v")
    assert [each["value"] for each in found["result"]] == [{"choices": ["good"]}] and found["score"] == 0.9
    nothing = make_prediction({**row, "labels": []}, control, version="v")
    assert nothing["result"] == [] and nothing["score"] is None


def event(action, start, end, words, *, updated="2026-01-02T03:04:05Z", **more):
    region = {"from_name": "label", "to_name": "text", "type": "labels", "id": "a"}
    value = {"start": start, "end": end, "text": words, "labels": ["PER"]}
    annotation = {"id": 5, "completed_by": 3, "updated_at": updated, "result": [{**region, "value": value}], **more}
    return {"action": action, "annotation": annotation, "task": {"id": 1, "data": {"words": TEXT}}, "project": PROJECT}


def stored(url):
    return ask(url, "/feedback")[1]["corrections"]


def test_annotations_become_corrections_and_leave_when_they_are_deleted(url):
    assert ask(url, "/webhook", event("ANNOTATION_CREATED", 3, 12, "Ada Smith"))[0] == 201
    assert ask(url, "/webhook", event("ANNOTATION_CREATED", 3, 12, "Ada Smith"))[0] == 201  # sent twice
    (found,) = stored(url)
    assert found["text"] == TEXT and found["answer"]["entities"] == [{"start": 3, "end": 12, "label": "PER"}]
    assert (found["author"], found["source"]) == ("label_studio:3", "label_studio:7:5")
    assert (found["model"], found["version"]) == ("ner", 1)
    assert found["prediction"]["entities"] and found["verdict"] == "fixed"
    # Units of UTF-16, as old versions of Label Studio count.
    changed = event("ANNOTATION_UPDATED", 19, 22, "Bob", updated="2026-01-02T03:05:00Z")
    assert ask(url, "/webhook", changed)[0] == 201
    assert stored(url)[0]["answer"]["entities"] == [{"start": 17, "end": 20, "label": "PER"}]
    skipped = event("ANNOTATION_UPDATED", 0, 1, "", updated="2026-01-02T03:06:00Z", was_cancelled=True)
    assert ask(url, "/webhook", skipped)[0] == 201
    assert [each["verdict"] for each in stored(url)] == ["skipped"]
    assert ask(url, "/webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 5}], "project": PROJECT}) == (
        201, {"deleted": 1},
    )  # fmt: skip
    assert stored(url) == []


def test_other_webhooks_are_ignored_and_wrong_ones_refused(url):
    assert ask(url, "/webhook", {"action": "TASKS_CREATED", "tasks": []}) == (201, {"ignored": "TASKS_CREATED"})
    status, answer = ask(url, "/webhook", {"action": {}})
    assert status == 400 and '"action" must be the name' in answer["error"]
    status, answer = ask(url, "/webhook", {"action": "ANNOTATION_CREATED", "project": PROJECT})
    assert status == 400 and "Send payload" in answer["error"]
    skipped = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1, "was_cancelled": True}, "task": {"data": [1]}}
    status, answer = ask(url, "/webhook", skipped)
    assert status == 400 and "must be a text that is not empty" in answer["error"]
    status, answer = ask(url, "/webhook", event("ANNOTATION_CREATED", 3, 12, "somebody else"))
    assert status == 400 and "annotation 5 cannot be used" in answer["error"] and stored(url) == []


def test_an_annotation_that_is_the_answer_is_accepted():
    row = {"text": "x", "label": "good", "score": 0.9, "scores": {"good": 0.9, "bad": 0.1}}
    same = with_prediction(Correction("x", "classification", {"label": "good"}), row)
    assert same.verdict == "accepted" and same.prediction["scores"]["bad"] == 0.1
    assert with_prediction(Correction("x", "classification", {"label": "bad"}), row).verdict == "fixed"
    several = {"text": "x", "labels": ["good"], "scores": {"good": 0.9, "bad": 0.1}}
    found = with_prediction(Correction("x", "classification", {"label": "good"}), several)
    assert (found.answer, found.verdict) == ({"labels": ["good"]}, "accepted")
