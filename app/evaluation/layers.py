"""Evaluation room: the answers to texts, each with the layer at which it left the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from app.config import PredictConfig
from app.evaluation.predictor import Predictor
from app.tasks.whole_text_rows import spell_words


class _LayerNotes:
    """Answers examples as a predictor does, and notes the deepest layer of each text they are parts of.

    Args:
        predictor: over a network with exits.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.layers: dict[int, int] = {}

    def answer(self, examples: Iterable[Any], *, probabilities: bool = False) -> Iterator[Any]:
        asked = list(examples)
        found = self._predictor.answer_with_layers(asked, probabilities=probabilities)
        for position, (example, (answer, layer)) in enumerate(zip(asked, found, strict=True)):
            text = self._predictor.task.text_of(example, position)
            self.layers[text] = max(layer, self.layers.get(text, 0))
            yield answer


def answer_with_layers(
    texts: Sequence[str], predictor: Predictor, config: PredictConfig
) -> Iterator[dict[str, Any]]:
    """Rows of `Task.answer_texts`; where texts may leave the network early, each with its `layer`.

    It is that of the part of the text which went deepest, and 0 for a text that nothing had to be computed for.
    """
    task, model = predictor.task, predictor.model
    if not predictor.early:
        yield from task.answer_texts(model, texts, predictor, config)
        return
    notes = _LayerNotes(predictor)
    for number, row in enumerate(task.answer_texts(model, texts, notes, config)):
        layer = notes.layers.get(number, 0) if spell_words(texts[number]) else 0
        yield {**row, "layer": layer}
