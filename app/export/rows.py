"""Export room: packed rows as inputs of exported models: test vectors, and rows to read activation ranges from."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from app.config import Config, InputError
from app.data.encoding import Encoder
from app.data.packing import FEATURES, IGNORED, Example
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import TFLiteModel
from app.tasks.corpora import open_split
from app.tasks.network import TaskModel
from app.tasks.task import Corpus, Task


def make_vectors(predictor: Predictor, encoder: Encoder, corpus: Corpus, *, count: int) -> list[dict[str, Any]]:
    """The first examples of a corpus, each for itself, with the model's input and the float model's answer."""
    task = predictor.task
    examples = [task.alone(each, number) for number, each in enumerate(islice(corpus.examples(), count))]
    vectors = []
    for example, found in zip(examples, predictor.answer(examples, probabilities=True), strict=True):
        rows = list(encoder.scoring_rows([example]))
        if len(rows) != 1:
            continue
        inputs = {name: values.tolist() for name, values in row_inputs(task, rows[0]).items()}
        vectors.append({**task.make_vector(example, found), **inputs})
    return vectors


def is_answered_alike(exported: TFLiteModel, model: TaskModel, vector: Mapping[str, Any]) -> bool:
    """Whether an exported model says to a test vector what the float model says."""
    inputs = {name: np.array([vector[name]], np.int32) for name in exported.inputs}
    return model.task.agrees(model, vector, inputs, exported.run(inputs))


def row_inputs(task: Task, row: Example) -> dict[str, np.ndarray]:
    """A packed row as inputs of an exported model, without its padding: int32 [length] each."""
    length = int(np.count_nonzero(row.padding_mask))
    inputs = {name: getattr(row, name)[:length] for name in FEATURES}
    if task.unit_input:
        inputs[task.unit_input] = (row.unit_ids[:length] != IGNORED).astype(np.int32)
    return inputs


def representative_rows(config: Config, model: TaskModel, encoder: Encoder) -> Iterator[dict[str, np.ndarray]]:
    """Rows of the training corpus, from which activation ranges are read."""
    train = open_split(config, "train", labels=model.labels)
    if train is None:
        raise InputError("data.train_path is empty; the ranges of export.formats=full_int8 are read from it")
    for row in islice(encoder.scoring_rows(train.examples()), config.export.calibration_rows):
        yield {name: values[np.newaxis] for name, values in row_inputs(model.task, row).items()}
