"""A task of one's own, one folder (`tests/third_task`), through the modes that nobody wrote for it."""

import csv
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import toy
from absl import flags
from absl.testing import flagsaver
from served import ask as ask_server
from served import serving

from app.config import InputError, ServeConfig, task_names
from app.config.loading import load_config
from app.evaluation.manifest import VECTORS_FILE
from app.evaluation.runtimes import TFLiteModel, build_predictor, load_saved_model
from app.main import MODES, build_request
from app.run.directory import RunDirectory
from app.serving.runs import plan_versions
from app.tasks import HANDED_ON, TASKS, Registered, find_task, import_tasks, register
from app.tasks.bundle import load_model
from app.tasks.examples import ExampleCorpus, join_examples, split_off_examples, summarize_examples
from app.tasks.network import build_encoder
from app.tasks.task import Task
from app.tasks.whole_text import WholeTextTask

PROJECT = Path(__file__).parents[2]
MOST_WORDS = 12
TEXTS = ["the old house was in Rome", "Ada", "Bob met Cleo and Dan and Ada in the old house in Oslo", ""]


def write_texts(path: Path, count: int, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "length"])
        for length in rng.integers(1, MOST_WORDS + 1, count):
            table.writerow([" ".join(rng.choice(toy.OTHERS, length)), length])


def run_mode(mode: str, run: Path, *settings: str, **more) -> dict:
    """As `python -m app.main --mode=MODE --task_module=third_task` does, in this process."""
    flags.FLAGS.mark_as_parsed()
    given = {"mode": mode, "run_dir": str(run), "set": list(settings), "task_module": "third_task"}
    with flagsaver.flagsaver(**{"config": "", "input": [], "output": "", **given, **more}):
        name, request = build_request()
    return importlib.import_module(MODES[name].module).run(request)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, vocabulary, registry):
    """A run of `--mode=finetune` with what it returned."""
    folder = tmp_path_factory.mktemp("lengths")
    for seed, (split, count) in enumerate({"train": 300, "valid": 60, "test": 60}.items()):
        write_texts(folder / f"{split}.csv", count, seed=seed)
    settings = [flag.removeprefix("--set=") for flag in toy.run_settings(folder, vocabulary)]
    own = {f"data.{split}_path": folder / f"{split}.csv" for split in ("train", "valid", "test")} | {
        "task": "text_length", "training.epochs": 12, "training.batch_size": 8, "training.average_weights_decay": 0,
        "training.checkpoint_every_steps": 0, "training.tensorboard": "false", "model.word_shape": "false",
    }  # fmt: skip
    settings = [each for each in settings if not each.startswith(("model.head=", *(f"{key}=" for key in own)))]
    settings += [f"{key}={value}" for key, value in own.items()]
    metrics = run_mode("finetune", folder / "run", *settings)
    return SimpleNamespace(path=folder / "run", folder=folder, metrics=metrics)


def lengths_of(path: Path) -> np.ndarray:
    with open(path, encoding="utf-8", newline="") as file:
        return np.array([int(row["length"]) for row in csv.DictReader(file)])


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_finetune_learns_it_and_the_best_epoch_is_kept(trained):
    history, metrics = rows_of(trained.path / "history.jsonl"), trained.metrics
    lengths = lengths_of(trained.folder / "test.csv")
    guess = np.abs(lengths - np.median(lengths)).mean()  # the best constant answer
    assert metrics["test/mean_error_in_words"] < guess / 5
    assert metrics["test/closeness"] == pytest.approx(1 / (1 + metrics["test/mean_error_in_words"]))
    scores = [row["valid/closeness"] for row in history]
    assert metrics["valid/closeness"] == pytest.approx(max(scores)) and metrics["train/best_epoch"] > 1
    for row in history:  # squared error in tens of words: never below the square of the mean error
        assert row["valid/loss"] >= (row["valid/mean_error_in_words"] / 10) ** 2 - 1e-6


def test_the_run_directory_speaks_of_texts_and_the_score_of_the_task(trained):
    assert "1 / (1 + mean error in words)" in (trained.path / "report.txt").read_text()
    assert "mean_error_in_words" in (trained.path / "report.html").read_text()
    predictions = rows_of(trained.path / "predictions" / "test.jsonl")
    assert [row["target"] for row in predictions] == lengths_of(trained.folder / "test.csv").tolist()
    errors = [abs(row["length"] - row["target"]) for row in predictions]
    assert np.mean(errors) == pytest.approx(trained.metrics["test/mean_error_in_words"])
    worst = [abs(row["length"] - row["target"]) for row in rows_of(trained.path / "errors" / "test.jsonl")]
    assert worst == sorted((error for error in errors if error), reverse=True)
    assert trained.metrics["test/texts_per_second"] > 0 and trained.metrics["train/texts"] == 12 * 300


def test_evaluate_scores_another_corpus(trained):
    write_texts(trained.folder / "other.csv", 20, seed=9)
    found = run_mode("evaluate", trained.path, f"data.test_path={trained.folder / 'other.csv'}")
    assert 0.7 < found["test/closeness"] != trained.metrics["test/closeness"]
    (folder,) = (trained.path / "evaluations").iterdir()
    assert len(rows_of(folder / "predictions" / "test.jsonl")) == 20


def test_predict_answers_lines(trained, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:3]) + "\n", encoding="utf-8")
    counts = run_mode("predict", trained.path, input=[str(tmp_path / "texts.txt")], output=str(tmp_path / "out.jsonl"))
    assert counts == {"predict/documents": 3, "predict/texts": 3}
    rows = rows_of(tmp_path / "out.jsonl")
    assert [row["text"] for row in rows] == TEXTS[:3]
    assert np.abs([row["length"] - len(row["text"].split()) for row in rows]).max() < 3
    run_mode("predict", trained.path, "predict.format=text", input=[str(tmp_path / "texts.txt")])
    assert capsys.readouterr().out.splitlines()[:2] == [TEXTS[0], f"  length {rows[0]['length']}"]


def test_texts_are_not_ranked_by_a_regression(trained, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    with pytest.raises(InputError, match="predict.rank must be empty: task=text_length does not say how sure it is"):
        run_mode("predict", trained.path, "predict.rank=uncertainty", input=[str(tmp_path / "texts.txt")])


@pytest.mark.slow
def test_exports_answer_as_keras_does(trained):
    found = run_mode("export", trained.path, "export.formats=int8,saved_model", "export.vectors=8")
    for name in ("int8", "saved_model"):
        assert found[f"export/{name}/test/closeness"] == pytest.approx(trained.metrics["test/closeness"], abs=0.05)
    task, model = find_task("text_length"), load_model(trained.path / "model")
    encoder = build_encoder(model, RunDirectory(trained.path).read_config().data)
    predictor = build_predictor(model, encoder, batch_size=4)
    texts = [*TEXTS, " ".join(TEXTS[:3] * 5)]  # the last is longer than a row
    ours = list(task.answer_texts(model, texts, predictor, predictor.config))
    graph = load_saved_model(trained.path / "export" / "saved_model").signatures["serving_default"]
    theirs = task.rows_from_graph(model, {name: value.numpy() for name, value in graph(text=texts).items()})
    assert [row["length"] for row in theirs] == pytest.approx([row["length"] for row in ours], abs=0.02)
    folder = trained.path / "export" / "tflite"
    exported = TFLiteModel(folder / "int8.tflite")
    for vector in rows_of(folder / "test_vectors.jsonl"):
        answer = exported.run({name: np.array([vector[name]]) for name in exported.inputs})["answer"]
        assert answer[0] == pytest.approx(vector["logits"], abs=0.1)
        assert vector["logits"][0] == pytest.approx(len(vector["text"].split()) / 10, abs=0.2)
    manifest = json.loads((folder / "model.json").read_text())
    assert manifest["labels"] == ["text_length"] and manifest["outputs"]["answer"]["shape"] == ["batch", 1]
    assert manifest["files"]["int8.tflite"]["vectors_tagged_as_by_the_float_model"] >= 6
    assert len(rows_of(trained.path / "export" / "saved_model" / "1" / VECTORS_FILE)) == 8
    with serving(trained.path, names=("lengths",), tflite_file="int8") as url:  # auto: the SavedModel
        status, answer = ask_server(url, "/answers", {"texts": texts})
        assert status == 200 and [row["length"] for row in answer["answers"]] == [row["length"] for row in theirs]
        assert ask_server(url, "/v1/models/lengths:predict", {"instances": texts})[0] == 200
        assert ask_server(url, "/entities", {"texts": texts})[1]["error"].endswith("is for text_length: ask /answers")
    with pytest.raises(InputError, match="answers for the tasks tagging and classification, .* is of task=text_length"):
        plan_versions(RunDirectory(trained.path), ServeConfig(runtime="tflite"))


def test_a_fault_in_a_corpus_is_one_sentence(trained, tmp_path):
    (tmp_path / "bad.csv").write_text("text,length\nAda met Bob,3\nAda,one\n")
    with pytest.raises(InputError, match=r"bad.csv, line 3: expected a text and its length"):
        run_mode("evaluate", trained.path, f"data.test_path={tmp_path / 'bad.csv'}")


# The page about tasks, and registration.


def test_the_page_shows_the_task_that_is_tested():
    page = (PROJECT / "docs" / "tasks.md").read_text(encoding="utf-8")
    shown = [block.removesuffix("```") for block in re.findall(r"(?s)```python\n(.*?```)", page)]
    assert shown == [(PROJECT / "tests" / "third_task" / name).read_text() for name in ("__init__.py", "task.py")]


def test_what_the_page_calls_a_method_is_one():
    page = (PROJECT / "docs" / "tasks.md").read_text(encoding="utf-8")
    asked = {row for row in re.findall(r"(?m)^\| (`.*?) \|", page)}
    named = {name for row in asked for name in re.findall(r"`(\w+)`", row)} - {*MODES, "tune"}
    attributes = (name for each in Task.__mro__ for name in vars(each).get("__annotations__", ()))
    known = {*dir(WholeTextTask), *attributes}
    assert len(named) > 25 and named <= known, named - known
    assert Task.__abstractmethods__ | WholeTextTask.__abstractmethods__ <= named


def test_a_run_of_a_task_that_is_not_registered_is_told_how_to_be_read(trained, registry):
    task_names.remove("text_length")
    try:
        with pytest.raises(InputError) as refused:
            load_config(None, defaults=str(trained.path / "config.yaml"))
    finally:
        task_names.append("text_length")
    said = "task must be one of tagging, classification, or one that --task_module registers, received 'text_length'"
    assert str(refused.value).startswith(said)


def test_processes_that_are_started_know_the_task(registry):
    import_tasks("third_task")
    register("other", task="somewhere.task:OTHER")
    assert os.environ[HANDED_ON] == "text_length=third_task.task:TEXT_LENGTH;other=somewhere.task:OTHER"
    code = "from app.tasks import TASKS; from app.config import task_names; print(task_names, TASKS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout == f"{task_names} {TASKS}\n" and "other" in task_names


def test_a_task_without_defaults_does_not_train_on_the_sample_of_another(registry):
    import_tasks("third_task")
    config = load_config(None, ["task=text_length"])
    assert (config.data.train_path, config.data.valid_path, config.data.test_path) == ("", "", "")


@pytest.mark.parametrize(
    ("files", "module", "said"),
    [
        ({}, "no_such_task", "no_such_task: there is no module no_such_task in this folder or in PYTHONPATH"),
        ({"own/__init__.py": ""}, "own.missing", "own.missing: there is no module own.missing in this folder"),
        ({"own.py": "import not_installed"}, "own", "own cannot be imported: No module named 'not_installed'"),
        ({"own.py": "1 / 0"}, "own", "own cannot be imported: ZeroDivisionError: division by zero"),
        ({"own.py": "x = ("}, "own", "own cannot be imported: SyntaxError: '(' was never closed"),
        ({"own.py": ""}, "own", "own registers no task: it must call app.tasks.register"),
        (
            {"own.py": "from app.tasks import register\nregister('tagging', task='own:TASK')"},
            "own",
            "own cannot be imported: ValueError: the task tagging is there already, as app.tasks.tagging.task:TAGGING",
        ),
        (
            {"own.py": "from app.tasks import register\nregister('mine', task='own')"},
            "own",
            "own cannot be imported: ValueError: the task mine is registered as 'module:NAME', received 'own'",
        ),
    ],
)
def test_what_is_wrong_with_a_task_module_is_one_sentence(tmp_path, monkeypatch, files, module, said):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.setattr("app.tasks.TASKS", {name: TASKS[name] for name in ("tagging", "classification")})
    with pytest.raises(InputError) as refused:
        import_tasks(module)
    assert str(refused.value).startswith(f"--task_module={said}") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("OTHER = 1", "AttributeError: module 'mine_task' has no attribute 'TASK'"),
        ("TASK = 1", "must be a Task of this name, received 1"),
        (
            "from app.tasks.task import Task\nclass Mine(Task):\n    name = 'mine'\nTASK = Mine()",
            "TypeError: Can't instantiate abstract class Mine with abstract methods",
        ),
    ],
)
def test_what_is_wrong_with_a_task_is_one_sentence(tmp_path, monkeypatch, content, said):
    (tmp_path / "mine_task.py").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_task", raising=False)
    monkeypatch.setitem(TASKS, "mine", Registered("mine_task:TASK"))
    with pytest.raises(InputError, match="^task=mine: mine_task:TASK ") as refused:
        find_task("mine")
    assert said in str(refused.value)


# What a task gets without writing it.


def corpus_of(*examples: str) -> ExampleCorpus:
    return ExampleCorpus("memory", lambda: examples)


def test_what_is_set_aside_follows_from_the_examples_and_not_from_their_order():
    names = [f"text {number}" for number in range(50)]
    left, aside = (list(part.examples()) for part in split_off_examples(corpus_of(*names), fraction=0.2, seed=1))
    assert len(aside) == 10 and sorted(left + aside) == sorted(names)
    again = split_off_examples(corpus_of(*names[::-1]), fraction=0.2, seed=1)
    assert sorted(again[1].examples()) == sorted(aside)
    assert sorted(split_off_examples(corpus_of(*names), fraction=0.2, seed=2)[1].examples()) != sorted(aside)
    left, aside = split_off_examples(corpus_of("a", "a", "a", "b"), fraction=0.9, seed=0)
    assert {*left.examples()}.isdisjoint(aside.examples()) and list(left.examples()) and list(aside.examples())
    with pytest.raises(InputError, match="no two different examples"):
        split_off_examples(corpus_of("a", "a"), fraction=0.5, seed=0)


def test_a_corpus_is_counted_and_known_by_its_examples():
    whole = join_examples([corpus_of("a b", "c"), corpus_of("d e f")])
    summary = summarize_examples(whole, labels_of=lambda each: each[0], words_of=str.split)
    assert (summary.examples, summary.words, summary.labels) == (3, 6, ("a", "c", "d"))
    assert summary.source == "memory and memory"

    def digest(*examples: str) -> str:
        return summarize_examples(corpus_of(*examples), labels_of=lambda each: (), words_of=str.split).digest

    assert digest("a b", "c", "d e f") == summary.digest != digest("c", "a b", "d e f")
    with pytest.raises(InputError, match="memory holds no example"):
        digest()
