"""Export room: a model put together as a TFLite file that takes raw strings, and its score on a corpus as text."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow.lite.python.interpreter import InterpreterWithCustomOps

from app.config import Config, InputError, PredictConfig
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.evaluation.gate import Comparison
from app.evaluation.predictor import Predictor
from app.export.graph import InferenceModule
from app.export.tflite import open_converter
from app.run.screen import quiet
from app.tasks.network import TaskModel
from app.tasks.task import Task

TEXTS_AT_A_TIME = 16
Item = TypeVar("Item")


def describe_text_signature(task: Task) -> dict[str, Any]:
    """What `model.json` beside the file says about it."""
    text = {"type": "string", "shape": ["batch"], "meaning": "texts of any length, UTF-8"}
    return {"inputs": {"text": text}, "outputs": task.text_outputs}


def write_text_tflite(model: TaskModel, encoder: Encoder, config: Config) -> bytes:
    """The content of the file; it answers as `--mode=predict` does, but for the rounding to int8."""
    module = InferenceModule(
        model, table="int8", block=config.export.block_size, boundary_ids=encoder.pieces.boundary_ids
    )
    answer_texts = model.task.build_text_graph(
        model,
        encoder,
        lambda rows, places: tf.gather_nd(module.compute_logits(*(rows[name] for name in FEATURES)), places),
        config.predict,
    )
    return convert_text_model(answer_texts, outputs=tuple(model.task.text_outputs))


def compare_text_tflite(
    content: bytes,
    model: TaskModel,
    examples: Iterable[Any],
    predictor: Predictor,
    config: PredictConfig,
    *,
    labelled: int,
) -> Comparison:
    """The file beside the float model, on a corpus read as plain text, whose words the models must find.

    Args:
        content: of the file.
        model: the float model.
        examples: of the corpus.
        predictor: of the float model.
        config: how texts are cut and answers chosen, as in the file.
        labelled: entities or texts of the corpus.
    """
    task, exported = model.task, TextModel(content, threads=os.cpu_count() or 1)
    ours: list[Sequence[float]] = []
    floats: list[Sequence[float]] = []
    for part in _batches(task.texts_of(examples), TEXTS_AT_A_TIME):
        texts, gold = zip(*part, strict=True)
        plains = task.answer_texts(model, list(texts), predictor, task.graph_settings(config))
        answers = zip(exported.answer(model, list(texts)), plains, strict=True)
        for text, expected, (found, plain) in zip(texts, gold, answers, strict=True):
            ours += task.count_text(model, text, expected, found)
            floats += task.count_text(model, text, expected, plain)
    return Comparison.of(task, np.array(ours), np.array(floats), labelled=labelled)


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while part := list(islice(items, size)):
        yield part


# A TFLite file that takes raw strings, for runtimes that link TensorFlow's and TF Text's operations.
#
# Cutting text needs operations that are not built into TFLite: TF Text's word pieces (custom operations) and, for
# regular expressions and ragged tensors, "Flex" ones. TensorFlow's own interpreter has both; LiteRT alone has neither.


def convert_text_model(
    answer_texts: Callable[[tf.Tensor], dict[str, tf.Tensor]], *, outputs: Sequence[str]
) -> bytes:
    """The content of the file: float32 activations, int8 kernels with dynamic int8 activations.

    Args:
        answer_texts: string [texts] -> outputs, a row for each text.
        outputs: their names.
    """

    def answer(text: tf.Tensor) -> dict[str, tf.Tensor]:
        # One word more, whose answer is dropped: TFLite's kernels refuse tensors without an element.
        found = answer_texts(tf.concat([text, ["x"]], 0))
        return {name: found[name][: tf.shape(text)[0]] for name in outputs}

    spec = [tf.TensorSpec([None], tf.string, name="text")]
    concrete = tf.function(answer, input_signature=spec, autograph=False).get_concrete_function()
    with quiet(), open_converter(concrete) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        converter.allow_custom_ops = True
        return bytes(converter.convert())


class TextModel:
    """Raw strings to answers by TensorFlow's TFLite interpreter with TF Text's operations.

    Args:
        content: of the file.
        threads: of the interpreter.

    Raises:
        InputError: it is no such file.
    """

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        try:
            self._interpreter = InterpreterWithCustomOps(
                model_content=content,
                custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
                num_threads=threads,
            )
            self._run = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"not a TFLite file that takes text: {str(error).splitlines()[0]}") from error

    def answer(self, model: TaskModel, texts: list[str]) -> list[dict[str, Any]]:
        """A row for each text, as `--mode=predict` gives it, without the text."""
        strings = np.array([text.encode("utf-8") for text in texts], dtype=object)
        return model.task.rows_from_graph(model, self._run(text=strings))
