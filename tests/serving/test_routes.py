"""What all routes that read and change what is stored have in common."""

import json

import pytest
from served import ask, correction


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


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}]
)
def test_a_page_of_another_site_cannot_write_into_the_store(url, headers):
    body = {"corrections": [correction("Bob")]}
    status, answer = ask(url, "/feedback", body, **headers)
    assert status == 403 and "another site" in answer["error"]
    own = {"Origin": url} if "Origin" in headers else {"Sec_Fetch_Site": "same-origin"}
    assert ask(url, "/feedback", json.loads(json.dumps(body)), **own)[0] == 201
