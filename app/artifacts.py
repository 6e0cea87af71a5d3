"""The run directory: where everything lies, and how it is written so that a kill never leaves half a file.

Imports no TensorFlow. Every file goes to a temporary name in the same folder and is renamed when complete.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.config import FOUND_BY_TRIAL, Config, InputError, flatten
from app.config_loading import load_config, read_yaml, to_yaml

if TYPE_CHECKING:
    import numpy as np

TEMPORARY_PREFIX = ".tmp-"
_LOCK = ".lock"
# config.yaml marks a folder as a run, so it is the last thing --overwrite deletes.
_CONTENTS = (
    "environment.json metrics.json history.jsonl report.txt report.html predictions errors "
    "evaluations checkpoints cache records vocabulary.txt stages compression.json compression.txt "
    "model export reports tensorboard config.yaml"
).split()


@dataclass(frozen=True)
class Request:
    """What the command line asks of a mode: `run(request: Request) -> dict[str, float]` (final metrics).

    Attributes:
        config: resolved and checked; each function gets its own section of it.
        run_dir: not yet opened; it may not exist.
        overwrite: start anew in an existing run directory.
        input: `--input`, a file or "-"; empty where the mode takes none.
        output: `--output`, a file; empty for stdout.
    """

    config: Config
    run_dir: RunDirectory
    overwrite: bool = False
    input: str = ""
    output: str = ""


@contextmanager
def locked_folder(path: str | Path, *, otherwise: str) -> Iterator[None]:
    """Keeps other processes on this machine that ask likewise from writing a folder. A kill frees the lock.

    Args:
        path: of the folder, which must be there.
        otherwise: what a user can do beside waiting.

    Raises:
        InputError: another process holds it.
    """
    import fcntl

    with open(Path(path) / _LOCK, "a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is writing {path}: wait for it, or {otherwise}") from error
        yield


def check_not_locked(path: str | Path) -> None:
    """Raises InputError if another process holds the lock of a folder now; takes and writes nothing."""
    import fcntl

    try:
        with open(Path(path) / _LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"another process is writing {path}: wait for it, or choose another --run_dir") from error
    except OSError:  # no lock, or none that can be read: whoever takes it will say so
        return


class RunDirectory:
    """Paths of a run directory and the ways to write them. Making one touches no file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_yaml = self.path / "config.yaml"
        self.environment_json = self.path / "environment.json"
        self.metrics_json = self.path / "metrics.json"
        self.history_jsonl = self.path / "history.jsonl"
        self.report_txt = self.path / "report.txt"
        self.report_html = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.cache = self.path / "cache"
        self.model = self.path / "model"
        self.records = self.path / "records"
        self.stages = self.path / "stages"
        self.compression_json = self.path / "compression.json"
        self.compression_txt = self.path / "compression.txt"
        self.reports = self.path / "reports"
        self.vocabulary = self.path / "vocabulary.txt"
        self.preset = self.path / "export" / "keras_nlp"
        self.saved_model = self.path / "export" / "saved_model"
        self.tflite = self.path / "export" / "tflite"
        self.tflite_text = self.path / "export" / "tflite_text"
        self.tensorboard = self.path / "tensorboard"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.conll"

    def errors(self, split: str) -> Path:
        return self.path / "errors" / f"{split}.jsonl"

    def is_run(self) -> bool:
        """Whether config.yaml is one of this program (any version of it)."""
        try:
            return {"data", "backbone", "model", "training"} <= read_yaml(self.config_yaml).keys()
        except InputError:
            return False

    def require_run(self, setting: str = "--run_dir") -> None:
        """Raises InputError, which names the flag or key the directory comes from, unless it is a run."""
        if not self.is_run():
            fault = "is not a run directory" if self.path.exists() else "does not exist"
            raise InputError(
                f"{self.path} {fault}: make one with --mode=finetune, or name one with {setting}"
            )

    def plan_training(self, config: Config, *, overwrite: bool = False) -> str:
        """What opening for training would do: "new", "resume" or "overwrite". Changes nothing.

        Raises:
            InputError: the path holds something else, or a run of another configuration.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, --run_dir must be a folder")
        if not self.is_run():
            others = [
                name for name in self._names() if name != _LOCK and not name.startswith(TEMPORARY_PREFIX)
            ]
            if others:
                raise InputError(
                    f"{self.path} holds other files ({', '.join(others[:3])}) and no run; "
                    "it is left alone, give an empty or new folder as --run_dir"
                )
            return "new"
        if overwrite:
            return "overwrite"
        asked, old = flatten(config), flatten(self.read_config())
        asked |= {name: old[name] for name in FOUND_BY_TRIAL if not asked[name]}  # this run has found it
        different = _differences(old, asked)
        if different:
            raise InputError(
                f"{self.path} holds a run with another configuration: {'; '.join(different)}; "
                "start anew with --overwrite, or choose another --run_dir"
            )
        return "resume"

    @contextmanager
    def open_for_training(self, config: Config, *, overwrite: bool = False) -> Iterator[bool]:
        """Locks the directory, writes config.yaml and yields whether an earlier run of this config resumes.

        Raises:
            InputError: as `plan_training`, or another process is writing the directory.
        """
        self.plan_training(config, overwrite=overwrite)
        with self.locked():
            plan = self.plan_training(config, overwrite=overwrite)
            if plan == "overwrite":
                self._clear()
            if plan != "resume":
                self.write_config(config)
            yield plan == "resume"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes on this machine from writing the directory; clears away what a kill left half-written.

        A kill frees the lock.

        Raises:
            InputError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked_folder(self.path, otherwise="choose another --run_dir"):
            for leftover in list(self.path.rglob(f"{TEMPORARY_PREFIX}*")):
                _remove(leftover)
            yield

    def write_text(self, path: str | Path, text: str) -> None:
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_bytes(self, path: str | Path, content: bytes) -> None:
        with atomic(path) as temporary:
            temporary.write_bytes(content)

    def write_json(self, path: str | Path, value: Any) -> None:
        self.write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_jsonl(self, path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
        with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(_json_line(record) for record in records)

    def append_jsonl(self, path: str | Path, record: Mapping[str, Any]) -> None:
        """Adds one line. The half line a kill may have left before it is cut off first."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(max(0, end - 2**16))
                tail = file.read()
                if not tail.endswith(b"\n"):
                    file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)
            file.write(_json_line(record).encode("utf-8"))

    def rewind_history(self, key: str, last: int) -> None:
        """Drops the rows of history.jsonl whose `key` is above `last`: logged, but lost again with a checkpoint."""
        rows = self.read_history()
        kept = [row for row in rows if row.get(key, last) <= last]
        if len(kept) < len(rows):
            self.write_jsonl(self.history_jsonl, kept)

    def read_config(self) -> Config:
        """The configuration of the run."""
        return load_config(None, defaults=str(self.config_yaml))

    def write_config(self, config: Config) -> None:
        self.write_text(self.config_yaml, to_yaml(config))

    def read_history(self) -> list[dict[str, Any]]:
        """The records of history.jsonl; a half last line is left out."""
        if not self.history_jsonl.is_file():
            return []
        lines = self.history_jsonl.read_text(encoding="utf-8", errors="replace").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def read_metrics(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.metrics_json.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InputError(f"{self.metrics_json} is not valid JSON: {error}") from error

    def update_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Merges flat metrics into metrics.json and returns the whole. NaN and infinity become null."""
        merged = _plain({**self.read_metrics(), **metrics})
        self.write_json(self.metrics_json, merged)
        return dict(merged)

    def write_environment(self, *, seed: int, command: Sequence[str]) -> None:
        """Writes environment.json: versions, hardware, git revision, seed, command line."""
        from app.environment import describe_environment

        self.write_json(self.environment_json, describe_environment(seed=seed, command=command))

    def _names(self) -> list[str]:
        return sorted(os.listdir(self.path)) if self.path.is_dir() else []

    def _clear(self) -> None:
        for name in _CONTENTS:
            content = self.path / name
            if content.is_symlink() or content.exists():
                # Renamed first: a kill while deleting leaves no half checkpoint under its own name.
                doomed = self.path / f"{TEMPORARY_PREFIX}deleted-{name}"
                _remove(doomed)
                os.rename(content, doomed)
                _remove(doomed)


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path (same folder, same ending) and renames it to `path` if the block succeeds.

    On failure the temporary file is removed and an older file at `path` stays as it was.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{final.name}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, final)
    except BaseException:
        _remove(temporary)
        raise
    _flush(final.parent)


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_arrays(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """Digest of names, types, shapes and values in the order given; the `weights_sha256` of a model."""
    import hashlib

    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [f"{key} was {old[key]!r}, now {new[key]!r}" for key in new if old[key] != new[key]]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Deletes a file, a folder, or a link itself (never what a link points to)."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: NumPy scalars as numbers, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
