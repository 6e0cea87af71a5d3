"""Modes room: a finished run as files for other runtimes, none of which is kept unless its own runtime scores well."""

from pathlib import Path

from app.config import RunError
from app.config.rules import require_formats
from app.evaluation.gate import Gate, Refused
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import score
from app.export.exporters import EXPORTERS, Exporting, make_writer
from app.export.rows import make_vectors
from app.export.version_files import keep_newest_version_files
from app.run.directory import Request
from app.run.screen import heartbeat, say
from app.tasks.bundle import load_model
from app.tasks.corpora import read_scored_split
from app.tasks.network import build_encoder


def run(request: Request) -> dict[str, float]:
    """Exports the formats of `export.formats`, each for itself: one that is refused or fails leaves the others.

    Raises:
        RunError: a format was refused; the message says which and by how much. All others are written.
    """
    config, run_dir = request.config, request.run_dir
    require_formats(config)
    model = load_model(run_dir.model)
    task = model.task
    encoder = build_encoder(model, config.data)
    split = config.evaluation.split
    purpose = f"exports are scored on evaluation.split={split} before they are kept"
    corpus, summary = read_scored_split(config, split, model=model, purpose=purpose)
    with run_dir.locked():
        predictor = build_predictor(model, encoder, batch_size=config.evaluation.batch_size)
        with heartbeat("scoring the float model"):
            scored = score(predictor, corpus.examples())
        say(f"{'float model':<12} {task.headline_name} {scored.headline:.4f} on {corpus.source}")
        writer = make_writer(config, model, encoder, run_dir)
        vectors = make_vectors(predictor, encoder, corpus, count=config.export.vectors)
        scored_on = {"corpus": Path(corpus.source).name, "corpus_sha256": summary.digest, "split": split}
        gate = Gate(run_dir, config.export.max_f1_loss, scored_on)
        job = Exporting(config, model, encoder, corpus, scored, gate, predictor, vectors, run_dir, writer)
        metrics: dict[str, float] = {f"export/float/{split}/{task.headline}": scored.headline}
        refused = []
        for name in dict.fromkeys(config.export.formats):
            try:
                with heartbeat(f"{name:<12} converting and scoring"):
                    metrics |= EXPORTERS[name](job)
                gate.passed(name)
            except Refused as error:
                refused.append(str(error))
                say(str(error))
        run_dir.update_metrics(metrics)
        keep_newest_version_files(run_dir)
    if refused:
        raise RunError("; ".join(refused))
    return metrics
