"""Each fault of the founding example, held down by a test (docs/corrections.md lists them in this order)."""

import ast
import dataclasses
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from app.config import BackboneConfig, DataConfig, ModelConfig, TrainingConfig
from app.data.dataset import store_in_memory
from app.data.packing import FEATURES, IGNORED
from app.data.sentence import Sentence
from app.encoder.backbone import SOURCES, build_backbone, detect_source
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import score
from app.one_keras import keras
from app.run.directory import sha256_of_arrays
from app.tasks.bundle import load_model, save_model
from app.tasks.network import TaskModel, build_model
from app.tasks.tagging.corpus import open_corpus, summarize
from app.tasks.tagging.encoding import SentenceEncoder
from app.tasks.tagging.head import HEADS, TaggingHead
from app.tasks.tagging.report import text_report
from app.tasks.tagging.scores import compute_scores, count_errors, flat_metrics
from app.tasks.tagging.task import TAGGING
from app.text.shapes import NUM_SHAPES, word_shapes
from app.text.word_pieces import WordPieces
from app.training.fine_tuner import FineTuner, SpecialIds

PROJECT = Path(__file__).parent.parent
LABELS = ("O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-PER", "I-PER")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FOUNDING_TABLE = """
    B-LOC .926 .906 .916 1668 | I-LOC .900 .805 .850 257 | B-MISC .875 .856 .865 702 | I-MISC .838 .782 .809 216
    B-ORG .914 .898 .906 1661 | I-ORG .911 .894 .902 835 | B-PER .964 .957 .960 1617 | I-PER .983 .980 .982 1156
    O .993 .995 .994 38323"""


@pytest.fixture(autouse=True)
def _float32():
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def vocabulary_path(tmp_path) -> str:
    """A vocabulary in which every letter is a piece, so that a word has as many pieces as letters."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), ""]), encoding="utf-8")
    return str(path)


def make_tagger(vocabulary_path: str, *, head: str = "crf", dropout: float = 0.0) -> TaskModel:
    backbone = BackboneConfig(
        source="random",
        vocabulary_path=vocabulary_path,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_positions=64,
        dropout=dropout,
        attention_dropout=dropout,
    )
    config = ModelConfig(head=head, head_dropout=dropout)
    return build_model(build_backbone(backbone), config, task=TAGGING, labels=LABELS, shape_count=NUM_SHAPES)


def make_encoder(tagger: TaskModel, *, max_length: int = 48, overlap: int = 8) -> SentenceEncoder:
    pieces = WordPieces(tagger.backbone.vocabulary, lowercase=tagger.backbone.lowercase)
    return SentenceEncoder(pieces, tagger.labels, word_shapes, max_length, overlap)


def sentence(*pairs: str, document: int = 0) -> Sentence:
    words, tags = zip(*(pair.split("/") for pair in pairs), strict=True)
    return Sentence(words, tags, document)


CORPUS = [
    sentence("Ada/B-PER", "met/O", "Bo/B-PER", "Li/I-PER", "in/O", "Rome/B-LOC"),
    sentence("a/O", "Roman/B-MISC", "one/O"),
    sentence("nothing/O", "here/O", document=1),
]


def make_batch(encoder: SentenceEncoder, sentences, *, empty_rows: int = 0) -> dict[str, tf.Tensor]:
    rows = list(encoder.training_rows(sentences))
    batch = {name: np.stack([getattr(row, name) for row in rows]) for name in (*FEATURES, "labels")}
    fill = {"labels": IGNORED}
    return {
        name: tf.constant(np.pad(array, ((0, empty_rows), (0, 0)), constant_values=fill.get(name, 0)))
        for name, array in batch.items()
    }


def test_the_padding_mask_comes_from_the_pieces_and_never_from_the_labels(vocabulary_path):
    encoder = make_encoder(make_tagger(vocabulary_path))
    without_entities = [dataclasses.replace(each, tags=("O",) * len(each.words)) for each in CORPUS]
    (one,), (other,) = encoder.training_rows(CORPUS), encoder.training_rows(without_entities)
    assert (one.labels != other.labels).any()
    np.testing.assert_array_equal(one.padding_mask, other.padding_mask)
    np.testing.assert_array_equal(one.padding_mask > 0, one.token_ids != encoder.pieces.pad_id)
    assert "labels" not in FEATURES


def test_padding_changes_no_logit(vocabulary_path):
    tagger = make_tagger(vocabulary_path)
    (short,) = make_encoder(tagger, max_length=44).training_rows(CORPUS)
    (long,) = make_encoder(tagger, max_length=60).training_rows(CORPUS)
    used = np.count_nonzero(short.padding_mask)
    logits = [
        tagger.network({name: getattr(row, name)[None] for name in FEATURES}, training=False)[0, :used]
        for row in (short, long)
    ]
    np.testing.assert_allclose(*logits, atol=1e-6)


def test_no_file_of_the_program_imports_pytorch_and_no_lock_file_installs_it():
    foreign = re.compile(r"(torch|transformers|sentence_transformers)\b")
    for file in sorted((PROJECT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(map(foreign.match, names)), f"{file}, line {node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                switches = node.func.attr in ("train", "eval") and not node.args
                assert not switches, f"{file}, line {node.lineno}: a mode switch is PyTorch's"
    for lock in ("requirements.lock", "weights.lock"):
        lines = (PROJECT / lock).read_text(encoding="utf-8").splitlines()
        assert not any(map(foreign.match, lines))


def test_dropout_is_switched_by_the_training_argument_alone(vocabulary_path):
    tagger = make_tagger(vocabulary_path, dropout=0.5)
    batch = make_batch(make_encoder(tagger), CORPUS)
    features = {name: batch[name] for name in FEATURES}
    still = [tagger.network(features, training=False).numpy() for _ in range(2)]
    moving = [tagger.network(features, training=True).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert (moving[0] != moving[1]).any()


def test_a_word_of_several_pieces_is_labelled_at_its_first_piece_only(vocabulary_path):
    encoder = make_encoder(make_tagger(vocabulary_path))
    (row,) = encoder.training_rows(CORPUS[:1])
    pieces = [encoder.pieces.vocabulary[i] for i in row.token_ids]
    labelled = [(pieces[i], encoder.labels[row.labels[i]]) for i in np.flatnonzero(row.labels != IGNORED)]
    assert labelled == [("a", "B-PER"), ("m", "O"), ("b", "B-PER"), ("l", "I-PER"), ("i", "O"), ("r", "B-LOC")]
    assert pieces[1:4] == ["a", "##d", "##a"] and row.labels[1:4].tolist() == [5, IGNORED, IGNORED]


@pytest.mark.parametrize("head", HEADS)
def test_padding_and_ignored_pieces_weigh_nothing_in_the_loss(vocabulary_path, head):
    tagger = make_tagger(vocabulary_path, head=head)
    batch = make_batch(make_encoder(tagger), CORPUS, empty_rows=1)
    boundaries = (batch["token_ids"] == 2) | (batch["token_ids"] == 3)
    logits = tf.random.stateless_normal([*batch["labels"].shape, len(LABELS)], seed=[1, 2])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tagger.head.compute_loss(logits, batch["labels"], boundaries)
    weights = tf.reduce_sum(tf.abs(tape.gradient(loss, logits)), axis=-1).numpy()
    real = batch["labels"].numpy() != IGNORED
    assert (weights[real] > 0).all() and (weights[~real] == 0).all()


@pytest.mark.parametrize("head", HEADS)
def test_rows_of_padding_leave_the_loss_and_the_trained_weights_as_they_are(vocabulary_path, head):
    tagger = make_tagger(vocabulary_path, head=head)
    encoder = make_encoder(tagger)
    start, trained = tagger.network.get_weights(), []
    tuner = FineTuner(
        tagger.network, tagger.head.compute_loss, special=SpecialIds(2, 3, 4), config=TrainingConfig(), seed=0
    )
    for empty_rows in (0, 3):
        tagger.network.set_weights(start)
        tuner.compile(optimizer=keras.optimizers.legacy.SGD(0.1))
        loss = tuner.train_step(make_batch(encoder, CORPUS, empty_rows=empty_rows))["step_loss"]
        trained.append([np.float32(loss), *tagger.network.get_weights()])
    assert any((old != new).any() for old, new in zip(start, trained[0][1:], strict=True))
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_report_counts_every_word_once_and_no_padding(vocabulary_path):
    tagger = make_tagger(vocabulary_path)
    predictor = build_predictor(tagger, make_encoder(tagger), batch_size=2)
    scores = score(predictor, CORPUS).scores
    assert scores.words == scores.token.macro.support == sum(len(each.words) for each in CORPUS)


def test_misc_is_learnt_from_the_data_and_stored_with_the_model(vocabulary_path, tmp_path):
    corpus = tmp_path / "corpus.conll"
    corpus.write_text("Ada B-PER\nin O\nRome B-LOC\n\nthe O\nRoman B-MISC\nway O\n", encoding="utf-8")
    labels = summarize(open_corpus(str(corpus), split="train", config=DataConfig())).labels
    assert tuple(labels) == LABELS
    save_model(make_tagger(vocabulary_path), tmp_path / "model", shape_count=NUM_SHAPES, card="")
    assert load_model(tmp_path / "model").labels == LABELS


def test_shuffling_comes_before_batching_and_every_row_comes_once_an_epoch(vocabulary_path):
    encoder = make_encoder(make_tagger(vocabulary_path), max_length=8, overlap=0)
    words = [first + second for first in LETTERS for second in "xyz"]
    rows = list(encoder.training_rows(Sentence((word,), ("O",), i) for i, word in enumerate(words)))
    batches = store_in_memory(rows).make_dataset(batch_size=6, seed=0, epochs=2)
    read = [{tuple(ids) for ids in batch["token_ids"].numpy() if ids.any()} for batch in batches]
    first, second = read[: len(read) // 2], read[len(read) // 2 :]
    assert set().union(*first) == set().union(*second) == {tuple(row.token_ids) for row in rows}
    assert not any(batch in second for batch in first)  # rows change places between batches, not batches as a whole


@pytest.mark.parametrize("head", HEADS)
def test_evaluation_leaves_every_weight_bit_identical(vocabulary_path, head):
    tagger = make_tagger(vocabulary_path, head=head, dropout=0.5)

    def digest() -> str:
        return sha256_of_arrays((variable.name, variable.numpy()) for variable in tagger.network.variables)

    before = digest()
    predictor = build_predictor(tagger, make_encoder(tagger), batch_size=2)
    first, second = ([each.tags for each in score(predictor, CORPUS).answers] for _ in range(2))
    assert digest() == before and first == second


def test_the_softmax_loss_works_on_logits():
    head = TaggingHead(LABELS, kind="softmax", dropout=0.0, reach=4)
    head.build(tf.TensorShape([None, None, 4]))
    logits = np.random.default_rng(0).normal(scale=20, size=(1, 5, len(LABELS))).astype(np.float32)
    labels = np.array([[3, 0, 6, 1, 2]], np.int32)
    boundaries = np.zeros_like(labels, bool)
    exact = np.float64(logits)
    expected = np.log(np.exp(exact).sum(-1)).sum() - np.take_along_axis(exact, labels[..., None], -1).sum()
    assert float(head.compute_loss(logits, labels, boundaries)) == pytest.approx(expected, rel=1e-5)
    # Probabilities would not bear a constant; logits do.
    assert float(head.compute_loss(logits + 7, labels, boundaries)) == pytest.approx(expected, rel=1e-4)


def test_the_default_backbone_needs_no_network_and_there_are_six_others(monkeypatch):
    def refuse(*_):
        raise OSError("the network is off")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    backbone = build_backbone(BackboneConfig())
    assert (backbone.model.num_layers, backbone.model.hidden_dim) == (6, 384)
    assert set(SOURCES) == {"minilm", "mpnet", "huggingface", "preset", "google", "run", "random"}
    assert detect_source(BackboneConfig().source) == "minilm"


def test_long_input_loses_no_word_and_windows_overlap(vocabulary_path):
    tagger = make_tagger(vocabulary_path)
    encoder = make_encoder(tagger, max_length=32, overlap=8)
    words = tuple(LETTERS[i % 26] * (1 + i % 5) for i in range(300))
    text = Sentence(words, ("O",) * len(words), 0)
    for rows in (list(encoder.training_rows([text])), list(encoder.scoring_rows([text]))):
        unit_ids = np.concatenate([row.unit_ids for row in rows])
        assert len(rows) > 20 and sorted(unit_ids[unit_ids >= 0]) == list(range(300))
    read = sum(np.count_nonzero(row.padding_mask) for row in rows)
    pieces = sum(map(len, words)) + 1
    assert read - len(rows) > pieces + 6 * (len(rows) - 1)  # [CLS] aside, context is read more than once
    (tagged,) = build_predictor(tagger, encoder, batch_size=4).answer([text])
    assert len(tagged.tags) == 300


def test_the_report_prints_token_accuracy_and_entity_f1_side_by_side():
    gold = [["O"] * 20 + ["B-PER", "I-PER"]]
    scores = compute_scores(gold, [["O"] * 22])  # nothing found at all
    report = text_report(scores, count_errors(gold, [["O"] * 22]), title="test")
    headline = report.split("\n\n")[0]
    assert "entity F1 0.0000" in headline and "token accuracy 0.9091" in headline
    metrics = flat_metrics(scores)
    assert (metrics["test/entity_f1"], round(metrics["test/token_accuracy"], 4)) == (0.0, 0.9091)


def test_the_founding_number_is_an_average_over_tokens_most_of_which_are_outside_any_entity():
    rows = [cell.split() for cell in re.split(r"[|\n]", FOUNDING_TABLE) if cell.strip()]
    recall = np.array([float(row[2]) for row in rows])
    f1 = np.array([float(row[3]) for row in rows])
    support = np.array([int(row[4]) for row in rows])
    assert support.sum() == 46435
    assert round(f1.mean(), 3) == 0.909  # its macro average
    assert round(support[-1] / support.sum(), 3) == 0.825  # tagging everything O is right this often
    assert round((recall * support).sum() / support.sum(), 3) == 0.981  # weighted recall is token accuracy
    assert round((f1 * support)[:-1].sum() / support[:-1].sum(), 3) == 0.921  # the same F1 without O


def test_addons_give_the_crf_and_lamb_and_nothing_else():
    users = [
        file.relative_to(PROJECT / "app").as_posix()
        for file in sorted((PROJECT / "app").rglob("*.py"))
        if re.search(r"^\s*(import|from) tensorflow_addons", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert users == ["tasks/tagging/crf.py", "training/optimizers.py"]
    used = {name for file in users for name in re.findall(r"tfa\.[\w.]+", (PROJECT / "app" / file).read_text("utf-8"))}
    assert used == {
        "tfa.text.crf_decode", "tfa.optimizers.LAMB",
    }  # fmt: skip
