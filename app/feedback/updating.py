"""Feedback room: a run that learns from corrections, is compared with what is live, and goes on trial if it passes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import Config, RunError, TrainingConfig
from app.config.paths import shown
from app.data.encoding import Encoder
from app.evaluation.gate import Gate
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import build_validation, finish_run, score, score_again, write_scores
from app.export.exporters import Scoring
from app.export.rows import make_vectors
from app.feedback.lineage import name_live, read_update
from app.feedback.on_trial import put_on_trial
from app.feedback.preparing import (
    Lesson,
    Update,
    describe_sizes,
    draw_replay,
    learnable,
    note_beginning,
    now_as_text,
    prepare,
    read_corpora,
)
from app.feedback.verdict import Part, Verdict, compare, decide, describe, find_changes
from app.run.directory import Request, RunDirectory
from app.run.screen import count_of, heartbeat, say
from app.tasks.bundle import load_model, start_model, with_exits_of
from app.tasks.corpora import describe_corpora, read_scored_split
from app.tasks.network import TaskModel, build_encoder
from app.tasks.task import Scored
from app.training.fit import run_fit
from app.training.sessions import TaskTraining, open_run, say_devices
from app.training.strategy import build_strategy, list_devices, set_up
from app.training.workers import Workers

MODE = "update"
_SHARE_OF_RATE = 0.25  # of the learning rate with which the run was trained


def update(request: Request) -> dict[str, float]:
    """Trains the live model of `init_from` on corrections, compares the two, and exports it if it is better.

    Raises:
        RunError: it is not better, or worse on the old corpus; everything is written, and what is live stays.
    """
    config, run_dir = request.config, request.run_dir
    plan = run_dir.plan_training(config, mode=MODE, overwrite=request.overwrite)
    if plan == "finished":
        found = prepare(config, run_dir, resumes=True)
        metrics = score_again(request, mode=MODE)
        with run_dir.locked():
            return metrics | judge(found)
    strategy = build_strategy(config.training)  # before anything computes with TensorFlow
    workers = Workers(strategy)
    found = prepare(config, run_dir, resumes=plan == "resume")
    _warn_of_few(found)
    train, summary, others = read_corpora(found)
    corpora = describe_corpora(config.data, {"train": summary, **others})
    with workers.watched(run_dir.path), ExitStack() as opened:
        precision = set_up(config.training, seed=config.seed)
        say_devices(list_devices(strategy), precision, workers)
        with strategy.scope():
            known = with_exits_of(config, found.start.model)
            model = start_model(known, found.labels, init_from=str(found.start), facts=found.facts)
        if model.exits and not config.data.valid_path:
            say(f"warning: data.valid_path is empty, so the thresholds of the exits stay those of {found.start}")
        encoder = build_encoder(model, config.data)
        opened.enter_context(open_run(request, workers, mode=MODE, corpora=corpora))
        note_beginning(found)
        replayed = draw_replay(found, train)
        say(describe_sizes(found, len(replayed)))
        if found.start.read_state().get("mode") == "compress" and not config.training.keep_structure:
            say(f"note: {found.start} is compressed; training.keep_structure=true keeps its zeros and shared values")
        training = TaskTraining(config, run_dir, strategy, precision)
        metrics = _train(model, encoder, [*learnable(found), *replayed], found, training)
        metrics |= {
            "update/corrections": found.learnt.texts,
            "update/replayed": len(replayed),
            "update/held_out/texts": found.held_out.texts,
        }
        card = _card(found, len(replayed))
        metrics = finish_run(model, metrics, card=card, config=config, run_dir=run_dir, mode=MODE)
        return metrics | judge(found)


def _train(
    model: TaskModel, encoder: Encoder, examples: Iterable[Any], found: Update, training: TaskTraining
) -> dict[str, Any]:
    """The last weights are kept: the validation corpus knows only what could be done before, so it must not choose."""
    settings, examples = _settings(found.config), list(examples)
    words = sum(len(found.task.words_of(example)) for example in examples)
    made_from = (found.selection.ids(), found.config.update, found.config.seed)
    store = training.store(encoder.training_rows(examples), encoder, words=words, made_from=made_from)
    validate = build_validation(model, encoder, found.config)
    plan = training.plan(store, settings, depths=model.layer_depths(), validate=validate)
    plan = dataclasses.replace(plan, first_kept_epoch=settings.epochs)
    with training.strategy.scope():
        return run_fit(training.tuner(model, encoder, settings), settings, plan)


def _settings(config: Config) -> TrainingConfig:
    rate = config.update.learning_rate or _SHARE_OF_RATE * config.training.learning_rate
    return dataclasses.replace(
        config.training, epochs=config.update.epochs, learning_rate=rate, early_stopping_patience_epochs=0
    )


# The update beside the model that is live.

_TITLES = {"held_out": "corrections held out", "learnt": "corrections learnt"}


@dataclass(frozen=True)
class Compared:
    """Examples as both models answer them.

    Attributes:
        name: of the part; title: in words.
        before: of the model that is live; after: of the update.
        owners: see `Lesson`; empty = each example is a text of its own.
    """

    name: str
    title: str
    before: Scored
    after: Scored
    owners: list[int]

    def part(self, found: Update) -> Part:
        return compare(
            found.task,
            self.before,
            self.after,
            name=self.name,
            title=self.title,
            confidence=found.config.update.confidence,
            owners=self.owners,
        )


def judge(found: Update) -> dict[str, float]:
    """Compares the two models, writes the verdict and the report, and puts an update that passed on trial.

    Raises:
        RunError: it did not pass.
    """
    config, run_dir, split = found.config, found.run_dir, found.config.evaluation.split
    before, after = (_open(found, run) for run in (found.start, run_dir))
    purpose = f"an update must be no worse on evaluation.split={split}"
    corpus, summary = read_scored_split(config, split, model=after.model, purpose=purpose)
    lessons = {"held_out": found.held_out, "learnt": found.learnt, split: Lesson([*corpus.examples()], [])}
    compared = {}
    for name, lesson in lessons.items():
        title = _TITLES.get(name, name)
        with heartbeat(f"scoring {title}"):
            if lesson.examples:
                was, now = (score(each, lesson.examples) for each in (before, after))
                compared[name] = Compared(name, title, was, now, lesson.owners)
    _warn_of_shared(found, lessons[split].examples)
    parts = {name: each.part(found) for name, each in compared.items()}
    verdict = decide(parts[split], parts.get("held_out"), [parts["learnt"]], config.update)
    metrics = _write_verdict(found, verdict, (before, after), compared)
    if not verdict.passed:
        raise RunError(
            f"{run_dir} does not go live, {name_live(found.serving)} stays: {'; '.join(verdict.reasons)}; what changed "
            f"is in {run_dir.report_html}"
        )
    if config.update.export:
        scored_on = {"corpus": Path(corpus.source).name, "corpus_sha256": summary.digest, "split": split}
        gate = Gate(run_dir, config.export.max_f1_loss, scored_on)
        old = compared[split]
        jobs = []
        for predictor, scored in ((before, old.before), (after, old.after)):
            encoder = build_encoder(predictor.model, config.data)
            vectors = make_vectors(predictor, encoder, corpus, count=config.export.vectors)
            jobs.append(Scoring(config, predictor.model, encoder, corpus, scored, gate, predictor, vectors))
        put_on_trial(found, *jobs)
    return metrics


def _warn_of_few(found: Update) -> None:
    """Says before the training if the update cannot go live."""
    settings, texts = found.config.update, found.held_out.texts
    if settings.require_better and texts < settings.min_held_out:
        wanted = math.ceil(settings.min_held_out / settings.held_out_fraction) if settings.held_out_fraction else 0
        takes = f"that takes about {count_of(wanted, 'corrected text')}, or"
        more = takes if wanted else "set update.held_out_fraction, or"
        held_out = f"{count_of(texts, 'corrected text')} {'is' if texts == 1 else 'are'} held out"
        say(
            f"warning: this update will not go live: {held_out}, fewer than "
            f"update.min_held_out={settings.min_held_out}; {more} update.require_better=false"
        )


def _warn_of_shared(found: Update, examples: Sequence[Any]) -> None:
    """Says if the update has learnt some of what it is compared on."""
    task, split = found.task, found.config.evaluation.split
    learnt = {tuple(task.words_of(each)) for each in found.learnt.examples}
    if shared := sum(tuple(task.words_of(each)) in learnt for each in examples):
        say(
            f"warning: {shared:,} of the {len(examples):,} {task.example} of {split} are among the corrections learnt, "
            "which flatters the update"
        )


def _open(found: Update, run: RunDirectory) -> Predictor:
    config, model = found.config, load_model(run.model)
    encoder = build_encoder(model, config.data)
    return build_predictor(model, encoder, batch_size=config.evaluation.batch_size, config=config.predict)


def _write_verdict(
    found: Update, verdict: Verdict, predictors: tuple[Predictor, Predictor], compared: dict[str, Compared]
) -> dict[str, Any]:
    """The verdict in `update.json`, `metrics.json` and the reports; returns its numbers."""
    run_dir, task, split = found.run_dir, found.task, found.config.evaluation.split
    known = run_dir.read_metrics()
    metrics: dict[str, Any] = {"update/passed": float(verdict.passed)}
    for part in verdict.parts:
        metrics |= part.metrics(task.headline)
    before, after = (each.model for each in predictors)
    changes = [
        change
        for each in compared.values()
        for change in find_changes(before, after, each.before, each.after, title=each.title)
    ]
    sizes = describe_sizes(found, int(known.get("update/replayed", 0)))
    title = f"Update of {shown(found.start.path.resolve().name)}"
    opening = describe(verdict, changes, title=title, sizes=sizes)
    write_scores(
        predictors[1],
        compared[split].after,
        split=split,
        run_dir=run_dir,
        headline=True,
        per_second=known.get(f"{split}/{task.unit}_per_second") or 0.0,
        opening=opening,
    )
    run_dir.update_metrics(metrics)
    found_now = {"time": now_as_text(), "verdict": verdict.record()}
    run_dir.write_json(run_dir.update_json, read_update(run_dir) | found_now)
    print(opening.text)
    return metrics


def _card(found: Update, replayed: int) -> str:
    """The model card beside the weights."""
    task = found.task
    return f"""# {task.title}, updated

- {task.describe_labels(found.labels)}
- Made from: `{found.start}` by {count_of(found.config.update.epochs, 'epoch')}; seed {found.config.seed}
- {describe_sizes(found, replayed)}
- Better or worse than before: `../update.json`, `../report.txt`
{task.caution}
- Use: `python -m app.main --mode=predict --run_dir=RUN --input=FILE`
"""
