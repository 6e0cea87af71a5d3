"""Tasks room: texts to their labels, as `--mode=predict` writes them. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.config import PredictConfig
from app.tasks.calibration import log_softmax
from app.tasks.classification.labelled_text import LabelledText
from app.tasks.classification.min_score import find_min_score
from app.tasks.classification.scores import NO_LABEL, choose_answers
from app.tasks.whole_text_rows import spell_words

if TYPE_CHECKING:
    from app.tasks.light import LightModel
    from app.tasks.network import TaskModel
    from app.tasks.task import Answers


def answer_texts(
    model: TaskModel | LightModel, texts: Sequence[str], answers: Answers, config: PredictConfig
) -> Iterator[dict[str, Any]]:
    """A row for each text, see `Classification.answer_texts`."""
    pairs = bool(model.facts.get("pairs"))
    examples = [LabelledText(split_pair(text) if pairs else (text,), (), n, 0) for n, text in enumerate(texts)]
    settings = settings_of(model, config)
    for text, example, logits in zip(texts, examples, answers.answer(examples), strict=True):
        is_empty = not any(spell_words(part) for part in example.texts)
        yield {"text": text, **make_row(model, logits, settings, is_empty=is_empty)}


def split_pair(text: str) -> tuple[str, ...]:
    """The two texts of a pair, with a tab between them."""
    first, _, second = text.partition("\t")
    return first, second


def make_row(
    model: TaskModel | LightModel, logits: np.ndarray, settings: Mapping[str, Any], *, is_empty: bool
) -> dict[str, Any]:
    """The answer to one text; `settings` are those of `choose_answers`."""
    logits = np.zeros_like(logits) if is_empty else logits
    answer = choose_answers(logits[np.newaxis], multi_label=bool(model.facts.get("multi_label")), **settings)
    if answer.best is None:
        named = {label: round(float(score), 4) for label, score in zip(model.labels, answer.score[0], strict=True)}
        chosen = [label for label, given in zip(model.labels, answer.predicted[0], strict=True) if given]
        return {"labels": [] if is_empty else chosen, "scores": named}
    chances = np.exp(log_softmax(logits[np.newaxis], settings["temperature"]))[0]
    shown = {label: round(float(chance), 4) for label, chance in zip(model.labels, chances, strict=True)}
    number = int(answer.predicted[0])
    label = None if number == NO_LABEL or is_empty else model.labels[number]
    return {"label": label, "score": round(float(answer.score[0]), 4), "scores": shown}


def settings_of(model: TaskModel | LightModel, config: PredictConfig) -> dict[str, Any]:
    """What `choose_answers` and `compute_text_scores` need beside the logits."""
    found: dict[str, Any] = {"temperature": float(model.facts.get("temperature", 1.0))}
    if model.facts.get("multi_label"):
        thresholds = model.facts.get("thresholds")
        return found | {"thresholds": np.full(len(model.labels), 0.5) if thresholds is None else np.array(thresholds)}
    return found | {"min_score": find_min_score(model.facts, config)}
