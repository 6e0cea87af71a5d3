"""Thresholds at which some rows of a network with exits leave early and others do not."""

from collections.abc import Callable

import numpy as np

from app.evaluation.exits import KerasEarlyForward


def middle_threshold(model, answer: Callable[[KerasEarlyForward], object]) -> float:
    """One at which about half of the rows leave at the first exit, in a gap, so that no rounding moves a row.

    Args:
        model: with an exit after its first layer.
        answer: has whatever is to be answered computed by this network.
    """
    doubts: list[float] = []

    class Noting(KerasEarlyForward):
        def walk(self, features, units):
            for step, rows, logits, doubt in super().walk(features, units):
                doubts.extend(doubt if step.layer == 1 else ())
                yield step, rows, logits, doubt

    answer(Noting(model, 0.0))
    ordered = np.sort(doubts)
    middle = ordered[len(ordered) // 4 : -len(ordered) // 4]
    widest = int(np.argmax(np.diff(middle)))
    return float(middle[widest : widest + 2].mean())
