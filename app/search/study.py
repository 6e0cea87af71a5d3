"""Search room: the study, a database that the processes of a search share, and who is at work on which trial.

A trial is RUNNING from its first moment and says in its attribute `owner` which process is at work on it. Whoever finds
that process gone goes on with the trial, under the same number and in the same folder, so that none is lost or counted
twice however often processes are killed. Everything that reads and then writes holds the lock of the study: a file lock
beside SQLite's file, an advisory lock of PostgreSQL.
"""

from __future__ import annotations

import json
import time
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from app.config import Config, InputError, TuneConfig, flatten, trained_settings
from app.search.choosing import build_pruner, build_sampler, most_epochs
from app.search.database import StudyLock, explained, locate, open_storage
from app.search.owner import machine, note_owner, start_of
from app.search.space import build_distribution
from app.search.stored import SEED, TRIAL, DamagedStudyError, check_trials, decoded, is_owner

BEAT_SECONDS = 10.0
GRACE_SECONDS = 120.0  # a process of another machine that has not been heard of for so long is gone
_SETTINGS, _OWNER = "settings", "owner"
Attributes = dict[str, Any]


class LostTrialError(Exception):
    """Another process has taken the trial over, as this one was not heard of for too long."""


class SearchAtWorkError(InputError):
    """A search that is to be deleted is one that another process goes on with."""


@dataclass(frozen=True)
class Claim:
    """A trial that this process is at work on.

    Attributes:
        trial: Optuna's.
        token: what its `owner` holds while it is ours.
        spent: seconds that earlier processes were at work on it.
        began: when this one began, by the monotonic clock.
        resumed: whether another process was at work on it.
    """

    trial: Trial
    token: str
    spent: float
    began: float
    resumed: bool

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.began


class SharedStudy:
    """A study of Optuna in a database.

    Args:
        storage: the database.
        name: of the study.
        config: chooses sampler and pruner; the seed of the search and the epochs of a trial.
        lock: see `StudyLock`.
        shown: the database, as people may see it.
        seeds: whether its trials are trainings with other seeds, which choose no settings.
    """

    def __init__(
        self, storage: RDBStorage, name: str, config: Config, lock: StudyLock, *, shown: str,
        seeds: bool = False,
    ) -> None:  # fmt: skip
        self._storage, self._name, self._config, self._lock = storage, name, config, lock
        self._where = _place(name, shown)
        self._required = (TRIAL, SEED) if seeds else ()
        space = {} if seeds else config.tune.space
        self._distributions = {key: build_distribution(values) for key, values in space.items()}
        self._id = storage.get_study_id_from_name(name)
        self._heard: dict[int, tuple[Any, float]] = {}  # trial -> (last beat, when it was seen first)

    def trials(self) -> list[FrozenTrial]:
        """All trials as they are now, by their numbers.

        Raises:
            DamagedStudyError: another program has written to them.
        """
        trials = self._read()
        with decoded(self._where):
            objectives = len(self._storage.get_study_directions(self._id))
        check_trials(
            trials, distributions=self._distributions, objectives=objectives, required=self._required, where=self._where
        )
        return trials

    def _read(self) -> list[FrozenTrial]:
        """They may be those of a search with other settings."""
        with decoded(self._where):
            return sorted(self._storage.get_all_trials(self._id), key=lambda trial: trial.number)

    def load(self, number: int = 0) -> optuna.Study:
        """The study as Optuna has it, with the sampler of one trial, whose choices depend on its number alone."""
        sampler = build_sampler(self._config.tune, seed=zlib.crc32(f"{self._config.seed}/{number}".encode()))
        pruner = build_pruner(self._config.tune, epochs=most_epochs(self._config))
        return optuna.load_study(study_name=self._name, storage=self._storage, sampler=sampler, pruner=pruner)

    def owners(self) -> list[str]:
        """The processes at work, as far as is known."""
        running = [trial for trial in self._read() if trial.state == TrialState.RUNNING]
        held = [trial.user_attrs[_OWNER] for trial in running
                if is_owner(trial.user_attrs.get(_OWNER)) and not self._is_abandoned(trial)]  # fmt: skip
        return [f"process {owner['pid']} on {owner['host']}" for owner in held]

    def claim(self, make_next: Callable[[Sequence[FrozenTrial]], Attributes | None]) -> Claim | None:
        """A trial to work on: one that another process left behind or another program asks for, else a new one.

        Args:
            make_next: what a new trial is to know, by the trials there are; None if there is to be no other.
        """
        with self._lock.held():
            trials = self.trials()
            for trial in trials:
                if trial.state == TrialState.RUNNING and self._is_abandoned(trial):
                    return self._take(trial, resumed=True)
                if trial.state == TrialState.WAITING:  # `optuna.Study.enqueue_trial`
                    self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
                    return self._take(trial)
            attributes = make_next(trials)
            if attributes is None:
                return None
            token = uuid.uuid4().hex
            template = create_trial(state=TrialState.RUNNING, user_attrs={**attributes, _OWNER: note_owner(token)})
            return self._open(self._storage.create_new_trial(self._id, template), token)

    def beat(self, claim: Claim) -> None:
        """Says that this process is alive.

        Raises:
            LostTrialError: the trial is another's by now.
        """
        with self._lock.held():
            self._require_own(claim)
            self._set(claim, _OWNER, note_owner(claim.token))
            self._set(claim, "seconds", round(claim.seconds, 1))

    def release(self, claim: Claim) -> None:
        """Leaves the trial to the next process."""
        with self._lock.held():
            self._require_own(claim)
            self._set(claim, "seconds", round(claim.seconds, 1))
            self._set(claim, _OWNER, None)

    def finish(
        self, claim: Claim, state: TrialState, *, values: Sequence[float] | None = None, about: Mapping[str, Any]
    ) -> None:
        """Tells how a trial ended, once."""
        with self._lock.held():
            self._require_own(claim)
            for name, value in {**about, "seconds": round(claim.seconds, 1)}.items():
                self._set(claim, name, value)
            claim.trial.study.tell(claim.trial, list(values) if values is not None else None, state)

    def _take(self, trial: FrozenTrial, *, resumed: bool = False) -> Claim:
        token = uuid.uuid4().hex
        self._storage.set_trial_user_attr(trial._trial_id, _OWNER, note_owner(token))
        return self._open(trial._trial_id, token, float(trial.user_attrs.get("seconds", 0.0)), resumed=resumed)

    def _open(self, trial_id: int, token: str, spent: float = 0.0, *, resumed: bool = False) -> Claim:
        study = self.load(self._storage.get_trial_number_from_id(trial_id))
        study.get_trials(deepcopy=False)  # what Optuna keeps of a database knows only trials that it has read
        return Claim(Trial(study, trial_id), token, spent, time.monotonic(), resumed)

    def _set(self, claim: Claim, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(claim.trial._trial_id, name, value)

    def _require_own(self, claim: Claim) -> None:
        trial = next((each for each in self.trials() if each._trial_id == claim.trial._trial_id), None)
        owner = (trial.user_attrs.get(_OWNER) if trial else None) or {}
        if not trial or trial.state != TrialState.RUNNING or owner.get("token") != claim.token:
            raise LostTrialError(f"trial {claim.number} was taken over by another process")

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get(_OWNER)
        if not owner:
            return True
        if owner["machine"] == machine():
            return start_of(owner["pid"]) != owner["started"]
        beat, since = self._heard.get(trial._trial_id, (None, 0.0))
        if beat != (owner["token"], owner["beat"]):  # clocks of machines differ, so only a change counts
            self._heard[trial._trial_id] = ((owner["token"], owner["beat"]), time.monotonic())
            return False
        return time.monotonic() - since > GRACE_SECONDS


@contextmanager
def open_studies(
    config: Config, *, file: Path, name: str, anew: bool = False
) -> Iterator[tuple[SharedStudy, SharedStudy]]:
    """The study of a search, and that of the trainings with other seeds that follow it; made where they are not there.

    Args:
        config: of the search.
        file: of the database if the configuration names none.
        name: of the study if the configuration names none.
        anew: forget the studies that are there.

    Raises:
        InputError: the database cannot be used, or holds a search of this name with other settings.
        RunError: the database failed later.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    name = config.tune.study or name
    names = _names(name)
    url, shown = locate(config.tune, file=file)
    with explained(shown, opened=False):
        if url.drivername == "sqlite":
            Path(url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
        lock = StudyLock(url, name)
        with lock.held():
            storage = open_storage(url, shown=shown)
            if anew:
                _forget(storage, names, config, lock, shown=shown)
            for each, goals in zip(names, (_directions(config.tune), [StudyDirection.MAXIMIZE]), strict=True):
                _make_study(storage, each, config, directions=goals, shown=shown)
    with explained(shown, opened=True):
        yield (
            SharedStudy(storage, names[0], config, lock, shown=shown),
            SharedStudy(storage, names[1], config, lock, shown=shown, seeds=True),
        )


def _directions(config: TuneConfig) -> list[StudyDirection]:
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    return [up if name == "score" else down for name in config.objectives]


def _make_study(
    storage: RDBStorage, name: str, config: Config, *, directions: Sequence[StudyDirection], shown: str
) -> None:
    counted = trained_settings("tune")
    ours = json.loads(json.dumps({key: value for key, value in flatten(config).items() if key in counted}))
    with decoded(_place(name, shown)):
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        theirs = study.user_attrs.get(_SETTINGS)
        fits = study.directions == list(directions)
        is_new = fits and theirs is None and not study.get_trials(deepcopy=False)
    if is_new:
        study.set_user_attr(_SETTINGS, ours)
        return
    if not fits or not isinstance(theirs, Mapping):
        raise InputError(
            f"{shown} holds a study {name!r} that --mode=tune has not made; give this search another tune.study"
        )
    different = [key for key in ours if theirs.get(key) != ours[key]]
    if different:
        changes = "; ".join(f"{key} was {theirs.get(key)!r}, now {ours[key]!r}" for key in different[:3])
        raise InputError(
            f"{shown} holds a search {name!r} with other settings: {changes}; give this one another tune.study"
        )


def _forget(storage: RDBStorage, names: Sequence[str], config: Config, lock: StudyLock, *, shown: str) -> None:
    """Deletes studies; raises InputError if a process is at work on one of them."""
    _check_nobody_works(storage, names, config, lock, shown=shown)
    for name in names:
        if not _is_there(storage, name):
            continue
        with decoded(_place(name, shown), otherwise="--overwrite cannot delete it: give this one another tune.study"):
            optuna.delete_study(study_name=name, storage=storage)


def check_nobody_works(config: Config, *, file: Path, name: str) -> None:
    """Before anything of a search is deleted; the arguments are those of `open_studies`.

    Raises:
        InputError: a process is at work on it, or the database that the configuration names cannot be used.
    """
    url, shown = locate(config.tune, file=file)
    if url.drivername == "sqlite" and not Path(url.database or "").is_file():
        return
    name = config.tune.study or name
    lock = StudyLock(url, name)
    with explained(shown, opened=False), lock.held():
        storage = open_storage(url, shown=shown)
        _check_nobody_works(storage, _names(name), config, lock, shown=shown)


def _check_nobody_works(
    storage: RDBStorage, names: Sequence[str], config: Config, lock: StudyLock, *, shown: str
) -> None:
    for name in names:
        busy = []
        if _is_there(storage, name):
            with suppress(DamagedStudyError):  # nothing goes on with it, so nothing is at work on it for long
                busy = SharedStudy(storage, name, config, lock, shown=shown).owners()
        if busy:
            raise SearchAtWorkError(
                f"--overwrite would delete the search {name!r}, at which another process works: {busy[0]}"
            )


def _names(name: str) -> tuple[str, str]:
    return name, f"{name}, other seeds"


def _place(name: str, shown: str) -> str:
    return f"the search {name!r} in {shown}"


def _is_there(storage: RDBStorage, name: str) -> bool:
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True
