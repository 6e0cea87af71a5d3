"""The space of a search as it is written: each key with the values it may take, checked as the setting itself is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from app.config.options import InputError
from app.config.tune import Space

_NUMBERS = ("int", "float")
_FORMS = "a list of values, or {low: NUMBER, high: NUMBER} with log: true or step: NUMBER"
_MOST_STEPS = 10**9  # Optuna counts them in decimals of limited precision
Coerce = Callable[..., Any]  # (key, raw, *, origin) -> the setting's value


def read_space(flat: Mapping[str, Any], *, origin: str, kinds: Mapping[str, str], coerce: Coerce) -> Space:
    """A space from {"section.key": what was written}, whose keys are known.

    Args:
        flat: texts, and lists and mappings of texts.
        origin: where it was written.
        kinds: type of each setting.
        coerce: makes a text the value of a setting, or raises InputError.

    Raises:
        InputError: values that the setting does not allow, or a range that is none.
    """
    space: dict[str, Any] = {}
    for key, raw in flat.items():
        if isinstance(raw, list):
            space[key] = _read_list(key, raw, origin=origin, coerce=coerce)
        elif isinstance(raw, Mapping):
            space[key] = _read_range(key, raw, origin=origin, kind=kinds[key], coerce=coerce)
        else:
            raise InputError(f"tune.space: {key} must be {_FORMS}, received {raw!r} in {origin}")
    return Space(space)


def _read_list(key: str, raw: list[Any], *, origin: str, coerce: Coerce) -> list[Any]:
    found = (coerce(key, each, origin=f"tune.space in {origin}") for each in raw)
    values = [list(value) if isinstance(value, tuple) else value for value in found]  # as YAML has it
    if len(values) < 2 or any(value in values[:number] for number, value in enumerate(values)):
        raise InputError(f"tune.space: {key} must list at least two different values, received {raw} in {origin}")
    return values


def _read_range(key: str, raw: Mapping[str, Any], *, origin: str, kind: str, coerce: Coerce) -> dict[str, Any]:
    def fail(what: str) -> InputError:
        received = ", ".join(f"{name}: {value}" for name, value in raw.items())
        return InputError(f"tune.space: {key} {what}, received {{{received}}} in {origin}")

    if kind not in _NUMBERS:
        raise fail("is no number and needs a list of values")
    if not {"low", "high"} <= raw.keys() <= {"low", "high", "log", "step"}:
        raise fail(f"must be {_FORMS}")
    low, high = (coerce(key, raw[name], origin=f"tune.space in {origin} ({name})") for name in ("low", "high"))
    if low >= high:
        raise fail("needs low below high")
    found = {"low": low, "high": high}
    log = str(raw.get("log", "false")).lower()
    if log not in ("true", "false"):
        raise fail("needs log: true or log: false")
    if log == "true":
        if low <= 0:
            raise fail("needs low above 0 for log: true")
        if "step" in raw:
            raise fail("has log or step, not both")
        found["log"] = True
    if "step" in raw:
        found["step"] = _read_step(raw["step"], low, high, kind=kind, fail=fail)
    return found


def _read_step(raw: Any, low: float, high: float, *, kind: str, fail: Callable[[str], InputError]) -> float:
    step = _number(raw, kind)
    if not step or not 0 < step <= high - low:
        what = "whole number" if kind == "int" else "number"
        raise fail(f"needs for step a {what} above 0 and at most high - low")
    if (high - low) // step > _MOST_STEPS:
        raise fail(f"needs a step that makes at most {_MOST_STEPS:,} values, or none")
    last = _last_step(low, high, step)
    if last != high:
        raise fail(f"needs a high that its steps reach: from {low} in steps of {step} the last value is {last}, so set "
                   f"high: {last}, or another step")  # fmt: skip
    return step


def _last_step(low: float, high: float, step: float) -> float:
    """The last value not above `high`, counted in decimals as they are written: 0.7 to 1.0 is six steps of 0.05."""
    start, end, by = (Fraction(str(number)) for number in (low, high, step))
    return type(low)(start + (end - start) // by * by)


def _number(raw: Any, kind: str) -> float | None:
    try:
        return int(raw) if kind == "int" else float(raw)
    except (TypeError, ValueError):
        return None
