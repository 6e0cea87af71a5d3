"""Feedback room: a run that learns from corrections, is compared with what is live, and goes on trial if it passes."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import Config, InputError, RunError, TrainingConfig
from app.config.paths import shown
from app.data.encoding import Encoder
from app.encoder.sources import check_tagger
from app.evaluation.gate import Gate, Refused
from app.evaluation.manifest import PROVENANCE_FILE, read_manifest
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import build_predictor
from app.evaluation.scoring import build_validation, finish_run, score, score_again, write_scores
from app.export.exporters import Exporting, Scoring, export_tflite, make_writer, write_saved_model
from app.export.rows import make_vectors
from app.export.tflite import EARLY, WRITERS
from app.export.version_files import keep_newest_version_files, keep_version_files
from app.feedback.correction import Correction
from app.feedback.learning import Selection, check_labels, known_labels, open_store_of, select_for
from app.feedback.lineage import (
    describe_live,
    find_live,
    find_name,
    find_serving,
    find_version_of,
    name_live,
    path_from,
    read_update,
    require_live,
    run_at,
)
from app.feedback.replay import count_replayed, sample_examples, without
from app.feedback.verdict import Part, Verdict, compare, decide, describe, find_changes
from app.feedback.versions import keep_stable, read_labels, set_label, write_models_config
from app.run.directory import Request, RunDirectory
from app.run.screen import count_of, heartbeat, say
from app.tasks import find_task
from app.tasks.bundle import load_model, read_facts, start_model, with_exits_of
from app.tasks.corpora import (
    check_other_splits,
    describe_corpora,
    read_scored_split,
    read_training_corpus,
)
from app.tasks.exit_table import read_table
from app.tasks.network import TaskModel, build_encoder
from app.tasks.task import Corpus, Facts, Scored, Summary, Task
from app.training.fit import run_fit
from app.training.sessions import TaskTraining, open_run, say_devices
from app.training.strategy import build_strategy, list_devices, set_up
from app.training.workers import Workers

MODE = "update"
_SHARE_OF_RATE = 0.25  # of the learning rate with which the run was trained


@dataclass(frozen=True)
class Lesson:
    """Corrections as examples of the task.

    Attributes:
        examples: of all texts, in their order.
        owners: the text, from 0, that each example is a part of.
        texts: how many of the corrections have an example.
    """

    examples: list[Any]
    owners: list[int]

    @property
    def texts(self) -> int:
        return self.owners[-1] + 1 if self.owners else 0


@dataclass(frozen=True)
class Update:
    """What an update begins with.

    Attributes:
        config: of the run.
        run_dir: of the run.
        start: the run whose model is live.
        serving: the run whose versions are served.
        selection: the corrections.
        learnt: those to learn from; held_out: those to score.
        labels: of the model; facts: of the model, with what is new in the corrections.
        live: the run that was live, see `describe_live`.
    """

    config: Config
    run_dir: RunDirectory
    start: RunDirectory
    serving: RunDirectory
    selection: Selection
    learnt: Lesson
    held_out: Lesson
    labels: list[str]
    facts: Facts
    live: str | None

    @property
    def task(self) -> Task:
        return find_task(self.config.task)


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
    train, summary, others = _read_corpora(found)
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
        _note_beginning(found)
        replayed = draw_replay(found, train)
        say(_sizes(found, len(replayed)))
        if found.start.read_state().get("mode") == "compress" and not config.training.keep_structure:
            say(f"note: {found.start} is compressed; training.keep_structure=true keeps its zeros and shared values")
        training = TaskTraining(config, run_dir, strategy, precision)
        metrics = _train(model, encoder, [*_learnable(found), *replayed], found, training)
        metrics |= {
            "update/corrections": found.learnt.texts,
            "update/replayed": len(replayed),
            "update/held_out/texts": found.held_out.texts,
        }
        card = _card(found, len(replayed))
        metrics = finish_run(model, metrics, card=card, config=config, run_dir=run_dir, mode=MODE)
        return metrics | judge(found)


def prepare(config: Config, run_dir: RunDirectory, *, resumes: bool) -> Update:
    """Where an update starts and what it learns: as it began, or as things are now.

    Raises:
        InputError: the corrections do not fit the model, or what the run began with is gone.
    """
    known = read_update(run_dir) if resumes else {}
    named = RunDirectory(config.init_from)
    start = run_at(known["from"], run_dir) if "from" in known else find_live(named)
    serving = find_serving(named)
    live = describe_live(serving, run_dir)
    labels, facts, task = list(check_tagger(start.model).labels), read_facts(start.model), find_task(config.task)
    digest = start.read_metrics().get("weights_sha256", "")
    if known.get("from_sha256", digest) != digest:
        raise InputError(
            f"the model of {start} is not the one that {run_dir} began from any more: start over with --overwrite"
        )
    with open_store_of(config, named, made=False) as store:
        selection = select_for(config, run_dir, store, resumes=resumes)
    allowed = known_labels(config.task, labels)
    check_labels([*selection.learnt, *selection.held_out], allowed, source=str(start))
    learnt = read_lesson(task, selection.learnt, labels=labels, facts=facts, first=0)
    held_out = read_lesson(task, selection.held_out, labels=labels, facts=facts, first=len(selection.learnt))
    facts = task.extend_facts(facts, [*filter(task.is_learnable, learnt.examples)], labels=labels)
    return Update(config, run_dir, start, serving, selection, learnt, held_out, labels, facts, live)


def read_lesson(
    task: Task, corrections: Sequence[Correction], *, labels: Sequence[str], facts: Facts, first: int
) -> Lesson:
    """Corrections as examples; one whose answer is none is left out, and that is said.

    Args:
        task: of the model.
        corrections: each of another text.
        labels: of the model.
        facts: of the model.
        first: texts that have a number already. Numbers are negative: those of a corpus count from 0.
    """
    examples: list[Any] = []
    owners: list[int] = []
    for number, correction in enumerate(corrections):
        try:
            made = task.read_correction(
                correction.text, correction.answer, labels=labels, facts=facts, number=-1 - first - number
            )
        except ValueError as error:
            say(f"left out: the answer to {correction.text[:60]!r} (correction {correction.id}) {error}")
            continue
        if made:
            owners += [owners[-1] + 1 if owners else 0] * len(made)
            examples += made
    return Lesson(examples, owners)


def _learnable(found: Update) -> list[Any]:
    return [example for example in found.learnt.examples if found.task.is_learnable(example)]


def _read_corpora(found: Update) -> tuple[Corpus | None, Summary | None, dict[str, Summary]]:
    """The training corpus, if it is replayed, and the others; whatever is wrong with them is told before training."""
    config, train, summary = found.config, None, None
    if config.update.replay_fraction:
        train, summary = read_training_corpus(config, labels=found.labels)
        found.task.check_fits(summary, found.facts)
    if not _learnable(found):
        few = count_of(len(found.selection.learnt), "correction")
        raise InputError(f"of {few}, none says what to learn")
    return train, summary, check_other_splits(config, found.labels, facts=found.facts)


def draw_replay(found: Update, train: Corpus | None) -> list[Any]:
    """Examples of the training corpus, none of a text that people corrected: what it says of these is outdated."""
    if train is None:
        return []
    task = found.task
    corrected = {tuple(task.words_of(each)) for each in (*found.learnt.examples, *found.held_out.examples)}
    return sample_examples(
        lambda: without(train.examples(), corrected, task.words_of),
        count_replayed(len(_learnable(found)), found.config.update.replay_fraction),
        seed=found.config.seed,
        group_of=task.group_of,
    )


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


def _note_beginning(found: Update) -> None:
    """Writes what the run began with, so that it resumes with the same."""
    run_dir = found.run_dir
    if read_update(run_dir):
        return
    beginning = {
        "from": path_from(found.start, run_dir),
        "from_sha256": found.start.read_metrics().get("weights_sha256", ""),
        "serving": path_from(found.serving, run_dir),
        "live": found.live,
        "corrections": found.selection.ids(),
    }
    run_dir.write_json(run_dir.update_json, beginning)


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
        _export(found, *jobs)
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
    sizes = _sizes(found, int(known.get("update/replayed", 0)))
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
    run_dir.write_json(run_dir.update_json, {**read_update(run_dir), "time": _now(), "verdict": verdict.record()})
    print(opening.text)
    return metrics


def _export(found: Update, live: Scoring, update: Scoring) -> None:
    """Writes the update as the next version of the run that serves and puts it on trial.

    A version that a killed process has written and given no label gets it now.
    """
    serving, run_dir = found.serving, found.run_dir
    known = read_update(run_dir).get("version")
    if known and (serving.saved_model / str(known)).is_dir():
        say(f"{run_dir} is version {known} of {serving} already")
        return
    with serving.locked():
        version = find_version_of(run_dir, serving)
        if not (version and read_labels(serving.path).has_been(version)):
            require_live(serving, run_dir)
            version = _put_on_trial(found, live, update, written=version)
        write_models_config(serving.path, name=find_name(serving))
    run_dir.write_json(run_dir.update_json, {**read_update(run_dir), "version": version})
    labels = read_labels(serving.path)
    if labels.canary != version:
        say(f"{run_dir} is version {version} of {serving} already")
        return
    now = f"version {version} of {serving} is on trial as canary, version {labels.stable} is live"
    say(f"{now}; to have the new one go live:")
    say(f"python -m app.main --mode=update --run_dir={serving} --set update.promote=stable")


def _put_on_trial(found: Update, live: Scoring, update: Scoring, *, written: int) -> int:
    """The number of the version that the update is now, which is labelled canary.

    What is live is exported first if nothing is there yet, so that there is something to go back to; and it is named
    before the new version appears, since without a label the newest version is live.

    Args:
        found: what was trained.
        live: the model that is live, with its scores.
        update: the same of the update.
        written: the number of the version if its folder is there already; 0 = it is not.

    Raises:
        RunError: the export is worse than the model by more than is allowed.
    """
    serving, run_dir, version = found.serving, found.run_dir, written
    try:
        if not version:
            if not read_labels(serving.path).stable:
                keep_version_files(found.start, serving, _write_version(found, live, found.start))
            keep_stable(serving.path)
            keep_newest_version_files(serving)  # the version that is the newest until now
            version = _write_version(found, update, run_dir)
        _write_files(found, update, version)
    except Refused as error:
        raise RunError(str(error)) from error
    set_label(serving.path, "canary", version, f"{run_dir.path.resolve().name} passed as an update")
    return version


def _write_files(found: Update, job: Scoring, version: int) -> None:
    """Writes the TFLite files that the run that serves has, of the update; one that is refused is left out."""
    serving, run_dir, config = found.serving, found.run_dir, found.config
    try:
        names = [Path(name).stem for name in read_manifest(serving.tflite)["files"]]
    except InputError:
        return
    facts, exits = job.model.facts, job.model.config.exit_layers
    known = [name for name in WRITERS if name not in EARLY or read_table(facts, exits)]
    names = [name for name in names if name in known]
    if not names:
        return
    writer = make_writer(config, job.model, job.encoder, run_dir)
    shared = {field.name: getattr(job, field.name) for field in dataclasses.fields(Scoring)}
    exporting = Exporting(**shared, run_dir=run_dir, writer=writer)
    for name in names:
        try:
            with heartbeat(f"{name}: converting and scoring"):
                export_tflite(name, exporting)
        except Refused as error:
            say(str(error))
    keep_version_files(run_dir, serving, version)


def _write_version(found: Update, job: Scoring, run: RunDirectory) -> int:
    """Writes the model of a run as the next version of the run that serves, and returns its number."""
    provenance = {
        "run": path_from(run, found.serving),
        "weights_sha256": run.read_metrics().get("weights_sha256", ""),
        "made_from": path_from(found.start, found.serving) if run is found.run_dir else "",
        "corrections": len(found.selection.learnt) if run is found.run_dir else 0,
        "time": _now(),
    }
    with heartbeat("saved_model: converting and scoring"):
        path, _ = write_saved_model(
            job, found.serving.saved_model, note=lambda part: run.write_json(part / PROVENANCE_FILE, provenance)
        )
    return int(path.name)


def _sizes(found: Update, replayed: int) -> str:
    task = found.task
    return (
        f"{count_of(found.learnt.texts, 'corrected text')} learnt beside {replayed:,} {task.example} of the training "
        f"corpus, {count_of(found.held_out.texts, 'corrected text')} held out"
    )


def _card(found: Update, replayed: int) -> str:
    """The model card beside the weights."""
    task = found.task
    return f"""# {task.title}, updated

- {task.describe_labels(found.labels)}
- Made from: `{found.start}` by {count_of(found.config.update.epochs, 'epoch')}; seed {found.config.seed}
- {_sizes(found, replayed)}
- Better or worse than before: `../update.json`, `../report.txt`
{task.caution}
- Use: `python -m app.main --mode=predict --run_dir=RUN --input=FILE`
"""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
