"""Tasks room: below which score a text gets no label. Imports nothing heavy: facts are plain JSON in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.config import InputError, PredictConfig

NO_TARGET = "predict.target_precision=0"


def find_min_score(facts: Mapping[str, Any], config: PredictConfig) -> float:
    """`predict.min_score`, or the one that gave `predict.target_precision` on the validation split.

    Args:
        facts: of the model; `coverage` holds [minimum score, precision] pairs.
        config: the settings.

    Raises:
        InputError: the model knows no such score.
    """
    if not config.target_precision:
        return config.min_score
    points = facts.get("coverage")
    if not points:
        raise InputError(
            f"predict.target_precision={config.target_precision:g}: this model was trained without a validation split "
            f"that would tell; set {NO_TARGET}, and predict.min_score if a minimum is wanted"
        )
    reached = [score for score, right in points if right >= config.target_precision]
    if not reached:
        best = max(right for _, right in points)
        raise InputError(
            f"predict.target_precision={config.target_precision:g}: no minimum score makes so many of the answers to "
            f"the validation split right, the most is {int(best * 1e4) / 1e4:g}; lower it, or set {NO_TARGET}, and "
            "predict.min_score if a minimum is wanted"
        )
    lowest = min(score for score, _ in points)
    return 0.0 if min(reached) == lowest else float(min(reached))


def check_settings(facts: Mapping[str, Any], config: PredictConfig) -> None:
    """Raises InputError if a model of these facts cannot answer with these settings."""
    if not facts.get("multi_label"):
        find_min_score(facts, config)
