"""The review queue over HTTP."""

import shutil

import pytest
from served import ask, predictor_of, serving

from app.evaluation.ranking import rank_texts


def test_the_queue_gives_what_is_worth_most_and_counts_what_is_done(url):
    texts = ["Ada saw Rome .", "Bob saw Lima and Oslo .", "the old house"]
    assert ask(url, "/queue", {"texts": [*texts, texts[0]]}) == (201, {"added": 3})
    found = ask(url, "/queue?model=ner")[1]
    assert (found["done"], found["left"]) == (0, 3)
    sureness = [each["uncertainty"] for each in found["items"]]
    known = [each for each in sureness if each is not None]
    assert sorted(each["text"] for each in found["items"]) == sorted(texts) and known == sorted(known, reverse=True)
    first = found["items"][0]
    judged = {"text": first["text"], "answer": {"entities": []}, "verdict": "fixed"}
    flagged = {"text": "Dan went to Oslo .", "answer": {}, "verdict": "flagged"}
    assert ask(url, "/feedback", {"corrections": [judged, flagged]})[0] == 201
    found = ask(url, "/queue?by=flagged")[1]
    assert [(each["text"], each["reason"]) for each in found["items"]] == [("Dan went to Oslo .", "flagged")]
    assert found["items"][0]["answer"]["entities"] is not None  # asked of the model when it is shown
    assert (found["done"], found["left"]) == (1, 3)
    status, answer = ask(url, "/queue?by=colour")
    assert status == 400 and "uncertainty, disagreement, flagged" in answer["error"]


@pytest.mark.parametrize("runtime", ["tflite", "saved_model"])
def test_the_queue_is_as_unsure_as_the_network_is(runtime, site, saved_model, tmp_path):
    """Of a text without a found entity, too, of which the answer says nothing."""
    run = tmp_path / "run"
    shutil.copytree(site[1], run, ignore=shutil.ignore_patterns("feedback*"))
    texts = ["Ada saw Rome .", "Bob saw Lima and Oslo . It was old .", "the old house", "the old house " * 40]
    rows = rank_texts(saved_model.tagger, predictor_of(saved_model.tagger, saved_model.encoder), texts)
    expected = {row["text"]: row["uncertainty"] for row in rows}
    with serving(run, runtime=runtime) as url:
        assert ask(url, "/queue", {"texts": texts})[0] == 201
        found = {each["text"]: each["uncertainty"] for each in ask(url, "/queue")[1]["items"]}
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_run_with_exports_alone_is_as_unsure_as_its_answers_say(site, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(site[1] / "export" / "saved_model", run / "export" / "saved_model")
    with serving(run, runtime="saved_model") as url:
        assert ask(url, "/queue", {"texts": ["Ada saw Rome ."]})[0] == 201
        (item,) = ask(url, "/queue")[1]["items"]
    assert item["uncertainty"] == pytest.approx(1 - min(each["score"] for each in item["answer"]["entities"]))
