"""Tasks room: classification on NumPy alone, for a server that must not wait for TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.config import DataConfig, PredictConfig
from app.tasks.beliefs import Belief, believe_logits
from app.tasks.classification.answers import answer_texts
from app.tasks.classification.encoding import TextEncoder
from app.tasks.light import Described
from app.tasks.whole_text_rows import spell_words
from app.text.shapes import word_shapes

if TYPE_CHECKING:
    from app.tasks.classification.labelled_text import LabelledText
    from app.tasks.light import LightModel
    from app.tasks.task import Answers


class ClassificationBasics(Described):
    """What text classification is, with TensorFlow and without."""

    name = "classification"
    title = "Text classifier"
    sample_text = "Where is my order? It should have been here on Monday."
    model_name = "classify"
    unit = "texts"
    averages_windows = True
    unsure_by = "margin"  # of many classes, which Joshi et al. 2009 found to be better than the entropy

    def build_encoder(
        self, pieces: Any, labels: Sequence[str], data: DataConfig, facts: Mapping[str, Any]
    ) -> TextEncoder:
        if facts.get("multi_label"):
            sets = facts.get("label_sets", ())
            ids = {tuple(labels[i] for i in numbers): number for number, numbers in enumerate(sets)}
        else:
            ids = {(label,): number for number, label in enumerate(labels)}
        return TextEncoder(
            pieces=pieces,
            labels=tuple(labels),
            shapes=word_shapes,
            max_length=data.max_length,
            overlap=data.overlap_tokens,
            label_ids=ids,
        )

    def count_units(self, example: LabelledText) -> int:
        return 1

    def group_of(self, example: LabelledText) -> int:
        return example.number

    def decode(self, model: Any, emissions: Sequence[np.ndarray], *, probabilities: bool) -> list[np.ndarray]:
        """Logits float32 [labels] of each text."""
        return [each[0] for each in emissions]

    def words_of(self, example: LabelledText) -> Sequence[str]:
        return [word for text in example.texts for word in spell_words(text)]

    def text_of(self, example: LabelledText, position: int) -> int:
        return position

    def find_beliefs(self, model: Any, answers: Sequence[np.ndarray]) -> list[Belief]:
        temperature = float(model.facts.get("temperature", 1.0))
        return believe_logits(answers, independent=bool(model.facts.get("multi_label")), temperature=temperature)


class LightClassification(ClassificationBasics):
    """As `Classification` answers, and as the text signature of its SavedModel does."""

    def answer_texts(
        self, model: LightModel, texts: Sequence[str], answers: Answers, config: PredictConfig
    ) -> Iterator[dict[str, Any]]:
        return answer_texts(model, texts, answers, config)

    def agrees(self, model: LightModel, vector: Mapping[str, Any], logits: np.ndarray) -> bool:
        """Whether logits float32 [1, length, labels] of a test vector are the answer that it holds."""
        expected, found = np.array(vector["logits"]), logits[0, 0]
        if model.facts.get("multi_label"):
            return bool(((expected >= 0) == (found >= 0)).all())
        return int(expected.argmax()) == int(found.argmax())

    def outputs(self, rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, np.ndarray]:
        """Rows of `answer_texts` as outputs of the SavedModel's text signature."""
        chosen = [row["labels"] if "labels" in row else [row["label"]] * (row["label"] is not None) for row in rows]
        scores = np.array([[row["scores"][label] for label in labels] for row in rows], np.float32)
        return {
            "label": np.array(["|".join(each).encode("utf-8") for each in chosen], object),
            "score": scores.max(axis=1),
            "scores": scores,
            "given": np.array([[label in each for label in labels] for each in chosen], bool),
        }


LIGHT_CLASSIFICATION = LightClassification()
