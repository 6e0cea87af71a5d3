"""Evaluation room: a network in the Hugging Face layout, for ONNX Runtime in an environment of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from app.config import InputError
from app.encoder.bert import read_settings
from app.encoder.published import tensor_slots, to_hugging_face
from app.evaluation.timing import TimedProcess
from app.run.directory import RunDirectory, atomic, sha256_of_arrays
from app.tasks.network import TaskModel

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "onnx_peer.py"
NEEDED = ("onnx", "onnxruntime", "safetensors", "torch", "transformers")


def check_peer(python: str) -> None:
    """Raises InputError unless the interpreter is there and has the packages."""
    if not SCRIPT.is_file():
        raise InputError(f"benchmark.frontier.peer_python needs {SCRIPT}: run it from a checkout of the project")
    if shutil.which(python) is None:
        raise InputError(f"benchmark.frontier.peer_python must be a Python interpreter, received {python!r}")
    test = f"import importlib.util as u; print(*[n for n in {NEEDED!r} if u.find_spec(n) is None])"
    done = subprocess.run([python, "-c", test], capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode or done.stdout.split():
        missing = ", ".join(done.stdout.split()) or done.stderr.strip()[-200:]
        raise InputError(f"benchmark.frontier.peer_python={python} must have {', '.join(NEEDED)}; it lacks {missing}")


def start_peer(python: str, folder: Path) -> TimedProcess:
    """ONNX Runtime on the network that `write_network` put into a folder: models `float32` and `int8`."""
    return TimedProcess(
        [python, str(SCRIPT), f"--model={folder}"], name="ONNX Runtime", environment=_environment()
    )


def write_network(tagger: TaskModel, run_dir: RunDirectory) -> Path:
    """Writes `config.json` and `model.safetensors` to `export/onnx/DIGEST/` and returns that folder.

    Raises:
        InputError: layers differ in size, which Transformers' BertModel cannot have, or it is an MPNet.
    """
    settings = read_settings(tagger.backbone.model)
    if settings.relative_heads:
        raise InputError(
            f"benchmark.frontier.peer_python measures a BERT, and the network of {run_dir} is an MPNet: give another "
            "run as --run_dir and this one in benchmark.frontier.other_runs"
        )
    if settings.layer_heads:
        raise InputError(
            "benchmark.frontier.peer_python measures the network of --run_dir, whose layers must be of one size; those "
            f"of {run_dir} are not: give the uncompressed run as --run_dir and this one in "
            "benchmark.frontier.other_runs"
        )
    arrays = _tensors(tagger)
    folder = run_dir.path / "export" / "onnx" / sha256_of_arrays(sorted(arrays.items()))[:16]
    if (folder / "config.json").is_file():
        return folder
    with atomic(folder / "model.safetensors") as path:
        save_file(arrays, path)
    run_dir.write_json(folder / "config.json", to_hugging_face(settings))
    return folder


def _tensors(tagger: TaskModel) -> dict[str, np.ndarray]:
    arrays = {}
    for slot in tensor_slots(tagger.backbone.model):
        values = slot.variable.numpy().reshape(slot.shape)
        arrays[slot.name] = values.T if slot.is_kernel else values
    if tagger.shapes is not None:
        arrays["word_shape.weight"] = tagger.shapes.embeddings.numpy()
    dense = tagger.head._dense
    arrays["logits.weight"], arrays["logits.bias"] = dense.kernel.numpy().T, dense.bias.numpy()
    return {name: np.ascontiguousarray(values) for name, values in arrays.items()}


def _environment() -> dict[str, str]:
    """This process's, without what belongs to its own Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TF_", "VIRTUAL_ENV"))}
