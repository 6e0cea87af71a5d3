"""Serving room: TensorFlow Serving's REST requests and answers for the two signatures, as JSON values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from app.config import InputError


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
