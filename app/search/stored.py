"""Search room: what a study holds, looked at before it is relied on: other programs can write to its database, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from app.config import InputError
from app.run.files import first_line
from app.run.screen import count_of
from app.search.space import described, is_within

TRIAL, SEED = "trial", "seed"  # attributes of a training with another seed; trial -1: the unchanged settings
CORPORA = "corpora"  # an attribute of a finished training: the digests of what it learnt from and was validated on
_OTHERWISE = "another program must have changed it: restore it from a copy, or start over with --overwrite"


class DamagedStudyError(InputError):
    """A study holds what no search has written."""


@contextmanager
def decoded(where: str, *, otherwise: str = _OTHERWISE) -> Iterator[None]:
    """Around what Optuna makes of the texts in a database.

    Args:
        where: the study and its database.
        otherwise: what to do if they are damaged.

    Raises:
        DamagedStudyError: it can make nothing of one.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        if isinstance(error, InputError):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}".rstrip(": ")[:200]
        raise DamagedStudyError(f"{where} cannot be read ({reason}); {otherwise}") from error


def check_trials(
    trials: Sequence[FrozenTrial],
    *,
    distributions: Mapping[str, BaseDistribution],
    objectives: int,
    required: Sequence[str],
    where: str,
) -> None:
    """Raises DamagedStudyError unless trials are such as a search leaves them.

    Args:
        trials: of one study, by their numbers.
        distributions: what each setting is drawn from.
        objectives: how many values a complete trial has.
        required: attributes that each must have.
        where: the study and its database.
    """
    for count, trial in enumerate(trials):
        if trial.number != count:
            raise DamagedStudyError(f"{where} has {len(trials)} trials, but no trial {count}; {_OTHERWISE}")
        for what, must_be in _faults(trial, distributions, objectives, required):
            raise DamagedStudyError(f"trial {count} of {where} holds {what[:200]}, it must be {must_be}; {_OTHERWISE}")


def _faults(
    trial: FrozenTrial, distributions: Mapping[str, BaseDistribution], objectives: int, required: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """(what a trial holds, what it must be) of all that is wrong with it."""
    for name, (is_right, must_be) in _ATTRIBUTES.items():
        value = trial.user_attrs.get(name)
        if value is None and name in required:
            yield f"no {name}", must_be
        elif value is not None and not is_right(value):
            yield f"{name}={value!r}", must_be
    for key, value in trial.params.items():
        if key not in distributions:
            yield f"{key}={value!r}", "left out, as tune.space does not have it"
        elif trial.distributions[key] != distributions[key]:
            yield f"{key}={value!r} of {described(trial.distributions[key])}", described(distributions[key])
        elif not is_within(value, distributions[key]):
            yield f"{key}={value!r}", described(distributions[key])
    if trial.state == TrialState.COMPLETE:
        yield from ((f"no {key}", described(by)) for key, by in distributions.items() if key not in trial.params)
    values = trial.values or []
    if trial.state == TrialState.COMPLETE and not (len(values) == objectives and all(map(_is_finite, values))):
        yield f"values {values}", f"{count_of(objectives, 'finite number')}, as it is complete"
    for epoch, score in trial.intermediate_values.items():
        if not (_is_integer(epoch) and _is_number(score)):
            yield f"the score {score!r} after epoch {epoch!r}", "a number after a whole number"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_amount(value: Any) -> bool:
    return _is_finite(value) and value >= 0


def _is_integer(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def is_owner(value: Any) -> bool:
    """Whether this is what `note_owner` gives."""
    return isinstance(value, dict) and all(is_right(value.get(name)) for name, is_right in _OWNER.items())


_OWNER = {"token": _is_text, "machine": _is_text, "host": _is_text, "pid": _is_integer, "started": _is_text,
          "beat": _is_number}  # fmt: skip
_ATTRIBUTES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "owner": (is_owner, f"a mapping of {', '.join(_OWNER)}, or nothing"),
    "seconds": (_is_amount, "a number, at least 0"),
    "epochs": (_is_integer, "a whole number"),
    "reason": (_is_text, "a text"),
    "values": (_is_scores, "a mapping of names to numbers"),
    CORPORA: (_is_texts, "a mapping of names to texts"),
    TRIAL: (_is_integer, "a whole number"),
    SEED: (_is_integer, "a whole number"),
}
