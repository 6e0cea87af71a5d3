"""`app.api`: the same rows as `--mode=predict` and the same runs as `--mode=finetune`, from Python."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import toy

from app.api import Model, load, train
from app.config import Config, InputError
from app.config.loading import load_config
from app.modes import export, predict
from app.one_keras import keras
from app.run.directory import Request, RunDirectory
from app.run.request import load_run_config

README = """\
from app.api import load
model = load("runs/finetune")
model.predict(["Ada Lovelace lived in London."])
"""
TEXTS = [
    "the old Ada Smith met and saw Rome .", "", "Bob 🎉 went to Lima City .\nCleo was in Jordan .", "\x00 12 ann@x.org",
]  # fmt: skip
SETTINGS = {
    "data.max_length": toy.LENGTH, "data.overlap_tokens": 8, "backbone.source": "random", "backbone.num_layers": 1,
    "backbone.num_heads": 2, "backbone.hidden_dim": 16, "backbone.intermediate_dim": 32,
    "backbone.max_positions": 64, "training.epochs": 2, "training.batch_size": 8, "training.learning_rate": 0.02,
    "training.precision": "float32", "seed": 7,
}  # fmt: skip


def request_of(path, *settings: str, **asked) -> Request:
    run_dir = RunDirectory(path)
    return Request(load_config(None, settings, defaults=str(run_dir.config_yaml)), run_dir, **asked)


def rows_of_the_mode(path, folder: Path, texts: list[str], *settings: str) -> list[dict]:
    """What `--mode=predict` writes for texts."""
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    predict.run(request_of(path, *settings, input=str(source), output=str(target)))
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tagger(trained_run, tmp_path_factory) -> Path:
    """A tagger with its exports."""
    path = trained_run.copy(tmp_path_factory.mktemp("tagger") / "run")
    export.run(request_of(path, "export.formats=float32,saved_model", "export.max_f1_loss=100"))
    return path


@pytest.fixture(scope="module")
def classifier(vocabulary, tmp_path_factory) -> tuple[Path, dict]:
    """A classifier that `train` made, with its exports, and what `train` returned."""
    folder = tmp_path_factory.mktemp("classifier")
    for split, seed, count in (("train", 1, 90), ("valid", 2, 30), ("test", 3, 30)):
        lines = [" ".join(each.words) for each in toy.make_sentences(count, seed=seed)]
        rows = [f"{'house' if 'house' in line else 'other'},{line}" for line in lines]
        (folder / f"{split}.csv").write_text("\n".join(["label,text", *rows]) + "\n")
    config = {
        "task": "classification",
        "data": {f"{split}_path": folder / f"{split}.csv" for split in ("train", "valid", "test")},
        "backbone": {"vocabulary_path": vocabulary},
    }
    metrics = train(config, run_dir=folder / "run", **SETTINGS)
    export.run(request_of(folder / "run", "export.formats=float32,saved_model", "export.max_f1_loss=100"))
    return folder / "run", metrics


@pytest.mark.slow
def test_three_lines_answer_in_a_fresh_python_and_nothing_else_is_on_the_screen(trained_run, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "finetune").symlink_to(trained_run.path)
    program = "import sys\n" + README.replace("model.predict", "rows = model.predict")
    program = program.replace("model =", "assert 'tensorflow' not in sys.modules\nmodel =") + "print(rows)\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = rows_of_the_mode(trained_run.path, tmp_path, ["Ada Lovelace lived in London."])
    assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize("runtime", ["keras", "tflite", "saved_model"])
def test_rows_of_both_tasks_are_those_of_the_mode_by_every_runtime(tagger, classifier, tmp_path, runtime):
    for path, task, key in ((tagger, "tagging", "entities"), (classifier[0], "classification", "scores")):
        model = load(path, runtime, file="float32")
        rows, expected = model.predict(TEXTS), rows_of_the_mode(path, tmp_path, TEXTS)
        assert (model.task, model.runtime, model.run_dir) == (task, runtime, path)
        assert json.loads(json.dumps(rows)) == rows and [list(row) for row in rows] == [list(row) for row in expected]
        assert any(row[key] for row in rows)
        if runtime == "keras":
            assert rows == expected
        else:
            assert _rounded(rows) == _rounded(expected)


@pytest.mark.parametrize("runtime", ["keras", "tflite"])
def test_texts_are_ranked_as_the_mode_ranks_them(tagger, classifier, tmp_path, runtime):
    for path in (tagger, classifier[0]):
        model = load(path, runtime, file="float32")
        expected = rows_of_the_mode(path, tmp_path, TEXTS, "predict.rank=margin")
        rows = model.rank(iter(TEXTS), by="margin", top=3)
        assert [TEXTS[row.pop("number")] for row in rows] == [row["text"] for row in rows]
        assert _rounded(rows) == _rounded(expected[:3]) and len(rows) == 3
        same = model.rank(TEXTS, by="disagreement", other=model)
        assert [row["uncertainty"] for row in same] == [0.0] * len(TEXTS)
    for arguments, said in (({"by": "doubt"}, "ranked by one of"), ({"top": -1}, "top must be a whole number from 0")):
        with pytest.raises(InputError, match=said):
            model.rank(TEXTS, **arguments)
    with pytest.raises(InputError, match="the same task and the same labels"):
        model.rank(TEXTS, by="disagreement", other=load(tagger))


def _rounded(value):
    """Rows with numbers that runtimes agree on."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value


def test_labels_and_settings_are_those_of_the_run_until_the_caller_says_otherwise(tagger, tmp_path):
    (tmp_path / "mine.yaml").write_text("predict: {min_score: 0.999}")
    model = load(tagger)
    assert set(model.labels) == set(toy.LABELS) and repr(model).startswith("<tagging model of ")
    everything = model.predict(TEXTS)
    limit = sorted(entity["score"] for row in everything for entity in row["entities"])[1]
    kept = rows_of_the_mode(tagger, tmp_path, TEXTS, f"predict.min_score={limit}")
    assert load(tagger, min_score=limit).predict(TEXTS) == kept != everything
    assert load(tagger, config={"predict": {"min_score": limit}}).predict(TEXTS) == kept
    assert load(tagger, config=tmp_path / "mine.yaml", min_score=limit).predict(TEXTS) == kept
    whole = load_config(None, [f"predict.min_score={limit}"], defaults=str(tagger / "config.yaml"))
    assert load(tagger, config=whole).predict(TEXTS) == kept


def test_a_classifier_gives_only_the_labels_that_are_sure_enough(classifier, tmp_path):
    path = classifier[0]
    model = load(path, min_score=1)
    assert model.labels == ("house", "other")
    assert [row["label"] for row in model.predict(TEXTS)] == [None] * len(TEXTS)
    settings = ("predict.target_precision=0.9", "predict.split_sentences=false")
    found = load(path, target_precision=0.9, split_sentences=False).predict(TEXTS)
    assert found == rows_of_the_mode(path, tmp_path, TEXTS, *settings)


def test_one_text_is_a_list_of_one_and_texts_may_come_one_by_one(tagger):
    model = load(tagger)
    (row,) = model.predict(TEXTS[0])
    assert [row] == model.predict(iter(TEXTS[:1])) == model.predict(tuple(TEXTS[:1]))
    assert model.predict([]) == []


def test_many_texts_are_answered_as_alone_part_by_part(tagger):
    model = load(tagger)
    long = " ".join(word for sentence in toy.make_sentences(900, seed=9) for word in sentence.words)
    assert len(long) > 2**14
    found = model.predict([long, *TEXTS] * 6)
    assert [row["text"] for row in found] == [long, *TEXTS] * 6
    alone = _without_scores(model.predict([long]) + model.predict(TEXTS))
    assert _without_scores(found) == alone * 6


def _without_scores(rows: list[dict]) -> list[list[tuple]]:
    return [[(entity["start"], entity["end"], entity["label"]) for entity in row["entities"]] for row in rows]


@pytest.mark.parametrize("runtime", ["keras", "tflite"])
def test_threads_share_a_model(tagger, runtime):
    model = load(tagger, runtime, file="float32")
    texts = [" ".join(sentence.words) for sentence in toy.make_sentences(24, seed=8)]
    expected = [model.predict(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(model.predict, texts * 3)) == expected * 3


def test_the_precision_of_a_notebook_stays_and_does_not_count(tagger):
    expected = load(tagger).predict(TEXTS)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = load(tagger)
        assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
        assert model.predict(TEXTS) == expected
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "texts must be a list of texts, received None"),
        (b"Ada", "texts must be a list of texts, received b'Ada'"),
        ({"text": "Ada"}, "texts must be a list of texts, received {'text': 'Ada'}"),
        (["Ada", float("nan")], r"texts\[1\] must be a text, received nan"),
        (["Ada", "Bob \ud83d"], r"texts\[1\] .*surrogate"),
        (["é" * 2**23 + "."], r"texts\[0\] \(16,777,217 bytes\) is longer than a document may be"),
    ],
)
def test_what_is_no_text_is_named(tagger, texts, message):
    with pytest.raises(InputError, match=message) as raised:
        load(tagger).predict(texts)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtime": "onnx"}, "runtime must be one of keras, tflite, saved_model, received 'onnx'"),
        ({"runtime": "tflite", "file": "int4"}, r"file must be one of the exports in .* \(float32\), received 'int4'"),
        ({"min_scor": 1}, r"unknown key predict\.min_scor in keyword arguments; did you mean predict\.min_score\?"),
        ({"min_score": 2}, r"predict\.min_score must be at least 0 and at most 1, received '2' in keyword arguments"),
        ({"min_score": None}, r"predict\.min_score must be .*, received None in keyword arguments"),
        ({"target_precision": 0.9}, r"predict\.target_precision is only for task=classification"),
        ({"task": "classification"}, r"unknown key predict\.task"),
        ({"config": {"task": "classification"}}, "task must be that of the run, tagging"),
        ({"config": {"predict": 3}}, "predict in config is a section and must be a mapping"),
        ({"config": 3}, "config must be a path, received 3"),
        ({"config": "missing.yaml"}, r"cannot read the config missing\.yaml"),
    ],
)
def test_a_mistake_in_what_is_loaded_is_one_sentence(tagger, arguments, message):
    with pytest.raises(InputError, match=message) as raised:
        load(tagger, **arguments)
    assert "\n" not in str(raised.value)


def test_a_run_that_is_missing_or_unfinished_or_has_no_export_is_named(trained_run, tmp_path):
    with pytest.raises(InputError, match=r"missing does not exist: make one with --mode=finetune"):
        load(tmp_path / "missing")
    with pytest.raises(InputError, match="run_dir must be a path, received None"):
        load(None)
    run = trained_run.copy(tmp_path / "run")
    with pytest.raises(InputError, match=r"model\.json does not exist: make it with --mode=export"):
        load(run, "tflite")
    with pytest.raises(InputError, match="holds no SavedModel: make one with --mode=export"):
        load(run, "saved_model")
    shutil.rmtree(run / "model")
    with pytest.raises(InputError, match="has not finished"):
        load(run)


def test_an_export_that_was_refused_says_so(tagger, tmp_path, capsys):
    run = Path(shutil.copytree(tagger, tmp_path / "run"))
    record = {
        "time": "2026-01-01", "split": "valid", "points_lost": 3, "points_lost_95_percent_interval": [2, 4],
        "max_f1_loss": 1, "entity_f1": 0.5, "entity_f1_of_the_float_model": 0.53,
    }  # fmt: skip
    (run / "export" / "refused.json").write_text(json.dumps({"int8": record, "float32": record}))
    with pytest.raises(InputError, match="int8 was refused by --mode=export at 2026-01-01"):
        load(run, "tflite")
    assert isinstance(load(run, "tflite", file="float32"), Model)
    assert "note: float32 was refused" in capsys.readouterr().err


# Training.


@pytest.mark.slow
def test_a_run_of_train_is_one_of_the_command_line(trained_run, tmp_path):
    settings = dict(flag.removeprefix("--set=").split("=", 1) for flag in trained_run.flags)
    metrics = train(run_dir=tmp_path / "run", **settings)
    assert (tmp_path / "run" / "config.yaml").read_text() == (trained_run.path / "config.yaml").read_text()
    made, expected = ({path.name for path in folder.iterdir()} for folder in (tmp_path / "run", trained_run.path))
    assert made == expected
    known = json.loads((trained_run.path / "metrics.json").read_text())
    assert metrics["test/entity_f1"] == pytest.approx(known["test/entity_f1"], abs=0.05)
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {name: written[name] for name in metrics} == metrics
    again = train(run_dir=tmp_path / "run", **settings)  # which is finished
    assert again["test/entity_f1"] == metrics["test/entity_f1"]
    assert load(tmp_path / "run").predict("the old Bob met Ada in Rome .")[0]["entities"]


def test_train_returns_the_metrics_of_a_classifier_and_gives_the_precision_back(classifier):
    path, metrics = classifier
    assert metrics["train/epochs"] == 2 and 0 < metrics["test/accuracy"] <= 1
    assert "scores" in load(path).predict("the house .")[0]
    assert keras.mixed_precision.global_policy().name == "float32"


def test_settings_are_the_same_as_sections_keys_files_and_a_whole_config(tmp_path):
    def resolved(source, **settings) -> Config:
        return load_run_config("finetune", RunDirectory(tmp_path / "new"), source, settings)

    expected = load_config(None, ["training.epochs=3", "training.learning_rate=3e-5", "seed=4"])
    (tmp_path / "mine.yaml").write_text("training: {epochs: 3, learning_rate: 3e-5}\nseed: 9")
    sections = {"training": {"epochs": 3, "learning_rate": 3e-5}, "seed": 9}
    assert resolved(sections, seed=4) == expected
    assert resolved({"training.epochs": 3}, training={"learning_rate": 3e-5}, seed=4) == expected
    assert resolved(str(tmp_path / "mine.yaml"), seed=4) == expected
    steps = ("prune_structured", "cluster")
    listed = load_config(None, [f"compression.steps={','.join(steps)}", "data.strict=true"])
    for written in (steps, list(steps), "prune_structured, cluster"):
        assert resolved({"compression": {"steps": written}, "data": {"strict": True}}) == listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "predict"}, r"mode must be one of pretrain, finetune, .*, tune, received 'predict'"),
        ({"training.epoch": 1}, r"unknown key training\.epoch in keyword arguments; did you mean training\.epochs\?"),
        ({"data.train_path": "missing.conll"}, r"data\.train_path: missing\.conll is missing"),
        ({"training": {"epochs": "many"}}, r"training\.epochs must be an integer, received 'many'"),
        ({"config": {"sedd": 1}}, "unknown key sedd in config; did you mean seed"),
        ({"mode": "compress", "init_from": "missing"}, "missing does not exist"),
        ({"run_dir": ""}, "run_dir must be a path, received ''"),
    ],
)
def test_a_mistake_in_a_training_is_told_before_it_begins(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        train(**{"run_dir": tmp_path / "run", **arguments})
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_is_replaced_only_on_request(classifier, tmp_path):
    run = Path(shutil.copytree(classifier[0], tmp_path / "run"))
    other = load_config(None, ["training.learning_rate=0.001"], defaults=str(run / "config.yaml"))
    with pytest.raises(InputError, match=r"training\.learning_rate was 0\.02, now 0\.001; start over with --overwrite"):
        train(other, run_dir=run)
    metrics = train(other, run_dir=run, overwrite=True, **{"training.epochs": 1})
    assert metrics["train/epochs"] == 1
    assert load_config(None, defaults=str(run / "config.yaml")).training.learning_rate == 0.001
