"""Settings of --mode=tune: a search for settings by machine, many trainings of which each says how good its own are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.config.options import option


class Space(dict[str, Any]):
    """What is searched, {"section.key": values}: a list of values, or {"low", "high"} with "log" or "step".

    Made by `app.config.space.read_space`, and not to be changed afterwards.
    """

    def __hash__(self) -> int:  # type: ignore[override]  # a default of a frozen dataclass
        return hash(repr(self))


@dataclass(frozen=True)
class TuneConfig:
    """Trials, each a training in a process of its own. What they train with beside the space: all other settings."""

    space: Space = option(  # noqa: RUF009  (a Space is never changed)
        Space(),
        "settings to search by their keys: a list of values, or {low: 1e-5, high: 1e-3, log: true}, {low: 1, high: 9, "
        "step: 2}; empty = a few that nearly always matter, which --dry_run shows",
        trains=("tune",),
    )
    objectives: tuple[str, ...] = option(
        ("score",),
        "what is searched for: the headline score on the validation corpus; or with it size (bytes) and latency "
        "(milliseconds) of a TFLite file, where each trial compresses the run of init_from",
        choices=("score", "size", "latency"),
        trains=("tune",),
    )
    trials: int = option(
        6,
        "trials of the search, failed ones included; 0 = no search: the settings as they are, with several seeds",
        at_least=0,
        trains=(),
    )
    max_seconds: float = option(
        0.0, "no trial begins when all have taken so many seconds together; 0 = no limit", at_least=0, trains=()
    )
    sampler: str = option(
        "tpe",
        "how settings are chosen: by what earlier trials found (tpe), by evolution (nsga2), or at random",
        choices=("tpe", "nsga2", "random"),
        trains=(),
    )
    pruner: str = option(
        "median",
        "which trials are stopped early, by their validation scores after each epoch; with several objectives none is",
        choices=("median", "hyperband", "none"),
        trains=(),
    )
    seeds: int = option(
        3,
        "how many seeds the best settings and the unchanged ones are trained with again, to see what the search won; "
        "0 = none",
        at_least=0,
        trains=(),
    )
    processes: int = option(
        1,
        "trials at a time on this machine, each on its part of the processor's cores; small networks get further so",
        at_least=1,
        trains=(),
    )
    storage: str = option(
        "",
        "database of the search, shared by all processes and machines: sqlite:///FILE, or postgresql://USER:PASSWORD@"
        "HOST:PORT/NAME; empty = study.db in the run directory. It is not written to config.yaml; PGPASSWORD can give "
        "the password instead",
        secret=True,
        trains=(),
    )
    study: str = option("", "name of the search in its database; empty = that of the run directory", trains=())
    tflite_file: str = option(
        "int8",
        "several objectives: the TFLite file whose score, size and latency count",
        choices=("float32", "float16", "int8", "int4", "full_int8"),
        trains=("tune",),
    )
    keep_models: bool = option(
        False, "keep the models of all trials and of all seeds, not only those of the best trials", trains=()
    )


# What is searched where nobody says it, by the mode that a trial runs.
USUAL_SPACES = {
    "finetune": Space(
        {
            "training.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True},
            "training.layer_learning_rate_decay": {"low": 0.8, "high": 1.0, "step": 0.05},
            "training.word_mask_fraction": [0.0, 0.1, 0.2],
        }
    ),
    "compress": Space(
        {
            "compression.prune_structured.flops_fraction": {"low": 0.2, "high": 0.9},
            "compression.prune_structured.removed_layers": [0, 1],
        }
    ),
}


def trial_mode(config: TuneConfig) -> str:
    """The mode that a trial runs."""
    return "compress" if len(config.objectives) > 1 else "finetune"
