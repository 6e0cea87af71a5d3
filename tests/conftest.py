"""Shared set-up: the program's environment, and the corpora that are not part of the project."""

import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest

import app  # noqa: F401  (sets the environment before any test imports TensorFlow)

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests
import preloaded
import toy

hypothesis.settings.register_profile("project", deadline=None)  # a first call may trace a TensorFlow graph
hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: item.path.parent.name != "modes")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The real corpora: in NER_CORPORA, else in ../shared/corpora beside the checkout; skips without."""
    folder = Path(os.environ.get("NER_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora")
    if not folder.is_dir():
        pytest.skip("real corpora are not at hand (set NER_CORPORA to their folder)")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """(name, what fills a folder) -> the folder, which one of the processes that run the tests makes for all of them.

    Not to be written to: copy it.
    """
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = root / f"once_{name}", root / f"once_{name}.done"
        with open(root / f"once_{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed here
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def vocabulary(made_once) -> Path:
    """The word pieces of the toy corpus (`tests/toy.py`)."""
    return made_once("vocabulary", toy.write_vocabulary) / "vocab.txt"


@cache
def preloaded_server() -> preloaded.Server:
    return preloaded.Server()


def start_app(*arguments: str, cwd: Path, fresh: bool = False, **options) -> subprocess.Popen[str]:
    """`python -m app.main`: a fork of a process that has imported TensorFlow, or a fresh one, as a user starts it."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    if not fresh:
        return preloaded.Preloaded(preloaded_server(), list(arguments), cwd=cwd, **pipes)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "app.main", *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **pipes)


@dataclass(frozen=True)
class TrainedRun:
    """A finished small run: its folder, that of its corpora, where it was made, by which flags, what it printed.

    Not to be written to: copy it.
    """

    path: Path
    corpora: Path
    made_as: Path
    flags: list[str]
    output: str
    messages: str

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.path, folder))


@pytest.fixture(scope="session")
def app_process():
    return start_app


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, made_once, vocabulary) -> TrainedRun:
    """One `--mode=finetune` for all tests that need a finished run."""

    def train(folder: Path) -> None:
        toy.write_corpora(folder)
        flags = toy.run_settings(folder, vocabulary)
        process = start_app("--mode=finetune", f"--run_dir={folder / 'run'}", *flags, cwd=folder)
        output, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages
        (folder / "said.json").write_text(json.dumps([output, messages]))

    folder = made_once("trained", train)
    own = shutil.copytree(folder / "run", tmp_path_factory.mktemp("trained") / "run")  # a run is locked while in use
    said = json.loads((folder / "said.json").read_text())
    return TrainedRun(own, folder, folder / "run", toy.run_settings(folder, vocabulary), *said)


@pytest.fixture(scope="session")
def saved_model(made_once, vocabulary):
    """A SavedModel of a small tagger, and what it was made of."""
    from app.config import ModelConfig, PredictConfig
    from app.evaluation.runtimes import build_predictor, load_saved_model
    from app.export.saved_model import save_as_saved_model

    tagger = toy.make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0), seed=4)
    tagger = dataclasses.replace(tagger, facts={"non_name_types": ("LOC",)})  # both kinds of types
    encoder = toy.make_encoder(tagger)
    folder = made_once("saved_model", lambda folder: save_as_saved_model(tagger, encoder, PredictConfig(), folder))
    predictor = build_predictor(tagger, encoder, batch_size=8)
    loaded = load_saved_model(folder)
    found = {"loaded": loaded, "predictor": predictor, "tagger": tagger, "encoder": encoder}
    return SimpleNamespace(folder=folder, path=folder / "1", **found)


@pytest.fixture(scope="session")
def served_run(tmp_path_factory, made_once, saved_model):
    """A run of that tagger with its exports."""
    import served

    def make(folder: Path) -> None:
        served.make_run(folder / "run", saved_model.tagger, saved_model.encoder, saved_model=saved_model.path)

    return shutil.copytree(made_once("served_run", make) / "run", tmp_path_factory.mktemp("served_run") / "run")


@pytest.fixture(scope="session")
def served_classifier(tmp_path_factory, made_once, vocabulary):
    """A run of a small classifier with its exports: the run, the model, its predictor."""
    import served

    from app.tasks.network import build_encoder

    model = toy.make_classifier(vocabulary)
    encoder = build_encoder(model, served.CONFIG.data)
    made = made_once("served_classifier", lambda folder: served.make_run(folder / "run", model, encoder))
    run = shutil.copytree(made / "run", tmp_path_factory.mktemp("served_classifier") / "run")
    return SimpleNamespace(run=run, model=model, predictor=served.predictor_of(model, encoder))


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by Playwright."""
    from browsing import CHROMIUM

    playwright = pytest.importorskip("playwright.sync_api").sync_playwright().start()
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    yield browser
    browser.close()
    playwright.stop()
