"""The server as its clients see it: TensorFlow Serving's REST API, answers, health, limits; by both runtimes."""

import asyncio
import base64
import concurrent.futures
import gzip
import http.client
import json
import random
import re
import socket
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
import toy
from served import CONFIG, ask, fetch, make_server, serving
from texts import EXAMPLES

from app.config import InputError, ServeConfig
from app.serving import connections
from app.serving.http import JsonResponse
from app.serving.listening import listening
from app.serving.openapi import OPENAPI
from app.serving.server import ROUTES, find_key
from app.tasks.classification.light import LIGHT_CLASSIFICATION
from app.tasks.classification.task import CLASSIFICATION
from app.tasks.tagging.light import LIGHT_TAGGING
from app.tasks.tagging.task import TAGGING
from benchmarks.fuzz_server import mutate

TEXTS = ["Ada Smith met Bob in Rome .", "", "🎉 Ada\u0301 and Bob saw Lima 🇫🇷", "the house\nwas old .", *EXAMPLES]
RUNTIMES = ("saved_model", "tflite")
PREDICT = "/v1/models/ner:predict"


@pytest.fixture(scope="module", params=RUNTIMES)
def url(request, served_run):
    with serving(served_run, runtime=request.param) as url:
        yield url


@pytest.fixture(scope="module")
def light_url(served_run):
    with serving(served_run, runtime="tflite", max_body_bytes=100_000) as url:
        yield url


def same_entities(found, expected):
    for row, other in zip(found, expected, strict=True):
        assert row["text"] == other["text"]
        unscored = [[{**each, "score": 0} for each in side["entities"]] for side in (row, other)]
        assert unscored[0] == unscored[1]
        scores = [[each["score"] for each in side["entities"]] for side in (row, other)]
        assert scores[0] == pytest.approx(scores[1], abs=2e-3)


def test_entities_are_those_of_predict_alone_and_together(url, saved_model):
    expected = list(TAGGING.answer_texts(saved_model.tagger, TEXTS, saved_model.predictor, CONFIG.predict))
    assert sum(len(row["entities"]) for row in expected) > 10
    status, answer = ask(url, "/entities", {"texts": TEXTS})
    assert (status, answer["model"], answer["version"]) == (200, "ner", 1)
    same_entities(answer["answers"], expected)
    alone = [ask(url, "/entities", {"texts": [text]})[1]["answers"][0] for text in TEXTS[:4]]
    same_entities(alone, expected[:4])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_labels_are_those_of_predict(served_classifier, runtime):
    expected = list(
        CLASSIFICATION.answer_texts(served_classifier.model, TEXTS, served_classifier.predictor, CONFIG.predict)
    )
    with serving(served_classifier.run, names=("classify",), runtime=runtime) as url:
        status, answer = ask(url, "/classify", {"texts": TEXTS})
        assert status == 200
        for row, other in zip(answer["answers"], expected, strict=True):
            assert (row["text"], row["label"]) == (other["text"], other["label"])
            assert row["scores"] == pytest.approx(other["scores"], abs=2e-3)
        status, answer = ask(url, "/v1/models/classify:predict", {"instances": TEXTS[:2]})
        for row, other in zip(answer["predictions"], expected, strict=False):
            assert (row["label"] or None) == other["label"]
            assert row["given"] == [label == other["label"] for label in other["scores"]]
            assert row["scores"] == pytest.approx(list(other["scores"].values()), abs=2e-3)
        status, answer = ask(url, "/entities", {"texts": ["a"]})
        assert status == 400 and answer["error"] == "the model classify is for classification: ask /classify"


def test_both_runtimes_give_the_outputs_of_the_text_signature(url, saved_model):
    expected = saved_model.loaded.signatures["serving_default"](text=[text.encode() for text in TEXTS])
    status, columns = ask(url, PREDICT, {"inputs": {"text": TEXTS}})
    assert status == 200
    for name in ("count", "start", "end"):
        assert columns["outputs"][name] == expected[name].numpy().tolist()
    labels = [[each.decode() for each in row] for row in expected["label"].numpy().tolist()]
    assert columns["outputs"]["label"] == labels
    body = {"signature_name": "serving_default", "instances": [{"text": text} for text in TEXTS]}
    status, rows = ask(url, PREDICT, body)
    assert [row["start"] for row in rows["predictions"]] == columns["outputs"]["start"]


def test_scores_have_as_few_digits_as_a_float32_needs(url):
    found = ask(url, PREDICT, {"instances": TEXTS})[1]["predictions"]
    scores = [score for row in found for score in row["score"][: row["count"]]]
    rows = ask(url, "/entities", {"texts": TEXTS})[1]["answers"]
    assert scores == pytest.approx([each["score"] for row in rows for each in row["entities"]], abs=6e-5)
    assert len(set(scores)) > 5 and all(each == float(str(np.float32(each))) for each in scores)
    logits = ask(url, PREDICT, {"signature_name": "tokenized", "instances": [ROW]})[1]["predictions"]
    flat = np.array(logits).ravel().tolist()
    assert len(set(flat)) > 5 and all(each == float(str(np.float32(each))) for each in flat)


@pytest.mark.parametrize("place", ["", "/versions/1", "/labels/stable"])
def test_a_version_is_asked_by_number_or_label(url, place):
    path = f"/v1/models/ner{place}"
    assert ask(url, f"{path}:predict", {"instances": ["Ada met Bob ."]})[0] == 200
    (version,) = ask(url, path)[1]["model_version_status"]
    assert version == {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    found = ask(url, f"{path}/metadata")[1]
    assert found["model_spec"] == {"name": "ner", "signature_name": "", "version": "1"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    text = signatures["serving_default"]["inputs"]["text"]
    assert text["dtype"] == "DT_STRING" and text["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
    assert sorted(signatures["serving_default"]["outputs"]) == ["count", "end", "label", "score", "start"]
    assert signatures["tokenized"]["outputs"]["logits"]["tensor_shape"]["dim"][-1]["size"] == str(len(toy.LABELS))


def test_texts_may_come_as_base64(url):
    plain = ask(url, PREDICT, {"instances": ["Ada met Bob ."]})
    packed = {"b64": "QWRhIG1ldCBCb2IgLg=="}
    for instance in (packed, {"text": packed}):
        assert ask(url, PREDICT, {"instances": [instance]}) == plain


def test_logits_of_ids_are_those_of_the_network(url, saved_model):
    features = {"token_ids": [2, 5, 9, 3], "shape_ids": [0, 3, 3, 0], "padding_mask": [1, 1, 1, 1]}
    status, answer = ask(url, PREDICT, {"signature_name": "tokenized", "instances": [features] * 10})
    assert status == 200
    expected = saved_model.predictor.forward({name: [value] for name, value in features.items()})
    for row in answer["predictions"]:
        assert row == [pytest.approx(piece, abs=1e-3) for piece in expected[0].tolist()]


ROW = {"token_ids": [2, 5, 3], "shape_ids": [0, 3, 0], "padding_mask": [1, 1, 1]}


def row(**changes):
    return {"signature_name": "tokenized", "instances": [{**ROW, **changes}]}


REFUSED = [
    (b"", "the body is empty"),
    (b"{", "not JSON: wrong at character 2"),
    (b"\xff", "byte 0 is not UTF-8"),
    (b'{"instances": ["\xc3"]}', "is not UTF-8"),
    (b'{"instances": [NaN]}', "NaN is no JSON value"),
    (b'{"instances": ' + b"[" * 50_000, "not JSON: it is nested too deeply"),
    (b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}", "must be a string, received a list"),
    (b'{"inputs": {"text": ' + b"9" * 5000 + b"}}", "not JSON: it has a number of too many digits"),
    ([], "an object"),
    ("text", "an object"),
    (None, "the body is empty"),
    ({}, "instances"),
    ({"instances": ["a"], "inputs": ["a"]}, "either"),
    ({"instances": []}, "not empty"),
    ({"instances": "Rome"}, "must be a list"),
    ({"instances": [1]}, "must be a string, received 1"),
    ({"instances": [True]}, "text 0 of the input \"text\" must be a string, received true"),
    ({"instances": [None]}, "must be a string, received null"),
    ({"instances": ["Rome", 1.5]}, "text 1 of the input \"text\" must be a string, received 1.5"),
    ({"instances": [{"words": "Rome"}]}, "instance 0 must be an object with text"),
    ({"instances": [{"text": "Rome"}, "Rome"]}, "instance 1 must be an object with text"),
    ({"instances": [["Rome"]]}, "must be a string, received a list"),
    ({"instances": ["\ud800"]}, "half of a surrogate pair"),
    ({"instances": [{"b64": "?"}]}, "is not base64"),
    ({"instances": [{"b64": 5}]}, '"b64" must be a string'),
    ({"instances": [{"b64": "/w=="}]}, '"b64" must be UTF-8'),
    ({"inputs": {"words": ["Rome"]}}, "'text' is missing"),
    ({"inputs": {"text": ["Rome"], "other": 1}}, 'there is no input "other"'),
    ({"inputs": "Rome"}, "a list of texts"),
    ({"inputs": {"text": []}}, "not empty"),
    ({"signature_name": "other", "instances": ["Rome"]}, "must be one of serving_default, tokenized"),
    ({"signature_name": ["serving_default"], "instances": ["Rome"]}, "must be one of serving_default, tokenized"),
    ({"signature_name": 0, "instances": ["Rome"]}, "signature_name must be one of"),
    ({"signature_name": "tokenized", "instances": [{"token_ids": [1]}]}, "instance 0"),
    ({"signature_name": "tokenized", "instances": [[1, 2]]}, "instance 0"),
    ({"signature_name": "tokenized", "inputs": {"token_ids": [[1]]}}, "' is missing"),
    (row(token_ids=[2, 10**6, 3]), "received 1000000"),
    (row(token_ids=[2, -1, 3]), "received -1"),
    (row(token_ids=[2, 2**40, 3]), "must hold int32"),
    (row(token_ids=[2, 5.0, 3]), "must hold int32"),
    (row(token_ids=[2, True, 3]), "must hold int32, received true"),
    (row(token_ids=[2, "5", 3]), "must hold int32"),
    (row(token_ids=[2, [5], 3]), "must hold int32"),
    (row(token_ids=[]), "shape (batch, length)"),
    (row(token_ids=5), "shape (batch, length)"),
    (row(shape_ids=[0, 99, 0]), "received 99"),
    (row(padding_mask=[1, -5, 1]), "received -5"),
    (row(padding_mask=[1, 1]), "must have one shape"),
    ({"signature_name": "tokenized", "instances": [ROW, {**ROW, "token_ids": [2, 3]}]}, "equal lengths"),
    (row(token_ids=[2] * 600, shape_ids=[0] * 600, padding_mask=[1] * 600), "at most"),
]


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_a_bad_request_is_told_why_and_the_server_goes_on(url, body, message):
    status, answer = ask(url, PREDICT, body, method="POST")
    assert status == 400 and list(answer) == ["error"], answer
    assert message in answer["error"] and "\n" not in answer["error"] and len(answer["error"]) < 300
    assert ask(url, PREDICT, {"instances": ["Rome"]})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nowhere", 404, "there is no /nowhere"),
        ("POST", "/else/v1", 404, "there is no /else/v1"),
        ("GET", "/v1/models/other", 404, "there is no model 'other', the models are ner"),
        ("POST", "/v1/models/other:predict", 404, "there is no model 'other'"),
        ("GET", "/v1/models/ner/versions/7", 404, "no version 7; there is 1"),
        ("GET", "/v1/models/ner/versions/x", 400, "a version must be a number"),
        ("GET", "/v1/models/ner/versions/" + "9" * 99, 400, "a version must be a number"),
        ("GET", "/v1/models/ner/labels/canary", 404, "no version with the label 'canary'"),
        ("POST", "/v1/models/ner:classify", 400, "are for :predict"),
        ("GET", "/v1/models/ner:predict", 405, "takes POST, not GET"),
        ("DELETE", "/entities", 405, "takes POST, not DELETE"),
        ("GET", "/v1/models/%00%ff", 404, "there is no model"),
    ],
)
def test_a_wrong_path_or_method_is_told_so(light_url, method, path, status, message):
    found, answer = ask(light_url, path, {} if method == "POST" else None, method=method)
    assert found == status and message in answer["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text": "a"}, '"texts" is missing'),
        ({"texts": "a"}, "must be a list of texts that is not empty, received \"a\""),
        ({"texts": []}, "not empty"),
        ({"texts": [5]}, "text 0 of \"texts\" must be a string, received 5"),
        ({"texts": [""] * 10_001}, "may hold 10,000 texts at most, received 10,001"),
        ({"texts": ["a"], "top": 1}, 'there is no field "top"'),
        ({"texts": ["a"], "model": 5}, '"model" must be a name'),
        ({"texts": ["a"], "model": "x"}, "there is no model 'x'"),
        ({"texts": ["a"], "version": 1.5}, '"version" must be a number or a label'),
        ({"texts": ["a"], "version": True}, '"version" must be a number or a label'),
        ({"texts": ["a"], "version": 2}, "no version 2"),
        ({"texts": ["a"], "version": "canary"}, "the label 'canary'"),
        (["a"], "must be an object with texts (model, version may be left out), received"),
    ],
)
def test_a_bad_request_for_entities_is_told_why(light_url, body, message):
    status, answer = ask(light_url, "/entities", body)
    assert status in (400, 404) and message in answer["error"]


def read_all(connection):
    found = b""
    while part := connection.recv(2**16):
        found += part
    return found


def raw(url, request, *, until_closed=False):
    """What the server sends for bytes of one's own."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(request)
        found = b""
        while part := connection.recv(2**16):
            found += part
            if not until_closed and b"\r\n\r\n" in found:
                break
        return found


def test_a_body_that_says_it_is_huge_is_refused_at_once(light_url):
    began = time.monotonic()
    found = raw(light_url, f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**40}\r\n\r\nx".encode())
    assert found.startswith(b"HTTP/1.1 413") and time.monotonic() - began < 1.5
    body = b'{"instances": ["' + b"a" * 3_000_000 + b'"]}'
    status, answer = ask(light_url, PREDICT, body)  # the client sends all of it before it listens
    assert (status, answer) == (413, {"error": "a body must have 0 to 100000 bytes"})


def test_chunked_bodies_are_read_and_limited(light_url):
    place = urlsplit(light_url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    parts = [b'{"instances": ', b'["Ada met ', b'Bob ."]}']
    connection.request("POST", PREDICT, iter(parts), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    response = connection.getresponse()
    assert response.status == 200 and json.load(response)["predictions"]
    connection.request("POST", PREDICT, iter(parts), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert connection.getresponse().read()  # the connection is kept
    connection.close()
    endless = (b"a" * 50_000 for _ in range(20))
    connection.request("POST", PREDICT, endless, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_bodies_and_answers_may_be_packed(light_url):
    body = {"texts": ["Ada met Bob in Rome ."] * 30}
    plain = ask(light_url, "/entities", body)
    packed = gzip.compress(json.dumps(body).encode())
    status, headers, content = fetch(light_url, "/entities", packed, Content_Encoding="gzip", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert (status, json.loads(gzip.decompress(content))) == plain
    bomb = gzip.compress(b"a" * 10_000_000)
    assert ask(light_url, "/entities", bomb, Content_Encoding="gzip")[0] == 413
    for damaged in (packed[:-9], b"no gzip", b"", packed + b"no gzip", packed + b"\0", packed + packed[:15]):
        status, answer = ask(light_url, "/entities", damaged, method="POST", Content_Encoding="gzip")
        assert status == 400 and "gzip" in answer["error"]
    assert ask(light_url, "/entities", b"{}", Content_Encoding="br")[0] == 415


def test_a_packed_body_may_have_several_members_which_count_together(light_url):
    whole = json.dumps({"texts": ["Ada met Bob in Rome ."] * 30}).encode()
    plain = fetch(light_url, "/entities", whole)[2]
    for size in (1, 7, len(whole)):
        packed = [gzip.compress(whole[at : at + size]) for at in range(0, len(whole), size)]
        body = b"".join([*packed, gzip.compress(b"")])
        assert fetch(light_url, "/entities", body, Content_Encoding="gzip")[2] == plain
    blanks, rest = gzip.compress(b" " * 50_000), gzip.compress(b'{"texts": ["a"]}')
    assert ask(light_url, "/entities", blanks + rest, Content_Encoding="gzip")[0] == 200
    status, answer = ask(light_url, "/entities", blanks + blanks + rest, Content_Encoding="gzip")
    assert (status, answer["error"]) == (413, "a body must have 0 to 100000 bytes")


def test_a_body_of_very_many_members_keeps_nobody_waiting(light_url):
    began = time.monotonic()
    body = gzip.compress(b"") * 4000 + gzip.compress(b'{"texts": ["a"]}')
    assert ask(light_url, "/entities", body, Content_Encoding="gzip")[0] == 200
    assert time.monotonic() - began < 2


BODIES = [
    {"instances": ["Ada met Bob ."]},
    {"inputs": {"text": ["Ada", "Bob"]}},
    {"signature_name": "tokenized", "instances": [ROW, ROW]},
    {"signature_name": "tokenized", "inputs": {name: [value] for name, value in ROW.items()}},
    {"texts": ["Ada met Bob .", "x"], "model": "ner", "version": "stable"},
]


def test_no_mutated_body_brings_down_the_server_or_is_its_fault(url):
    random_state = random.Random(7)
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    seen = set()
    for number in range(300):
        body = mutate(random_state, json.dumps(random_state.choice(BODIES)).encode())
        connection.request("POST", random_state.choice((PREDICT, "/entities", "/classify")), body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        seen.add(response.status)
        assert response.status in (200, 400, 404), (number, body, answer)
        assert response.status == 200 or list(answer) == ["error"]
    assert seen >= {200, 400}


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_no_http_do_not_end_the_server(light_url, seed):
    random_state = random.Random(seed)
    request = b"POST /entities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n" + b'{"texts": ["a"]}'
    for _ in range(20):
        raw(light_url, mutate(random_state, request) + b"\r\n\r\n" + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert ask(light_url, "/entities", {"texts": ["a"]})[0] == 200


@pytest.mark.parametrize(
    "request_line",
    [b"GET / HTTP/9.9", b"GET /\xff HTTP/1.1", b"nonsense", b"GET http:// HTTP/1.1", b"CONNECT a:1 HTTP/1.1"],
)
def test_what_is_no_http_is_refused_as_json(light_url, request_line):
    sent = request_line + b"\r\nHost: localhost\r\n\r\n"
    head, _, body = raw(light_url, sent, until_closed=True).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400") and b"content-type: application/json" in head
    assert json.loads(body) == {"error": "the request is not valid HTTP"}


@pytest.mark.parametrize(
    ("sent", "status"), [(b"", b""), (b"GET /healthz HTTP/1.1\r\nX-More: ", b"408"), (b"X" * 300, b"400")]
)
def test_whoever_never_ends_a_head_loses_the_connection(light_url, monkeypatch, sent, status):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(light_url, sent, until_closed=True)[9:12] == status
    answered, told = raw(light_url, whole + whole[:-4], until_closed=True).split(b'{"status":"ok"}')
    assert answered[9:12] == b"200" and told[9:12] == b"408"


def test_a_head_that_is_too_long_is_refused(light_url):
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(1000))
    try:
        answer = raw(light_url, b"GET /healthz HTTP/1.1\r\n" + lines, until_closed=True)
    except ConnectionError:  # more was on its way than the server took
        return
    assert b" 431 " in answer.partition(b"\r\n")[0]


def test_a_client_that_leaves_is_no_fault_of_the_server(light_url):
    head = b"POST /entities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
    place = urlsplit(light_url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(head + b"{")
        time.sleep(0.2)
    counted = 'app_requests_total{path="/entities",status="%d"}'
    deadline = time.monotonic() + 5
    while (found := fetch(light_url, "/metrics")[2].decode()).count(counted % 499) == 0:
        assert time.monotonic() < deadline
    assert counted % 500 not in found


def test_a_fault_of_the_server_is_told_as_json_and_logged_without_texts(served_run, capfd):
    server = make_server(served_run, runtime="tflite")

    async def fail(*_, **__):
        raise ZeroDivisionError("Ada Smith")

    server.answer = fail
    with listening(server) as url:
        status, headers, body = fetch(url, "/entities", {"texts": ["Ada Smith"]})
        assert ask(url, "/healthz")[0] == 200
    assert (status, headers["Content-Type"]) == (500, "application/json")
    assert json.loads(body) == {"error": "the server could not answer; its log says why"}
    said = capfd.readouterr().err
    assert said.count("ZeroDivisionError at fail") == 1 and "Ada" not in said and "Traceback" not in said


def test_whoever_has_connected_is_answered_while_the_server_stops(served_run):
    """The loop is kept busy while many connect: they wait in the backlog when it is told to stop."""
    server = make_server(served_run, runtime="tflite")
    loops = []
    server.on_ready = lambda: loops.append(asyncio.get_running_loop())
    with listening(server) as url:
        place = urlsplit(url)
        kept = socket.create_connection((place.hostname, place.port), timeout=20)
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept.recv(2**16).startswith(b"HTTP/1.1 200")
        busy = threading.Event()
        loops[0].call_soon_threadsafe(busy.wait, 20)
        time.sleep(0.15)
        clients = [socket.create_connection((place.hostname, place.port), timeout=20) for _ in range(200)]
        for client in [*clients, kept]:
            client.sendall(b"GET /about HTTP/1.1\r\nHost: localhost\r\n\r\n")
        server.stop()
        busy.set()
        for client in [*clients, kept]:
            head, _, body = read_all(client).partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200"):  # it was read before the server knew
                continue
            assert head.startswith(b"HTTP/1.1 503") and b"connection: close" in head.lower()
            assert b'{"error":"the server is being stopped"}' in body
            client.close()


def test_many_clients_get_their_own_answers(url, saved_model):
    texts = [f"{name} {number} met Bob ." for number in range(60) for name in (toy.PEOPLE[number % 4],)]
    expected = list(TAGGING.answer_texts(saved_model.tagger, texts, saved_model.predictor, CONFIG.predict))

    def one(text):
        return ask(url, "/entities", {"texts": [text]})[1]["answers"][0]

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        same_entities(list(pool.map(one, texts)), expected)
    counted = float(re.search(r"app_batch_texts_sum (\S+)", fetch(url, "/metrics")[2].decode())[1])
    assert counted >= len(texts)


def test_about_tells_of_the_models_and_of_the_first_one_as_ever(url):
    answer = ask(url, "/about")[1]
    (listed,) = answer.pop("models")
    assert answer == TAGGING.about(toy.LABELS)
    assert listed.pop("runtime") in RUNTIMES
    assert listed.pop("name") == answer.pop("model") == "ner"
    assert listed == {**answer, "versions": [1], "stable": 1, "canary": None}


@pytest.mark.parametrize(("light", "task"), [(LIGHT_TAGGING, TAGGING), (LIGHT_CLASSIFICATION, CLASSIFICATION)])
def test_light_tasks_say_of_themselves_what_the_tasks_say(light, task):
    assert light.about(["a", "b"]) == task.about(["a", "b"])
    assert (light.name, light.unit, light.averages_windows) == (task.name, task.unit, task.averages_windows)


def test_the_page_is_there_and_the_description_is_of_the_routes(light_url):
    assert b"/about" in fetch(light_url, "/")[2]
    status, found = ask(light_url, "/openapi.json")
    paths = found["paths"].items()
    described = {(path, method.upper()) for path, item in paths for method in item if method != "parameters"}
    routes = {(route.path, method) for route in ROUTES for method in route.methods if method != "HEAD"}
    assert status == 200 and found == OPENAPI and described == routes
    for path, item in found["paths"].items():
        assert {part["name"] for part in item.get("parameters", [])} == {
            part.strip("{}").partition(":")[0].strip("}") for part in path.split("/") if part.startswith("{")
        }


def test_health_readiness_and_metrics(light_url):
    assert ask(light_url, "/healthz") == (200, {"status": "ok"})
    assert ask(light_url, "/readyz") == (200, {"status": "ready"})
    ask(light_url, "/entities", {"texts": ["a"]})
    ask(light_url, "/entities", {"texts": []})
    found = fetch(light_url, "/metrics")[2].decode()
    for line in (
        'app_requests_total{path="/entities",status="200"}',
        'app_requests_total{path="/entities",status="400"}',
        'app_request_seconds_bucket{le="0.004",path="/entities"}',
        "app_queue_length 0.0",
        'app_requests_rejected_total{reason="queue"}',
    ):
        assert line in found, line
    assert '/v1/models/ner"' not in found or "{name}" in found


def test_nobody_is_ready_before_the_models_are_warm(served_run):
    server = make_server(served_run, runtime="tflite")
    with listening(server) as url:
        server.models["ner"]._labels = {}  # as before they were loaded
        assert ask(url, "/healthz")[0] == 200
        assert ask(url, "/readyz") == (503, {"status": "loading"})
        status, headers, content = fetch(url, "/entities", {"texts": ["a"]})
        assert status == 503 and headers["Retry-After"] == "1" and b"still being loaded" in content


def test_a_key_guards_all_but_the_page_and_the_probes(served_run, capfd):
    with serving(served_run, runtime="tflite", key="sesame é", access_log=True) as url:
        for path in ("/", "/healthz", "/readyz"):
            assert fetch(url, path)[0] == 200
        for path in ("/about", "/metrics", "/openapi.json", "/v1/models/ner"):
            status, headers, content = fetch(url, path)
            assert status == 401 and headers["WWW-Authenticate"] == "Bearer" and b"wants its key" in content
        wrong = {"Authorization": "Bearer sesam"}
        assert ask(url, "/entities", {"texts": ["a"]}, **wrong)[0] == 401
        right = "sesame é".encode().decode("latin-1")
        assert ask(url, "/entities", {"texts": ["a"]}, Authorization=f"Bearer {right}")[0] == 200
        assert ask(url, "/entities", {"texts": ["a"]}, X_Api_Key=right)[0] == 200
    assert "sesam" not in "".join(capfd.readouterr())


def test_the_key_may_be_the_password_of_a_url(served_run):
    with serving(served_run, runtime="tflite", key="secret") as url:
        for password, expected in (("secret", 200), ("other", 401)):
            header = "Basic " + base64.b64encode(f"any:{password}".encode()).decode()
            assert ask(url, "/about", Authorization=header)[0] == expected
        assert ask(url, "/about", Authorization="Basic é"[:6] + "%%")[0] == 401


@pytest.mark.parametrize(("key", "message"), [("key ", "begin or end"), ("\udcff", "UTF-8"), (" ", "other than")])
def test_a_key_that_no_client_could_send_is_refused(monkeypatch, key, message):
    monkeypatch.setenv("APP_API_KEY", key)
    with pytest.raises(InputError, match=f"APP_API_KEY must .*{message}"):
        find_key(ServeConfig())
    assert find_key(ServeConfig(api_key="two words é")) == "two words é"


@pytest.mark.parametrize("shows", [False, True])
def test_the_log_has_a_line_of_json_for_each_request_and_texts_on_request_only(served_run, capfd, shows):
    with serving(served_run, runtime="tflite", access_log=True, log_texts=shows) as url:
        ask(url, "/entities", {"texts": ["Secret Ada", "é\n"]})
        ask(url, "/entities", {"texts": [5]})
        fetch(url, "/healthz")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert [(line["path"], line["status"]) for line in lines] == [("/entities", 200), ("/entities", 400)]
    assert lines[0]["texts"] == (["Secret Ada", "é\n"] if shows else 2)
    assert {"time", "method", "ms", "bytes", "model", "version"} <= set(lines[0])


def test_letters_are_not_escaped_in_answers():
    assert JsonResponse({"a": "é"}).body == '{"a":"é"}'.encode()
