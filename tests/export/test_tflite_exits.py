"""TFLite files that a text leaves early: the head at which it left, and what is above it is not computed."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from leaving import middle_threshold
from toy import make_batch, make_classifier, make_encoder, make_sentences, make_tagger

from app.config import Config, ExportConfig, ModelConfig, PredictConfig
from app.data.packing import FEATURES
from app.evaluation.exits import KerasEarlyForward, TFLiteEarlyForward
from app.evaluation.gate import Gate, Refused
from app.evaluation.litert import TFLiteModel
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import score
from app.export.exporters import Scoring, make_writer
from app.export.metadata import list_operators
from app.export.tflite import TFLiteWriter
from app.run.directory import RunDirectory
from app.tasks.exit_table import ExitRow, make_fact

HEADS = {1: "exit_1", 2: "exit_2", 3: "logits"}


@pytest.fixture(scope="module", params=["crf", "mean"])
def model(request, vocabulary):
    if request.param == "mean":
        return make_classifier(vocabulary, pooling="mean", exit_layers=(1, 2), num_layers=3, hidden_dim=32)
    settings = ModelConfig(head=request.param, head_dropout=0.0, exit_layers=(1, 2))
    return make_tagger(vocabulary, model=settings, num_layers=3, hidden_dim=32)


@pytest.fixture(scope="module")
def rows(vocabulary):
    batch = {name: value.numpy() for name, value in make_batch(make_tagger(vocabulary), rows=4).items()}
    labels = batch.pop("labels")
    return batch, labels >= 0


def doubts_of(model, rows) -> np.ndarray:
    """[exits, rows], as Keras measures them."""
    features, words = rows
    units = words if model.task.labels_words else np.arange(words.shape[1]) == np.zeros((len(words), 1))
    found = model.whole({name: tf.constant(features[name]) for name in FEATURES}, training=False)
    boundaries = np.isin(features["token_ids"], (2, 3)) & (features["padding_mask"] > 0)
    args = tf.constant(units), tf.constant(boundaries)
    measured = [np.max(each.head.measure_doubts(found[each.name], *args), axis=1) for each in model.exits]
    inferred = [np.max(each.head.infer_doubts(found[each.name], *args), axis=1) for each in model.exits]
    np.testing.assert_allclose(inferred, measured, atol=1e-4)
    return np.array(measured)


def check_rows(model, rows, path, *, tolerance: float) -> set[int]:
    features, words = rows
    early = TFLiteEarlyForward(TFLiteModel(path).run, model, unit_input=model.task.unit_input, threshold=0.5)
    logits, layers = early(features, words)
    whole = model.whole({name: tf.constant(features[name]) for name in FEATURES}, training=False)
    asked = words if model.task.labels_words else np.arange(words.shape[1]) == np.zeros((len(words), 1))
    by_row = layers.max(axis=1)
    for row, layer in enumerate(by_row.tolist()):
        expected = whole[HEADS[layer]].numpy()[row]
        assert np.abs(logits[row] - expected)[asked[row]].max() < tolerance
    assert early.measure()["exit_layer"] == pytest.approx(np.average(by_row, weights=words.sum(axis=1)))
    return set(by_row.tolist())


def test_each_text_leaves_at_the_head_that_is_sure(model, rows, tmp_path):
    doubts = doubts_of(model, rows)
    middle = float(np.sort(doubts[0])[1:3].mean())
    writer = TFLiteWriter(model, ExportConfig(), boundary_ids=(2, 3), representative=lambda: [], threshold=middle)
    path = tmp_path / "early.tflite"
    path.write_bytes(writer.write("float32_early"))
    assert "IF" in list_operators(path.read_bytes())
    left = check_rows(model, rows, path, tolerance=1e-3)
    sure = doubts < np.float32(middle)
    assert left == {1 + int(np.argmax([*column, True])) for column in sure.T}
    assert len(left) > 1


def test_files_have_the_threshold_that_was_chosen_on_validation(model, tmp_path):
    fact = make_fact((1, 2), "entity_f1", [ExitRow(0.0, 0.9, 1.0, 3.0), ExitRow(0.4, 0.9, 0.6, 2.0)])
    known, run_dir = replace(model, facts={**model.facts, **fact}), RunDirectory(tmp_path)
    for loss, threshold in ((0.2, 0.4), (0.0, 0.0)):
        config = Config(predict=PredictConfig(max_f1_loss=loss))
        assert make_writer(config, known, make_encoder(model), run_dir).threshold == threshold


def test_a_refused_export_says_that_its_exits_are_part_of_what_it_loses(vocabulary, tmp_path):
    class Strict(Gate):
        def decide(self, name, file, found):
            raise Refused(f"{file} refused")

    tagger = make_tagger(vocabulary, model=ModelConfig(exit_layers=(1,)), num_layers=2)
    encoder, corpus = make_encoder(tagger), SimpleNamespace(examples=lambda: make_sentences(8))
    predictor = build_predictor(tagger, encoder, batch_size=4)
    gate = Strict(RunDirectory(tmp_path), 0.5, {})
    job = Scoring(Config(), tagger, encoder, corpus, score(predictor, corpus.examples()), gate, predictor, [])
    for early, told in ((None, ""), (KerasEarlyForward(tagger, 2.0), "; early exits are part of that, predict")):
        with pytest.raises(Refused, match=f"^a.tflite refused{told}") as refused:
            job.check("a", "a.tflite", predictor.forward, early)
        assert bool(early) == ("predict.max_f1_loss=0" in str(refused.value))


@pytest.mark.slow
def test_kernels_above_an_exit_are_rounded_too(model, rows, tmp_path):
    writer = TFLiteWriter(model, ExportConfig(), boundary_ids=(2, 3), representative=lambda: [])
    path = tmp_path / "int8.tflite"
    path.write_bytes(writer.write("int8_early"))
    assert check_rows(model, rows, path, tolerance=0.3) == {3}
    kernels = 3 * (4 * 32 * 32 + 2 * 32 * 32)
    assert len(writer.write("float32_early")) - path.stat().st_size > 2.5 * kernels


@pytest.mark.parametrize("mpnet", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_words_leave_one_by_one_as_in_keras(mpnet, rows, vocabulary, tmp_path):
    settings = ModelConfig(head="crf", head_dropout=0.0, exit_layers=(1, 2))
    model = make_tagger(vocabulary, model=settings, num_layers=4, hidden_dim=32, mpnet=mpnet)
    table = [ExitRow(0, 0.9, 1, 4)]
    model = replace(model, facts={**model.facts, **make_fact((1, 2), "entity_f1", table, by_unit=True)})
    features, words = rows
    threshold = middle_threshold(model, lambda noting: noting(features, words), by_unit=True)
    wanted = KerasEarlyForward(model, threshold)
    logits, layers = wanted(features, words)
    assert {1, 2, 4} <= set(layers[words].tolist())
    writer = TFLiteWriter(model, ExportConfig(), boundary_ids=(2, 3), representative=lambda: [], threshold=threshold)
    path = tmp_path / "early.tflite"
    path.write_bytes(writer.write("float32_early"))
    file = TFLiteModel(path)
    early = TFLiteEarlyForward(file.run, model, unit_input=model.task.unit_input, threshold=threshold)
    found, at = early(features, words)
    np.testing.assert_array_equal(at, layers)
    np.testing.assert_allclose(found[words], logits[words], atol=1e-4)
    assert early.measure() == pytest.approx(wanted.measure())
    deepest, rng = set(), np.random.default_rng(0)
    for row in np.arange(60) % len(words):  # so that all leave at each of the exits
        asked = words[[row]] & (rng.random(words[:1].shape) < 0.3)
        some = {name: value[[row]] for name, value in features.items()}, asked
        (_, at_one), (_, at_other) = wanted(*some), early(*some)
        np.testing.assert_array_equal(at_other, at_one)
        deepest.add(int(at_one.max()))
    assert deepest >= ({1, 4} if mpnet else {1, 2, 4})
    together = file.run({**features, "word_starts": words.astype(np.int32)})  # nobody asks for it, but it works
    np.testing.assert_array_equal(np.where(words, together["layer"], 0), layers)
    np.testing.assert_allclose(together["logits"][words], logits[words], atol=1e-4)
