"""Corrections over HTTP."""

import pytest
from served import ask, correction


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
