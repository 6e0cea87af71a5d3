"""Export room: a SavedModel for TensorFlow Serving, and the way to compute with one.

Signatures: `serving_default` takes raw strings and gives entities, `tokenized` takes piece ids and gives logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the ops that cut text)
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from app.artifacts import atomic
from app.config import InputError, RunError
from app.export.versions import newest_version, next_version
from app.files import reason_of
from app.paths import plain

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MODEL_NAME = "ner"
INPUT_NAMES = ("token_ids", "shape_ids", "padding_mask")
_WARMUP_TEXT = "Ann Smith of the U.S. met Bob Jones in St. Louis on Monday. It rained. "
_WARMUP_REPEATS = ((1,), (1, 4, 2, 1), (40,))  # texts of each request, in repetitions


def export_saved_model(
    folder: Path,
    *,
    network: Any,
    tag_texts: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    check: Callable[[Path], None] = lambda path: None,
) -> Path:
    """Writes `folder/N/`, N one more than the highest number there; it appears only when it is complete.

    Args:
        folder: `export/saved_model` of a run directory.
        network: Keras model, {token_ids, shape_ids, padding_mask: int32 [batch, length]} -> logits float32.
        tag_texts: string [texts] -> `count`, `label`, `start`, `end`, `score` (see `GraphTagger`).
        check: looks at the complete export before it gets its name; what it raises, the export does not outlive.

    Returns:
        the folder of the new version.

    Raises:
        RunError: it could not be written.
    """
    module = tf.Module()
    module.network = network
    spec = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in INPUT_NAMES}

    @tf.function(input_signature=[spec["token_ids"], spec["shape_ids"], spec["padding_mask"]], autograph=False)
    def tokenized(token_ids: tf.Tensor, shape_ids: tf.Tensor, padding_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {"token_ids": token_ids, "shape_ids": shape_ids, "padding_mask": padding_mask}
        return {"logits": network(features, training=False)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return tag_texts(text)

    path = folder / str(next_version(folder))
    try:
        with atomic(path) as part:
            tf.saved_model.save(module, plain(part), {"serving_default": serving_default, "tokenized": tokenized})
            _write_warmup(part / WARMUP_FILE)
            check(part)
    except (OSError, tf.errors.OpError) as error:
        raise RunError(
            f"{reason_of(error)}: the SavedModel could not be saved to {folder}; its earlier versions are intact"
        ) from error
    return path


def load_saved_model(folder: Path) -> Any:
    """The newest version in `export/saved_model`.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return load_version(newest_version(folder))


def load_version(path: Path) -> Any:
    """One version.

    Raises:
        InputError: it is damaged, or no export of this program.
    """
    try:
        loaded = tf.saved_model.load(plain(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"{path} is no SavedModel that can be read, export it again: {reason_of(error)}") from error
    missing = {"serving_default", "tokenized"} - set(loaded.signatures)
    if missing:
        raise InputError(f"{path} has no signature {' and no '.join(sorted(missing))}")
    return loaded


@dataclass(frozen=True)
class SavedModelForward:
    """Features to logits by the `tokenized` signature: what the one predictor needs of any runtime.

    Attributes:
        loaded: from `load_saved_model`; a signature alone would not keep its weights.
    """

    loaded: Any

    @classmethod
    def of(cls, loaded: Any, *, labels: int) -> "SavedModelForward":
        """Raises InputError if the model has another number of labels."""
        found = loaded.signatures["tokenized"].structured_outputs["logits"].shape[-1]
        if found != labels:
            raise InputError(f"the SavedModel has {found} labels, the run has {labels}: export it again")
        return cls(loaded)

    def __call__(self, features: dict[str, np.ndarray]) -> np.ndarray:
        inputs = {name: tf.constant(features[name], tf.int32) for name in INPUT_NAMES}
        return self.loaded.signatures["tokenized"](**inputs)["logits"].numpy()


def warmup_requests() -> list[predict_pb2.PredictRequest]:
    """Requests of several lengths: one short text, a few of unequal length, one of several windows."""
    requests = []
    for repeats in _WARMUP_REPEATS:
        request = predict_pb2.PredictRequest(
            model_spec=model_pb2.ModelSpec(name=MODEL_NAME, signature_name="serving_default")
        )
        texts = [(_WARMUP_TEXT * count).encode("utf-8") for count in repeats]
        request.inputs["text"].CopyFrom(tf.make_tensor_proto(texts, tf.string))
        requests.append(request)
    return requests


def _write_warmup(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(plain(path)) as writer:
        for request in warmup_requests():
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
