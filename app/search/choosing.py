"""Search room: how the settings of a trial are chosen, and which trials are stopped early."""

from __future__ import annotations

import optuna

from app.config import Config, TuneConfig


def most_epochs(config: Config) -> int:
    """Of the longest trial; the number of epochs may be searched itself."""
    searched = config.tune.space.get("training.epochs", [config.training.epochs])
    return int(max(searched) if isinstance(searched, list) else searched["high"])


def build_sampler(config: TuneConfig, *, seed: int) -> optuna.samplers.BaseSampler:
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if config.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=max(4, min(50, config.trials // 4)), seed=seed)
    # Others that run now have no result yet: what is near them is left to them (`constant_liar`).
    return optuna.samplers.TPESampler(n_startup_trials=_few(config.trials, most=10), seed=seed, constant_liar=True)


def build_pruner(config: TuneConfig, *, epochs: int) -> optuna.pruners.BasePruner:
    if config.pruner == "none" or len(config.objectives) > 1:
        return optuna.pruners.NopPruner()
    if config.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.MedianPruner(n_startup_trials=_few(config.trials, most=5))


def _few(trials: int, *, most: int) -> int:
    """How many trials go first before their results are relied on."""
    return max(2, min(most, trials // 3))
