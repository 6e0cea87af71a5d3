"""Export room: a SavedModel for TensorFlow Serving, and the way to compute with one.

Signatures: `serving_default` takes raw strings and gives answers, `tokenized` takes piece ids and gives logits of the
whole network. A model whose texts may leave early says in `serving_default` at which `layer` each did, and has two
signatures more, which take the threshold as an input: `early` is `serving_default` with it, and `tokenized_early`
takes piece ids. So a server under load can lower the bar without another export.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the ops that cut text)
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from app.config import PredictConfig, RunError
from app.config.paths import plain
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.evaluation.manifest import ABOUT_FILE, EXITS_FILE, VECTORS_FILE, next_version
from app.run.directory import atomic
from app.run.files import reason_of
from app.tasks.exit_table import FACT, find_threshold, read_table
from app.tasks.exits import EarlyNetwork
from app.tasks.network import LOGITS, TaskModel, build_word_network
from app.tasks.task import Task

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
_WARMUP_REPEATS = ((1,), (1, 4, 2, 1), (40,))  # texts of each request, in repetitions


def export_saved_model(
    folder: Path,
    *,
    network: Any,
    tag_texts: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    task: Task,
    labels: Sequence[str],
    early: EarlyNetwork | None = None,
    exits: Mapping[str, Any] | None = None,
    check: Callable[[Path], None] = lambda path: None,
) -> Path:
    """Writes `folder/N/`, N one more than the highest number there; it appears only when it is complete.

    Args:
        folder: `export/saved_model` of a run directory.
        network: Keras model, {token_ids, shape_ids, padding_mask: int32 [batch, length]} -> logits float32; with
            `early` the whole one, see `TaskModel`.
        tag_texts: string [texts] -> `Task.text_outputs`.
        task: of the model.
        labels: of the model.
        early: inside `tag_texts`; None = every text goes through the whole network.
        exits: what the thresholds of `early` cost, for a server that chooses among them.
        check: looks at the complete export before it gets its name; what it raises, the export does not outlive.

    Returns:
        the folder of the new version.

    Raises:
        RunError: it could not be written.
    """
    module = tf.Module()
    # Not the network: TensorFlow would trace the calls of all its layers anew, which nothing reads.
    module.network_variables = list(network.variables)
    spec = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in FEATURES}

    @tf.function(input_signature=[spec["token_ids"], spec["shape_ids"], spec["padding_mask"]], autograph=False)
    def tokenized(token_ids: tf.Tensor, shape_ids: tf.Tensor, padding_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {"token_ids": token_ids, "shape_ids": shape_ids, "padding_mask": padding_mask}
        found = network(features, training=False)
        return {"logits": found[LOGITS] if early else found}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return tag_texts(text)

    signatures = {"serving_default": serving_default, "tokenized": tokenized}
    if early:
        signatures |= _make_early(early, tag_texts)
    path = folder / str(next_version(folder))
    try:
        with atomic(path) as part:
            tf.saved_model.save(module, plain(part), signatures)
            _write_warmup(part / WARMUP_FILE, task)
            about = json.dumps(task.about(labels), ensure_ascii=False, indent=2)
            (part / ABOUT_FILE).write_text(f"{about}\n", encoding="utf-8")
            if exits:
                (part / EXITS_FILE).write_text(f"{json.dumps(exits)}\n", encoding="utf-8")
            check(part)
    except (OSError, tf.errors.OpError) as error:
        raise RunError(
            f"{reason_of(error)}: the SavedModel could not be saved to {folder}; its earlier versions are intact"
        ) from error
    return path


def _make_early(early: EarlyNetwork, tag_texts: Callable[[tf.Tensor], dict[str, tf.Tensor]]) -> dict[str, Any]:
    """The signatures that take the threshold, see `Head.measure_doubts`; 0 = no text leaves early."""
    threshold_spec = tf.TensorSpec([], tf.float32, name="threshold")
    rows = [tf.TensorSpec([None, None], tf.int32, name=name) for name in (*FEATURES, "units")]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text"), threshold_spec], autograph=False)
    def at_threshold(text: tf.Tensor, threshold: tf.Tensor) -> dict[str, tf.Tensor]:
        with early.at(threshold):
            return tag_texts(text)

    @tf.function(input_signature=[*rows, threshold_spec], autograph=False)
    def tokenized_early(
        token_ids: tf.Tensor, shape_ids: tf.Tensor, padding_mask: tf.Tensor, units: tf.Tensor, threshold: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        features = {"token_ids": token_ids, "shape_ids": shape_ids, "padding_mask": padding_mask}
        with early.at(threshold):
            logits, layers, spent = early.answer_rows(features, units > 0)
        return {"logits": logits, "layer": layers, "operations": spent}

    return {"early": at_threshold, "tokenized_early": tokenized_early}


def warmup_requests(task: Task) -> list[predict_pb2.PredictRequest]:
    """Requests of several lengths: one short text, a few of unequal length, one of several windows."""
    requests = []
    for repeats in _WARMUP_REPEATS:
        request = predict_pb2.PredictRequest(
            model_spec=model_pb2.ModelSpec(name=task.model_name or task.name, signature_name="serving_default")
        )
        texts = [(task.warmup_text * count).encode("utf-8") for count in repeats]
        request.inputs["text"].CopyFrom(tf.make_tensor_proto(texts, tf.string))
        requests.append(request)
    return requests


def _write_warmup(path: Path, task: Task) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(plain(path)) as writer:
        for request in warmup_requests(task):
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes test vectors into a version: rows of `--mode=predict`, which a server compares before it takes it."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (path / VECTORS_FILE).write_text("".join(lines), encoding="utf-8")


def save_as_saved_model(
    model: TaskModel,
    encoder: Encoder,
    config: PredictConfig,
    folder: Path,
    *,
    check: Callable[[Path], None] = lambda path: None,
) -> Path:
    """Writes `folder/N/`, which answers as `--mode=predict` does, and returns it.

    Args:
        model: float32.
        encoder: that belongs to it.
        config: how texts are cut and answers chosen.
        folder: `export/saved_model` of a run directory.
        check: looks at the complete export before it gets its name; what it raises, the export does not outlive.
    """
    early = None
    if read_table(model.facts, model.config.exit_layers):
        early = EarlyNetwork(model, find_threshold(model.facts, model.config.exit_layers, config))
    graph = model.task.build_text_graph(model, encoder, early or build_word_network(model), config)
    return export_saved_model(
        folder,
        network=model.whole if early else model.network,
        tag_texts=graph,
        task=model.task,
        labels=model.labels,
        early=early,
        exits=model.facts.get(FACT) if early else None,
        check=check,
    )
