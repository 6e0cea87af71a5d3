"""A run with exits, from `--mode=finetune` to answers that say at which layer they were found."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import toy

from app.compression.bench import move_exits
from app.config.loading import load_config
from app.evaluation.frontier_rounds import enter_tflite, make_batches, open_runs
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import score
from app.modes import compress, distill, evaluate, export, finetune, predict
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import load_model
from app.tasks.corpora import open_split
from app.tasks.exit_table import read_table
from app.tasks.tagging.task import TAGGING

pytestmark = pytest.mark.slow

EXITS = [
    "model.exit_layers=1,2", "model.exit_reach=3", "backbone.num_layers=3", "training.epochs=2",
    "predict.max_f1_loss=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, vocabulary):
    folder = tmp_path_factory.mktemp("exits")
    toy.write_corpora(folder)
    own = [flag.removeprefix("--set=") for flag in toy.run_settings(folder, vocabulary)]
    run_dir = RunDirectory(folder / "run")
    config = load_config(None, [*own, *EXITS])
    return SimpleNamespace(dir=run_dir, folder=folder, found=finetune.run(Request(config, run_dir)))


def request_of(run_dir: RunDirectory, *settings: str, **more) -> Request:
    return Request(load_config(None, list(settings), defaults=str(run_dir.config_yaml)), run_dir, **more)


def test_the_model_keeps_its_exits_and_what_they_cost(run):
    model = load_model(run.dir.model)
    assert [each.layer for each in model.exits] == [1, 2] and model.head.reach == 3
    rows = read_table(model.facts, model.config.exit_layers)
    assert rows[0].threshold == 0 and len(rows) > 2
    assert "temperature" in model.facts
    kernels = [variable.numpy() for name, variable in model.own_variables().items() if name.endswith("kernel")]
    assert len(kernels) == 3 and not np.allclose(kernels[0], kernels[1])
    assert run.found["test/exit_operations"] < 1
    page = run.dir.report_html.read_text()
    assert "operations saved by exits" in page and "Early exits" in page
    assert "of the encoder's operations saved" in run.dir.report_txt.read_text()


def test_evaluation_gives_the_numbers_of_the_run_and_without_exits_those_of_the_whole_network(run):
    again = evaluate.run(request_of(run.dir))
    for name in ("test/entity_f1", "test/exit_operations", "test/exit_layer"):
        assert again[name] == run.found[name]
    whole = evaluate.run(request_of(run.dir, "predict.max_f1_loss=0"))
    assert "test/exit_operations" not in whole
    (folder,) = (run.dir.path / "evaluations").iterdir()
    assert folder.name.endswith(".max_f1_loss-0.0")
    assert run.dir.read_metrics()["test/entity_f1"] == run.found["test/entity_f1"]


def test_predict_says_at_which_layer_a_text_left(run, tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("Ada went to Rome .\nthe house was old .\n")
    for setting, allowed in (("predict.max_f1_loss=100", {1}), ("predict.max_f1_loss=0", {None})):
        predict.run(request_of(run.dir, setting, input=str(source), output=str(target)))
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        assert len(rows) == 2 and {row.get("layer") for row in rows} == allowed


def test_exports_leave_early_and_are_scored_so(run, tmp_path):
    path = RunDirectory(run.dir.path.parent / "exported")
    shutil.copytree(run.dir.path, path.path)
    formats = "export.formats=float32_early,int8_early,saved_model"
    found = export.run(request_of(path, formats, "predict.max_f1_loss=100", "export.max_f1_loss=100"))
    manifest = json.loads((path.tflite / "model.json").read_text())
    for name in ("float32_early", "int8_early"):
        entry = manifest["files"][f"{name}.tflite"]
        assert entry["exit_layers"] == [1, 2] and entry["exit_threshold"] > 0
        assert entry["exit_operations"] == pytest.approx(1 / 3) and "IF" in entry["operators"]
    assert "export/saved_model/test/entity_f1" in found
    (version,) = path.saved_model.iterdir()
    vectors = [json.loads(line) for line in (version / "assets.extra/test_vectors.jsonl").read_text().splitlines()]
    assert vectors and {row["layer"] for row in vectors} == {1}
    chosen = ("predict.max_f1_loss=100", "evaluation.tflite_file=float32_early")
    keras = evaluate.run(request_of(path, *chosen))
    for runtime in ("saved_model", "tflite"):
        scores = evaluate.run(request_of(path, f"predictor={runtime}", *chosen))
        for name in ("test/exit_operations", "test/entity_f1"):
            assert scores[name] == pytest.approx(keras[name], abs=1e-6)
    config = request_of(path, *chosen).config
    (opened,) = open_runs(path, (), config.data)
    entrant = enter_tflite(opened, "float32_early", 1)
    sentences = list(open_split(config, "test").examples())
    batches = make_batches(opened, sentences, 1)
    assert sum(batch["word_starts"].sum() for batch in batches) == sum(map(TAGGING.count_units, sentences))
    predictor = build_predictor(opened.tagger, opened.encoder, batch_size=4, forward=entrant.forward)
    scored = score(replace(predictor, early=entrant.early), sentences)
    assert scored.headline == pytest.approx(keras["test/entity_f1"], abs=1e-6)


def test_a_run_with_exits_can_be_pruned_and_quantized_with_the_answers_of_its_teacher(run):
    path = RunDirectory(run.folder / "compressed")
    settings = {
        "init_from": run.dir.path, "compression.steps": "prune_structured,quantize_aware",
        "compression.prune_structured.removed_layers": 1, "compression.prune_structured.rounds": 1,
        "compression.prune_structured.last_epochs": 1, "compression.prune_structured.importance_steps": 1,
        "compression.quantize_aware.epochs": 1, "compression.latency_length": 16,
        "model.exit_layers": "", "model.exit_reach": 4,  # those of the run that is compressed stay
    }  # fmt: skip
    given = [f"{key}={value}" for key, value in settings.items()]
    compress.run(Request(load_config(None, given, defaults=str(run.dir.config_yaml)), path))
    model = load_model(path.model)
    assert len(model.backbone.model.transformer_layers) == 2
    assert model.config.exit_layers == (1,) and model.head.reach == 3
    rows = read_table(model.facts, (1,))
    assert rows[-1].operations < 1 and rows[-1].layer == pytest.approx(1)


def test_distillation_gives_a_student_exits(run):
    path = RunDirectory(run.folder / "student")
    given = [
        f"distill.teachers={run.dir.path}", "distill.student=teacher_layers", "distill.student_layers=0,1",
        "model.exit_layers=1", "model.exit_reach=1", "training.epochs=1", "distill.chain_weight=0.5",
    ]  # fmt: skip
    distill.run(Request(load_config(None, given, defaults=str(run.dir.config_yaml)), path))
    teacher, student = load_model(run.dir.model), load_model(path.model)
    moved, copied = (each.own_variables()["exit_1/kernel"].numpy() for each in (student, teacher))
    assert np.any(moved != copied) and student.head.reach == 1
    assert read_table(student.facts, (1,))


def test_exits_move_with_the_layers_that_are_left():
    assert move_exits((2, 4), [0, 1, 2, 3, 4, 5]) == {2: 2, 4: 4}
    assert move_exits((2, 4), [0, 3, 4]) == {1: 2, 2: 4}
    assert move_exits((2, 4), [0, 5]) == {1: 4}  # both would stand above layer 0
    assert move_exits((2, 4), [4, 5]) == {}
    assert move_exits((2, 4), [0, 1]) == {}
