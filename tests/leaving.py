"""Thresholds at which some of what is asked of a network with exits leaves early and some does not."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


class Noting:
    """The whole network, which notes how unsure its first exit is.

    Args:
        model: with an exit after its first layer.
        by_unit: of each unit; else of each row.
    """

    def __init__(self, model, *, by_unit: bool) -> None:
        self.doubts: list[float] = []
        self._model, self._by_unit = model, by_unit
        self._boundary_ids = [model.backbone.vocabulary.index(each) for each in ("[CLS]", "[SEP]")]

    def __call__(self, features, units):
        boundaries = np.isin(features["token_ids"], self._boundary_ids) & (features["padding_mask"] > 0)
        found = self._model.whole({name: tf.constant(value) for name, value in features.items()}, training=False)
        first = self._model.exits[0]
        doubts = first.head.measure_doubts(found[first.name], tf.constant(units), tf.constant(boundaries)).numpy()
        self.doubts.extend(doubts[units] if self._by_unit else doubts.max(axis=1))
        return found["logits"].numpy(), np.where(units, 1, 0)


def middle_threshold(model, answer: Callable[[Noting], object], *, by_unit: bool = False) -> float:
    """One at which about half leaves at the first exit, in a gap, so that no rounding moves anything.

    Args:
        model: with an exit after its first layer.
        answer: has whatever is to be answered computed by this network.
        by_unit: whether units leave one by one; else rows.
    """
    noting = Noting(model, by_unit=by_unit)
    answer(noting)
    ordered = np.sort(noting.doubts)
    middle = ordered[len(ordered) // 4 : -len(ordered) // 4]
    widest = int(np.argmax(np.diff(middle)))
    return float(middle[widest : widest + 2].mean())
