"""Serving room: TensorFlow Serving's REST requests and answers, as JSON values. Imports no TensorFlow.

Row format (`instances`) and column format (`inputs`), texts as strings or as `{"b64": ...}`, one answer a row or a
column: https://www.tensorflow.org/tfx/serving/api_rest. What does not fit a signature is refused with a sentence.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from app.run.files import json_fault
from app.serving.errors import RequestError

LEAST, MOST = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature.

    Attributes:
        dtype: "string", "int32", "float32" or "bool".
        shape: -1 where any size goes.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What a signature takes and gives, by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Limits:
    """What ids of the signature `tokenized` may be.

    Attributes:
        vocabulary: word pieces; shapes: word shapes; positions: pieces in a row at most.
    """

    vocabulary: int
    shapes: int
    positions: int


@dataclass(frozen=True)
class PredictRequest:
    """A request that fits its signature.

    Attributes:
        signature: its name.
        texts: of `serving_default`.
        arrays: of `tokenized`, int32 [batch, length] by name.
        by_row: whether it is answered row by row.
    """

    signature: str
    texts: list[str]
    arrays: dict[str, np.ndarray]
    by_row: bool


def refuse(message: str) -> NoReturn:
    raise RequestError(400, message)


def parse_json(body: bytes) -> Any:
    """Strict JSON: NaN and Infinity, which Python reads, are none."""
    if not body:
        refuse("the body is empty, it must be a JSON object")
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        refuse(f"the body is not JSON: byte {error.start} is not UTF-8")
    except (ValueError, RecursionError) as error:
        refuse(f"the body is not JSON: {json_fault(error)}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def shown(value: Any) -> str:
    """A received value in a message, not too much of it."""
    try:
        text = json.dumps(value)  # ASCII, whatever is in it
    except (RecursionError, ValueError):
        text = "something deeply nested or a very long number"
    return text if len(text) <= 60 else f"{text[:60]}..."


def parse_predict(body: bytes, signatures: Mapping[str, Signature], *, limits: Limits | None) -> PredictRequest:
    """The body of a `:predict` request.

    Raises:
        RequestError: it does not fit the signature.
    """
    request = parse_json(body)
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        refuse('the request must be an object with either "instances" or "inputs"')
    name = request.get("signature_name")
    name = "serving_default" if name in (None, "") else name
    if not isinstance(name, str) or name not in signatures:
        refuse(f"signature_name must be one of {', '.join(sorted(signatures))}, received {shown(name)}")
    inputs = signatures[name].inputs
    by_row = "instances" in request
    columns = _columns(request["instances"], inputs) if by_row else _named(request["inputs"], inputs)
    if name == "serving_default":
        ((key, _),) = inputs.items()
        return PredictRequest(name, parse_texts(columns[key], where=f"the input {shown(key)}"), {}, by_row)
    arrays = {key: _integers(key, columns[key]) for key in inputs}
    _check_ids(arrays, limits)
    return PredictRequest(name, [], arrays, by_row)


def _columns(instances: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Rows as columns."""
    if not isinstance(instances, list) or not instances:
        refuse(f'"instances" must be a list that is not empty, received {shown(instances)}')
    names = ", ".join(inputs)
    if len(inputs) == 1 and not any(_is_named(instance) for instance in instances):
        return {next(iter(inputs)): instances}
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict) or instance.keys() != inputs.keys():
            refuse(f"instance {number} must be an object with {names}, received {shown(instance)}")
    return {key: [instance[key] for instance in instances] for key in inputs}


def _named(columns: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    if len(inputs) == 1 and not _is_named(columns):
        return {next(iter(inputs)): columns}
    if not isinstance(columns, dict):
        refuse(f'"inputs" must be an object with {", ".join(inputs)}, received {shown(columns)}')
    for key in inputs:
        if key not in columns:
            refuse(f"the input {key!r} is missing")
    for key in columns:
        if key not in inputs:
            refuse(f"there is no input {shown(key)}, the inputs are {', '.join(inputs)}")
    return columns


def _is_named(value: Any) -> bool:
    """Whether this names inputs; an object with `b64` alone is a text."""
    return isinstance(value, dict) and value.keys() != {"b64"}


def parse_texts(values: Any, *, where: str) -> list[str]:
    """Texts that a model can read: a list of strings or `{"b64": ...}`, not empty.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(values, list) or not values:
        refuse(f"{where} must be a list of texts that is not empty, received {shown(values)}")
    if len(values) > MOST_TEXTS:
        refuse(f"{where} may hold {MOST_TEXTS:,} texts at most, received {len(values):,}")
    texts = []
    for number, value in enumerate(values):
        if isinstance(value, dict) and value.keys() == {"b64"}:
            value = _decode(value["b64"], where=f"{where}, text {number}")
        if isinstance(value, list):
            refuse(f"text {number} of {where} must be a string, received a list")
        if not isinstance(value, str):
            refuse(f"text {number} of {where} must be a string, received {shown(value)}")
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                refuse(f"text {number} of {where} has half of a surrogate pair, which is no character")
        texts.append(value)
    return texts


def _decode(value: Any, *, where: str) -> str:
    if not isinstance(value, str):
        refuse(f'{where}: "b64" must be a string, received {shown(value)}')
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except UnicodeDecodeError:
        refuse(f'{where}: "b64" must be UTF-8 text')
    except (binascii.Error, ValueError) as error:
        refuse(f'{where}: "b64" is not base64: {error}')


def _integers(key: str, rows: Any) -> np.ndarray:
    """Int32 [batch, length]."""
    if not isinstance(rows, list) or not rows:
        refuse(f"the input {key!r} must be a list of rows that is not empty, received {shown(rows)}")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            refuse(f"the input {key!r} must have the shape (batch, length), received {shown(row)} at row {number}")
        if len(row) != len(rows[0]):
            refuse(
                f"the input {key!r} must hold int32 rows of equal lengths, row 0 has {len(rows[0])}, "
                f"row {number} has {len(row)}"
            )
        for value in row:
            if type(value) is not int or not LEAST <= value <= MOST:
                refuse(f"the input {key!r} must hold int32, received {shown(value)} in row {number}")
    return np.array(rows, np.int32)


def _check_ids(arrays: Mapping[str, np.ndarray], limits: Limits | None) -> None:
    """Raises RequestError for what no row of a model can hold."""
    first, *others = arrays
    for key in others:
        if arrays[key].shape != arrays[first].shape:
            refuse(
                f"the inputs must have one shape, received {arrays[first].shape} in {first!r} and "
                f"{arrays[key].shape} in {key!r}"
            )
    if limits is None:
        return
    most = {"token_ids": limits.vocabulary - 1, "shape_ids": limits.shapes - 1, "padding_mask": limits.positions}
    for key, array in arrays.items():
        if array.min() < 0 or array.max() > most[key]:
            wrong = int(array.min()) if array.min() < 0 else int(array.max())
            refuse(f"the input {key!r} must hold numbers from 0 to {most[key]}, received {wrong}")
    if arrays[first].shape[1] > limits.positions:
        refuse(f"a row must have at most {limits.positions} pieces, received {arrays[first].shape[1]}")


def write_answer(outputs: Mapping[str, np.ndarray], *, by_row: bool) -> dict[str, Any]:
    """Outputs as TensorFlow Serving writes them: `predictions` or `outputs`; a single one stands without its name."""
    found = {key: _plain(value) for key, value in outputs.items()}
    if not by_row:
        return {"outputs": found if len(found) > 1 else next(iter(found.values()))}
    if len(found) == 1:
        return {"predictions": next(iter(found.values()))}
    return {"predictions": [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]}


def _plain(value: np.ndarray) -> Any:
    if value.dtype == object:
        return _decoded(value.tolist())
    if value.dtype == np.float32:  # 0.9584, which is the same float32 as 0.9584000110626221
        return np.array([float(str(each)) for each in value.flat]).reshape(value.shape).tolist()
    return value.tolist()


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


# TensorFlow Serving's other answers.

MOST_TEXTS = 10_000  # of one request: they are computed for nobody else meanwhile
_DTYPES = {"string": "DT_STRING", "int32": "DT_INT32", "float32": "DT_FLOAT", "bool": "DT_BOOL", "int64": "DT_INT64"}


def describe_status(versions: Sequence[int]) -> dict[str, Any]:
    status = {"error_code": "OK", "error_message": ""}
    return {
        "model_version_status": [
            {"version": str(version), "state": "AVAILABLE", "status": status}
            for version in sorted(versions, reverse=True)
        ]
    }


def describe_metadata(name: str, version: int, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """What `/metadata` says of a model."""

    def tensors(described: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
        return {
            key: {
                "dtype": _DTYPES[tensor.dtype],
                "tensor_shape": {
                    "dim": [{"size": str(size), "name": ""} for size in tensor.shape],
                    "unknown_rank": False,
                },
                "name": f"{prefix}{key}:0" if prefix != "StatefulPartitionedCall" else f"{prefix}:{number}",
            }
            for number, (key, tensor) in enumerate(sorted(described.items()))
        }

    found = {
        key: {
            "inputs": tensors(signature.inputs, f"{key}_"),
            "outputs": tensors(signature.outputs, "StatefulPartitionedCall"),
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for key, signature in sorted(signatures.items())
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": found}},
    }
