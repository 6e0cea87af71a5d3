"""Texts that leave the network early: what they are answered, in which order, and what it costs."""

from dataclasses import replace

import numpy as np
import pytest
from leaving import middle_threshold
from toy import LABELS, make_classifier, make_encoder, make_sentences, make_tagger, make_texts

from app.config import DataConfig, ModelConfig, PredictConfig
from app.evaluation.exits import ALL_LEAVE, KerasEarlyForward, measure_exits
from app.evaluation.layers import answer_with_layers
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import build_keras_forward, build_predictor
from app.evaluation.scoring import draw_exits
from app.tasks.classification.labelled_text import LabelledText
from app.tasks.exit_table import ExitRow, make_fact, read_table
from app.tasks.exits import measure_costs
from app.tasks.network import LOGITS, build_encoder

SENTENCES = make_sentences(30, seed=5, sentences_per_document=2)
EXITS = (1, 2)


@pytest.fixture(scope="module", params=["softmax", "crf", "cls", "mean", "several"])
def model(request, vocabulary):
    if request.param in ("softmax", "crf"):
        settings = ModelConfig(head=request.param, head_dropout=0.0, exit_layers=EXITS)
        return make_tagger(vocabulary, model=settings, num_layers=3)
    pooling = "mean" if request.param == "mean" else "cls"
    facts = {"multi_label": True, "label_sets": [[0], [1, 2]]} if request.param == "several" else None
    return make_classifier(vocabulary, pooling=pooling, facts=facts, exit_layers=EXITS, num_layers=3)


@pytest.fixture(scope="module")
def examples(model):
    if model.labels == LABELS:
        return SENTENCES
    return [
        LabelledText((row["text"],), ("person",), number, 0)
        for number, row in enumerate(make_texts(30, seed=3))
    ]


def predictor_of(model, threshold: float | None, *, batch_size: int = 7) -> Predictor:
    if model.labels == LABELS:
        encoder = make_encoder(model, max_length=16, overlap=4)
    else:
        encoder = build_encoder(model, DataConfig(max_length=16, overlap_tokens=4))
    early = None if threshold is None else KerasEarlyForward(model, threshold)
    return Predictor(model, encoder.scoring_rows, build_keras_forward(model), batch_size, early=early)


def logits_of(predictor: Predictor, examples) -> np.ndarray:
    units = sum(predictor.task.count_units(each) for each in examples)
    return predictor.compute_emissions(predictor.make_rows(examples), units=units)


def layers_of(predictor: Predictor, examples) -> list[int]:
    return [layer for _, layer in predictor.answer_with_layers(examples)]


def threshold_of(model, examples) -> float:
    return middle_threshold(model, lambda early: logits_of(replace(predictor_of(model, 0.0), early=early), examples))


def test_at_threshold_0_the_answers_are_those_of_the_whole_network(model, examples):
    early = predictor_of(model, 0.0)
    np.testing.assert_array_equal(logits_of(early, examples), logits_of(predictor_of(model, None), examples))
    assert set(layers_of(early, examples)) == {3}
    assert early.early.measure() == {"exit_operations": pytest.approx(1.0), "exit_layer": pytest.approx(3.0)}


def test_at_a_huge_threshold_all_leave_at_the_first_exit_with_what_its_head_says(model, examples):
    early = predictor_of(model, ALL_LEAVE)
    alone = predictor_of(model, None)
    first = replace(alone, forward=lambda features: model.whole(features, training=False)["exit_1"].numpy())
    np.testing.assert_allclose(logits_of(early, examples), logits_of(first, examples), rtol=1e-5, atol=1e-5)
    assert set(layers_of(early, examples)) == {1}
    assert early.early.measure()["exit_operations"] == pytest.approx(1 / 3)


def test_rows_that_leave_at_different_layers_keep_their_order(model, examples):
    """Each row has the logits of the head at which it left, whatever left beside it."""
    threshold = threshold_of(model, examples)
    early = predictor_of(model, threshold)
    heads, left = {1: "exit_1", 2: "exit_2", 3: LOGITS}, set()

    class Checked(KerasEarlyForward):

        def __call__(self, features, units):
            logits, layers = super().__call__(features, units)
            whole = model.whole(features, training=False)
            for row, layer in enumerate(layers):
                np.testing.assert_allclose(logits[row], whole[heads[int(layer)]][row], rtol=1e-4, atol=1e-4)
            left.update(layers.tolist())
            return logits, layers

    found = layers_of(replace(early, early=Checked(model, threshold)), examples)
    assert len(left) > 1, "all rows left at one layer: nothing was compared"
    assert found == layers_of(predictor_of(model, threshold, batch_size=1), examples)  # whatever is beside them


def test_each_answer_says_its_layer_and_a_whole_network_says_none(model):
    texts = ["Ada met Bob .", "", "the old house was in Rome City . Jordan went to Lima and saw Dan Smith"]
    early = predictor_of(model, ALL_LEAVE)
    rows = list(answer_with_layers(texts, early, PredictConfig()))
    assert [row["text"] for row in rows] == texts
    assert [row["layer"] for row in rows][::2] == [1, 1]
    whole = list(answer_with_layers(texts, predictor_of(model, None), PredictConfig()))
    assert not any("layer" in row for row in whole)
    assert [set(row) | {"layer"} for row in whole] == [set(row) for row in rows]


def test_the_table_tells_what_each_threshold_costs(model, examples):
    predictor = predictor_of(model, None)
    learnt, rows = measure_exits(predictor, examples, learn=lambda answers: model, config=PredictConfig())
    assert read_table(learnt.facts, EXITS) == rows
    assert rows[0].threshold == 0 and rows[0].operations == pytest.approx(1) and rows[0].layer == pytest.approx(3)
    assert rows[-1].operations == pytest.approx(1 / 3)
    assert [row.operations for row in rows] == sorted((row.operations for row in rows), reverse=True)
    some = rows[len(rows) // 2]
    early = predictor_of(model, some.threshold)
    scored = model.task.score(model, examples, list(early.answer(examples)), PredictConfig())
    assert scored.headline == some.score  # as if it had been run with this threshold
    assert early.early.measure()["exit_operations"] == pytest.approx(some.operations)
    assert early.early.measure()["exit_layer"] == pytest.approx(some.layer)


def test_the_setting_chooses_the_threshold_and_0_turns_exits_off(model):
    rows = [ExitRow(0.0, 0.9, 1.0, 3.0), ExitRow(0.1, 0.899, 0.7, 2.1), ExitRow(0.4, 0.8, 0.4, 1.2)]
    known = replace(model, facts={**model.facts, **make_fact(EXITS, "entity_f1", rows)})
    for loss, threshold in ((0.0, None), (0.05, None), (0.2, 0.1), (50.0, 0.4)):
        encoder = make_encoder(model)
        found = build_predictor(known, encoder, batch_size=4, config=PredictConfig(max_f1_loss=loss)).early
        assert (found and float(found.threshold)) == (threshold and pytest.approx(threshold))
    assert build_predictor(known, make_encoder(model), batch_size=4).early is None
    assert build_predictor(model, make_encoder(model), batch_size=4, config=PredictConfig()).early is None


def test_the_chart_marks_the_threshold_in_use(model):
    rows = [ExitRow(0.0, 0.9, 1.0, 3.0), ExitRow(0.1, 0.899, 0.7, 2.1), ExitRow(0.4, 0.8, 0.4, 1.2)]
    known = replace(model, facts={**model.facts, **make_fact(EXITS, "entity_f1", rows)})
    for loss, marked in ((0.2, [pytest.approx((30.0, 0.899))]), (0.0, None)):
        predictor = build_predictor(known, make_encoder(model), batch_size=4, config=PredictConfig(max_f1_loss=loss))
        series = draw_exits(predictor).series
        assert len(series[model.task.headline_name]) == 3
        assert (list(series["in use"]) if "in use" in series else None) == marked


def test_layers_that_were_cut_count_less(vocabulary):
    from app.encoder.slimming import KeptLayer, cut_layers

    whole = make_tagger(vocabulary, num_layers=2)
    np.testing.assert_allclose(measure_costs(whole), [0, 0.5, 1])
    cut = cut_layers(whole.backbone, [KeptLayer(0, (0,), (0, 1)), KeptLayer(1, (0, 1), tuple(range(32)))])
    half, full = 4 * 16 * 8 + 2 * 16 * 2, 4 * 16 * 16 + 2 * 16 * 32
    np.testing.assert_allclose(measure_costs(replace(whole, backbone=cut)), [0, half / (half + full), 1])
