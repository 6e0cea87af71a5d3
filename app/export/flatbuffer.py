"""Export room: what is inside a `.tflite` file, read and changed through its schema."""

from collections import Counter
from typing import Any

from ai_edge_litert.tools import flatbuffer_utils


def read_model(content: bytes) -> Any:
    """The file as the object tree of TFLite's schema."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def write_model(model: Any) -> bytes:
    """The object tree as a file."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def list_operators(content: bytes) -> list[str]:
    """Names of the operators of all subgraphs, each once, sorted; custom ones (TF and TF Text too) as `custom:NAME`."""
    names = {number: name for name, number in vars(flatbuffer_utils.schema_fb.BuiltinOperator).items()}
    found = set()
    for code in read_model(content).operatorCodes:
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = code.customCode.decode() if code.customCode else ""
        found.add(f"custom:{custom}" if custom else str(names[number]))
    return sorted(found)


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
