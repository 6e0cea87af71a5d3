"""Modes room: score a finished run on its own or on another corpus."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from app.artifacts import Request, RunDirectory
from app.config import Config
from app.evaluation.predictor import Forward
from app.evaluation.tflite_runtime import load_tflite_forward
from app.export.saved_model import SavedModelForward, load_saved_model
from app.models.tagger import Tagger
from app.models.tagger_bundle import load_tagger
from app.modes.scoring import (
    build_encoder,
    build_predictor,
    is_same_split,
    open_scored_split,
    score_split,
    show_results,
)


def run(request: Request) -> dict[str, float]:
    """Evaluates the model of a run directory on `evaluation.split`; never touches a weight.

    Scores of the run's own corpus go to the run directory, those of another one to `evaluations/NAME/` inside it.
    """
    config, run_dir = request.config, request.run_dir
    split = config.evaluation.split
    tagger = load_tagger(run_dir.model)
    purpose = f"evaluation.split is {split}, so it must name a corpus"
    corpus = open_scored_split(config.data, split, labels=tagger.labels, purpose=purpose)
    forward = FORWARDS[config.predictor](config, run_dir, tagger)
    encoder = build_encoder(tagger, config.data)
    predictor = build_predictor(tagger, encoder, batch_size=config.evaluation.batch_size, forward=forward)
    with run_dir.locked():
        own = is_same_split(config.data, run_dir.read_config().data, split)
        target = _target(run_dir, corpus.source, own=own, runtime=_runtime(config))
        if target is not run_dir:
            target.write_config(config)
            target.write_environment(seed=config.seed, command=sys.argv)
        found = score_split(predictor, corpus.sentences(), split=split, run_dir=target, headline=True)
        show_results(target, model=run_dir.model)
    return found


def _target(run_dir: RunDirectory, source: str, *, own: bool, runtime: str) -> RunDirectory:
    """Where the scores go: another corpus or another runtime must not replace the run's own numbers."""
    if own and not runtime:
        return run_dir
    name = re.sub(r"[^\w.-]+", "-", Path(source).name).strip("-.") or "corpus"
    return RunDirectory(run_dir.path / "evaluations" / f"{name}{runtime}")


def _runtime(config: Config) -> str:
    """Distinguishes the scores of an export; empty for the model itself."""
    names = {"keras": "", "tflite": f".tflite-{config.evaluation.tflite_file}"}
    return names.get(config.predictor, f".{config.predictor}")


# What `predictor` may name: a forward pass, or None for the Keras network.
FORWARDS: dict[str, Callable[[Config, RunDirectory, Tagger], Forward | None]] = {
    "keras": lambda config, run_dir, tagger: None,
    "tflite": lambda config, run_dir, tagger: load_tflite_forward(
        run_dir.tflite, config.evaluation.tflite_file, labels=tagger.labels
    ),
    "saved_model": lambda config, run_dir, tagger: SavedModelForward.of(
        load_saved_model(run_dir.saved_model), labels=len(tagger.labels)
    ),
}
