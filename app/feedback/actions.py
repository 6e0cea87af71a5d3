"""Feedback room: what is done with a run and its store in one command, without any training. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from app.config import Config, InputError
from app.config.rules import require_one_action
from app.config.update import UpdateConfig
from app.encoder.sources import check_tagger
from app.feedback.formats import Refused, read_corrections, write_corrections
from app.feedback.learning import gives_several, known_labels, open_store_of
from app.feedback.lineage import find_name, find_serving
from app.feedback.store import Store
from app.feedback.versions import (
    ROLLED_BACK,
    Labels,
    find_versions,
    read_labels,
    roll_back,
    set_label,
    should_roll_back,
    write_models_config,
)
from app.run.directory import Request, RunDirectory
from app.run.files import is_written_through
from app.run.screen import count_of, say

_MOST_REFUSED = 10  # lines of a file that are named
_FORMS = {".conll": "conll", ".csv": "csv"}  # by the ending of a file to write


def act(request: Request) -> dict[str, float]:
    """Does the one thing that is asked of the run.

    Raises:
        InputError: it cannot be done.
    """
    return ACTIONS[require_one_action(request.config.update)](request.config, request.run_dir)


def promote(config: Config, run_dir: RunDirectory) -> dict[str, float]:
    """Gives a version the label that it is asked to have."""
    serving, asked = find_serving(run_dir), config.update.promote
    labels, there = read_labels(serving.path), find_versions(serving.path)
    numbers = ", ".join(map(str, there)) or "none"
    if asked == "stable" and not labels.canary:
        raise InputError(
            f"update.promote=stable: no version of {serving} is on trial (canary); update.promote=NUMBER names one of "
            f"its versions, {numbers}"
        )
    label = "canary" if asked == "canary" else "stable"
    version = labels.canary if asked == "stable" else max(there, default=0) if asked == "canary" else int(asked)
    if version not in there:
        raise InputError(f"update.promote={asked}: {serving} has no such version, its versions are {numbers}")
    if version == labels.stable:
        raise InputError(f"update.promote={asked}: version {version} of {serving} is live already")
    set_label(serving.path, label, version, "update.promote")
    write_models_config(serving.path, name=find_name(serving))
    if label == "stable":
        say(f"version {version} of {serving} is live, {labels.stable} is not any more")
    else:
        say(f"version {version} of {serving} is on trial as canary, version {labels.stable} is live")
    return {f"update/{label}": version}


def go_back(config: Config, run_dir: RunDirectory) -> dict[str, float]:
    """The version that was live before is live again."""
    serving = find_serving(run_dir)
    before = read_labels(serving.path).stable
    version = roll_back(serving.path, "update.roll_back")
    write_models_config(serving.path, name=find_name(serving))
    say(f"version {version} of {serving} is live again, {before} is not any more")
    return {"update/stable": version}


def check(config: Config, run_dir: RunDirectory) -> dict[str, float]:
    """Takes versions back with which people agree too seldom."""
    serving = find_serving(run_dir)
    with open_store_of(config, run_dir, made=False) as store:
        name = config.update.model or find_name(serving)
        changes = check_agreement(serving, store, config.update, model=name, tell=say)
    return {"update/rolled_back": len(changes)}


def check_agreement(
    run_dir: RunDirectory,
    store: Store,
    config: UpdateConfig,
    *,
    model: str,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[str]:
    """Takes a version back with whose answers people agree too seldom; a server may call it after each correction.

    A canary is not on trial any more; in the place of a stable version, the one before is live again, if there is one
    and people are not known to have agreed with it as seldom.
    Only judgements since the version got its label count.

    Args:
        run_dir: the run that serves.
        store: of the corrections.
        config: rollback_agreement, rollback_answers and confidence.
        model: the name under which the run is served.
        tell: takes a sentence on each version that is looked at, and on what is done.

    Returns:
        what was done, a sentence each.
    """
    labels, done = read_labels(run_dir.path), []
    for label in ("canary", "stable"):
        version = labels[label]
        if not version:
            continue
        moves = (each for each in reversed(labels.history) if each.label == label and each.before != each.after)
        accepted, judged = store.agreement(
            model=model, version=version, last=config.rollback_answers, since=next((each.time for each in moves), "")
        )
        must, why = should_roll_back(
            accepted,
            judged,
            bound=config.rollback_agreement,
            answers=config.rollback_answers,
            confidence=config.confidence,
        )
        tell(f"version {version} ({label}): {why}")
        if must and label == "stable" and _was_no_better(labels, store, config, model=model, rate=accepted / judged):
            tell("people agreed no more often with the version before it, so it stays")
        elif must:
            found = _take_back(run_dir, label, version, why)
            tell(found or f"there is no version before {version} to go back to")
            done += [found] if found else []
    return done


def _was_no_better(labels: Labels, store: Store, config: UpdateConfig, *, model: str, rate: float) -> bool:
    """Whether people are known to have agreed with the version before the stable one no more often than with it.

    People who correct only what is wrong agree with no version: that is no reason to go back.
    """
    moves = (each for each in labels.history if each.label == "stable" and each.after == labels.stable)
    stable = [each.before for each in moves if each.before not in (0, labels.stable)]
    if not stable:
        return False
    accepted, judged = store.agreement(model=model, version=stable[-1], last=config.rollback_answers)
    return judged >= config.rollback_answers and accepted / judged <= rate


def _take_back(run_dir: RunDirectory, label: str, version: int, why: str) -> str:
    """Takes the label of a version away, and says so; empty if no other version can have it."""
    if label == "canary":
        set_label(run_dir.path, "canary", 0, f"{ROLLED_BACK}: {why}", instead_of=version)
        done = f"version {version} of {run_dir} is not on trial any more"
    else:
        try:
            now = roll_back(run_dir.path, why, instead_of=version)
        except InputError:
            return ""
        done = f"version {now} of {run_dir} is live again, {version} is not any more"
    write_models_config(run_dir.path, name=find_name(run_dir))
    return done


def read_in(config: Config, run_dir: RunDirectory) -> dict[str, float]:
    """Adds the corrections of a file to the store."""
    settings = config.update
    labels = known_labels(config.task, check_tagger(run_dir.model).labels)
    several = gives_several(config.task, run_dir.model)
    found, refused = read_corrections(
        settings.import_path,
        form=settings.form,
        task=config.task,
        labels=labels,
        several=several,
        author=config.feedback.author,
    )
    _say_refused(refused)
    if not found:
        raise InputError(
            f"update.import_path: {settings.import_path} holds no correction that can be used, {len(refused):,} "
            f"{_was(len(refused))} left out"
        )
    with open_store_of(config, run_dir) as store:
        store.add(found, labels=labels, several=several)
        say(
            f"{count_of(len(found), 'correction')} of {settings.import_path} {_is(len(found))} in {_place(store)}, "
            f"{len(refused):,} {_was(len(refused))} left out"
        )
    return {"update/imported": len(found), "update/left_out": len(refused)}


def write_out(config: Config, run_dir: RunDirectory) -> dict[str, float]:
    """Writes corrections to a file: all that was said in the project's own form, else the last word on each text."""
    settings, path = config.update, config.update.export_path
    form = _FORMS.get(Path(path).suffix, "jsonl") if settings.form == "auto" else settings.form
    if Path(path).exists() and not is_written_through(path):
        raise InputError(f"update.export_path: {path} is there already: name a new file, or move that one away first")
    with open_store_of(config, run_dir, made=False) as store:
        found = list(store.read(task=config.task) if form == "jsonl" else store.latest(task=config.task))
        refused = write_corrections(path, found, form=form, task=config.task)
        _say_refused(refused)
        kept = len(found) - len(refused)
        say(f"{count_of(kept, 'correction')} of {_place(store)} {_is(kept)} in {path}, as {form}")
    return {"update/exported": len(found) - len(refused), "update/left_out": len(refused)}


def _place(store: Store) -> str:
    """Where the corrections are: the file, or the URL of another database."""
    return store.name.removeprefix("sqlite:///")


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _say_refused(refused: Sequence[Refused]) -> None:
    for each in refused[:_MOST_REFUSED]:
        say(f"left out: {each.where}: {each.reason}")
    if len(refused) > _MOST_REFUSED:
        say(f"left out: {len(refused) - _MOST_REFUSED:,} more")


def delete(config: Config, run_dir: RunDirectory) -> dict[str, float]:
    """Deletes what an author said, or what was said of a text."""
    settings = config.update
    with open_store_of(config, run_dir, made=False) as store:
        deleted = store.delete(author=settings.delete_author, text=settings.delete_text)
        say(f"{count_of(deleted, 'correction')} {_is(deleted)} deleted from {_place(store)}")
        say("models that have learnt from them, and the reports of these runs, are what they were")
    return {"update/deleted": deleted}


ACTIONS: dict[str, Callable[[Config, RunDirectory], dict[str, float]]] = {
    "promote": promote,
    "roll_back": go_back,
    "check": check,
    "import_path": read_in,
    "export_path": write_out,
    "delete_author": delete,
    "delete_text": delete,
}
