"""Feedback room: which corrections are learnt and which are held out, and whether a model can learn them.

Imports nothing heavy: what is wrong with the corrections is said before TensorFlow is there.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import Config, InputError
from app.encoder.sources import read_json
from app.feedback.correction import JUDGED, Correction
from app.feedback.lineage import find_serving, read_update
from app.feedback.store import FILE_NAME, Store, open_store
from app.run.directory import RunDirectory
from app.run.screen import count_of, say
from app.tasks.tagging.labels import types_from

_MOST_NAMED = 5  # labels or texts in a message


@dataclass(frozen=True)
class Selection:
    """The corrections of one update.

    Attributes:
        learnt: what is trained on; held_out: what is only scored. Each text is there once, as it was judged last, and
            no text is learnt that is held out in another spelling.
    """

    learnt: tuple[Correction, ...]
    held_out: tuple[Correction, ...]

    def ids(self) -> dict[str, list[str]]:
        """What `update.json` holds of it: no text, so that what is deleted from the store is gone."""
        return {"learnt": [each.id for each in self.learnt], "held_out": [each.id for each in self.held_out]}


def fold_text(text: str) -> str:
    """What texts have in common that differ in case, blanks and Unicode forms: one of them gives away the other."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a corrected text is never learnt. It follows from the text alone, not from blanks or Unicode forms."""
    content = " ".join(unicodedata.normalize("NFC", text).split()).encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") < fraction * 2**64


def select_corrections(store: Store, *, task: str, model: str, held_out_fraction: float) -> Selection:
    """The last judgement of each text.

    Args:
        store: of the corrections.
        task: that they are for.
        model: whose answers they correct; empty = any.
        held_out_fraction: part of the texts that is held out.

    Raises:
        InputError: there are none, or none to learn from.
    """
    found = list(store.latest(task=task, model=model))
    if not found:
        others = store.count()
        of_model = f" of answers by {model} (update.model)" if model else ""
        has = f"it has {others:,} for other tasks or models" if others else "it is empty"
        raise InputError(
            f"{store.name} has no corrections for task={task}{of_model} to learn from, {has}: correct answers on the "
            "page of --mode=serve, or read a file with update.import_path"
        )
    held_out = tuple(each for each in found if is_held_out(each.text, held_out_fraction))
    hidden = {fold_text(each.text) for each in held_out}
    rest = [each for each in found if not is_held_out(each.text, held_out_fraction)]
    learnt = tuple(each for each in rest if fold_text(each.text) not in hidden)
    if again := len(rest) - len(learnt):
        say(f"left out: {count_of(again, 'correction')} of texts that are held out in another spelling")
    if not learnt:
        raise InputError(
            f"{store.name}: all corrected texts, {len(found):,}, are held out (update.held_out_fraction="
            f"{held_out_fraction:g}), so there is nothing to learn: correct more answers"
        )
    return Selection(learnt, held_out)


def select_again(store: Store, ids: Mapping[str, Sequence[str]], *, run_dir: RunDirectory) -> Selection:
    """The corrections that a run began with, whatever has been added to the store since.

    Raises:
        InputError: some have been deleted.
    """
    wanted = {each for part in ids.values() for each in part}
    found = {each.id: each for each in store.read(verdicts=JUDGED) if each.id in wanted}
    if gone := len(wanted) - len(found):
        raise InputError(
            f"{gone:,} of the {count_of(len(wanted), 'correction')} that {run_dir} began with "
            f"{'has' if gone == 1 else 'have'} been deleted from {store.name}: start over with --overwrite"
        )
    learnt, held_out = (tuple(found[each] for each in ids[part]) for part in ("learnt", "held_out"))
    return Selection(learnt, held_out)


def select_for(config: Config, run_dir: RunDirectory, store: Store, *, resumes: bool) -> Selection:
    """The corrections of a run: those it began with, or those that are in the store now."""
    known = read_update(run_dir).get("corrections") if resumes else None
    if known:
        return select_again(store, known, run_dir=run_dir)
    settings = config.update
    return select_corrections(
        store, task=config.task, model=settings.model, held_out_fraction=settings.held_out_fraction
    )


def open_store_of(config: Config, run_dir: RunDirectory, *, made: bool = True) -> Store:
    """The store that a run's corrections are in: `feedback.url`, or the file beside the run that serves.

    Args:
        config: its section feedback.
        run_dir: a run, or an update of one.
        made: whether a file that is missing is made.

    Raises:
        InputError: it cannot be opened, or is missing.
    """
    serving = find_serving(run_dir)
    if not config.feedback.url and not made and not (serving.path / FILE_NAME).is_file():
        raise InputError(
            f"{serving.path / FILE_NAME} is missing: nobody has corrected an answer of {serving} yet; do so on the "
            "page of --mode=serve, read a file with update.import_path, or name another store in feedback.url"
        )
    return open_store(config.feedback.url, serving.path)


def labels_in(answer: Mapping[str, Any]) -> Iterator[str]:
    """The labels that an answer of any task names."""
    yield from (entity["label"] for entity in answer.get("entities", ()))
    yield from (label for label in [answer.get("label"), *answer.get("labels", ())] if label is not None)


def known_labels(task: str, labels: Sequence[str]) -> tuple[str, ...]:
    """What answers call the labels of a model: tagging has types of entities."""
    return tuple(types_from(labels)) if task == "tagging" else tuple(labels)


def gives_several(task: str, model: Path) -> bool | None:
    """Whether a model gives a text several labels; None where that is no question, or nobody knows."""
    path = model / "tagger.json"
    if task != "classification" or not path.is_file():
        return None
    facts = read_json(path).get("facts")
    return isinstance(facts, dict) and bool(facts.get("multi_label"))


def check_labels(corrections: Iterable[Correction], known: Collection[str], *, source: str) -> None:
    """Raises InputError if corrections have labels that the model does not know; it cannot learn new ones."""
    strange: dict[str, Correction] = {}
    for each in corrections:
        for label in labels_in(each.answer):
            if label not in known:
                strange.setdefault(label, each)
    if not strange:
        return
    named = ", ".join(list(strange)[:_MOST_NAMED]) + (", ..." if len(strange) > _MOST_NAMED else "")
    first = next(iter(strange.values())).text
    raise InputError(
        f"the corrections have the label {named}, which the model of {source} does not know (it knows "
        f"{', '.join(sorted(known))}), first in {first[:60]!r}: an update keeps the labels; to have a new one, write "
        "the corrections to a file with update.export_path, add it to data.train_path and train with --mode=finetune"
    )
