"""Search room: the whole search, from the first trial to the report; any number of processes may do it together."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from app.config import Config, InputError, RunError, with_values
from app.config.tune import trial_mode
from app.run.directory import Request, RunDirectory, check_not_locked, locked_folder
from app.run.files import discard
from app.run.screen import count_of, say
from app.search.findings import UNCHANGED, Findings, find, rank, shown
from app.search.helpers import helped, share_cores
from app.search.job import ForkServer
from app.search.report import print_summary, write_findings
from app.search.space import build_trial_config, read_params, suggest
from app.search.stopping import check_not_stopped, stops_held_back
from app.search.stored import CORPORA, SEED, TRIAL
from app.search.study import (
    Attributes,
    Claim,
    LostTrialError,
    SearchAtWorkError,
    SharedStudy,
    check_nobody_works,
    open_studies,
)
from app.search.trial import DiskFullError, OnEpoch, Outcome, run_trial, when_free
from app.tasks.corpora import DIGITS, ROW_SETTINGS, read_corpora

MODE = "tune"
SECONDS_BETWEEN_LOOKS = 1.0  # at what other processes are doing


def search(request: Request) -> dict[str, float]:
    """Goes through the trials that are left, trains the best again with other seeds, and writes what was found.

    Returns:
        the numbers of metrics.json.

    Raises:
        RunError: no trial gave a result, or none could go on.
    """
    config, run_dir = request.config, request.run_dir
    shares = share_cores(config.tune.processes)
    open_directory(request)
    with open_studies(config, file=run_dir.study, name=_name(run_dir), anew=request.overwrite) as (trials, seeds):
        check_folders(run_dir, trials)
        run_dir.logs.mkdir(exist_ok=True)
        with helped(config, run_dir, shares):
            _work(config, run_dir, trials, seeds)
        found = find(config, run_dir, trials.trials(), seeds.trials())
        with alone(run_dir.path):
            metrics = write_findings(found, trials.load())
            tidy(found)
    print_summary(found)
    if not found.best and not any(spread.by_seed for spread in found.spreads):
        failed = next((row.reason for row in reversed(found.rows) if row.reason), "")
        what = f"trial of {len(found.rows)}" if found.rows else count_of(config.tune.seeds, "training")
        raise RunError(f"no {what} gave a result{'; the last: ' + failed if failed else ''}")
    return metrics


def take_part(config: Config, run_dir: RunDirectory) -> None:
    """Goes through the trials of a search that another process of this machine has begun, as long as any are left."""
    with open_studies(config, file=run_dir.study, name=_name(run_dir)) as (trials, seeds):
        _work(config, run_dir, trials, seeds, announces=False)


def _name(run_dir: RunDirectory) -> str:
    return run_dir.path.resolve().name


def _work(
    config: Config, run_dir: RunDirectory, trials: SharedStudy, seeds: SharedStudy, *, announces: bool = True
) -> None:
    mode = trial_mode(config.tune)
    with stops_held_back(), ForkServer(mode, run_dir.logs / "server.txt") as server:
        worker = Worker(config, run_dir, server, mode, announces=announces)
        worker.go_through_trials(trials)
        if config.tune.seeds:
            worker.go_through_seeds(trials, seeds)


def open_directory(request: Request) -> None:
    """Makes the run directory, or finds that it holds this search.

    Raises:
        InputError: it holds something else; or it is to start over, and another process is at work in it.
    """
    config, run_dir = request.config, request.run_dir
    kept = with_values(config, {"tune.storage": ""})
    if request.overwrite:
        for folder in (*run_dir.trials.glob("*"), *run_dir.seeds.glob("*")):
            check_not_locked(folder)
        try:  # a process may hold none of these folders for a while: one that loads TensorFlow, say
            check_nobody_works(config, file=run_dir.study, name=_name(run_dir))
        except SearchAtWorkError:
            raise
        except InputError:
            if config.tune.storage:
                raise  # else a file that nobody can go on with, which is deleted with the directory

    def open_it() -> None:
        with run_dir.open_for_training(kept, mode=MODE, overwrite=request.overwrite) as resumed:
            run_dir.write_environment(seed=config.seed, command=sys.argv)
            if resumed and (run_dir.trials.exists() or run_dir.seeds.exists()):
                say(f"going on with the search in {run_dir}")

    when_free(open_it)


def check_folders(run_dir: RunDirectory, study: SharedStudy) -> None:
    """Raises InputError if trials lie in a run directory that its study knows nothing of.

    New trials would get their numbers, and with them their folders.
    """
    # The folders first: a trial is in the study before it has one.
    folders = {path.name for path in run_dir.trials.glob("*") if path.name.isdigit()}
    strange = folders - {str(trial.number) for trial in study.trials()}
    if strange:
        raise InputError(
            f"{run_dir.trials} holds trials of another search, such as {min(strange)}: its study had another name or "
            "database (tune.study, tune.storage), or is lost; give another --run_dir, or --overwrite"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The lock of the run directory, waited for."""
    with ExitStack() as stack:
        when_free(lambda: stack.enter_context(locked_folder(folder, otherwise="run the same command again")))
        yield


@dataclass(frozen=True)
class Worker:
    """This process of a search.

    Attributes:
        config: of the search.
        run_dir: of the search.
        server: starts trials.
        mode: that a trial runs.
        announces: whether it says what all processes of this machine begin together.
    """

    config: Config
    run_dir: RunDirectory
    server: ForkServer
    mode: str
    announces: bool = True

    def go_through_trials(self, study: SharedStudy) -> None:
        """Until there are as many as asked for, or no time is left, and no process is at work on any."""
        tune = self.config.tune

        def make_next(trials: Sequence[FrozenTrial]) -> Attributes | None:
            seconds = sum(trial.user_attrs.get("seconds", 0.0) for trial in trials)
            spent = tune.max_seconds and seconds >= tune.max_seconds
            return None if spent or len(trials) >= tune.trials else {}

        self._go_through(study, make_next, self._try)

    def go_through_seeds(self, trials: SharedStudy, seeds: SharedStudy) -> None:
        """The best trial and the unchanged settings, with seeds that the best was not chosen by.

        Without a search the unchanged settings alone.
        """
        ranked = rank(trials.trials(), self.config.tune)
        if not ranked and self.config.tune.trials:
            return
        best = ranked[0].number if ranked else UNCHANGED
        wanted = [
            {TRIAL: number, SEED: self.config.seed + 1 + more}
            for number in dict.fromkeys((best, UNCHANGED))
            for more in range(self.config.tune.seeds)
        ]

        def make_next(made: Sequence[FrozenTrial]) -> Attributes | None:
            there = [{TRIAL: each.user_attrs.get(TRIAL), SEED: each.user_attrs.get(SEED)} for each in made]
            return next((each for each in wanted if each not in there), None)

        if self.announces and make_next(seeds.trials()):
            others = count_of(self.config.tune.seeds, "other seed" if ranked else "seed")
            say(f"training {f'trial {best} and ' if ranked else ''}the unchanged settings with {others}")

        def train(study: SharedStudy, claim: Claim) -> None:
            number, seed = claim.trial.user_attrs[TRIAL], claim.trial.user_attrs[SEED]
            values = self._values_of(trials, number)
            name = f"trial{number}-seed{seed}" if number >= 0 else f"unchanged-seed{seed}"
            config = build_trial_config(self.config, values, seed=seed)
            label = f"{f'trial {number}' if number >= 0 else 'unchanged'}, seed {seed}"
            folder = self.run_dir.seeds / name
            outcome = self._train(claim, config, folder, study, trials, label=label, on_epoch=_go_on)
            self._finish(study, claim, outcome, names=("score",), folder=folder)
            say(f"{label} | {_describe(outcome)}")
            if not self.config.tune.keep_models:
                discard(folder / "model")

        self._go_through(seeds, make_next, train)

    def _values_of(self, trials: SharedStudy, number: int) -> dict:
        """Of a trial that is the best, or was when a process that is gone chose it; none of the unchanged settings."""
        params = next((each.params for each in trials.trials() if each.number == number), {})
        return read_params(params, self.config.tune.space)

    def _go_through(
        self,
        study: SharedStudy,
        make_next: Callable[[Sequence[FrozenTrial]], Attributes | None],
        work: Callable[[SharedStudy, Claim], None],
    ) -> None:
        waits = False
        while True:
            check_not_stopped()
            claim = study.claim(make_next)
            if claim is None:
                running = [trial for trial in study.trials() if not trial.state.is_finished()]
                if not running:
                    return
                if not waits:
                    say(f"waiting for {' and '.join(study.owners()) or 'trials that others left'}")
                waits = True
                time.sleep(SECONDS_BETWEEN_LOOKS)
                continue
            waits = False
            try:
                work(study, claim)
            except LostTrialError as error:
                say(f"warning: {error}; it is left to that one")
            except DiskFullError as error:
                raise RunError(f"{error}: free some space and run the same command again, which goes on") from error

    def _try(self, study: SharedStudy, claim: Claim) -> None:
        """A trial of the search."""
        folder = self.run_dir.trials / str(claim.number)
        try:
            values = suggest(claim.trial, self.config.tune.space)
            listed = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in values.items())
            say(f"trial {claim.number}{_stood(claim)}: {listed}")
            config = build_trial_config(self.config, values)
        except InputError as error:
            outcome = Outcome(failed=str(error))
        else:
            watcher = self._watcher(study, claim, epochs=config.training.epochs)
            outcome = self._train(claim, config, folder, study, label=f"trial {claim.number}", on_epoch=watcher)
        self._finish(study, claim, outcome, names=self.config.tune.objectives, folder=folder)
        say(f"trial {claim.number} | {_describe(outcome)} | {_best_so_far(study, self.config)}")
        tidy(find(self.config, self.run_dir, study.trials(), ()))

    def _watcher(self, study: SharedStudy, claim: Claim, *, epochs: int) -> OnEpoch:
        """Reports each epoch and asks whether the trial is to go on."""
        known = claim.trial.storage.get_trial(claim.trial._trial_id).intermediate_values

        def on_epoch(epoch: int, score: float) -> bool:
            if epoch not in known:  # else another process has reported and shown it
                claim.trial.report(score, epoch)
                say(f"trial {claim.number} | epoch {epoch} | score {score:.4f} | {_best_so_far(study, self.config)}")
            return bool(epoch < epochs and claim.trial.should_prune())

        return on_epoch if self.mode == "finetune" else _go_on

    def _train(
        self, claim: Claim, config: Config, folder: Path, study: SharedStudy, *others: SharedStudy, label: str,
        on_epoch: OnEpoch,
    ) -> Outcome:  # fmt: skip
        """A training of a study, whose scores are compared with those of the others as well.

        Raises:
            InputError: it had other corpora than those before it; it is left for when they are back.
        """

        def watch(epoch: int, score: float) -> bool:
            return bool(self._other_corpora(folder, study, *others)) or on_epoch(epoch, score)

        log = self.run_dir.logs / f"{folder.parent.name}-{folder.name}.txt"
        outcome = run_trial(
            self.server, study, claim, config, folder=folder, log=log, label=label, on_epoch=watch
        )
        reason = self._other_corpora(folder, study, *others)
        if reason:
            discard(folder)
            study.release(claim)
            raise InputError(f"{reason}; bring them back, or start over with --overwrite")
        return outcome

    def _other_corpora(self, folder: Path, *studies: SharedStudy) -> str:
        """What a training in a folder has other corpora in than one that has a score; empty if nothing is."""
        if any(key.startswith("data.") and key[5:] not in ROW_SETTINGS for key in self.config.tune.space):
            return ""  # they are searched
        now = _read_digests(folder)
        for study in studies:
            scored = [trial for trial in study.trials() if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
            for before in (trial.user_attrs.get(CORPORA, {}) for trial in scored):
                for split in sorted(now.keys() & before.keys()):
                    if now[split] != before[split]:
                        return (
                            f"data.{split}_path: the sentences are not those that trainings before had "
                            f"(SHA-256 {before[split][:DIGITS]}, now {now[split][:DIGITS]})"
                        )
        return ""

    def _finish(
        self, study: SharedStudy, claim: Claim, outcome: Outcome, *, names: Sequence[str], folder: Path
    ) -> None:
        about: Attributes = {"reason": outcome.failed, "epochs": outcome.epochs, "values": dict(outcome.values)}
        about[CORPORA] = _read_digests(folder)
        if outcome.failed:
            study.finish(claim, TrialState.FAIL, about=about)
        elif outcome.pruned:
            study.finish(claim, TrialState.PRUNED, about=about)
        else:
            study.finish(claim, TrialState.COMPLETE, values=[outcome.values[name] for name in names], about=about)


def _read_digests(folder: Path) -> dict[str, str]:
    """By split, of what a training learnt from and was validated on; of none that has not begun."""
    found = read_corpora(RunDirectory(folder))
    return {split: found[split]["sha256"] for split in ("train", "valid") if split in found}


def _stood(claim: Claim) -> str:
    """Where a trial stood that another process left, if this is one."""
    epochs = max(claim.trial.storage.get_trial(claim.trial._trial_id).intermediate_values, default=0)
    return (f", gone on with after epoch {epochs}" if epochs else ", gone on with") if claim.resumed else ""


def _describe(outcome: Outcome) -> str:
    if outcome.failed:
        return f"failed: {outcome.failed}"
    if outcome.pruned:
        return f"stopped after {count_of(outcome.epochs, 'epoch')}, as others are better"
    return ", ".join(f"{name} {shown(name, value)}" for name, value in outcome.values.items())


def _go_on(epoch: int, score: float) -> bool:
    return False


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _best_so_far(study: SharedStudy, config: Config) -> str:
    trials = study.trials()
    best = rank(trials, config.tune)
    done = sum(trial.state.is_finished() for trial in trials)
    counted = f"{done} done"
    if not best or not best[0].values:
        return f"nothing to compare with yet, {counted}"
    if len(best[0].values) == 1:
        return f"best so far {best[0].values[0]:.4f} (trial {best[0].number}), {counted}"
    return f"{len(best)} on the front, {counted}"


def tidy(found: Findings) -> None:
    """Drops what only training needed, and models that nobody will use."""
    if found.config.tune.keep_models:
        return
    kept = {row.number for row in found.front} | ({found.best.number} if found.best else set())
    for row in found.rows:
        if row.finished and row.number not in kept:
            for name in ("model", "checkpoints", "export"):
                discard(found.run_dir.trials / str(row.number) / name)
