"""A SavedModel whose rows leave early: the answers and layers of `--mode=predict`, at any threshold."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import toy
from leaving import middle_threshold
from texts import random_texts

from app.config import DataConfig, ModelConfig, PredictConfig
from app.evaluation.exits import ALL_LEAVE, KerasEarlyForward, SavedModelEarlyForward
from app.evaluation.layers import answer_with_layers
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import build_keras_forward, load_saved_model
from app.export.saved_model import save_as_saved_model
from app.serving.engines import SavedModelEngine
from app.tasks.exit_table import ExitRow, make_fact
from app.tasks.network import build_encoder

EXITS = (1, 2)
TEXTS = [*random_texts(40, seed=3), "", "Ada Smith met Bob in Rome . " * 40, "Rome"]


@pytest.fixture(
    scope="module", params=["words", *(pytest.param(name, marks=pytest.mark.slow) for name in ("crf", "mean"))]
)
def exported(request, vocabulary, tmp_path_factory):
    by_unit = request.param == "words"
    if request.param in ("crf", "words"):
        settings = ModelConfig(head="crf", head_dropout=0.0, exit_layers=EXITS)
        model = toy.make_tagger(vocabulary, model=settings, num_layers=3)
        encoder = toy.make_encoder(model)
    else:
        model = toy.make_classifier(vocabulary, pooling=request.param, exit_layers=EXITS, num_layers=3)
        encoder = build_encoder(model, DataConfig(max_length=32, overlap_tokens=8))
    threshold = threshold_of(model, encoder, by_unit=by_unit)
    table = [ExitRow(0.0, 0.9, 1.0, 3.0), ExitRow(threshold, 0.9, 0.5, 1.5)]
    fact = make_fact(EXITS, "entity_f1", table, by_unit=by_unit)
    model = dataclasses.replace(model, facts={**model.facts, **fact})
    folder = tmp_path_factory.mktemp("early") / "saved_model"
    path = save_as_saved_model(model, encoder, PredictConfig(), folder)
    loaded = load_saved_model(folder)
    return SimpleNamespace(model=model, encoder=encoder, threshold=threshold, path=path, loaded=loaded)


def threshold_of(model, encoder, *, by_unit: bool) -> float:
    return middle_threshold(
        model,
        lambda early: list(answer_with_layers(TEXTS, predictor_of(model, encoder, early), PredictConfig())),
        by_unit=by_unit,
    )


def predictor_of(model, encoder, early) -> Predictor:
    return Predictor(model, encoder.scoring_rows, build_keras_forward(model), 8, early=early)


def assert_same_rows(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one["layer"] == other["layer"], other["text"]
        if "entities" in other:
            bare = [[{**entity, "score": 0} for entity in row["entities"]] for row in (one, other)]
            assert bare[0] == bare[1]
            scores = [[entity["score"] for entity in row["entities"]] for row in (one, other)]
            np.testing.assert_allclose(*scores, atol=1e-3)
        else:
            assert one["label"] == other["label"]
            np.testing.assert_allclose(list(one["scores"].values()), list(other["scores"].values()), atol=1e-3)


def test_it_answers_as_predict_does_row_for_row_with_the_layer(exported):
    early = predictor_of(exported.model, exported.encoder, KerasEarlyForward(exported.model, exported.threshold))
    wanted = list(answer_with_layers(TEXTS, early, PredictConfig()))
    assert len({row["layer"] for row in wanted}) > 2, "all texts left at one layer"
    about = exported.model.task.about(exported.model.labels)
    engine = SavedModelEngine(exported.path, about=about, facts=exported.model.facts, predict=PredictConfig())
    assert_same_rows(engine.answer(TEXTS).rows(0, len(TEXTS)), wanted)


@pytest.mark.parametrize("threshold", [0.0, ALL_LEAVE, float("nan")])
def test_the_threshold_can_be_given_with_the_texts(exported, threshold):
    early = predictor_of(exported.model, exported.encoder, KerasEarlyForward(exported.model, threshold))
    wanted = [row["layer"] for row in answer_with_layers(TEXTS, early, PredictConfig())]
    texts = tf.constant([text.encode("utf-8") for text in TEXTS])
    found = exported.loaded.signatures["early"](text=texts, threshold=tf.constant(threshold))
    assert found["layer"].numpy().tolist() == wanted
    assert set(wanted) == ({0, 1} if threshold == ALL_LEAVE else {0, 3})  # 0: texts without a word


def test_pieces_get_the_logits_of_the_head_at_which_they_left(exported):
    model, rows = exported.model, None
    early = KerasEarlyForward(model, exported.threshold)
    other = SavedModelEarlyForward(exported.loaded, exported.threshold)

    class Both:
        def __call__(self, features, units):
            (logits, layers), (found, at) = early(features, units), other(features, units)
            np.testing.assert_array_equal(at, layers)
            np.testing.assert_allclose(found[units], logits[units], rtol=1e-3, atol=1e-4)
            return logits, layers

    rows = list(answer_with_layers(TEXTS, predictor_of(model, exported.encoder, Both()), PredictConfig()))
    assert len(rows) == len(TEXTS)
    assert other.measure() == pytest.approx(early.measure())


def test_the_whole_network_is_there_as_before(exported):
    tokens = tf.constant([[2, 7, 8, 3]])
    features = {"token_ids": tokens, "shape_ids": tokens * 0 + 1, "padding_mask": tokens * 0 + 1}
    found = exported.loaded.signatures["tokenized"](**features)["logits"]
    np.testing.assert_allclose(found, exported.model.network(features, training=False), rtol=1e-4, atol=1e-5)
