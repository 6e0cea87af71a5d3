"""Feedback room: what an update begins with: corrections as examples, a model, and what it has to be reminded of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.config import Config, InputError
from app.encoder.sources import check_tagger
from app.feedback.correction import Correction
from app.feedback.learning import Selection, check_labels, known_labels, open_store_of, select_for
from app.feedback.lineage import describe_live, find_live, find_serving, path_from, read_update, run_at
from app.feedback.replay import count_replayed, sample_examples, without
from app.run.directory import RunDirectory
from app.run.screen import count_of, say
from app.tasks import find_task
from app.tasks.bundle import read_facts
from app.tasks.corpora import check_other_splits, read_training_corpus
from app.tasks.task import Corpus, Facts, Summary, Task


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


def learnable(found: Update) -> list[Any]:
    return [example for example in found.learnt.examples if found.task.is_learnable(example)]


def read_corpora(found: Update) -> tuple[Corpus | None, Summary | None, dict[str, Summary]]:
    """The training corpus, if it is replayed, and the others; whatever is wrong with them is told before training."""
    config, train, summary = found.config, None, None
    if config.update.replay_fraction:
        train, summary = read_training_corpus(config, labels=found.labels)
        found.task.check_fits(summary, found.facts)
    if not learnable(found):
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
        count_replayed(len(learnable(found)), found.config.update.replay_fraction),
        seed=found.config.seed,
        group_of=task.group_of,
    )


def note_beginning(found: Update) -> None:
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


def describe_sizes(found: Update, replayed: int) -> str:
    task = found.task
    return (
        f"{count_of(found.learnt.texts, 'corrected text')} learnt beside {replayed:,} {task.example} of the training "
        f"corpus, {count_of(found.held_out.texts, 'corrected text')} held out"
    )


def now_as_text() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
