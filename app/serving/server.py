"""Serving room: a SavedModel behind the REST paths of TensorFlow Serving, and a page to try it.

    GET  /                         the page
    GET  /about                    what the model is: its task, its name in the paths, its labels
    GET  /v1/models/NAME           whether the model is ready; NAME is `ner` for tagging, `classify` for classification
    POST /v1/models/NAME:predict   as TensorFlow Serving answers it

Requests are read side by side, the model computes for one at a time: TensorFlow spreads each over all processors.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import numpy as np
import tensorflow as tf

from app.config import InputError
from app.serving.page import PAGE

LARGEST_BODY_BYTES = 16 * 2**20


class ModelServer(ThreadingHTTPServer):
    """Listens as soon as it is made; `serve_forever` answers.

    Args:
        address: host and port; port 0 takes a free one.
        model: the loaded SavedModel.
        about: see `Task.about`.
        version: its number.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], model: Any, *, about: Mapping[str, Any], version: int) -> None:
        super().__init__(address, _Handler)
        self.model, self.about, self.version, self.computing = model, dict(about), version, Lock()

    @property
    def model_path(self) -> str:
        return f"/v1/models/{self.about['model']}"


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds a connection may stay silent

    def do_GET(self) -> None:
        if self.path == "/":
            self._send(HTTPStatus.OK, PAGE.encode("utf-8"), "text/html; charset=utf-8")
        elif self.path == "/about":
            self._send_json(HTTPStatus.OK, self.server.about)
        elif self.path == self.server.model_path:
            status = {"error_code": "OK", "error_message": ""}
            version = {"version": str(self.server.version), "state": "AVAILABLE", "status": status}
            self._send_json(HTTPStatus.OK, {"model_version_status": [version]})
        else:
            self._fail(HTTPStatus.NOT_FOUND, f"there is no {self.path}")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY_BYTES:
            self.close_connection = True  # the body is not read
            self._fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body must have 0 to {LARGEST_BODY_BYTES} bytes")
            return
        body = self.rfile.read(int(length))
        if self.path != f"{self.server.model_path}:predict":
            self._fail(HTTPStatus.NOT_FOUND, f"there is no {self.path}")
            return
        try:
            request = json.loads(body)
            with self.server.computing:
                answer = predict(self.server.model.signatures, request)
        except (ValueError, RecursionError) as error:
            self._fail(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}")
        except InputError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._send_json(HTTPStatus.OK, answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: texts are not for logs."""

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self._send_json(status, {"error": message})

    def _send_json(self, status: HTTPStatus, value: Any) -> None:
        self._send(status, json.dumps(value, ensure_ascii=False).encode("utf-8"), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


# TensorFlow Serving's REST requests and answers for the two signatures, as JSON values.


def predict(signatures: Mapping[str, Any], request: Any) -> dict[str, Any]:
    """Answers the body of a `:predict` request, row format (`instances`) or columns (`inputs`).

    Args:
        signatures: of the loaded SavedModel.
        request: the body, parsed.

    Raises:
        InputError: the request does not fit the signature.
    """
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise InputError('the request must be an object with either "instances" or "inputs"')
    name = request.get("signature_name") or "serving_default"
    if name not in signatures:
        raise InputError(f"signature_name must be one of {', '.join(sorted(signatures))}, received {name!r}")
    signature = signatures[name]
    specs = {key: spec for key, spec in signature.structured_input_signature[1].items()}
    rows = "instances" in request
    columns = _columns(request["instances"], specs) if rows else request["inputs"]
    if len(specs) == 1 and not isinstance(columns, dict):
        columns = {next(iter(specs)): columns}
    outputs = signature(**{key: _tensor(key, spec, columns) for key, spec in specs.items()})
    found = {key: _plain(value.numpy()) for key, value in outputs.items()}
    if not rows:
        return {"outputs": found if len(found) > 1 else next(iter(found.values()))}
    together = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    return {"predictions": together if len(found) > 1 else next(iter(found.values()))}


def _columns(instances: Any, specs: Mapping[str, tf.TensorSpec]) -> dict[str, Any]:
    if not isinstance(instances, list) or not instances:
        raise InputError('"instances" must be a list that is not empty')
    if not any(isinstance(instance, dict) for instance in instances):
        if len(specs) > 1:
            raise InputError(f"each instance must be an object with {', '.join(specs)}")
        return {next(iter(specs)): instances}
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict) or instance.keys() != specs.keys():
            raise InputError(f"instance {number} must be an object with {', '.join(specs)}")
    return {key: [instance[key] for instance in instances] for key in specs}


def _tensor(key: str, spec: tf.TensorSpec, columns: Any) -> tf.Tensor:
    if not isinstance(columns, dict) or key not in columns:
        raise InputError(f"the input {key!r} is missing")
    value = columns[key]
    try:
        tensor = tf.constant(value, spec.dtype)
    except (TypeError, ValueError, UnicodeEncodeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"the input {key!r} must hold {spec.dtype.name} of equal lengths: {first}") from error
    if not spec.shape.is_compatible_with(tensor.shape):
        raise InputError(f"the input {key!r} must have the shape {spec.shape}, received {tensor.shape}")
    return tensor


def _plain(value: np.ndarray) -> Any:
    if value.dtype == object:
        return np.vectorize(lambda text: text.decode("utf-8"), otypes=[object])(value).tolist()
    return value.tolist()
