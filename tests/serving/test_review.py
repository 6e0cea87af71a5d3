"""Corrections, the review queue and versions over HTTP."""

import base64
import json
import shutil

import pytest
from served import ask, predictor_of, serving

from app.evaluation.ranking import rank_texts
from app.serving import label_studio, review  # noqa: F401  they add their routes


@pytest.fixture(scope="module")
def site(served_run, tmp_path_factory):
    """The URL of a tagger of its own run, and the run."""
    run = tmp_path_factory.mktemp("review") / "run"
    shutil.copytree(served_run, run)
    with serving(run, runtime="tflite") as url:
        yield url, run


@pytest.fixture
def url(site):
    return site[0]


def correction(text, *entities, **more):
    places = [(text.index(words), text.index(words) + len(words), label) for words, label in entities]
    spans = [{"start": start, "end": end, "label": label} for start, end, label in places]
    return {"text": text, "answer": {"entities": spans}, **more}


def test_corrections_are_stored_once_listed_and_deleted(site):
    url, run = site
    body = {"corrections": [correction("🎉 Ada met Bob", ("Bob", "PER"), id="one", author="Cleo")]}
    for _ in range(2):
        status, answer = ask(url, "/feedback", body)
        assert (status, answer["ids"], answer["count"]) == (201, ["one"], 1)
        assert answer["stored_in"] == str(run / "feedback.sqlite")
    (stored,) = ask(url, "/feedback?limit=5")[1]["corrections"]
    assert stored["answer"]["entities"] == [{"start": 10, "end": 13, "label": "PER"}]
    assert (stored["model"], stored["version"], stored["task"], stored["source"]) == ("ner", 1, "tagging", "api")
    assert len(stored["digest"]) == 64
    assert ask(url, "/feedback?author=Cleo", method="DELETE") == (200, {"deleted": 1})
    assert ask(url, "/feedback")[1]["count"] == 0
    assert ask(url, "/feedback", {"text": "x"}, method="DELETE") == (200, {"deleted": 0})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (correction("Bob", ("Bob", "ANIMAL")), "LOC, PER"),
        (correction("Bob", task="classification"), "task of correction 2 must be tagging"),
        ({"text": "Bob", "answer": {"entities": [{"start": 0, "end": 9, "label": "PER"}]}}, "end <= 3"),
        ({"text": "Bob", "verdict": "perhaps", "answer": {}}, "verdict of correction 2"),
        ({"text": "Bob", "colour": 1}, "a field 'colour'"),
        ("Bob", "must be a JSON object"),
        (correction("Bob", model="other"), "of one model"),
        (correction("Bob", model=[None]), '"model" must be a name, received [null]'),
        (correction("Bob", model={"a": 1}), '"model" must be a name'),
        (correction("Bob", version=999), "correction 2 must be one of 1, which ner has, or null, received 999"),
        (correction("Bob", version="1"), 'or null, received "1"'),
        (correction("Bob", version=True), "or null, received true"),
        (correction("Bob", digest="ab"), "digest of correction 2 must be a SHA-256 sum"),
        (correction("Ada met", ("A", "PER"), ("da", "LOC")), "received LOC at 0 to 3 and PER at 0 to 3"),
        (correction("Ada met", (" ", "PER")), "PER at 3 to 4 covers no word"),
    ],
)
def test_a_wrong_correction_is_refused_with_all_beside_it(url, wrong, message):
    before = ask(url, "/feedback")[1]["count"]
    status, answer = ask(url, "/feedback", {"corrections": [correction("Ada", ("Ada", "PER")), wrong]})
    assert status == 400 and message in answer["error"]
    assert ask(url, "/feedback")[1]["count"] == before


def test_a_part_of_a_word_is_stored_as_the_word_and_no_version_as_the_stable_one(url):
    body = {"corrections": [correction("Lovelace met Bob", ("love".title(), "PER"), version=None, author="Dan")]}
    assert ask(url, "/feedback", body)[0] == 201
    kept = next(each for each in ask(url, "/feedback")[1]["corrections"] if each["author"] == "Dan")
    assert kept["answer"]["entities"] == [{"start": 0, "end": 8, "label": "PER"}] and kept["version"] == 1


@pytest.mark.parametrize("body", [b"null", b"[]", b'{"name": "Ada"}', b'{"author": 5}', b'{"text": "other"}'])
def test_a_body_that_is_none_is_refused_beside_a_query_too(url, body):
    status, answer = ask(url, "/feedback?text=nothing", body, method="DELETE")
    assert (status, list(answer)) == (400, ["error"])


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


def test_versions_come_with_their_labels_and_how_often_people_agreed(url):
    found = ask(url, "/versions")[1]
    assert [(each["version"], each["labels"]) for each in found["versions"]] == [(1, ["stable"])]
    before = found["agreement"]["1"]
    judged = [correction("Ada", ("Ada", "PER"), verdict=verdict) for verdict in ("accepted", "fixed", "accepted")]
    assert ask(url, "/feedback", {"corrections": judged})[0] == 201
    after = ask(url, "/versions")[1]["agreement"]["1"]
    assert (after["accepted"] - before["accepted"], after["judged"] - before["judged"]) == (2, 3)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/promote", {"version": 7}, "no version 7"),
        ("/promote", {"version": "1"}, "must be the number of a version"),
        ("/promote", {"version": 1, "label": "best"}, "stable or canary"),
        ("/rollback", {}, "to roll back to"),
        ("/rollback", {"label": "best"}, "stable or canary"),
        ("/rollback", {"label": "canary", "author": ["Ada"]}, '"author" must be a name'),
        ("/promote", {"version": 1, "author": 5}, '"author" must be a name, received 5'),
        ("/queue", {"texts": "Ada"}, "texts"),
        ("/feedback", {"corrections": []}, "not empty"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(url, path, body, message):
    status, answer = ask(url, path, body)
    assert status == 400 and message in answer["error"]


def test_versions_whose_files_are_gone_are_listed_while_they_answer(served_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(served_run, run)
    with serving(run, runtime="tflite") as url:
        shutil.rmtree(run / "export")
        status, found = ask(url, "/versions")
    assert status == 200 and found["versions"] == [{"version": 1, "labels": ["stable"], "time": ""}]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/feedback", b'{"author": "\\ud800"}'),
        ("POST", "/rollback", b'{"label": "canary", "author": "\\ud800"}'),
        ("POST", "/webhook", b'{"action": "ANNOTATION_DELETED", "project": "\\ud800", "annotation": {"id": 1}}'),
    ],
)
def test_a_name_that_nobody_can_have_is_refused(url, method, path, body):
    status, answer = ask(url, path, body, method=method)
    assert status == 400 and "half of a surrogate pair" in answer["error"]


def test_the_key_may_be_the_password_of_a_url(served_run):
    with serving(served_run, runtime="tflite", key="secret") as url:
        for password, expected in (("secret", 200), ("other", 401)):
            header = "Basic " + base64.b64encode(f"any:{password}".encode()).decode()
            assert ask(url, "/about", Authorization=header)[0] == expected
        assert ask(url, "/about", Authorization="Basic é"[:6] + "%%")[0] == 401


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}]
)
def test_a_page_of_another_site_cannot_write_into_the_store(url, headers):
    body = {"corrections": [correction("Bob")]}
    status, answer = ask(url, "/feedback", body, **headers)
    assert status == 403 and "another site" in answer["error"]
    own = {"Origin": url} if "Origin" in headers else {"Sec_Fetch_Site": "same-origin"}
    assert ask(url, "/feedback", json.loads(json.dumps(body)), **own)[0] == 201
