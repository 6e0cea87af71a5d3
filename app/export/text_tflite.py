"""Export room: a TFLite file that takes raw strings, for runtimes that link TensorFlow's and TF Text's operations.

Cutting text needs operations that are not built into TFLite: TF Text's word pieces (custom operations) and, for regular
expressions and ragged tensors, "Flex" ones. TensorFlow's own interpreter has both; LiteRT alone has neither.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow.lite.python.interpreter import InterpreterWithCustomOps

from app.config import InputError
from app.export.converter import open_converter
from app.quiet import quiet

OUTPUTS = ("count", "label", "start", "end", "score")


def convert_text_tagger(tag_texts: Callable[[tf.Tensor], dict[str, tf.Tensor]], module: tf.Module) -> bytes:
    """The content of the file: float32 activations, int8 kernels with dynamic int8 activations.

    Args:
        tag_texts: string [texts] -> `OUTPUTS` (see `GraphTagger`).
        module: owns the constants of `tag_texts`.
    """

    def tag(text: tf.Tensor) -> dict[str, tf.Tensor]:
        # One word more, whose answer is dropped: TFLite's kernels refuse tensors without an element.
        found = tag_texts(tf.concat([text, ["x"]], 0))
        return {name: found[name][: tf.shape(text)[0]] for name in OUTPUTS}

    spec = [tf.TensorSpec([None], tf.string, name="text")]
    concrete = tf.function(tag, input_signature=spec, autograph=False).get_concrete_function()
    with quiet(), open_converter(module, concrete) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        converter.allow_custom_ops = True
        return bytes(converter.convert())


class TextModel:
    """Raw strings to entities by TensorFlow's TFLite interpreter with TF Text's operations.

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

    def tag(self, texts: list[str]) -> list[list[dict[str, Any]]]:
        """Entities of each text, `{"start", "end", "label", "score"}`; offsets in characters."""
        found = self._run(text=np.array([text.encode("utf-8") for text in texts], dtype=object))
        return [
            [
                {
                    "start": int(found["start"][row, i]),
                    "end": int(found["end"][row, i]),
                    "label": found["label"][row, i].decode(),
                    "score": float(found["score"][row, i]),
                }
                for i in range(count)
            ]
            for row, count in enumerate(found["count"])
        ]
