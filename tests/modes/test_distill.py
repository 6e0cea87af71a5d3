"""`--mode=distill` from the command line to the files it leaves."""

import json
import re
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import toy

from app.config import InputError
from app.config.loading import load_config
from app.modes import distill
from app.run.directory import Request, RunDirectory, sha256_of_file
from app.tasks.bundle import load_model

TEXT = "Ada saw Rome. Bob met Cleo in Oslo.\nDan went to Lima and the old house.\n\n" * 12


def settings_of(trained_run, *more: str) -> list[str]:
    """As settings of the finished run, whose one layer the student begins with; later ones win."""
    own = [flag.removeprefix("--set=") for flag in trained_run.flags]
    losses = ["distill.chain_weight=0.5", "distill.hidden.weight=0.1", "distill.relation.weight=0.1"]
    layers = ["distill.student_layers=[0]", "distill.relation.heads=4"]
    return [*own, f"distill.teachers=[{trained_run.path}]", "training.epochs=2", *losses, *layers, *more]


def distil(trained_run, run, *more: str) -> dict:
    return distill.run(Request(load_config(None, settings_of(trained_run, *more)), RunDirectory(run)))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def run_all(trained_run, folder, app_process, runs: dict[str, list[str]]) -> None:
    processes = []
    for name, more in runs.items():
        flags = [f"--set={each}" for each in settings_of(trained_run, *more)]
        processes.append(app_process("--mode=distill", f"--run_dir={folder / name}", *flags, cwd=folder))
    for process in processes:
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages


@pytest.fixture(scope="module")
def students(trained_run, text, tmp_path_factory, app_process):
    """A folder with one finished distillation, on labelled and unlabelled text."""
    folder = tmp_path_factory.mktemp("distilled")
    run_all(trained_run, folder, app_process, {"one": [f"data.unlabelled_path={text}"]})
    return folder


def metrics_of(run) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_a_run_leaves_a_bundle_that_every_mode_reads_and_says_who_the_teachers_were(students, trained_run):
    run, metrics = students / "one", metrics_of(students / "one")
    names = {path.name for path in (run / "model").iterdir()}
    assert names == {path.name for path in (trained_run.path / "model").iterdir()}
    assert str(trained_run.path) in (run / "model" / "README.md").read_text()
    assert metrics["test/entity_f1"] > 0.5 and metrics["train/epochs"] == 2
    words = sum(len(s.words) for s in toy.make_sentences(150, seed=11))
    assert metrics["train/words"] == 2 * (words + len(re.findall(r"\w+|\.", TEXT)))
    assert metrics["distill/parameters"] == metrics["distill/teacher_parameters"]
    assert not list(run.rglob(".tmp-*"))


@pytest.mark.slow
def test_two_replicas_train_the_same_student_as_one_device(trained_run, text, tmp_path, app_process):
    # No random draw that replicas would share out in another way, and an epsilon at which rounding decides nothing.
    equal = [
        f"data.unlabelled_path={text}", "backbone.dropout=0", "model.head_dropout=0", "training.learning_rate=2e-3",
        "training.epsilon=1e-3", "training.epochs=1", "data.valid_path=", "data.test_path=",
    ]  # fmt: skip
    run_all(trained_run, tmp_path, app_process, {"one": equal, "two": [*equal, "training.logical_devices=2"]})
    one, two, begun = (
        load_model(run / "model").network.variables for run in (tmp_path / "one", tmp_path / "two", trained_run.path)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.name)
    assert any(np.abs(a.numpy() - b.numpy()).max() > 1e-3 for a, b in zip(one, begun, strict=True))
    assert metrics_of(tmp_path / "two")["train/words"] == metrics_of(tmp_path / "one")["train/words"]


def break_off_after(steps: int, monkeypatch) -> Iterator[int]:
    """Stops the first training in this process after some steps; gives the numbers of those that follow."""
    from app.training.fit import RunKeeper

    count, real = iter(range(1000)), RunKeeper._stop_asked
    asked = lambda keeper: KeyboardInterrupt if next(count) == steps else real(keeper)  # noqa: E731
    monkeypatch.setattr(RunKeeper, "_stop_asked", asked)
    return count


@pytest.mark.slow
def test_a_student_that_was_broken_off_resumes_to_the_same_bits(students, trained_run, text, tmp_path, monkeypatch):
    count = break_off_after(15, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        distil(trained_run, tmp_path / "run", f"data.unlabelled_path={text}")
    assert not (tmp_path / "run" / "metrics.json").exists()
    metrics = distil(trained_run, tmp_path / "run", f"data.unlabelled_path={text}")
    assert next(count) > 16
    assert metrics["weights_sha256"] == metrics_of(students / "one")["weights_sha256"]


@pytest.mark.slow
def test_answers_of_the_teachers_outlive_a_run_that_is_broken_off_and_may_be_shared(
    trained_run, tmp_path, monkeypatch, capfd
):
    labels_alone = ("distill.hidden.weight=0", "distill.relation.weight=0", "training.epochs=2")
    break_off_after(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        distil(trained_run, tmp_path / "run", *labels_alone)
    answers = tmp_path / "run" / "answers"
    assert len(list(answers.iterdir())) == 1 and "not asked again" not in capfd.readouterr().err
    resumed = distil(trained_run, tmp_path / "run", *labels_alone)
    assert f"is in {answers}: they are not asked again" in capfd.readouterr().err and not answers.exists()
    for name in ("first", "second"):
        metrics = distil(trained_run, tmp_path / name, *labels_alone, f"data.cache_dir={tmp_path / 'shared'}")
        assert metrics["weights_sha256"] == resumed["weights_sha256"]
        assert (f"{tmp_path / 'shared' / 'answers'}: they are" in capfd.readouterr().err) == (name == "second")
        assert not (tmp_path / name / "answers").exists()


@pytest.mark.slow
def test_unlabelled_text_alone_teaches_a_student_of_other_size_from_several_teachers(
    trained_run, students, text, tmp_path
):
    metrics = distil(
        trained_run, tmp_path / "run", "data.train_path=", f"data.unlabelled_path={text}",
        f"distill.teachers=[{trained_run.path}, {students / 'one'}]", "distill.student=backbone",
        "backbone.hidden_dim=8", "training.epochs=1", "model.head=softmax", "data.valid_path=",
    )  # fmt: skip
    assert metrics["train/words"] == len(re.findall(r"\w+|\.", TEXT))
    assert metrics["distill/parameters"] < metrics["distill/teacher_parameters"] / 2
    assert "test/entity_f1" in metrics


@pytest.mark.slow
def test_a_run_may_be_the_student_and_a_backbone_the_teacher(trained_run, students, tmp_path):
    backbone = tmp_path / "backbone" / "model"
    backbone.mkdir(parents=True)
    for name in ("backbone.json", "backbone.weights.h5", "vocab.txt", "SHA256SUMS"):
        shutil.copy(trained_run.path / "model" / name, backbone / name)
    losses = ["distill.soft_weight=0", "distill.chain_weight=0", "training.epochs=1"]
    start = f"init_from={students / 'one'}"
    metrics = distil(trained_run, tmp_path / "run", f"distill.teachers={backbone.parent}", start, *losses)
    assert metrics["test/entity_f1"] > 0.5
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert re.search(r"losses: labels 0\.\d+, hidden \d[\d.]*, relation \d[\d.]*; temperature", card), card
    with pytest.raises(InputError, match=r"has no tagger; a backbone can only be the one teacher"):
        distil(trained_run, tmp_path / "other", f"distill.teachers={backbone.parent}")


BAD = {
    "missing": (["distill.teachers=[runs/none]"], r"distill.teachers: runs/none does not exist"),
    "none": (["distill.teachers=[]"], r"distill.teachers is empty"),
    "half-written": (["distill.teachers=[{half}]"], r"distill.teachers: .*half is not a finished run"),
    "altered": (["distill.teachers=[{altered}]"], r"head.safetensors"),
    "other labels": (["distill.teachers=[{run}, {other}]"], r"must have the same labels: .*O, B-LOC.*B-DRINK"),
    "init_from": (["init_from={other}"], r"init_from: .*other has the labels O, B-DRINK"),
    "corpus": (["data.train_path={drinks}"], r"drinks.conll, line 1: .*DRINK"),
    "no text": (["data.unlabelled_path={empty}"], r"the corpus is empty: .*empty.txt"),
    "no words": (["data.unlabelled_path={blank}"], r"blank.txt holds no word"),
    "nothing": (["data.train_path="], r"data.train_path is empty; distillation needs"),
    "length": (["data.max_length=128", "backbone.max_positions=128"], r"data.max_length must be at most 64"),
    "layers": (["distill.student_layers=[0, 9]"], r"distill.student_layers must name layers of .*received \[0, 9\]"),
}


@pytest.fixture(scope="module")
def faulty(trained_run, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("faulty")
    for name in ("half", "altered", "other"):
        shutil.copytree(trained_run.path, folder / name, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.rmtree(folder / "half" / "model")
    weights = folder / "altered" / "model" / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    settings = folder / "other" / "model" / "tagger.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"labels": ["O", "B-DRINK", "I-DRINK"]}))
    sums = settings.parent / "SHA256SUMS"
    sums.write_text(re.sub("[0-9a-f]{64}(?=  tagger.json)", sha256_of_file(settings), sums.read_text()))
    (folder / "drinks.conll").write_text("Tea B-DRINK\n")
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text("\n  \n")
    files = {"drinks": "drinks.conll", "empty": "empty.txt", "blank": "blank.txt"}
    names = {name: name for name in ("half", "altered", "other")} | files
    return {name: str(folder / file) for name, file in names.items()} | {"run": str(trained_run.path)}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_named_before_anything_is_trained(trained_run, faulty, tmp_path, fault):
    settings, message = BAD[fault]
    with pytest.raises(InputError, match=message):
        distil(trained_run, tmp_path / "run", *[each.format(**faulty) for each in settings])
    assert not (tmp_path / "run").exists()


def test_a_finished_distillation_is_scored_again_without_its_teachers(students, trained_run, text, tmp_path, capfd):
    run = shutil.copytree(students / "one", tmp_path / "run")
    assert not (run / "checkpoints").exists()
    config = (run / "config.yaml").read_text().replace(str(trained_run.path), str(tmp_path / "gone"))
    (run / "config.yaml").write_text(config)
    gone = f"distill.teachers=[{tmp_path / 'gone'}]"
    assert distil(trained_run, run, f"data.unlabelled_path={text}", gone) == metrics_of(students / "one")
    assert "this run is finished" in capfd.readouterr().err
