"""Corrections from which a small model can learn something, and the command that does; imported by tests."""

from pathlib import Path

import toy

from app.data.sentence import Sentence
from app.feedback.store import Correction
from app.tasks.tagging.answers import as_texts

HELD_OUT = 0.3
# "old City" is a place, which the training corpus, where a city has a name, says nothing about.
SETTINGS = {
    "update.epochs": 6, "update.held_out_fraction": HELD_OUT, "update.replay_fraction": 0.5, "update.max_f1_loss": 3,
    "data.valid_path": "",
}  # fmt: skip


def corrections(count: int, *, seed: int = 5) -> list[Correction]:
    sentences = toy.make_sentences(count, seed=seed)
    taught = [
        Sentence(("old", "City", *each.words), ("O", "B-LOC", *each.tags), number)
        for number, each in enumerate(sentences)
    ]
    found = []
    for text, entities in as_texts(taught):
        marked = [{"start": start, "end": end, "label": label} for label, start, end in entities]
        found.append(Correction(text.rstrip("\n"), "tagging", {"entities": marked}, author="ann", model="ner"))
    return found


def command(run: Path, **settings) -> list[str]:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return ["--mode=update", f"--run_dir={run}", *(f"--set={key}={value}" for key, value in named.items())]
