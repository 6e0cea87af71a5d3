"""The clients in examples/ against real servers over a real SavedModel."""

import importlib.util
import json
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from served import serving
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from texts import EXAMPLES

from app.tasks.classification.task import CLASSIFICATION
from app.tasks.tagging.answers import tag_texts
from app.tasks.tagging.task import TAGGING

ROOT = Path(__file__).parents[2]
MODEL_NAME = "ner"  # what clients in use ask for
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
def url(served_run):
    with serving(served_run, runtime="saved_model") as url:
        yield url


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


def test_the_rest_client_asks_a_model_of_any_name(served_run, monkeypatch, capsys):
    with serving(served_run, names=("staff",), runtime="tflite") as url:
        monkeypatch.setattr("sys.argv", ["rest_client.py", f"--url={url}", "--model=staff", TEXTS[0]])
        load_example("rest_client").main()
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"] == TEXTS[0] and set(answer["entities"][0]) == {"start", "end", "label", "text", "score"}


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
