"""Texts that leave the network early: what they are answered, in which order, and what it costs."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from leaving import middle_threshold
from toy import LABELS, make_classifier, make_encoder, make_sentences, make_tagger, make_texts

from app.config import DataConfig, ModelConfig, PredictConfig
from app.encoder.forward import run_layers
from app.evaluation.exit_report import add_exits, draw_exits
from app.evaluation.exits import ALL_LEAVE, KerasEarlyForward, measure_exits
from app.evaluation.layers import answer_with_layers
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import build_keras_forward, build_predictor
from app.one_keras import keras
from app.tasks.classification.labelled_text import LabelledText
from app.tasks.exit_table import ExitRow, leaves_by_unit, make_fact, read_table
from app.tasks.exits import measure_costs
from app.tasks.network import LOGITS, build_encoder, connect

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
    return middle_threshold(model, lambda early: logits_of(replace(predictor_of(model, None), early=early), examples))


def test_at_threshold_0_the_answers_are_those_of_the_whole_network(model, examples):
    early = predictor_of(model, 0.0)
    np.testing.assert_allclose(
        logits_of(early, examples), logits_of(predictor_of(model, None), examples), rtol=1e-5, atol=1e-5
    )
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
            for row, layer in enumerate(layers.max(axis=1)):
                asked = units[row]
                assert set(layers[row, asked]) <= {layer}, "a row leaves as a whole"
                expected = whole[heads.get(int(layer), LOGITS)].numpy()[row]
                np.testing.assert_allclose(logits[row, asked], expected[asked], rtol=1e-4, atol=1e-4)
                left.add(int(layer))
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
    assert leaves_by_unit(learnt.facts) == (model.labels == LABELS)  # words one by one, texts as a whole
    assert rows[0].threshold == 0 and rows[0].operations == pytest.approx(1) and rows[0].layer == pytest.approx(3)
    assert rows[-1].operations == pytest.approx(1 / 3)
    assert [row.operations for row in rows] == sorted((row.operations for row in rows), reverse=True)
    some = rows[len(rows) // 2]
    early = predictor_of(learnt, some.threshold)
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
    for loss, marked in ((0.2, (30.0, 0.899)), (0.0, (0.0, 0.9))):
        predictor = build_predictor(known, make_encoder(model), batch_size=4, config=PredictConfig(max_f1_loss=loss))
        (chart,) = draw_exits(predictor)
        assert len(chart.series[model.task.headline_name]) == 3
        assert list(chart.series["in use"]) == [pytest.approx(marked)]


def test_a_report_says_which_threshold_was_in_use_why_and_what_others_cost(model, examples):
    rows = [ExitRow(0.0, 0.9, 1.0, 3.0), ExitRow(0.1, 0.899, 0.7, 2.1), ExitRow(2.0, 0.8, 1 / 3, 1.0)]
    known = replace(model, facts={**model.facts, **make_fact(EXITS, "entity_f1", rows)})
    for facts, loss, said in (
        (known, 100, f"texts left below a doubt of 2 (predict.max_f1_loss=100); {200 / 3:.1f} % of the encoder's "
         "operations saved, mean layer 1.00 of 3"),
        (known, 0, "not used, predict.max_f1_loss=0"),
        (known, 0.05, "not used, no threshold was within predict.max_f1_loss=0.05 points on validation"),
        (model, 0.2, "not used, thresholds were not measured on a validation split"),
    ):  # fmt: skip
        config = PredictConfig(max_f1_loss=loss)
        predictor = replace(predictor_of(facts, ALL_LEAVE if loss == 100 else None), config=config)
        scored = model.task.score(facts, examples, list(predictor.answer(examples)), config)
        report = add_exits(model.task.report(scored, [], title="test"), predictor)
        assert f"exits after layers 1, 2: {said}\n" in report.text
        assert ("operations saved by exits" in dict(report.tiles)) == bool(predictor.early)
        in_use = [row[0] for table in report.tables[-1:] for row in table.rows if "in use" in row[0]]
        assert in_use == ([] if facts is model else ["2 (in use)"] if predictor.early else ["never (in use)"])
        starred = [line.split()[0] for line in report.text.splitlines() if line.endswith(" *")]
        assert starred == [each.split()[0] for each in in_use]


def test_layers_that_were_cut_count_less(vocabulary):
    from app.encoder.slimming import KeptLayer, cut_layers

    whole = make_tagger(vocabulary, num_layers=2)
    np.testing.assert_allclose(measure_costs(whole), [0, 0.5, 1])
    cut = cut_layers(whole.backbone, [KeptLayer(0, (0,), (0, 1)), KeptLayer(1, (0, 1), tuple(range(32)))])
    half, full = 4 * 16 * 8 + 2 * 16 * 2, 4 * 16 * 16 + 2 * 16 * 32
    np.testing.assert_allclose(measure_costs(replace(whole, backbone=cut)), [0, half / (half + full), 1])


# Words that leave one by one.


@pytest.fixture(scope="module", params=[("crf", 2), pytest.param(("softmax", 4), marks=pytest.mark.slow)])
def tagger(request, vocabulary):
    head, reach = request.param
    settings = ModelConfig(head=head, head_dropout=0.0, exit_layers=EXITS, exit_reach=reach)
    return make_tagger(vocabulary, model=settings, num_layers=3)


def by_word(model, threshold: float, *, batch_size: int = 7) -> Predictor:
    early = KerasEarlyForward(model, threshold, by_unit=True)
    return replace(predictor_of(model, None, batch_size=batch_size), early=early)


def go_on_word_by_word(model, features, units, threshold: float):
    """What an `EarlyNetwork` has to give: all layers of all pieces are computed, and most of it thrown away."""
    encoder, windows = model.backbone.model, features["padding_mask"]
    boundaries = np.isin(features["token_ids"], [model.backbone.vocabulary.index(each) for each in ("[CLS]", "[SEP]")])
    boundaries &= windows > 0
    heads = {each.layer: each.head for each in model.exits} | {3: model.head}
    states = None
    going, asked = windows > 0, units.copy()
    logits, layers, operations = np.zeros((*units.shape, len(LABELS)), np.float32), np.zeros(units.shape, int), 0.0
    said = np.zeros_like(logits)
    for layer in (1, 2, 3):
        if states is None:
            inputs, hidden = connect(model.backbone, model.shapes, segments=False, depth=1)
            first = keras.Model(inputs, hidden[-1])
            new = first({name: tf.constant(value) for name, value in features.items()}, training=False).numpy()
            states = new
        else:
            new = run_layers(encoder, tf.constant(states), tf.constant(windows), begin=layer - 1, depth=layer)[-1]
            states = np.where(going[..., np.newaxis], new.numpy(), states)
        real = (windows > 0).sum(axis=1)
        read = 2 * 16 * 16 / (4 * 16 * 16 + 2 * 16 * 32)  # keys and values among all products
        operations += np.where(going.any(axis=1), (read + (1 - read) * going.sum(axis=1) / real) / 3, 0.0)
        fresh = heads[layer](tf.constant(states), training=False).numpy()
        said = np.where(going[..., np.newaxis], fresh, said)
        doubts = heads[layer].measure_doubts(tf.constant(said), tf.constant(units), tf.constant(boundaries)).numpy()
        leaves = asked & ((doubts < threshold) | (layer == 3))
        logits[leaves], layers[leaves] = said[leaves], layer
        asked &= ~leaves
        reach = model.config.exit_reach
        around = np.pad(asked, ((0, 0), (reach, reach)))
        near = [around[:, shift : shift + asked.shape[1]] for shift in range(2 * reach + 1)]
        going &= np.any(near, axis=0)
    return logits, layers, operations


def test_a_word_leaves_when_it_is_sure_and_is_read_by_the_others_as_it_left(tagger):
    threshold = middle_threshold(
        tagger, lambda early: logits_of(replace(predictor_of(tagger, None), early=early), SENTENCES), by_unit=True
    )
    left = set()

    class Checked(KerasEarlyForward):
        def __call__(self, features, units):
            found = self._compute(dict(features), tf.constant(units), tf.constant(self.threshold))
            logits, layers, operations = (each.numpy() for each in found)
            expected = go_on_word_by_word(tagger, features, units, threshold)
            np.testing.assert_array_equal(layers, expected[1])
            np.testing.assert_allclose(logits, expected[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(operations, expected[2], rtol=1e-5)
            left.update(layers[units].tolist())
            return super().__call__(features, units)

    early = replace(predictor_of(tagger, None), early=Checked(tagger, threshold, by_unit=True))
    found = layers_of(early, SENTENCES)
    assert len(left) > 1, "all words left at one layer: nothing was compared"
    assert found == layers_of(by_word(tagger, threshold, batch_size=1), SENTENCES)  # whatever is beside them
    measured = early.early.measure()
    assert 1 / 3 < measured["exit_operations"] < 1 and 1 < measured["exit_layer"] < 3


@pytest.mark.parametrize("threshold", [0.0, float("nan")])
def test_no_word_leaves_at_threshold_0_or_at_none(tagger, threshold):
    whole = by_word(tagger, threshold)
    np.testing.assert_allclose(
        logits_of(whole, SENTENCES), logits_of(predictor_of(tagger, None), SENTENCES), rtol=1e-4, atol=1e-5
    )
    assert whole.early.measure() == {"exit_operations": pytest.approx(1.0), "exit_layer": 3.0}


def test_a_run_of_before_goes_on_with_texts_that_leave_as_a_whole(tagger):
    rows = [ExitRow(0.0, 0.9, 1.0, 3.0), ExitRow(0.5, 0.9, 0.7, 2.1)]
    known = replace(tagger, facts={**tagger.facts, **make_fact(EXITS, "entity_f1", rows)})
    layers = []

    class Noting(KerasEarlyForward):
        def __call__(self, features, units):
            found = super().__call__(features, units)
            layers.extend(set(row[asked]) for row, asked in zip(found[1], units, strict=True))
            return found

    logits_of(replace(predictor_of(known, None), early=Noting(known, 0.5)), SENTENCES)
    assert {len(each) for each in layers} <= {0, 1}
