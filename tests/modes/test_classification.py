"""Text classification from the command line's modes to the files they leave, for all kinds of labelled texts."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy
from served import ask as ask_server
from served import serving

from app.config import InputError
from app.config.loading import load_config
from app.evaluation.manifest import read_about
from app.evaluation.runtimes import build_predictor, load_saved_model
from app.export.text_tflite import TextModel
from app.modes import benchmark, compress, distill, evaluate, export, finetune, predict
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import load_model
from app.tasks.network import build_encoder

TEXTS = [
    "Ada saw the house .", "", " ", "🎉 Ada\u0301 met 🇫🇷", "went to " * 40 + "Oslo .", "the\tRome", "\tAda", "\u200b",
]  # fmt: skip
KINDS = {"single": (), "several": ("classification.multi_label=true",), "pairs": ()}


def ask(mode, run: Path, *settings: str, defaults: Path | None = None, **request) -> dict:
    """What a mode does with settings over those of a run, or over the defaults."""
    config = load_config(None, list(settings), defaults=str(defaults / "config.yaml") if defaults else None)
    return mode.run(Request(config, RunDirectory(run), **request))


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


class Trained:
    """Finished runs by their kind, each made when it is first asked for. Not to be written to: copy them."""

    def __init__(self, folder: Path, vocabulary: Path) -> None:
        self.folder, self.vocabulary = folder, vocabulary

    def settings(self, kind: str, *more: str) -> list[str]:
        corpora = self.folder / f"{kind}_corpora"
        if not corpora.exists():
            corpora.mkdir()
            toy.write_texts(corpora, kind=kind)
        return toy.text_settings(corpora, self.vocabulary, *KINDS[kind], *more)

    def __getitem__(self, kind: str) -> Path:
        run = self.folder / kind
        if not run.exists():
            ask(finetune, run, *self.settings(kind))
        return run

    def copy(self, kind: str, folder: Path) -> Path:
        return Path(shutil.copytree(self[kind], folder / kind))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, vocabulary) -> Trained:
    return Trained(tmp_path_factory.mktemp("classified"), vocabulary)


def answer(run: Path, texts: list[str], *settings: str) -> list[dict]:
    config, model = load_config(None, list(settings), defaults=str(run / "config.yaml")), load_model(run / "model")
    predictor = build_predictor(model, build_encoder(model, config.data), batch_size=8)
    return list(model.task.answer_texts(model, texts, predictor, config.predict))


def assert_same_rows(found: list[dict], expected: list[dict], *, within: float) -> None:
    """The same labels wherever the scores leave no doubt, and about the same scores."""
    for row, other in zip(found, expected, strict=True):
        for label, score in row["scores"].items():
            assert score == pytest.approx(other["scores"][label], abs=within), other
        assert {row.get("label"), *row.get("labels", ())} == {other.get("label"), *other.get("labels", ())}, other


def test_texts_are_learnt_and_texts_out_of_scope_are_no_class_of_the_model(trained):
    run = trained["single"]
    metrics, model = metrics_of(run), load_model(run / "model")
    assert model.labels == toy.TEXT_LABELS and metrics["test/macro_f1"] > 0.9
    assert {"test/coverage", "test/out_of_scope_recall", "valid/out_of_scope_recall"} <= metrics.keys()
    assert model.facts["temperature"] > 0 and len(model.facts["coverage"]) > 1
    outside = [line for line in (run / "errors" / "test.jsonl").read_text().splitlines() if "house" in line]
    assert len(outside) >= 6  # each is wrong without a minimum score


def test_a_minimum_score_and_a_precision_leave_unsure_texts_without_a_label(trained, tmp_path):
    run = trained.copy("single", tmp_path)
    before = metrics_of(run)
    sure = ask(evaluate, run, "predict.min_score=0.99", defaults=run)
    assert sure["test/coverage"] < before["test/coverage"] == 1.0 and sure["test/macro_f1"] == before["test/macro_f1"]
    assert sure["test/out_of_scope_recall"] > before["test/out_of_scope_recall"] == 0.0
    assert metrics_of(run) == before  # they have a folder of their own
    (apart,) = (run / "evaluations").glob("test.csv-*.min_score-0.99")
    assert metrics_of(apart)["test/coverage"] == sure["test/coverage"]
    labels = [row["label"] for row in answer(run, ["Ada saw .", "the the the house"], "predict.min_score=1")]
    assert labels == [None, None]
    points = load_model(run / "model").facts["coverage"]
    wanted = max(right for _, right in points)
    exact = ask(evaluate, run, f"predict.target_precision={wanted}", defaults=run)
    assert exact["test/coverage"] < 1.0 and exact["test/answered_accuracy"] >= before["test/answered_accuracy"]
    impossible = [min(1.0, wanted + 1e-3)] if wanted < 1 else []
    for precision in impossible:
        with pytest.raises(InputError, match="no minimum score makes so many"):
            ask(evaluate, run, f"predict.target_precision={precision}", defaults=run)


@pytest.mark.parametrize("kind", ["single", "several"])
def test_texts_that_the_model_is_unsure_of_come_first(trained, tmp_path, kind):
    run, target = trained[kind], tmp_path / "out.jsonl"
    texts = ["Ada saw the house ."] * 4 + ["the the the Jordan"] + ["Rome was old ."] * 4 + [""]
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in texts))
    request = {"input": str(tmp_path / "in.txt"), "output": str(target)}
    ask(predict, run, "predict.rank=uncertainty", defaults=run, **request)
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert rows[-1]["text"] == "" and rows[-1]["uncertainty"] == 0
    assert [row["rank"] for row in rows] == [1, 2, 3, 4] and sorted(row["occurrences"] for row in rows) == [1, 1, 4, 4]
    assert all(one["uncertainty"] >= other["uncertainty"] for one, other in itertools.pairwise(rows))
    for row in rows[:-1]:  # the margin: of the two best labels, or of each label being given or not
        scores = sorted(row["scores"].values())
        margins = [scores[-1] - scores[-2]] if kind == "single" else [abs(2 * score - 1) for score in scores]
        assert row["uncertainty"] == pytest.approx(1 - np.mean(margins), abs=1e-3)
    assert kind == "several" or rows[0]["text"] == "the the the Jordan"
    found = ask(predict, run, "predict.rank=diversity", "predict.top=3", defaults=run, **request)
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert len({row["text"] for row in rows}) == 3 == found["predict/documents"]


def test_several_labels_have_thresholds_learnt_on_validation_and_answers_have_all_labels_above_them(trained):
    run = trained["several"]
    model, metrics = load_model(run / "model"), metrics_of(run)
    assert model.labels == ("person", "place") and metrics["test/macro_f1"] > 0.9
    assert len(model.facts["thresholds"]) == 2 and len(model.facts["label_sets"]) == 4
    both, none, person = answer(run, ["Ada saw Rome .", "the old house .", "Bob met Cleo ."])
    assert (both["labels"], none["labels"], person["labels"]) == (["person", "place"], [], ["person"])
    assert 0 <= min(both["scores"].values()) and "label" not in both


@pytest.mark.slow
def test_the_second_text_of_a_pair_is_told_from_the_first(trained):
    run = trained["pairs"]
    model = load_model(run / "model")
    assert model.facts["pairs"] and metrics_of(run)["test/macro_f1"] > 0.9
    ids = [2, 5, 3, 6, 3]
    features = {name: np.array([ids]) for name in ("token_ids", "shape_ids")} | {"padding_mask": np.array([[1] * 5])}
    before = model.network(features).numpy()
    segments = model.backbone.model.segment_embedding.embeddings
    segments.assign(segments.numpy() + np.array([[0.0], [1.0]]) * np.arange(32) / 8)
    assert np.abs(model.network(features).numpy() - before).max() > 1e-3  # segment 1 is in use


def test_a_corpus_of_pairs_is_no_corpus_for_a_model_of_single_texts_and_the_reverse(trained, tmp_path):
    cases = {
        ("single", "pairs"): "has pairs of texts, the model learns from single texts",
        ("pairs", "single"): "has single texts, the model learns from pairs of texts",
    }
    for (kind, other), says in cases.items():
        trained[other]
        run, corpus = trained[kind], trained.folder / f"{other}_corpora" / "valid.csv"
        for mode, more in ((evaluate, ()), (export, ("export.formats=float32",))):
            with pytest.raises(InputError, match=says):
                ask(mode, run, f"data.test_path={corpus}", *more, defaults=run)
    corpora = trained.folder / "pairs_corpora"
    with pytest.raises(InputError, match="has pairs of texts, the model learns from single texts"):
        ask(distill, tmp_path / "student", *trained.settings("pairs"), f"distill.teachers=[{trained['single']}]",
            "distill.student=backbone")  # fmt: skip
    with pytest.raises(InputError, match="has pairs of texts, the model learns from single texts"):
        ask(compress, tmp_path / "small", f"init_from={trained['single']}", f"data.train_path={corpora / 'train.csv'}",
            "data.valid_path=", "data.test_path=", "compression.steps=cluster", defaults=trained["single"])  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_that_was_broken_off_resumes_to_the_same_bits(trained, tmp_path, monkeypatch):
    from app.training.fit import RunKeeper

    settings = trained.settings("several", "training.word_mask_fraction=0.2", "training.r_drop_weight=0.5",
                                "classification.class_weights=balanced", "classification.label_smoothing=0.1",
                                "training.epochs=2")  # fmt: skip
    whole = ask(finetune, tmp_path / "whole", *settings)
    count, real = iter(range(1000)), RunKeeper._stop_asked
    monkeypatch.setattr(
        RunKeeper, "_stop_asked", lambda keeper: KeyboardInterrupt if next(count) == 15 else real(keeper)
    )
    with pytest.raises(KeyboardInterrupt):
        ask(finetune, tmp_path / "run", *settings)
    assert not (tmp_path / "run" / "metrics.json").exists()
    resumed = ask(finetune, tmp_path / "run", *settings)
    assert next(count) > 16 and resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["test/macro_f1"] == whole["test/macro_f1"]


@pytest.mark.slow
def test_two_replicas_end_with_the_weights_of_one_device(trained, tmp_path, app_process):
    # No random draw that replicas would share out in another way, and an epsilon at which rounding decides nothing.
    equal = ["backbone.dropout=0", "backbone.attention_dropout=0", "model.head_dropout=0", "training.epsilon=1e-3",
             "training.epochs=1", "data.valid_path=", "data.test_path=", "training.batch_size=6",
             "training.learning_rate=2e-3", "classification.class_weights=balanced"]  # fmt: skip
    processes = {}
    for devices in ("1", "2"):
        settings = trained.settings("single", *equal, f"training.logical_devices={devices}")
        flags = [f"--set={each}" for each in settings]
        processes[devices] = app_process("--mode=finetune", f"--run_dir={tmp_path / devices}", *flags, cwd=tmp_path)
    for devices, process in processes.items():
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages
        assert f"{devices} replica(s)" in messages
    one, two = (load_model(tmp_path / devices / "model").network.variables for devices in "12")
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.name)


@pytest.mark.parametrize("kind", ["several", "pairs"])
@pytest.mark.slow
def test_a_student_learns_from_two_teachers_and_from_unlabelled_text(trained, tmp_path, kind):
    text, teacher = tmp_path / "text.txt", trained[kind]
    text.write_text("Ada saw Rome. Bob met Cleo in Oslo.\nDan went to Lima.\n\n" * 8)
    unlabelled = [f"data.unlabelled_path={text}"] if kind != "pairs" else []
    metrics = ask(
        distill, tmp_path / "student", *trained.settings(kind), f"distill.teachers=[{teacher}, {teacher}]",
        "distill.student_layers=[0]", "distill.hidden.weight=0.1", "distill.relation.weight=0.1",
        "distill.relation.heads=4", "training.epochs=1", "training.word_mask_fraction=0.1", *unlabelled,
    )  # fmt: skip
    assert metrics["test/macro_f1"] > 0.9
    assert metrics["train/texts"] == 150 + (24 if unlabelled else 0)
    assert load_model(tmp_path / "student" / "model").facts["pairs"] == (kind == "pairs")


@pytest.mark.slow
def test_a_student_of_fewer_labels_than_its_teacher_learns_the_right_ones(trained, tmp_path):
    rows = [row for row in toy.make_texts(120, seed=3, kind="several") if "person" not in row["label"]]
    path = toy.write_table(tmp_path / "places.csv", rows)
    ask(
        distill, tmp_path / "student", *trained.settings("several"), f"distill.teachers=[{trained['several']}]",
        "distill.student_layers=[0]", f"data.train_path={path}", "training.epochs=1", "distill.soft_weight=0",
    )  # fmt: skip
    model = load_model(tmp_path / "student" / "model")
    assert model.labels == ("person", "place") and sorted(model.facts["label_sets"]) == [[], [1]]
    assert answer(tmp_path / "student", ["we went to Rome ."])[0]["scores"]["place"] > 0.5


@pytest.mark.slow
def test_every_step_of_compression_works_on_a_classifier(trained, tmp_path):
    steps = ("trim_vocabulary", "prune_structured", "prune_magnitude", "cluster", "quantize_aware")
    settings = {
        "steps": ",".join(steps), "trim_vocabulary.min_piece_count": 2, "trim_vocabulary.kept_first_pieces": 0,
        "prune_structured.rounds": 1, "prune_structured.last_epochs": 1, "prune_structured.importance_steps": 2,
        "prune_magnitude.epochs": 1, "prune_magnitude.sparsity": 0.3, "cluster.values": 16,
        "quantize_aware.epochs": 1, "latency_length": 16,
    }  # fmt: skip
    flags, start = [f"compression.{key}={value}" for key, value in settings.items()], trained["several"]
    run = tmp_path / "run"
    metrics = ask(compress, run, f"init_from={start}", *flags, defaults=start)
    rows = json.loads((run / "compression.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ["(nothing)", *steps]
    assert rows[-1]["parameters"] < rows[0]["parameters"] and metrics["test/macro_f1"] > 0.6
    assert load_model(run / "model").facts.keys() == load_model(start / "model").facts.keys()


FORMATS = ("float32", "float16", "int8", "int4", "full_int8", "int8_text", "saved_model")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    """A run with all exports, whose answers have a minimum score."""
    run = trained.copy("single", tmp_path_factory.mktemp("exported"))
    settings = [f"export.formats={','.join(FORMATS)}", "export.block_size=32", "export.max_f1_loss=100"]
    ask(export, run, *settings, "predict.min_score=0.6", defaults=run)
    return run


def test_every_format_is_scored_and_listed_with_what_it_gives(exported):
    metrics = metrics_of(exported)
    for name in FORMATS:
        score = "plain_text_macro_f1" if name == "int8_text" else "macro_f1"
        assert metrics[f"export/{name}/test/{score}"] > 0.8, name
    manifest = json.loads((exported / "export" / "tflite" / "model.json").read_text())
    assert manifest["outputs"]["scores"]["shape"] == ["batch", 3] and manifest["labels"] == list(toy.TEXT_LABELS)
    assert manifest["files"]["float32.tflite"]["vectors_tagged_as_by_the_float_model"] > 0
    assert "word_starts" not in manifest["inputs"]


def test_exports_that_take_text_answer_as_predict_does(exported):
    expected = answer(exported, TEXTS, "predict.min_score=0.6")
    assert [row["label"] for row in expected[1:3]] == [None, None]
    model = load_model(exported / "model")
    graph = load_saved_model(exported / "export" / "saved_model").signatures["serving_default"]
    found = {name: value.numpy() for name, value in graph(text=tf.constant(TEXTS)).items()}
    assert_same_rows(model.task.rows_from_graph(model, found), expected, within=1e-3)
    content = (exported / "export" / "tflite_text" / "int8_text.tflite").read_bytes()
    assert_same_rows(TextModel(content).answer(model, TEXTS), expected, within=0.1)


@pytest.mark.parametrize("runtime", ["tflite", "saved_model"])
def test_evaluate_scores_an_export_by_its_own_runtime(exported, runtime):
    ask(evaluate, exported, f"predictor={runtime}", "evaluation.tflite_file=float32", defaults=exported)
    (scored,) = (exported / "evaluations").glob(f"*.{runtime}*")
    assert (scored / "predictions" / "test.csv").read_text() == (exported / "predictions" / "test.csv").read_text()


def test_a_server_says_what_its_model_is_and_answers_under_the_name_of_the_task(exported):
    version = exported / "export" / "saved_model" / "1"
    about = read_about(version)
    assert about["task"] == "classification" and about["labels"] == list(toy.TEXT_LABELS)
    with serving(exported, names=("classify",), runtime="saved_model") as url:
        assert ask_server(url, "/about")[1].items() >= about.items()
        rows = ask_server(url, "/v1/models/classify:predict", {"instances": TEXTS})[1]["predictions"]
    expected = answer(exported, TEXTS, "predict.min_score=0.6")
    for row, other in zip(rows, expected, strict=True):
        assert (row["label"] or None) == other["label"]
        given = [label for label, is_given in zip(about["labels"], row["given"], strict=True) if is_given]
        assert given == [row["label"]] * bool(row["label"])
        assert row["scores"] == pytest.approx(list(other["scores"].values()), abs=1e-3)


def test_texts_of_a_file_are_answered_line_by_line(exported, tmp_path):
    lines = ["Ada saw .", "we went to Rome .", "the old house"]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    counts = ask(
        predict, exported, "predict.min_score=0", input=str(tmp_path / "texts.txt"), output=str(tmp_path / "out.jsonl"),
        defaults=exported,
    )  # fmt: skip
    assert counts == {"predict/documents": 3, "predict/texts": 3}
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == lines
    assert [row["label"] for row in rows] == ["person", "place", "neither"]


def test_the_speed_of_training_and_answering_is_measured_in_texts(trained, tmp_path):
    metrics = ask(
        benchmark, tmp_path / "run", *trained.settings("several"), "benchmark.steps=2", "benchmark.warmup_steps=1"
    )
    assert metrics["benchmark/train_texts_per_second"] > 0 and metrics["benchmark/classify_texts_per_second"] > 0


@pytest.mark.slow
def test_exports_are_compared_in_a_frontier(exported, tmp_path):
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    ask(
        benchmark, run, "benchmark.objective=frontier", "benchmark.frontier.lengths=16", "benchmark.frontier.threads=1",
        "benchmark.frontier.batch_sizes=8", "benchmark.frontier.rounds=2", "benchmark.frontier.words=100", defaults=run,
    )  # fmt: skip
    table = (run / "reports" / "frontier.txt").read_text()
    assert "size, macro-F1 and latency" in table and "texts/s" in table and "words" not in table


def test_what_is_odd_about_corpora_is_said_before_training(tmp_path, vocabulary, capfd):
    from app.tasks import find_task
    from app.tasks.corpora import check_other_splits, read_training_corpus

    train = [("Ada saw .", "person"), ("we went", "neither"), ("Rome", "place"), ("we went", "person")]
    for name, rows in {"train": train, "test": [("we  went", "neither"), ("Bob", "person")]}.items():
        toy.write_table(tmp_path / f"{name}.csv", [{"text": text, "label": label} for text, label in rows])
    settings = toy.text_settings(tmp_path, vocabulary, "data.valid_path=")
    config = load_config(None, settings)
    corpus, summary = read_training_corpus(config)
    facts = find_task("classification").find_facts(config, summary, {}, labels=summary.labels)
    check_other_splits(config, summary.labels, train=corpus, words=summary.words, facts=facts)
    said = capfd.readouterr().err
    path = tmp_path / "train.csv"
    assert f"{path} has a single text for each of 2 labels: 'neither', 'place'" in said
    assert f"'we went' is 'neither' in {path}, line 3 and 'person' in {path}, line 5" in said
    assert f"{tmp_path / 'test.csv'} has no text of label 'place'" in said
    assert f"{tmp_path / 'test.csv'}: 1 of 2 texts are in the training corpus too" in said


@pytest.mark.slow
def test_a_row_length_found_by_trial_and_epochs_of_masked_words_come_before_the_labels(trained, tmp_path, app_process):
    more = ["data.max_length=0", "training.epochs=1", "training.masked_lm.epochs=1", "training.memory_limit_mb=4000"]
    flags = [f"--set={each}" for each in trained.settings("pairs", *more)]
    process = app_process("--mode=finetune", f"--run_dir={tmp_path / 'run'}", *flags, cwd=tmp_path)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    metrics = metrics_of(tmp_path / "run")
    assert metrics["masked_lm/epochs"] == 1 and metrics["train/texts"] == 150
    assert RunDirectory(tmp_path / "run").read_config().data.max_length == 64
