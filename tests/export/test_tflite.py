"""TFLite files in LiteRT against the Keras network they were made of, for networks of several shapes."""

import dataclasses
import os
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from toy import LABELS, make_encoder, make_sentences, make_tagger

from app.config import Config, ExportConfig, ModelConfig
from app.evaluation.gate import Gate, Refused
from app.evaluation.runtimes import TFLiteModel, build_predictor
from app.evaluation.scoring import score
from app.export.exporters import Scoring
from app.export.tflite import TFLiteWriter
from app.run.directory import RunDirectory
from app.tasks.tagging.graph_decoding import decode_rows
from app.tasks.tagging.head import decode_sentences

START, END = 2, 3


def make_writer(tagger) -> TFLiteWriter:
    return TFLiteWriter(tagger, ExportConfig(), boundary_ids=(START, END), representative=lambda: [])


def make_rows(count: int, length: int, *, pieces: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Two windows a row, then padding."""
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(5, pieces, (count, length)).astype(np.int32)
    token_ids[:, 0], token_ids[:, length // 2] = START, END
    windows = np.ones((count, length), np.int32)
    windows[:, length // 2 + 1 :] = 2
    windows[:, -3:] = token_ids[:, -3:] = 0
    shape_ids = rng.integers(0, 5, (count, length)).astype(np.int32)
    return {"token_ids": token_ids, "shape_ids": shape_ids, "padding_mask": windows}


@pytest.fixture(scope="module")
def tagger(vocabulary):
    settings = {"hidden_dim": 32, "intermediate_dim": 40, "num_layers": 2}
    return make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0), **settings)


@pytest.mark.parametrize(("name", "tolerance"), [("float32", 1e-4), ("float16", 2e-2), ("int8", 0.1), ("int4", 1.0)])
def test_logits_are_those_of_keras_within_what_the_format_allows(tagger, tmp_path, name, tolerance):
    path = tmp_path / os.fsdecode(b"\xff[1].tflite")  # LiteRT alone would take UTF-8 only
    path.write_bytes(make_writer(tagger).write(name))
    model = TFLiteModel(path)
    for count, length in ((1, 8), (3, 21)):  # any batch and any length
        rows = make_rows(count, length, pieces=len(tagger.backbone.vocabulary))
        read = rows["padding_mask"] > 0
        expected = tagger.network({key: tf.constant(value) for key, value in rows.items()}, training=False).numpy()
        found = model.forward(rows)
        assert np.abs(found - expected)[read].max() < tolerance
        assert np.abs(found - expected)[read].max() < np.abs(expected[read]).max() / 2  # and it is no accident


@pytest.fixture(scope="module")
def mpnet(vocabulary):
    settings = {"hidden_dim": 32, "intermediate_dim": 40, "num_layers": 2, "mpnet": True}
    tagger = make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0), **settings)
    table = tagger.backbone.model.relative_bias.table
    table.assign(3 * np.random.default_rng(1).normal(size=table.shape))
    return tagger


@pytest.mark.parametrize("name", ["float32", "int8", "full_int8"])
def test_an_mpnet_reads_by_distance_in_every_format(mpnet, tmp_path, name):
    def representative():
        rows = make_rows(8, 21, pieces=len(mpnet.backbone.vocabulary), seed=1)
        rows["word_starts"] = np.ones_like(rows["token_ids"])
        return ({key: value[row : row + 1] for key, value in rows.items()} for row in range(8))

    writer = TFLiteWriter(mpnet, ExportConfig(), boundary_ids=(START, END), representative=representative)
    path = tmp_path / "mpnet.tflite"
    path.write_bytes(writer.write(name))
    model = TFLiteModel(path)
    rows = make_rows(3, 21, pieces=len(mpnet.backbone.vocabulary))
    read = rows["padding_mask"] > 0
    table = mpnet.backbone.model.relative_bias.table
    before = table.numpy()
    logits = []
    for values in (before, np.zeros_like(before)):
        table.assign(values)
        logits.append(mpnet.network({key: tf.constant(value) for key, value in rows.items()}).numpy()[read])
    table.assign(before)
    found = model.forward(rows)[read]
    missed = np.abs(logits[1] - logits[0]).mean()  # what it would be without its table
    error = np.abs(found - logits[0])
    assert missed > 0.02 and error.mean() < missed / 4, (missed, error.mean())
    assert error.max() < {"float32": 1e-4}.get(name, 0.3)


def test_a_conversion_says_nothing_on_the_screen(tagger, capfd):
    writer = make_writer(tagger)
    for name in ("float32", "int8"):
        writer.write(name)
    assert tuple(capfd.readouterr()) == ("", "")


def test_words_are_decoded_sentence_by_sentence_as_the_predictor_does(tagger):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 20, len(LABELS))).astype(np.float32) * 2
    boundaries = np.zeros((4, 20), bool)
    boundaries[:, [0, 7, 12]] = True
    starts = (rng.random((4, 20)) < 0.6) & ~boundaries
    scores = tagger.head.decoding_scores()
    found = decode_rows(tf.constant(logits), tf.constant(starts), tf.constant(boundaries), scores.transitions).numpy()
    assert (found[~starts] == -1).all()
    for row in range(4):
        for first, end in ((0, 7), (7, 12), (12, 20)):
            within = np.flatnonzero(starts[row, first:end]) + first
            if within.size:
                (expected,), _ = decode_sentences([logits[row, within]], scores, probabilities=False)
                np.testing.assert_array_equal(found[row, within], expected)


@pytest.mark.whole_corpus
def test_float32_tags_all_of_conll_2003_as_keras_does(conll_2003, tmp_path):
    from app.evaluation.runtimes import build_predictor
    from app.tasks.bundle import load_model
    from app.tasks.corpora import open_split
    from app.tasks.network import build_encoder

    run_dir, corpus = conll_2003
    config, loaded = run_dir.read_config(), load_model(run_dir.model)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, test_path=str(corpus)))
    encoder = build_encoder(loaded, config.data)
    path = tmp_path / "float32.tflite"
    path.write_bytes(make_writer(loaded).write("float32"))
    keras, lite = (
        build_predictor(loaded, encoder, batch_size=32, **more) for more in ({}, {"forward": TFLiteModel(path).forward})
    )
    sentences = list(open_split(config, "test", labels=loaded.labels).examples())
    expected, found = (list(chain.from_iterable(s.tags for s in each.answer(sentences))) for each in (keras, lite))
    assert found == expected and len(found) == sum(len(sentence.words) for sentence in sentences)


def test_a_file_whose_table_one_huge_row_spoils_does_not_pass_the_gate(vocabulary, tmp_path):
    """A piece that no text has takes the resolution of the shared vectors, and all words look alike."""
    longer = tmp_path / "vocab.txt"
    longer.write_text(vocabulary.read_text() + "".join(f"[unused{number}]\n" for number in range(600)))
    model = make_tagger(longer, hidden_dim=32)
    table = model.backbone.model.token_embedding.embeddings
    writing = ExportConfig(int8_table="product", product_width=4)
    known = len(vocabulary.read_text().split())
    # Words count for more than places; what no text has looks like what some have, so 256 vectors are enough.
    table.assign(np.resize(10 * table.numpy()[:known], table.shape))
    encoder, sentences = make_encoder(model), make_sentences(60, seed=2)
    predictor = build_predictor(model, encoder, batch_size=16)
    answers = list(predictor.answer(sentences))
    gold = [dataclasses.replace(each, tags=tuple(found.tags)) for each, found in zip(sentences, answers, strict=True)]
    corpus = SimpleNamespace(examples=lambda: iter(gold))

    def check():
        job = Scoring(
            Config(), model, encoder, corpus, score(predictor, gold),
            Gate(RunDirectory(tmp_path), 10.0, {"split": "test"}), predictor, [],
        )  # fmt: skip
        writer = TFLiteWriter(model, writing, boundary_ids=(START, END), representative=lambda: [])
        path = tmp_path / "int8.tflite"
        path.write_bytes(writer.write("int8"))
        return job.check("int8", path.name, TFLiteModel(path).forward)

    assert check().f1 > 0.9
    table.assign(np.concatenate([table.numpy()[:-1], np.full((1, 32), 1e3, np.float32)]))
    with pytest.raises(Refused, match=r"int8\.tflite refused: entity F1 .* points below the float model's 1\.0000"):
        check()
