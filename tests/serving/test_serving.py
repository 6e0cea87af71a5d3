"""The clients in examples/ against real servers over a real SavedModel, and the local HTTP server itself."""

import importlib.util
import json
import threading
import urllib.error
import urllib.request
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
import toy
import yaml
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from texts import EXAMPLES

from app.evaluation.manifest import read_about
from app.serving.server import ModelServer
from app.tasks.classification.task import CLASSIFICATION
from app.tasks.tagging.answers import tag_texts
from app.tasks.tagging.task import TAGGING

ROOT = Path(__file__).parents[2]
MODEL_NAME, MODEL_PATH = "ner", "/v1/models/ner"  # what clients in use ask for
TEXTS = ["Ada Smith met Bob in Rome .", "", "🎉 Ada\u0301 and Bob saw Lima 🇫🇷", *EXAMPLES]


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """TensorFlow Serving's prediction service over a loaded SavedModel."""

    def __init__(self, loaded):
        self.loaded = loaded

    def Predict(self, request, context):
        if request.model_spec.name != MODEL_NAME:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {request.model_spec.name}")
        signature = self.loaded.signatures[request.model_spec.signature_name]
        inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for name, value in signature(**inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


@pytest.fixture(scope="module")
def grpc_address(saved_model):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(saved_model.loaded), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture(scope="module")
def url(saved_model):
    server = ModelServer(("127.0.0.1", 0), saved_model.loaded, about=read_about(saved_model.path), version=1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def check(found, predictor):
    rows = list(tag_texts(TEXTS, predictor, non_names=("LOC",)))
    assert sum(len(row["entities"]) for row in rows) > 10
    for row, entities in zip(rows, found, strict=True):
        assert [{**entity, "score": 0} for entity in entities] == [{**entity, "score": 0} for entity in row["entities"]]
        assert all(0 < entity["score"] <= 1 for entity in entities)


def test_the_grpc_client_finds_what_predict_finds(grpc_address, saved_model):
    check(load_example("grpc_client").find_entities(TEXTS, address=grpc_address), saved_model.predictor)


def test_the_rest_client_finds_what_predict_finds(url, saved_model):
    check(load_example("rest_client").find_entities(TEXTS, url=url), saved_model.predictor)


def test_the_rest_client_says_why_a_request_was_refused(url):
    with pytest.raises(OSError, match=r"404 .*there is no /else/v1"):
        load_example("rest_client").find_entities(["Rome"], url=f"{url}/else")


def post(url, body, path=f"{MODEL_PATH}:predict"):
    request = urllib.request.Request(url + path, body if isinstance(body, bytes) else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_rows_columns_and_the_other_signature_are_answered(url, saved_model):
    _, rows = post(url, {"instances": [{"text": TEXTS[0]}, {"text": ""}]})
    _, columns = post(url, {"inputs": {"text": TEXTS[:2]}})
    assert [row["count"] for row in rows["predictions"]] == columns["outputs"]["count"]
    ids = {"token_ids": [2, 5, 3], "shape_ids": [0, 3, 0], "padding_mask": [1, 1, 1]}
    status, logits = post(url, {"signature_name": "tokenized", "instances": [ids]})
    assert status == 200 and len(logits["predictions"][0][0]) == len(saved_model.tagger.labels)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        ([], "an object"),
        ({}, "instances"),
        ({"instances": []}, "not empty"),
        ({"instances": [1]}, "must hold string"),
        ({"instances": [{"words": "Rome"}]}, "instance 0 must be an object with text"),
        ({"instances": [["Rome"]]}, "shape"),
        ({"instances": ["\ud800"]}, "must hold string"),
        ({"inputs": {"words": ["Rome"]}}, "'text' is missing"),
        ({"signature_name": "other", "instances": ["Rome"]}, "must be one of serving_default, tokenized"),
        ({"signature_name": "tokenized", "instances": [{"token_ids": [1]}]}, "instance 0"),
    ],
)
def test_a_bad_request_is_told_why_and_the_server_goes_on(url, body, message):
    status, answer = post(url, body)
    assert status == 400 and message in answer["error"]
    assert post(url, {"instances": ["Rome"]})[0] == 200


def test_a_body_that_is_too_large_is_not_read(url):
    request = urllib.request.Request(f"{url}{MODEL_PATH}:predict", b"x", {"Content-Length": str(2**40)})
    with pytest.raises(urllib.error.HTTPError) as failure:
        urllib.request.urlopen(request, timeout=60)
    assert failure.value.code == 413


def test_the_page_and_the_status_are_there(url):
    with urllib.request.urlopen(url) as response:
        assert "/about" in response.read().decode()
    with urllib.request.urlopen(url + "/about") as response:
        assert json.load(response) == TAGGING.about(toy.LABELS)
    with urllib.request.urlopen(url + MODEL_PATH) as response:
        assert json.load(response)["model_version_status"][0]["state"] == "AVAILABLE"


@pytest.mark.parametrize("task", [TAGGING, CLASSIFICATION], ids=lambda task: task.name)
def test_the_compose_file_serves_the_exports_under_the_name_clients_ask_for(task):
    from tensorflow_serving.apis import model_management_pb2  # noqa: F401  (registers the configuration's messages)
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    file = "models.config" if task is TAGGING else f"models_{task.name}.config"
    text_format.Parse((ROOT / "deploy" / file).read_text(), config)
    (model,) = config.model_config_list.config
    service = yaml.safe_load((ROOT / "deploy" / "serving.yaml").read_text())["services"]["serving"]
    targets = [volume.split(":")[-2] for volume in service["volumes"]]
    assert (model.name, model.base_path in targets) == (task.model_name, True)
    assert service["command"][0] == f"--model_config_file={targets[0]}"
    assert any("export/saved_model:" in volume for volume in service["volumes"])
