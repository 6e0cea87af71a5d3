"""Evaluation room: the process in which Keras and the SavedModels of a frontier run, with its own number of threads.

    python -m app.evaluation.frontier_worker THREADS '{"NAME": "FOLDER", ...}'

A folder is that of a model or of a version of a SavedModel.

Answers as `app/evaluation/timing.py` says.
"""

import json
import os
import sys
from pathlib import Path

import tensorflow as tf

from app import one_keras  # noqa: F401  (first: KerasNLP would write a line among the answers)

# isort: split
from app.evaluation.predictor import Forward
from app.evaluation.runtimes import SavedModelForward, build_keras_forward, load_version
from app.evaluation.timing import answer_requests
from app.tasks.bundle import load_model


def main(threads: int, models: dict[str, Path]) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # what libraries print goes to standard error
    os.dup2(2, 1)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    forwards = {name: load_forward(path) for name, path in models.items()}
    answer_requests(lambda name, _: forwards[name], sys.stdin, answers, about={"version": tf.__version__})


def load_forward(path: Path) -> Forward:
    if (path / "saved_model.pb").is_file():
        return SavedModelForward(load_version(path))
    return build_keras_forward(load_model(path))


if __name__ == "__main__":
    main(int(sys.argv[1]), {name: Path(path) for name, path in json.loads(sys.argv[2]).items()})
