"""The SavedModel for TensorFlow Serving: the same answers as `--mode=predict`, with operations Serving has."""

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy
from tensorflow_serving.apis import prediction_log_pb2
from texts import random_texts

from app.config import InputError, ModelConfig
from app.data.packing import FEATURES
from app.evaluation.runtimes import SavedModelForward, load_saved_model, load_version
from app.export.saved_model import WARMUP_FILE, export_saved_model, next_version
from app.one_keras import keras
from app.tasks.network import build_word_network
from app.tasks.tagging.answers import tag_texts
from app.tasks.tagging.task import TAGGING

# What tensorflow_model_server links beside TensorFlow (TF Text's ops_lib); the graph may use these of it.
TEXT_OPS = {"FastBertNormalize", "FastWordpieceTokenizeWithOffsets", "RegexSplitWithOffsets"}


def entities_of(loaded, texts):
    found = loaded.signatures["serving_default"](text=tf.constant([text.encode() for text in texts], tf.string))
    found = {name: column.numpy() for name, column in found.items()}
    for row, count in enumerate(found["count"]):
        columns = (found[name][row, :count].tolist() for name in ("start", "end", "label", "score"))
        yield [(start, end, label.decode(), score) for start, end, label, score in zip(*columns, strict=True)]


def assert_same_answers(loaded, predictor, texts, *, non_names=("LOC",)):
    entities = 0
    for row, found in zip(
        tag_texts(texts, predictor, non_names=non_names), entities_of(loaded, texts), strict=True
    ):
        wanted = [(e["start"], e["end"], e["label"], e["score"]) for e in row["entities"]]
        assert [entity[:3] for entity in found] == [entity[:3] for entity in wanted], row["text"]
        np.testing.assert_allclose([e[3] for e in found], [e[3] for e in wanted], atol=5e-4)
        entities += len(found)
    return entities


@pytest.mark.parametrize("seed", range(2))
def test_nasty_texts_get_the_answers_of_predict(saved_model, seed):
    assert assert_same_answers(saved_model.loaded, saved_model.predictor, random_texts(150, seed=seed)) > 300


def test_texts_of_many_windows_and_endless_sentences_get_the_answers_of_predict(saved_model):
    texts = [
        "Ada Smith met Bob in Rome . " * 200,
        "Ada met Bob in Rome City " * 300,
        "Rome",
        *random_texts(5, seed=9, longest=2000),
    ]
    assert assert_same_answers(saved_model.loaded, saved_model.predictor, texts) > 1000


def test_an_mpnet_is_saved_and_gives_the_logits_of_keras(vocabulary, tmp_path):
    tagger = toy.make_tagger(vocabulary, model=ModelConfig(head="softmax"), num_layers=2, mpnet=True)
    table = tagger.backbone.model.relative_bias.table
    table.assign(3 * np.random.default_rng(1).normal(size=table.shape))
    batch = toy.make_batch(tagger)
    features = {name: batch[name] for name in FEATURES}
    expected = tagger.network(features).numpy()
    words = np.argwhere(batch["labels"].numpy() >= 0)
    at_words = build_word_network(tagger)

    def tag_texts(text):
        return {"logits": at_words(features, tf.constant(words, tf.int32))}

    path = export_saved_model(
        tmp_path / "saved_model", network=tagger.network, tag_texts=tag_texts, task=TAGGING, labels=toy.LABELS
    )
    signatures = load_version(path).signatures
    read = features["padding_mask"].numpy() > 0
    np.testing.assert_allclose(signatures["tokenized"](**features)["logits"].numpy()[read], expected[read], atol=1e-5)
    found = signatures["serving_default"](text=tf.constant(["Ada"]))["logits"]
    np.testing.assert_allclose(found, expected[tuple(words.T)], atol=1e-5)


def test_no_text_at_all_is_an_empty_answer(saved_model):
    found = saved_model.loaded.signatures["serving_default"](text=tf.constant([], tf.string))
    assert {name: column.shape[0] for name, column in found.items()} == dict.fromkeys(
        ("count", "label", "start", "end", "score"), 0
    )


def test_signatures_have_the_types_the_clients_count_on(saved_model):
    signature = saved_model.loaded.signatures["serving_default"]
    assert {name: spec.dtype.name for name, spec in signature.structured_outputs.items()} == {
        "count": "int32", "label": "string", "start": "int32", "end": "int32", "score": "float32",
    }  # fmt: skip
    logits = saved_model.loaded.signatures["tokenized"].structured_outputs["logits"]
    assert (logits.dtype, logits.shape.as_list()) == (tf.float32, [None, None, len(saved_model.tagger.labels)])


def test_the_tokenized_signature_gives_the_logits_of_keras_in_the_one_predictor(saved_model):
    forward = SavedModelForward.of(saved_model.loaded, labels=len(saved_model.tagger.labels))
    predictor = dataclasses.replace(saved_model.predictor, forward=forward)
    texts = random_texts(40, seed=3)
    assert list(tag_texts(texts, predictor)) == list(tag_texts(texts, saved_model.predictor))


SERVING = """
import json, sys
from pathlib import Path
import tensorflow as tf, importlib.util
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry
path, texts = sys.argv[1], json.loads(sys.argv[2])
graph = saved_model_pb2.SavedModel.FromString(Path(path, "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
functions = {function.signature.name for function in graph.library.function}
used = {node.op for node in nodes} - functions
foreign = sorted(op for op in used if op_def_registry.get(op) is None)
folder = Path(importlib.util.find_spec("tensorflow_text").origin).parent / "python" / "ops"
for library in ("_fast_bert_normalizer", "_fast_wordpiece_tokenizer", "_regex_split_ops"):
    tf.load_op_library(str(folder / f"{library}.so"))
found = tf.saved_model.load(path).signatures["serving_default"](text=tf.constant(texts))
assert not {"tensorflow_text", "tensorflow_addons", "keras_nlp"} & set(sys.modules)
print(json.dumps({"foreign": foreign, "used": sorted(used), "count": found["count"].numpy().tolist()}))
"""


@pytest.mark.slow
def test_tensorflow_and_three_text_operations_are_enough_to_serve(saved_model):
    texts = ["Ada Smith met Bob in Rome .", "", "the old house"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", SERVING, str(saved_model.path), json.dumps(texts)],
        capture_output=True, text=True, env=environment, cwd=saved_model.folder, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {op.removeprefix("TFText>") for op in found["foreign"]} == TEXT_OPS
    assert not {op for op in found["used"] if "PyFunc" in op or "RoundRobin" in op or op.startswith("Xla")}
    rows = tag_texts(texts, saved_model.predictor, non_names=("LOC",))
    assert found["count"] == [len(row["entities"]) for row in rows]


def test_warm_up_requests_of_several_lengths_are_answered(saved_model):
    records = list(tf.data.TFRecordDataset(str(saved_model.path / WARMUP_FILE)).as_numpy_iterator())
    longest = []
    for record in records:
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        signature = saved_model.loaded.signatures[request.model_spec.signature_name]
        texts = tf.make_ndarray(request.inputs["text"])
        assert signature(text=tf.constant(texts))["count"].shape[0] == len(texts)
        longest.append(max(map(len, texts)))
    assert len(set(longest)) >= 3


@pytest.mark.parametrize("name", ["[a]*", os.fsdecode(b"\xff")])
def test_a_saved_model_may_lie_in_a_folder_of_any_name(saved_model, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(saved_model.folder, folder)
    texts = ["Ada Smith met Bob in Rome ."]
    assert assert_same_answers(load_saved_model(folder), saved_model.predictor, texts)
    (folder / "1" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(InputError) as refused:
        load_saved_model(folder)
    assert f"{folder}/1 is no SavedModel" in str(refused.value) and "paths-" not in str(refused.value)


def test_a_saved_model_is_written_to_a_folder_of_any_name_with_the_access_that_the_umask_allows(tmp_path):
    inputs = {name: keras.Input([None], dtype="int32", name=name) for name in FEATURES}
    network = keras.Model(inputs, keras.layers.Embedding(9, 2)(inputs["token_ids"]))
    before = os.umask(0o002)
    try:
        path = export_saved_model(
            tmp_path / "[a]*",
            network=network,
            tag_texts=lambda text: {"count": tf.strings.length(text)},
            task=TAGGING,
            labels=toy.LABELS,
        )
    finally:
        os.umask(before)
    assert path == tmp_path / "[a]*" / "1" and load_version(path).signatures
    modes = {stat.S_IMODE(each.stat().st_mode) for each in path.rglob("*") if each.is_dir()}
    assert modes == {0o775}


def test_versions_count_up_from_the_highest(tmp_path):
    assert next_version(tmp_path / "saved_model") == 1
    for name in ("1", "12", "notes", ".tmp-3-13"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == 13


def test_a_refused_export_leaves_nothing_behind(saved_model, tmp_path):
    class RefusedError(Exception):
        pass

    def refuse(path: Path) -> None:
        assert (path / "saved_model.pb").is_file() and (path / WARMUP_FILE).is_file()
        raise RefusedError

    def answer(texts):
        return {"count": tf.zeros(tf.shape(texts), tf.int32)}

    network, tagging = saved_model.tagger.network, {"task": TAGGING, "labels": toy.LABELS}
    with pytest.raises(RefusedError):
        export_saved_model(tmp_path, network=network, tag_texts=answer, **tagging, check=refuse)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_damaged_model_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="holds no SavedModel: make one with --mode=export"):
        load_saved_model(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"half")
    with pytest.raises(InputError, match="no SavedModel that can be read"):
        load_saved_model(tmp_path)


def test_a_model_with_other_labels_is_bad_input(saved_model):
    with pytest.raises(InputError, match="has 5 labels, the run has 9"):
        SavedModelForward.of(saved_model.loaded, labels=9)


@pytest.mark.whole_corpus
def test_all_of_conll_2003_gets_the_answers_of_predict(conll_2003, tmp_path):
    from app.evaluation.runtimes import build_predictor
    from app.export.saved_model import save_as_saved_model
    from app.tasks.bundle import load_model
    from app.tasks.network import build_encoder

    run_dir, corpus = conll_2003
    config, tagger = run_dir.read_config(), load_model(run_dir.model)
    encoder = build_encoder(tagger, config.data)
    save_as_saved_model(tagger, encoder, config.predict, tmp_path)
    loaded, predictor = load_saved_model(tmp_path), build_predictor(tagger, encoder, batch_size=32)
    documents = corpus.read_text(encoding="utf-8").split("-DOCSTART-")[1:]
    texts = [
        "\n".join(
            " ".join(line.split()[0] for line in part.splitlines() if line.strip()) for part in text.split("\n\n")[1:]
        )
        for text in documents
    ]
    entities = sum(
        assert_same_answers(loaded, predictor, texts[at : at + 16], non_names=tagger.facts["non_name_types"])
        for at in range(0, len(texts), 16)
    )
    assert entities > 5000
