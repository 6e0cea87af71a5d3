"""Settings of --mode=update: a model that has learnt from what people corrected, and which model goes live."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class UpdateConfig:
    """How a run learns from corrections. Batch size, optimizer and schedule: see TrainingConfig."""

    epochs: int = option(3, "passes over the corrections and what is replayed beside them", at_least=1)
    learning_rate: float = option(
        0.0, "peak learning rate; 0 = a quarter of training.learning_rate of the run", at_least=0, at_most=1
    )
    replay_fraction: float = option(
        0.8,
        "part of what is learnt that comes from the original training corpus, so that nothing is forgotten: 0.8 = four "
        "of its examples for each one of the corrections; drawn by seed; 0 = corrections alone",
        at_least=0,
        below=1,
    )
    held_out_fraction: float = option(
        0.2,
        "part of the corrected texts that is never learnt, in this update or a later one, and on which the update must "
        "be better; which they are follows from the texts alone",
        at_least=0,
        below=1,
    )
    model: str = option("", "learn only from corrections of answers that this model gave; empty = all of the task")
    max_f1_loss: float = option(
        0.5,
        "what an update may lose on evaluation.split, in points of 100 of the headline score; refused is what loses "
        "more, unless chance explains the loss",
        at_least=0,
        at_most=100,
        trains=(),
    )
    require_better: bool = option(
        True,
        "the gain on the corrections held out must be more than chance explains; false: it is enough that they do not "
        "get worse",
        trains=(),
    )
    min_held_out: int = option(
        10,
        "require_better: fewer texts held out are too few to tell whether an update is better",
        at_least=1,
        trains=(),
    )
    confidence: float = option(
        0.95, "of the intervals of gain and loss (paired bootstrap over texts)", above=0, below=1, trains=()
    )
    export: bool = option(
        True, "write an update that passes as the next SavedModel of the run that serves, labelled canary", trains=()
    )
    # Each of what follows does one thing with the run of --run_dir and ends; nothing is trained.
    promote: str = option(
        "", "stable: the canary goes live; canary: the newest version is tried; or the number of a version to go live",
        trains=(),
    )
    roll_back: bool = option(False, "the version that was live before goes live again", trains=())
    check: bool = option(
        False, "roll back if people agree too seldom with what is live: see rollback_agreement", trains=()
    )
    rollback_agreement: float = option(
        0.5,
        "check, and a server: least part of the last rollback_answers answers that people must have accepted; 0 = no "
        "automatic roll back",
        at_least=0,
        at_most=1,
        trains=(),
    )
    rollback_answers: int = option(50, "the same: judged answers without which nothing is done", at_least=1, trains=())
    import_path: str = option("", "file of corrections to add to the store", path="path", trains=())
    export_path: str = option("", "file to write the corrections of the store to", path="path", trains=())
    form: str = option(
        "auto",
        "import_path, export_path: how the file is written; auto: by its ending and content",
        choices=("auto", "jsonl", "conll", "csv", "label_studio", "doccano", "spacy"),
        trains=(),
    )
    delete_author: str = option("", "delete all corrections by this author from the store", trains=())
    delete_text: str = option("", "delete all corrections of this text from the store", trains=())


# Settings that stand for one thing to do, without any training.
ACTIONS = ("promote", "roll_back", "check", "import_path", "export_path", "delete_author", "delete_text")


def chosen_actions(config: UpdateConfig) -> list[str]:
    """The settings among `ACTIONS` that are set."""
    return [name for name in ACTIONS if getattr(config, name)]
