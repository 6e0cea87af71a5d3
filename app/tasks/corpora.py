"""Tasks room: which corpora a run learnt from and was scored on, known by their content and not by their paths.

`corpora.json` of a run directory holds them by split: `{"test": {"sources": [PATH], "sha256": DIGEST}, ...}`; the
digest is that of the summary. Beside them stand the weights of other runs, and the text without labels, that it
learnt from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.config import Config, DataConfig, InputError, PredictConfig
from app.config.rules import require_split
from app.data.tfds import PREFIX
from app.encoder.sources import BACKBONE_FILES, TAGGER_FILES, read_sums
from app.run.directory import RunDirectory
from app.run.screen import heartbeat, say
from app.tasks import find_task
from app.tasks.running_text import Source
from app.tasks.tagging.report import is_predicted_in
from app.tasks.task import Corpus, Facts, Summary, Task

if TYPE_CHECKING:
    from app.tasks.network import TaskModel

Corpora = dict[str, dict[str, Any]]  # split -> {"sources": paths, "sha256": digest}
# Among the splits, what else a run learns from: weights of other runs, and text without labels.
TEACHERS, START, UNLABELLED = "teachers", "init_from", "unlabelled"

ROW_SETTINGS = ("max_length", "overlap_tokens", "packing")  # of section data: what scores depend on beside the corpus
# The same of section predict, where an answer may be none, or texts may leave the network early.
ANSWER_SETTINGS = ("min_score", "target_precision", "max_f1_loss")
DIGITS = 12  # of a digest, in a name
LONGEST_NAME_BYTES = 100  # of a corpus, in the name of a folder


def describe_corpora(data: DataConfig, summaries: Mapping[str, Summary | None]) -> Corpora:
    """Corpora as `corpora.json` holds them.

    Args:
        data: the section they were opened by.
        summaries: by split; None where there is no such corpus.
    """
    paths = {split: [getattr(data, f"{split}_path")] for split in summaries}
    if data.valid_fraction and "valid" in paths:
        paths["valid"] = [data.train_path]
    if data.train_on_valid and "train" in paths:
        paths["train"] = [path for path in (data.train_path, data.valid_path) if path]
    return {
        split: {"sources": [_absolute(path) for path in paths[split]], "sha256": summary.digest}
        for split, summary in summaries.items()
        if summary
    }


def describe_weights(what: str, sources: Sequence[str]) -> Corpora:
    """The weights of runs that another run learns from, as an entry of `corpora.json`; nothing if one is no run.

    Args:
        what: `TEACHERS` or `START`.
        sources: run directories.

    Raises:
        InputError: a list of checksums is malformed.
    """
    sums = [read_sums(RunDirectory(source).model) for source in sources]
    if not all(sums):
        return {}
    weights = [[each.get(name, "") for name in (*BACKBONE_FILES, TAGGER_FILES[1])] for each in sums]
    digest = hashlib.sha256(repr(weights).encode()).hexdigest()
    return {what: {"sources": [_absolute(source) for source in sources], "sha256": digest}}


def read_corpora(run_dir: RunDirectory) -> Corpora:
    """The corpora of a run; none of one that is older than `corpora.json`.

    Raises:
        InputError: the file is malformed.
    """
    try:
        found = json.loads(run_dir.corpora_json.read_text(encoding="utf-8"))
        entries = {split: (list(each["sources"]), str(each["sha256"])) for split, each in found.items()}
        return {split: {"sources": sources, "sha256": digest} for split, (sources, digest) in entries.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{run_dir.corpora_json} does not hold the corpora of a run: {error!r}; delete it") from error


def note_corpora(run_dir: RunDirectory, corpora: Corpora) -> None:
    """Adds corpora to those of a run."""
    run_dir.write_json(run_dir.corpora_json, {**read_corpora(run_dir), **corpora})


_NAMES = {
    TEACHERS: "distill.teachers: the weights",
    START: "init_from: the weights",
    UNLABELLED: "data.unlabelled_path: the words",
}


def check_same_corpora(run_dir: RunDirectory, corpora: Corpora) -> None:
    """Before a run resumes: that nothing of it is mixed with other text, or replaced by scores of other text.

    Raises:
        InputError: a corpus, or the weights of another run, are not those that the run began with.
    """
    scored = run_dir.read_metrics()
    for split, before in read_corpora(run_dir).items():
        now = corpora.get(split)
        if now is None or now["sha256"] == before["sha256"]:
            continue
        if split == "test" and not any(name.startswith("test/") for name in scored):
            continue  # nothing depends on it yet
        remedy = " or score the new one with --mode=evaluate;" if split == "test" else ""
        what = _NAMES.get(split, f"data.{split}_path: the sentences")
        raise InputError(
            f"{what} in {' and '.join(now['sources'])} are not those that {run_dir} began "
            f"with (SHA-256 {before['sha256'][:DIGITS]}, now {now['sha256'][:DIGITS]}, from "
            f"{' and '.join(before['sources'])}): bring them back,{remedy} or start over with --overwrite"
        )


def is_of_run(
    run_dir: RunDirectory,
    data: DataConfig,
    split: str,
    corpus: Corpus,
    summary: Summary,
    *,
    predict: PredictConfig | None = None,
) -> bool:
    """Whether a corpus and the way it is read are those of the run's own report, which then may be written anew.

    Args:
        run_dir: of the run.
        data: the settings that the corpus is read with now.
        split: it is scored as.
        corpus: what is to be scored.
        summary: what is in it.
        predict: the settings of answers now; None where scores do not depend on them.
    """
    config = run_dir.read_config()
    own = config.data
    if split != _reported_split(own) or changed_settings(config, data, predict):
        return False
    known = read_corpora(run_dir).get(split)
    if known:
        return bool(known["sha256"] == summary.digest)
    if _absolute(corpus.source) != _absolute(getattr(own, f"{split}_path")):
        return False
    # A run older than `corpora.json`: whether its predictions are those of the corpus, or there are none to lose.
    path = run_dir.predictions(split, "conll")
    if not path.is_file():
        return f"{split}/entity_f1" not in run_dir.read_metrics()
    return is_predicted_in(path.read_text(encoding="utf-8"), corpus.examples())


def evaluation_name(
    run_dir: RunDirectory, data: DataConfig, summary: Summary, *, predict: PredictConfig | None = None
) -> str:
    """The name of the folder for scores of a corpus: its own name, its digest, and settings that the run has not."""
    source = summary.source.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^\w.-]+", "-", source).strip("-.").encode()[:LONGEST_NAME_BYTES].decode(errors="ignore")
    changed = changed_settings(run_dir.read_config(), data, predict)
    return f"{name or 'corpus'}-{summary.digest[:DIGITS]}" + "".join(f".{key}-{changed[key]}" for key in changed)


def changed_settings(own: Config, data: DataConfig, predict: PredictConfig | None) -> dict[str, Any]:
    """The settings of rows, and of answers, that are not those of the run."""
    sections = ((own.data, data, ROW_SETTINGS), (own.predict, predict or own.predict, ANSWER_SETTINGS))
    return {
        key: getattr(now, key)
        for before, now, keys in sections
        for key in keys
        if getattr(now, key) != getattr(before, key)
    }


def _reported_split(own: DataConfig) -> str:
    """The split that the report of a run is about, as `score_run` chooses it; empty if there is none."""
    if own.test_path:
        return "test"
    return "valid" if (own.valid_path or own.valid_fraction) and not own.train_on_valid else ""


def _absolute(path: str) -> str:
    return path if path.startswith(PREFIX) or "://" in path else os.path.abspath(path)


def open_split(config: Config, split: str, *, labels: Sequence[str] | None = None) -> Corpus | None:
    """The corpus of a split, or None if there is none; with `labels`, others are an error.

    With `data.train_on_valid` the validation corpus is part of the training corpus and no split of its own; with
    `data.valid_fraction` it is a part of the training corpus, which lacks it.
    """
    task, data = find_task(config.task), config.data

    def opened(name: str) -> Corpus | None:
        path = getattr(data, f"{name}_path")
        return task.open_corpus(config, path, split=name, labels=labels) if path else None

    if data.valid_fraction and split != "test":
        whole = opened("train")
        if whole is None or data.train_on_valid:
            return whole if split == "train" else None
        train, valid = task.split_off(whole, fraction=data.valid_fraction, seed=data.valid_seed)
        return train if split == "train" else valid
    if not data.train_on_valid or split == "test":
        return opened(split)
    return task.join([corpus for corpus in map(opened, ("train", "valid")) if corpus]) if split == "train" else None


def read_scored_split(config: Config, split: str, *, model: TaskModel, purpose: str) -> tuple[Corpus, Summary]:
    """The corpus of a split that must be there, and what one pass over it finds; `purpose` says what it is needed for.

    Raises:
        InputError: there is none, a fault in it, or the model cannot read it.
    """
    require_split(config.data, split, purpose)
    corpus = open_split(config, split, labels=model.labels)
    assert corpus is not None
    summary = summarize(corpus, config)
    model.task.check_fits(summary, model.facts)
    return corpus, summary


def summarize(corpus: Corpus, config: Config) -> Summary:
    """One pass over a corpus, with a word to the person watching while it lasts."""
    with heartbeat(f"reading {corpus.source}"):
        return find_task(config.task).summarize(corpus, config)


def read_training_corpus(config: Config, *, labels: Sequence[str] | None = None) -> tuple[Corpus, Summary]:
    """The training corpus and what one pass over it finds; what was repaired is said.

    Args:
        config: the task and its sections.
        labels: the only ones allowed, of a model that there is already.
    """
    train = open_split(config, "train", labels=labels)
    if train is None:
        raise InputError("data.train_path is empty; fine-tuning needs a training corpus")
    summary = summarize(train, config)
    report_training_corpus(summary, config)
    return train, summary


def report_training_corpus(summary: Summary, config: Config) -> None:
    """Says what was repaired in a training corpus and what is odd about its labels."""
    task = find_task(config.task)
    if repaired := task.find_repairs(summary):
        say(repaired)
    for warning in task.find_oddities(summary, config, training=True):
        say(f"warning: {warning}")


def say_oddities(summary: Summary, config: Config, *, labels: Sequence[str]) -> None:
    """Says what is odd about a corpus that a model of these labels is scored on."""
    for warning in find_task(config.task).find_oddities(summary, config, training=False, labels=labels):
        say(f"warning: {warning}")


def summarize_unlabelled(
    task: Task, sources: Sequence[Source], *, limit_words: int = 0
) -> tuple[int, Corpora]:
    """What `Task.read_unlabelled` gives: its words, and the text as an entry of `corpora.json`.

    Raises:
        InputError: there are none.
    """
    words, digest = 0, hashlib.sha256()
    for example in task.read_unlabelled(sources, limit_words=limit_words):
        found = task.words_of(example)
        words += len(found)
        digest.update(f"{' '.join(found)}\n".encode(errors="surrogatepass"))
    if not words:
        raise InputError(f"data.unlabelled_path: {', '.join(each.path for each in sources[:3])} holds no word")
    named = [_absolute(each.path) for each in sources]
    return words, {UNLABELLED: {"sources": named, "sha256": digest.hexdigest()}}


def describe_scores(task: Task, metrics: Mapping[str, Any]) -> str:
    """A line of a model card."""
    name = f"valid/{task.headline}"
    best = f"{metrics[name]:.4f}" if name in metrics else "not measured"
    headline = task.headline_name[0].upper() + task.headline_name[1:]
    others = "`../metrics.json`, `../report.txt`"
    return f"- {headline} on the validation split while training: {best}; other scores: {others}"


def labelled_sources(data: DataConfig) -> list[str]:
    """What is learnt from with labels, for a model card."""
    return [path for path in (data.train_path, data.valid_path if data.train_on_valid else "") if path]


def check_other_splits(
    config: Config,
    labels: Sequence[str],
    *,
    train: Corpus | None = None,
    words: int = 0,
    facts: Facts | None = None,
) -> dict[str, Summary]:
    """Reads the other splits once before training, so that a fault in them does not come to light an hour later.

    Says what is odd about them: no validation corpus, no entity, text of the training corpus.

    Args:
        config: its section data.
        labels: the only ones allowed.
        train: the training corpus; None if there is none.
        words: in the training corpus; in a large one, text of the others is not looked for.
        facts: of the model that is to read them, as far as they are known.

    Returns:
        what is in those that there are.
    """
    task = find_task(config.task)
    others: dict[str, Corpus] = {}
    summaries: dict[str, Summary] = {}
    for split in ("valid", "test"):
        corpus = open_split(config, split, labels=labels)
        if corpus is None:
            continue
        others[split], summaries[split] = corpus, summarize(corpus, config)
        if facts is not None:
            task.check_fits(summaries[split], facts)
        say_oddities(summaries[split], config, labels=labels)
        if split == "valid" and config.data.valid_fraction:
            say(f"{corpus.source}: {task.describe_part(summaries[split])}")
    if "valid" not in others and train and not config.data.train_on_valid:
        say(
            "no validation corpus (data.valid_path is empty): the last weights are kept, not the best ones; name one, "
            "or set a part of the training corpus aside with data.valid_fraction=0.1"
        )
    if config.predict.target_precision and "valid" not in others and not (facts or {}).get("coverage"):
        say(
            f"warning: predict.target_precision={config.predict.target_precision:g} is found on a validation split, "
            "and there is none: the run is scored, and its report written, without a minimum score"
        )
    if train and words <= config.data.memory_limit_words:
        for warning in task.find_shared(train, others):
            say(f"warning: {warning}")
    return summaries
