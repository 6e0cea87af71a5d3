"""Training room: what the teachers say of every sequence, asked once and kept beside the rows and in files."""

import hashlib
import io
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from app.data.dataset import RowsInMemory, RowStore
from app.data.packing import FEATURES
from app.run.directory import atomic, sha256_of_arrays
from app.run.screen import count_of, heartbeat, say
from app.tasks.network import LOGITS
from app.training.distillation.tuner import ANSWER, DistillationTuner

MOST_BYTES = 2**30  # of all kept answers
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class AnswerFolders:
    """Where answers are written, each teacher's to a file named after the rows, its weights and its first answers.

    Attributes:
        own: of one process of one run: answers that are not complete, so that a run that was killed goes on asking.
        shared: complete answers; other runs on the same text with the same teachers find them there.
    """

    own: Path
    shared: Path


def are_kept(store: RowStore, tuner: DistillationTuner, *, strategy: tf.distribute.Strategy, epochs: int) -> bool:
    """Whether answers are kept: not without `distill.keep_answers`, where more than logits is compared, the rows are
    too many for memory, or asking at every step is no slower: one device asks here, all replicas there.
    """
    worth_it = epochs > strategy.num_replicas_in_sync and not isinstance(strategy, tf.distribute.TPUStrategy)
    may_be = tuner.distill.keep_answers and tuner.compares_labels_alone and isinstance(store, RowsInMemory)
    return bool(worth_it and may_be)


def keep_answers(
    store: RowStore,
    tuner: DistillationTuner,
    *,
    strategy: tf.distribute.Strategy,
    batch_size: int,
    epochs: int,
    folders: AnswerFolders,
) -> RowStore:
    """The rows with the logits of each teacher, so that no step has to ask for them.

    A teacher reads the same sequence in every epoch, without dropout, and says the same of it every time.

    Args:
        store: rows to train on.
        tuner: has the teachers.
        strategy: of the training.
        batch_size: rows that are asked for at once.
        epochs: of the training.
        folders: answers that are there already are not asked for again.

    Returns:
        the store as it is where no answers are kept (`are_kept`), or they are too many for memory.
    """
    if not (are_kept(store, tuner, strategy=strategy, epochs=epochs) and isinstance(store, RowsInMemory)):
        return store
    ask = tf.function(lambda features: [answer[LOGITS] for answer in tuner.ask(features)])

    def answers_of(first: int) -> list[np.ndarray]:
        batch = {name: tf.constant(store.columns[name][first : first + batch_size]) for name in FEATURES}
        return [logits.numpy() for logits in ask(batch)]

    beginning = answers_of(0)
    bytes_a_row = sum(4 * int(np.prod(logits.shape[1:])) for logits in beginning)
    if store.rows * bytes_a_row > MOST_BYTES:
        return store
    rows = sha256_of_arrays((name, np.asarray(store.columns[name])) for name in FEATURES)
    names = [
        f"{sha256_of_arrays([(f'{rows} {teacher.weights_sha256()}', logits)])[:32]}.npy"
        for teacher, logits in zip(tuner.teachers, beginning, strict=True)
    ]
    shapes = [(store.rows, *logits.shape[1:]) for logits in beginning]
    kept = _read(folders.shared, names, shapes)
    if kept is None:
        kept = _ask(answers_of, beginning, folders, names, rows=store.rows)
    return store.with_columns({f"{ANSWER}{number:03d}": column for number, column in enumerate(kept)})


def _read(folder: Path, names: list[str], shapes: list[tuple[int, ...]]) -> list[np.ndarray] | None:
    """The complete answers in a folder, or None if one of them is missing or damaged."""
    found = [_open(folder / name, shape, "r", sealed=True) for name, shape in zip(names, shapes, strict=True)]
    if not all(column is not None and np.isfinite(column).all() for column in found):
        return None
    say(f"what the teachers say of {count_of(shapes[0][0], 'sequence')} is in {folder}: they are not asked again")
    return [column for column in found if column is not None]


def _ask(
    answers_of: Callable[[int], list[np.ndarray]],
    beginning: list[np.ndarray],
    folders: AnswerFolders,
    names: list[str],
    *,
    rows: int,
) -> list[np.ndarray]:
    """Asks for the rows that have no answers yet. A kill loses the batch that is being asked for and no more.

    Args:
        answers_of: number of the first row of a batch -> logits of each teacher.
        beginning: the answers to the first batch.
        folders: for the files.
        names: of each teacher's file.
        rows: in all.
    """
    kept = []
    for name, logits in zip(names, beginning, strict=True):
        kept.append(_open_unfinished(folders.own / name, (rows, *logits.shape[1:])))
    known = int(np.logical_and.reduce([_answered(column) for column in kept]).sum())
    if known:
        part = f"{known:,} of {count_of(rows, 'sequence')}"
        say(f"what the teachers say of {part} is in {folders.own}: only the rest is asked for")
    for column, logits in zip(kept, beginning, strict=True):
        column[: len(logits)] = logits
    batch_size, asked = len(beginning[0]), 0
    with heartbeat("asking the teachers", so_far=lambda: f"{asked:,} of {count_of(rows, 'sequence')}"):
        for first in range(0, rows, batch_size):
            batch = slice(first, first + batch_size)
            if not all(_answered(column[batch]).all() for column in kept):
                for column, logits in zip(kept, answers_of(first), strict=True):
                    column[batch] = logits
            asked = min(first + batch_size, rows)
    for name, column in zip(names, kept, strict=True):
        column.flush()
        _seal(folders.own / name, column)
        if folders.shared != folders.own:
            with atomic(folders.shared / name) as path:
                shutil.copyfile(folders.own / name, path)
    return list(kept)


def _answered(column: np.ndarray) -> np.ndarray:
    """Which rows have their answer, bool [rows]."""
    return np.isfinite(column).all(axis=tuple(range(1, column.ndim)))


def _open_unfinished(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A file of answers, NaN where there is none yet, that is written in place."""
    column = _open(path, shape, "r+", sealed=False)
    if column is None:
        column = _open(path, shape, "r+", sealed=True)
    if column is None:
        with atomic(path) as new:  # in full, so that a full disk is noticed here and not in the middle of a mapped file
            np.save(new, np.full(shape, np.nan, np.float32))
        column = _open(path, shape, "r+", sealed=False)
        assert column is not None
    return column


# A file of answers is an .npy file of float32. When it is complete, the digest of its name and its values follows them:
# a copy that broke off may well have its full size, with zeros at the end.


def _seal(path: Path, column: np.memmap) -> None:
    with path.open("r+b") as file:
        file.seek(column.offset + column.nbytes)
        file.write(_digest(path, column))


def _digest(path: Path, column: np.memmap) -> bytes:
    digest = hashlib.sha256(path.name.encode())
    digest.update(column.data)
    return digest.digest()


def _open(path: Path, shape: tuple[int, ...], mode: Literal["r", "r+"], *, sealed: bool) -> np.memmap | None:
    """float32 of this shape, mapped; None if there is no such file, or with `sealed` none whose digest is right."""
    header = _header(shape)
    size = len(header) + 4 * math.prod(shape)
    try:
        with path.open("rb") as file:
            whole = os.fstat(file.fileno()).st_size == size + (_DIGEST_BYTES if sealed else 0)
            if not whole or file.read(len(header)) != header:  # np.memmap would fill what is missing with zeros
                return None
            file.seek(size)
            end = file.read()
    except OSError:
        return None
    column = np.memmap(path, np.float32, mode, len(header), shape)
    return column if not sealed or _digest(path, column) == end else None


def _header(shape: tuple[int, ...]) -> bytes:
    """What `np.save` writes before float32 of this shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()
