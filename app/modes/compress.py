"""Modes room: make a fine-tuned tagger smaller and faster, step by step, each step scored."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from app.compression.bench import Workbench, measure_latency_ms
from app.compression.catalog import STEPS
from app.compression.prune_structured import check_removed_layers
from app.config import Config
from app.config.rules import check_latency_length, require_steps
from app.encoder.bundle import read_layer_count, read_position_count
from app.encoder.parts import parts_of
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import score, score_again, score_run
from app.run.directory import Request, RunDirectory, sha256_of_arrays
from app.run.files import discard
from app.run.screen import heartbeat
from app.tasks import find_task
from app.tasks.bundle import load_model, read_facts, read_labels
from app.tasks.corpora import (
    START,
    Corpora,
    check_other_splits,
    describe_corpora,
    describe_weights,
    labelled_sources,
    open_split,
    read_training_corpus,
    summarize,
    summarize_unlabelled,
)
from app.tasks.network import TaskModel, build_encoder
from app.tasks.running_text import find_sources
from app.tasks.task import Corpus, Facts
from app.training.sessions import TaskTraining, open_run, say_devices
from app.training.strategy import build_strategy, list_devices, set_up
from app.training.workers import Workers

MODE = "compress"


def run(request: Request) -> dict[str, float]:
    """Compresses the model of the run `init_from`, then scores the validation and the test split."""
    config, run_dir = request.config, request.run_dir
    require_steps(request.config, run_dir=request.run_dir.path)
    if run_dir.plan_training(config, mode=MODE, overwrite=request.overwrite) == "finished":
        scored = score_again(request, mode=MODE)
        if scored:  # by the chief
            print(run_dir.compression_txt.read_text(encoding="utf-8"))
        return scored
    strategy = build_strategy(config.training)  # before anything computes with TensorFlow
    workers = Workers(strategy)
    start = RunDirectory(config.init_from).model
    labels, facts = list(read_labels(start)), read_facts(start)
    train, summary = read_training_corpus(config, labels=labels)
    find_task(config.task).check_fits(summary, facts)
    others = check_other_splits(config, labels, train=train, words=summary.words, facts=facts)
    corpora = describe_corpora(config.data, {"train": summary, **others})
    other = _open_other(config, labels, facts)
    corpora |= describe_weights(START, [config.init_from]) | _check_steps(config)
    with workers.watched(run_dir.path), open_run(request, workers, mode=MODE, corpora=corpora):
        precision = set_up(config.training, seed=config.seed)
        say_devices(list_devices(strategy), precision, workers)
        training = TaskTraining(config, run_dir, strategy, precision)
        bench = Workbench(training, labels, train, summary)
        _go_through_steps(bench, config, other, is_chief=workers.is_chief)
        if not workers.is_chief:
            return {}
        metrics = _finish(bench, config, run_dir)
        print(bench.state.table())
        return metrics | score_run(config, run_dir)


def _check_steps(config: Config) -> Corpora:
    """Looks into what steps read, and returns the text without labels among it as an entry of `corpora.json`.

    Raises:
        InputError: for what a step would find wrong only when the steps before it have taken their hours.
    """
    unlabelled: Corpora = {}
    compression, path = config.compression, config.data.unlabelled_path
    check_latency_length(compression, positions=read_position_count(RunDirectory(config.init_from).model))
    if "trim_vocabulary" in compression.steps and path:
        sources = find_sources(path, tfds_dir=config.data.tfds_dir)
        limit = config.distill.unlabelled_limit_words
        _, unlabelled = summarize_unlabelled(find_task(config.task), sources, limit_words=limit)
    if "prune_structured" in compression.steps:
        layers = read_layer_count(RunDirectory(config.init_from).model)
        check_removed_layers(compression.prune_structured.removed_layers, of=layers)
    return unlabelled


def _go_through_steps(bench: Workbench, config: Config, other: Corpus | None, *, is_chief: bool) -> None:
    """Every step, and a row of the table before the first and after each; the whole table is left to `run`."""
    state, steps = bench.state, ("", *config.compression.steps)
    for number, name in enumerate(steps):
        if number < len(state.rows):
            continue
        bench.step = name
        if name:
            STEPS[name]().run(bench)
        with heartbeat(f"measuring after {name or 'nothing'}", shown=is_chief):
            row = _measure(bench.stage / "model", config, other) if is_chief else {}
        state.rows.append({"step": name or "(nothing)"} | row)
        state.save()
        if len(state.rows) < len(steps):
            bench.say(state.table())


def _finish(bench: Workbench, config: Config, run_dir: RunDirectory) -> dict[str, Any]:
    """The last stage becomes the run's model."""
    if not bench.state.finished:
        tagger = load_model(bench.stage / "model")
        bench.save(tagger, run_dir.model, card=_card(config, bench.state.table(), tagger))
        bench.state.finished = True
        bench.state.save()
    discard(run_dir.stages)
    variables = load_model(run_dir.model).whole.trainable_variables
    last = {f"compress/{key}": value for key, value in bench.state.rows[-1].items() if key != "step"}
    metrics = last | {"weights_sha256": sha256_of_arrays((v.name, v.numpy()) for v in variables)}
    run_dir.write_training_metrics(metrics)
    run_dir.mark_trained(config, mode=MODE)
    return metrics


def _open_other(config: Config, labels: list[str], facts: Facts) -> Corpus | None:
    path = config.compression.trim_vocabulary.other_path
    if not path:
        return None
    task = find_task(config.task)
    corpus = task.open_corpus(config, path, split="test", labels=labels)
    task.check_fits(summarize(corpus, config), facts)
    return corpus


def _measure(folder: Path, config: Config, other: Corpus | None) -> dict[str, Any]:
    """A row of the table, read off the bundle as it was written."""
    tagger = load_model(folder)
    weights = [variable.numpy() for variable in _variables(tagger)]
    files = [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".h5", ".safetensors")]
    row: dict[str, Any] = {
        "parameters": sum(array.size for array in weights),
        "nonzero_parameters": sum(int(np.count_nonzero(array)) for array in weights),
        "weights_mb": sum(map(len, files)) / 1e6,
        "gzip_mb": sum(len(gzip.compress(content, 6, mtime=0)) for content in files) / 1e6,
        **_structure(tagger),
        "latency_ms": measure_latency_ms(tagger, length=config.compression.latency_length),
    }
    encoder = build_encoder(tagger, config.data)
    predictor = build_predictor(tagger, encoder, batch_size=config.evaluation.batch_size)
    valid = open_split(config, "valid", labels=tagger.labels)
    for name, corpus in (("valid", valid), ("other", other)):
        if corpus is not None:
            scored = score(predictor, corpus.examples())
            row[f"{name}_f1"] = scored.headline
            words = [word for example in scored.examples for word in tagger.task.words_of(example)]
            row["pieces_per_word" if name == "valid" else "other_pieces_per_word"] = len(
                encoder.pieces.encode(words).ids
            ) / len(words)
    return row


def _structure(tagger: TaskModel) -> dict[str, float]:
    """What pruning and clustering left in the kernels and the word embeddings."""
    model = tagger.backbone.model
    kernels = [dense.kernel.numpy() for layer in model.transformer_layers for dense in parts_of(layer).dense]
    kernels.append(model.token_embedding.embeddings.numpy())
    zeros = sum(array.size - int(np.count_nonzero(array)) for array in kernels)
    return {
        "sparsity": zeros / sum(array.size for array in kernels),
        "distinct_values": max(len(np.unique(array)) for array in kernels),
    }


def _variables(tagger: TaskModel) -> list:
    return [*tagger.backbone.model.variables, *tagger.own_variables().values()]


def _card(config: Config, table: str, tagger: TaskModel) -> str:
    """The model card beside the weights."""
    task = tagger.task
    corpora = ", ".join(f"`{path}`" for path in labelled_sources(config.data))
    return f"""# {task.title}, compressed

- {task.describe_labels(tagger.labels)}
- Made from: `{config.init_from}` by {", ".join(config.compression.steps)}; seed {config.seed}
- Trained on: {corpora}; scores: `../metrics.json`, `../report.txt`
{task.caution}
- Use: `python -m app.main --mode=predict --run_dir=RUN --input=FILE`

What each step did (latency: one text of {config.compression.latency_length} pieces in Keras, on the machine that
compressed it):

```
{table}```
"""
