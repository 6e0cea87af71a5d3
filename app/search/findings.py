"""Search room: what a search has found so far, read off its studies; nothing of Optuna is needed to read on."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from app.config import Config, TuneConfig
from app.run.directory import RunDirectory
from app.search.space import read_params
from app.search.stored import SEED, TRIAL

UNCHANGED = -1
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "under way",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        number: from 0.
        state: in words.
        finished: whether it will not be gone on with.
        values: by objective; of a trial that was stopped early its last score.
        settings: values of the space.
        epochs: whose scores are known.
        seconds: that it took, in all processes.
        reason: why it failed.
        host: of the machine it was last on.
    """

    number: int
    state: str
    finished: bool
    values: Mapping[str, float]
    settings: Mapping[str, Any]
    epochs: int
    seconds: float
    reason: str
    host: str


@dataclass(frozen=True)
class Spread:
    """The scores of some settings with several seeds.

    Attributes:
        name: of the settings.
        by_seed: {seed: score}.
        failed: how many trainings failed.
        others: means of the other objectives.
        reason: why the last of them failed.
        seconds: that all of them took.
    """

    name: str
    by_seed: Mapping[int, float]
    failed: int
    others: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed.values())

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds; 0 of a single one."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else 0.0

    def __str__(self) -> str:
        others = "".join(f", {name} {shown(name, value)}" for name, value in self.others.items())
        around = f" ± {self.deviation:.4f}" if len(self.by_seed) > 1 else ""
        return f"{self.mean:.4f}{around}{others}"


@dataclass(frozen=True)
class Findings:
    """All of it.

    Attributes:
        config: of the search.
        run_dir: of the search.
        rows: of all trials.
        best: the best trial; of several objectives the knee of the front.
        front: of several objectives, the trials that no other one beats in all of them; the best score first.
        spreads: of the best trial and of the unchanged settings; empty if they were not trained again. Without a
            search of the unchanged settings alone.
    """

    config: Config
    run_dir: RunDirectory
    rows: Sequence[Row]
    best: Row | None
    front: Sequence[Row]
    spreads: Sequence[Spread]

    @property
    def verdict(self) -> str:
        """What the search won, in a sentence; empty where nothing was trained again."""
        if len(self.spreads) < 2 or not all(each.by_seed for each in self.spreads):
            return ""
        best, unchanged = self.spreads
        gain = best.mean - unchanged.mean
        noise = (best.deviation**2 / len(best.by_seed) + unchanged.deviation**2 / len(unchanged.by_seed)) ** 0.5
        points = f"{100 * abs(gain):.2f}"
        how = "as good as" if float(points) == 0 else f"{points} points {'better' if gain > 0 else 'worse'} than"
        said = f"{how} the unchanged settings"
        if self.front:
            others = " and ".join(best.others)
            return f"the knee is {said} in score; what it gains in {others} stands beside it"
        if len(best.by_seed) < 2 or len(unchanged.by_seed) < 2:
            return f"{said}, by a single seed, which says little"
        if gain <= 0:
            return f"{said}: the search won nothing"
        return f"{said}, {'more' if gain > 2 * noise else 'no more'} than the seeds explain (two standard errors)"


def find(
    config: Config, run_dir: RunDirectory, trials: Sequence[FrozenTrial], seeds: Sequence[FrozenTrial]
) -> Findings:
    """What the trials, and the trainings with other seeds, have found."""
    rows = [_row(trial, config.tune) for trial in trials]
    ranked = [rows[trial.number] for trial in rank(trials, config.tune)]
    best = ranked[0] if ranked else None
    several = len(config.tune.objectives) > 1
    front = sorted(ranked, key=lambda row: -row.values["score"]) if several else []
    return Findings(config, run_dir, rows, best, front, _spreads(seeds, best))


def rank(trials: Sequence[FrozenTrial], config: TuneConfig) -> list[FrozenTrial]:
    """The complete trials, the best first; of several objectives those on the front, the knee first.

    The knee is where the front comes nearest to the best of each objective, each counted from the worst to the best
    that is on the front.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.values]
    if len(config.objectives) == 1:
        return sorted(complete, key=lambda trial: (-trial.values[0], trial.number))

    def costs(trial: FrozenTrial) -> list[float]:
        pairs = zip(config.objectives, trial.values, strict=True)
        return [-value if name == "score" else value for name, value in pairs]

    def beats(one: FrozenTrial, other: FrozenTrial) -> bool:
        pairs = list(zip(costs(one), costs(other), strict=True))
        same = all(a == b for a, b in pairs) and one.number < other.number
        return same or (all(a <= b for a, b in pairs) and any(a < b for a, b in pairs))

    front = [trial for trial in complete if not any(beats(other, trial) for other in complete)]
    ranges = [(min(column), max(column)) for column in zip(*map(costs, front), strict=True)]

    def distance(trial: FrozenTrial) -> float:
        parts = ((cost - low) / (high - low or 1.0) for cost, (low, high) in zip(costs(trial), ranges, strict=True))
        return sum(part**2 for part in parts)

    return sorted(front, key=lambda trial: (distance(trial), trial.number))


def shown(name: str, value: float) -> str:
    """A value of an objective as people read it."""
    return {"score": f"{value:.4f}", "size": f"{value / 1e6:.2f} MB", "latency": f"{value:.2f} ms"}[name]


def _row(trial: FrozenTrial, config: TuneConfig) -> Row:
    about = trial.user_attrs
    return Row(
        number=trial.number,
        state=_STATES[trial.state],
        finished=trial.state.is_finished(),
        values=dict(zip(config.objectives, trial.values or (), strict=False)),
        settings=read_params(trial.params, config.space),
        epochs=about.get("epochs") or len(trial.intermediate_values),
        seconds=about.get("seconds", 0.0),
        reason=about.get("reason", ""),
        host=(about.get("owner") or {}).get("host", ""),
    )


def _spreads(seeds: Sequence[FrozenTrial], best: Row | None) -> list[Spread]:
    if not seeds:
        return []
    names = {best.number: f"trial {best.number}"} if best else {}
    names[UNCHANGED] = "unchanged"
    of = {number: [each for each in seeds if each.user_attrs[TRIAL] == number] for number in names}
    return [_spread(name, of[number]) for number, name in names.items()]


def _spread(name: str, trials: Sequence[FrozenTrial]) -> Spread:
    scores = {each.user_attrs[SEED]: each.values[0] for each in trials if each.state == TrialState.COMPLETE}
    values = [each.user_attrs.get("values", {}) for each in trials if each.state == TrialState.COMPLETE]
    names = [each for each in (values[0] if values else {}) if each != "score"]
    others = {each: statistics.fmean(found[each] for found in values) for each in names}
    failed = [each.user_attrs.get("reason", "") for each in trials if each.state == TrialState.FAIL]
    seconds = sum(each.user_attrs.get("seconds", 0.0) for each in trials)
    return Spread(name, scores, len(failed), others, failed[-1] if failed else "", seconds)
