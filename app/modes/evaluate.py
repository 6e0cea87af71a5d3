"""Modes room: score a finished run on its own or on another corpus."""

from app.artifacts import Request
from app.config import InputError
from app.data.corpus import summarize
from app.models.tagger_bundle import load_tagger
from app.modes.scoring import build_encoder, build_predictor, open_split, score_split, show_results


def run(request: Request) -> dict[str, float]:
    """Evaluates the model of a run directory on `evaluation.split`; never touches a weight."""
    config, run_dir = request.config, request.run_dir
    split = config.evaluation.split
    tagger = load_tagger(run_dir.model)
    corpus = open_split(config.data, split, labels=tagger.labels)
    if corpus is None:
        raise InputError(f"data.{split}_path is empty; evaluation.split is {split}, so it must name a corpus")
    summarize(corpus)
    with run_dir.locked():
        predictor = build_predictor(
            tagger, build_encoder(tagger, config.data), batch_size=config.evaluation.batch_size
        )
        found = score_split(
            predictor, corpus.sentences(), split=split, run_dir=run_dir, headline=True
        )
        show_results(run_dir)
    return found
