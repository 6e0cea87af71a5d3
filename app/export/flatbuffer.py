"""Export room: what is inside a `.tflite` file, read and changed through its schema."""

from collections import Counter
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

_OPERATORS = {number: str(name) for name, number in vars(flatbuffer_utils.schema_fb.BuiltinOperator).items()}
_TYPES = flatbuffer_utils.schema_fb.TensorType


def read_model(content: bytes) -> Any:
    """The file as the object tree of TFLite's schema."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def write_model(model: Any) -> bytes:
    """The object tree as a file."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def list_operators(content: bytes) -> list[str]:
    """Names of the operators of all subgraphs, each once, sorted; custom ones (TF and TF Text too) as `custom:NAME`."""
    return sorted(set(_operator_names(read_model(content))))


def _operator_names(model: Any) -> list[str]:
    """The name of each operator code."""
    found = []
    for code in model.operatorCodes:
        custom = code.customCode.decode() if code.customCode else ""
        found.append(f"custom:{custom}" if custom else _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)])
    return found


def measure_zero_fraction(content: bytes) -> float:
    """Part of the weights that are 0 in the kernels of fully connected layers, as the file holds them.

    What was pruned is 0 at any precision; in int8 and int4, so is what is too small for its scale.
    """
    model = read_model(content)
    names, kernels = _operator_names(model), {}
    for graph in model.subgraphs:
        calls = [(names[operator.opcodeIndex], operator) for operator in graph.operators]
        sources = {call.outputs[0]: call.inputs[0] for name, call in calls if name == "DEQUANTIZE"}
        for name, call in calls:
            if name == "FULLY_CONNECTED":
                kernel = graph.tensors[sources.get(call.inputs[1], call.inputs[1])]
                kernels[kernel.buffer] = kernel.type
    zeros = total = 0
    for buffer, kind in kernels.items():
        data = model.buffers[buffer].data
        if data is not None:  # else it is computed, not stored
            weights = _numbers(np.asarray(data, np.uint8), kind)
            zeros, total = zeros + int(np.count_nonzero(weights == 0)), total + weights.size
    return zeros / max(total, 1)


def _numbers(data: np.ndarray, kind: int) -> np.ndarray:
    """Stored weights of a symmetric scale, flat."""
    if kind == _TYPES.INT4:  # two in a byte
        return np.concatenate([data & 15, data >> 4])
    return data.view({_TYPES.FLOAT32: np.float32, _TYPES.FLOAT16: np.float16, _TYPES.INT8: np.int8}[kind])


def give_unique_names(content: bytes) -> bytes:
    """Numbers the tensors whose names occur more than once, as those of loop bodies do; the quantizer needs it."""
    model = read_model(content)
    seen: Counter[bytes] = Counter()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            name = bytes(tensor.name)
            seen[name] += 1
            if seen[name] > 1:
                tensor.name = name + b";%d" % seen[name]
    return write_model(model)
