"""The run directory: where everything lies, and how it is written so that a kill never leaves half a file.

Imports no TensorFlow. Every file goes to a temporary name in the same folder and is renamed when complete.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.config import FOUND_BY_TRIAL, Config, InputError, flatten, trained_settings, with_values
from app.config.loading import load_config, read_yaml, to_yaml
from app.run.files import (
    LOCK,
    TEMPORARY_PREFIX,
    check_links,
    discard,
    find_leftovers,
    flush,
    follow_links,
    grant_usual_access,
    is_special,
    lock,
    named,
    remove,
    temporary_beside,
)

if TYPE_CHECKING:
    import numpy as np

# config.yaml marks a folder as a run, so it is the last thing --overwrite deletes. state.json says what of the rest is
# complete, so it is the first.
_CONTENTS = (
    "state.json environment.json corpora.json metrics.json history.jsonl report.txt report.html predictions errors "
    "evaluations checkpoints answers cache records vocabulary.txt stages compression.json compression.txt update.json "
    "model export reports tensorboard best.yaml trials.csv study.db study.db-journal study.db.lock trials seeds logs "
    "config.yaml"
).split()
_MADE_ANEW_IF_NEEDED = ("records", "cache", "answers")  # each knows by itself which settings it was made with


@dataclass(frozen=True)
class Request:
    """What the command line asks of a mode: `run(request: Request) -> dict[str, float]` (final metrics).

    Attributes:
        config: resolved and checked; each function gets its own section of it.
        run_dir: not yet opened; it may not exist.
        overwrite: start over in an existing run directory.
        input: `--input`, such as a file or "-"; empty where the mode takes none.
        output: `--output`, a file; empty for stdout.
        more_inputs: further `--input` flags.
    """

    config: Config
    run_dir: RunDirectory
    overwrite: bool = False
    input: str = ""
    output: str = ""
    more_inputs: tuple[str, ...] = ()


class LockedError(InputError):
    """Another process is writing a folder now."""


@contextmanager
def locked_folder(path: str | Path, *, otherwise: str) -> Iterator[None]:
    """Keeps other processes on this machine that ask likewise from writing a folder. A kill frees the lock.

    Args:
        path: of the folder, which must be there.
        otherwise: what a user can do beside waiting.

    Raises:
        LockedError: another process holds it.
    """
    with open(Path(path) / LOCK, "a", encoding="ascii") as file:
        try:
            lock(file.fileno(), Path(path))
        except BlockingIOError as error:
            raise LockedError(f"another process is writing {path}: wait for it, or {otherwise}") from error
        yield


def check_not_locked(path: str | Path) -> None:
    """Raises LockedError if another process holds the lock of a folder now; takes and writes nothing."""
    import fcntl

    try:
        with open(Path(path) / LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"another process is writing {path}: wait for it, or choose another --run_dir") from error
    except OSError:  # no lock, or none that can be read: whoever takes it will say so
        return


class RunDirectory:
    """Paths of a run directory and the ways to write them. Making one touches no file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_yaml = self.path / "config.yaml"
        self.environment_json = self.path / "environment.json"
        self.corpora_json = self.path / "corpora.json"
        self.state_json = self.path / "state.json"
        self.metrics_json = self.path / "metrics.json"
        self.history_jsonl = self.path / "history.jsonl"
        self.report_txt = self.path / "report.txt"
        self.report_html = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.answers = self.path / "answers"
        self.cache = self.path / "cache"
        self.model = self.path / "model"
        self.model_sums = self.model / "SHA256SUMS"  # written last
        self.records = self.path / "records"
        self.stages = self.path / "stages"
        self.compression_json = self.path / "compression.json"
        self.compression_txt = self.path / "compression.txt"
        self.update_json = self.path / "update.json"
        self.reports = self.path / "reports"
        self.study = self.path / "study.db"
        self.trials = self.path / "trials"
        self.seeds = self.path / "seeds"
        self.logs = self.path / "logs"
        self.trials_csv = self.path / "trials.csv"
        self.best_yaml = self.path / "best.yaml"
        self.vocabulary = self.path / "vocabulary.txt"
        self.preset = self.path / "export" / "keras_nlp"
        self.saved_model = self.path / "export" / "saved_model"
        self.tflite = self.path / "export" / "tflite"
        self.tflite_text = self.path / "export" / "tflite_text"
        self.refused_exports = self.path / "export" / "refused.json"
        self.tensorboard = self.path / "tensorboard"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def predictions(self, split: str, suffix: str) -> Path:
        return self.path / "predictions" / f"{split}.{suffix}"

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

    def plan_training(self, config: Config, *, mode: str = "", overwrite: bool = False) -> str:
        """What opening for training would do; changes nothing.

        "new", "resume" or "overwrite"; "replace": a run of another configuration is there that wrote no checkpoint, so
        that nothing is lost with it; "finished": this run is trained to the end, only scoring is left or asked for.

        Args:
            config: asked for.
            mode: that trains. Only settings that change what it makes must be those of the run that is there.
            overwrite: start over.

        Raises:
            InputError: the path holds something else, or a run of another configuration.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, --run_dir must be a folder")
        if not self.is_run():
            others = [
                name for name in self._names() if name != LOCK and not name.startswith(TEMPORARY_PREFIX)
            ]
            if others:
                raise InputError(
                    f"{self.path} holds other files ({', '.join(others[:3])}) and no run; "
                    "it is left alone, give an empty or new folder as --run_dir"
                )
            return "new"
        if overwrite:
            self._check_not_a_source(config, mode)
            return "overwrite"
        conflict = self._conflict(config, mode)
        if conflict and self._holds_training():
            raise InputError(conflict)
        if conflict:
            return "replace"
        return "finished" if self._is_trained(config, mode) else "resume"

    def _check_not_a_source(self, config: Config, mode: str) -> None:
        """Raises InputError if the run that is about to be deleted is one that the new run starts from."""
        sources = {
            "init_from": (config.init_from,),
            "backbone.source": (config.backbone.source,),
            "distill.teachers": config.distill.teachers if mode == "distill" else (),
        }
        own = self.path.resolve()
        for key, paths in sources.items():
            if any(path and Path(path).resolve() in (own, self.model.resolve()) for path in paths):
                raise InputError(
                    f"--overwrite would delete {self.path}, which {key} names as what to start from: "
                    "choose another --run_dir"
                )

    def _conflict(self, config: Config, mode: str) -> str:
        """Why the run that is there cannot be gone on with; empty if it can."""
        made_by = self.read_state().get("mode", mode)
        if mode and made_by != mode:
            return (
                f"{self.path} holds a run of --mode={made_by}; start over with --overwrite, or choose another --run_dir"
            )
        before, counted = self.read_config(), trained_settings(mode)
        old, new = flatten(before), flatten(with_found(config, before))
        different = [key for key in new if key in counted and old[key] != new[key]]
        if not different:
            return ""
        if different == ["training.epochs"] and new["training.epochs"] > old["training.epochs"]:
            if self._is_trained(before, mode):
                return "" if self.has_checkpoint() else self._cannot_go_on(new["training.epochs"], mode)
        changes = "; ".join(f"{key} was {old[key]!r}, now {new[key]!r}" for key in different)
        return (
            f"{self.path} holds a run with another configuration: {changes}; "
            "start over with --overwrite, or choose another --run_dir"
        )

    def _cannot_go_on(self, epochs: int, mode: str) -> str:
        key = "backbone.source" if mode == "pretrain" else "init_from"
        return (
            f"{self.path} is finished and its checkpoints are dropped, so it cannot be trained on to "
            f"training.epochs={epochs}: start another --run_dir from its model with --set {key}={self.path}, or start "
            "over with --overwrite (training.keep_checkpoints=true keeps the checkpoints)"
        )

    @contextmanager
    def open_for_training(self, config: Config, *, mode: str = "", overwrite: bool = False) -> Iterator[bool]:
        """Locks the directory, writes config.yaml and yields whether an earlier run of this config resumes.

        Raises:
            InputError: as `plan_training`, or another process is writing the directory.
        """
        self.plan_training(config, mode=mode, overwrite=overwrite)
        with self.locked():
            plan = self.plan_training(config, mode=mode, overwrite=overwrite)
            if plan == "finished":
                raise InputError(f"{self.path} was finished by another process just now: run the same command again")
            if plan == "overwrite":
                self._clear()
            if plan == "replace":
                self._clear(but=_MADE_ANEW_IF_NEEDED)
            self.settle_config(config)
            if mode and not self.read_state():
                self.write_json(self.state_json, {"mode": mode})
            yield plan == "resume"

    def settle_config(self, config: Config) -> Config:
        """Writes config.yaml, with what trials of the run that is there have found, if that changes it."""
        before = self.read_config() if self.is_run() else None
        config = with_found(config, before) if before else config
        if before and before.data.test_path != config.data.test_path:
            self.forget_scores("test")  # config.yaml will name another corpus
        if config != before:
            self.write_config(config)
        return config

    def read_state(self) -> dict[str, Any]:
        """What is known to be complete: {"mode", "epochs", "trained", "scored"}, the last two as times.

        Empty for a run of a version that wrote no state.json.
        """
        try:
            return dict(json.loads(self.state_json.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def mark_trained(self, config: Config, *, mode: str, when: float | None = None) -> None:
        """To be called when the model and the numbers of the training are written; `when` in seconds, or now."""
        state = {"mode": mode, "epochs": config.training.epochs, "trained": _time(when)}
        self.write_json(self.state_json, state)

    def complete(self, *, keep_checkpoints: bool) -> None:
        """To be called when everything is written: marks the run as scored and drops what only training needed."""
        self.write_json(self.state_json, self.read_state() | {"scored": _time()})
        if not keep_checkpoints:
            self._drop_checkpoints()
            discard(self.answers)

    def _drop_checkpoints(self) -> None:
        if not self.checkpoints.is_symlink():
            discard(self.checkpoints)
            return
        for pattern in ("checkpoint", "ckpt-*", "best.npz"):  # the folder is elsewhere, and may hold other files
            for path in list(self.checkpoints.rglob(pattern)):
                path.unlink(missing_ok=True)

    def has_checkpoint(self) -> bool:
        """Whether training can go on from where it stood."""
        return (self.checkpoints / "checkpoint").is_file()

    def _holds_training(self) -> bool:
        """Whether there is anything that took training to make."""
        made = (self.model, self.stages, self.path / "export", self.trials, self.seeds)
        return any(folder.exists() for folder in made) or any(self.checkpoints.rglob("ckpt-*.index"))

    def _is_trained(self, config: Config, mode: str) -> bool:
        """Whether the model of the run is written, by a training of as many epochs as `config` asks for."""
        if not self.model_sums.is_file():
            return False
        state = self.read_state()
        if not state:  # of an earlier version, which kept its checkpoints: they say how far it is, if they are there
            return "weights_sha256" in self.read_metrics() and not any(self.checkpoints.rglob("ckpt-*.index"))
        counts = "training.epochs" in trained_settings(mode)
        return "trained" in state and (not counts or state.get("epochs") == config.training.epochs)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes on this machine from writing the directory; clears away what a kill left half-written.

        A kill frees the lock.

        Raises:
            LockedError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked_folder(self.path, otherwise="choose another --run_dir"):
            check_links(self.path, _CONTENTS, emptied=False)
            for leftover in list(find_leftovers(self.path)):
                remove(leftover)
            yield

    def write_text(self, path: str | Path, text: str) -> None:
        with atomic(path) as temporary:  # a byte of a path that is not UTF-8 becomes \\udc.., as JSON writes it
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

    def write_bytes(self, path: str | Path, content: bytes) -> None:
        with atomic(path) as temporary:
            temporary.write_bytes(content)

    def write_json(self, path: str | Path, value: Any) -> None:
        self.write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_jsonl(self, path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
        with atomic(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(_json_line(record) for record in records)

    def append_jsonl(self, path: str | Path, record: Mapping[str, Any]) -> None:
        """Adds one line. The half line a kill may have left before it is cut off first."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with named(path), path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(max(0, end - 2**16))
                tail = file.read()
                if not tail.endswith(b"\n"):
                    file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)
            file.write(_json_line(record).encode("utf-8", "backslashreplace"))

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

    def write_training_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """As `update_metrics`, but what is there already of the same training stays: a kill may have come since."""
        known = self.read_metrics()
        # More epochs may end with the same weights, those of an earlier epoch that was the best.
        same = all(known.get(name) == metrics.get(name) for name in ("weights_sha256", "train/epochs"))
        return self.update_metrics({**metrics, **(known if same else {})})

    def forget_scores(self, split: str) -> None:
        """Drops the scores of a split, before another corpus takes its place."""
        metrics = self.read_metrics()
        kept = {name: value for name, value in metrics.items() if not name.startswith(f"{split}/")}
        if kept != metrics:
            self.write_json(self.metrics_json, kept)
        for path in (*(self.path / "predictions").glob(f"{split}.*"), self.errors(split)):
            path.unlink(missing_ok=True)

    def write_environment(self, *, seed: int, command: Sequence[str]) -> None:
        """Writes environment.json: versions, hardware, git revision, seed, command line."""
        from app.run.environment import describe_environment

        self.write_json(self.environment_json, describe_environment(seed=seed, command=command))

    def _names(self) -> list[str]:
        return sorted(os.listdir(self.path)) if self.path.is_dir() else []

    def _clear(self, *, but: Sequence[str] = ()) -> None:
        contents = [name for name in _CONTENTS if name not in but]
        check_links(self.path, contents, emptied=True)
        for name in contents:
            discard(self.path / name)


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path (same folder, same ending) and renames it to `path` if the block succeeds.

    On failure the temporary file is removed and an older file at `path` stays as it was. A link stays, what it leads to
    is replaced. A device or pipe is not replaced: it is what is yielded.

    Raises:
        OSError: that names `path` where the disk is full, whatever the block raised.
    """
    if is_special(path):
        with named(path):
            yield Path(path)
        return
    final = follow_links(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(final)
    try:
        with named(path):
            yield temporary
            grant_usual_access(temporary)
            flush(temporary)
            os.replace(temporary, final)
    except BaseException:
        remove(temporary)
        raise
    flush(final.parent)


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


def with_found(config: Config, run: Config) -> Config:
    """`config` with the numbers that trials found for a run, where it leaves them to be found (`FOUND_BY_TRIAL`)."""
    ours, theirs = flatten(config), flatten(run)
    return with_values(config, {key: theirs[key] for key in FOUND_BY_TRIAL if not ours[key]})


def _time(seconds: float | None = None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


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
